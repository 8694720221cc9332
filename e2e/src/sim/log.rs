//! Every change of the store in order, who made it, and what was found wrong.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use store::Revision;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::commit;

/// Something that must never happen.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What it was found with.
    pub seed: u64,
    /// The number of the invariant, such as `I3`.
    pub invariant: &'static str,
    /// Simulated time since the start.
    pub at: Duration,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, invariant, at, text } = self;
        write!(f, "seed {seed}: {invariant} broken at {:.3}s: {text}", at.as_secs_f64())
    }
}

/// Who sends a request.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) role: Role,
    /// The user name, method and path.
    pub(crate) request: String,
}

/// What the sender is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A person.
    User,
    /// The agent of this node.
    Agent(String),
    /// A component that may act only while `instance` holds the lease `election`.
    Elected { election: &'static str, instance: String },
}

tokio::task_local! {
    /// The sender of the request that is being served.
    pub(crate) static ACTOR: Arc<Actor>;
}

/// One change of one key.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: Revision,
    pub(crate) key: Arc<str>,
    pub(crate) deleted: bool,
    /// The revision that the key was written at before; 0 if it was not there.
    pub(crate) previous: Revision,
}

/// An object in the store.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) revision: Revision,
    pub(crate) value: Arc<Value>,
}

/// What is known of the run so far.
pub(crate) struct State {
    started: Instant,
    pub(crate) revision: Revision,
    pub(crate) changes: Vec<Change>,
    /// The positions in `changes` of the changes below `/registry/<resource>/`.
    pub(crate) by_resource: BTreeMap<String, Vec<usize>>,
    pub(crate) live: BTreeMap<String, Stored>,
    /// The key of each object that is there, by its UID.
    pub(crate) uids: BTreeMap<String, String>,
    /// When objects went, by their UID.
    pub(crate) gone: BTreeMap<String, Revision>,
    /// While set, whoever writes is noted in `noise`.
    pub(crate) quiet: bool,
    /// Writes while it was quiet.
    pub(crate) noise: Vec<String>,
    /// The last change that each witness has seen, by resource.
    pub(crate) witnessed: BTreeMap<&'static str, Revision>,
    /// The newest revision of an acknowledged write.
    pub(crate) revision_acknowledged: Revision,
    /// So many pod addresses were given out.
    pub(crate) next_address: u32,
    violation: Option<Violation>,
    hash: u64,
    writes: u64,
    chaos: u64,
}

/// The shared log of a run.
#[derive(Clone)]
pub(crate) struct Log {
    state: Arc<Mutex<State>>,
    found: Arc<Notify>,
}

impl State {
    /// Notes something that must not happen; the first one counts.
    pub(crate) fn report(&mut self, invariant: &'static str, text: String) {
        let at = self.started.elapsed();
        self.violation.get_or_insert(Violation { seed: 0, invariant, at, text });
    }

    /// The objects below `/registry/<resource>/`.
    pub(crate) fn of<'a>(&'a self, resource: &str) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        let prefix = format!("/registry/{resource}/");
        let end = format!("/registry/{resource}0");
        self.live.range(prefix..end).map(|(key, stored)| (key.as_str(), &*stored.value))
    }

    /// One object.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.live.get(key).map(|stored| &*stored.value)
    }

    /// The changes below `/registry/<resource>/`, in order.
    pub(crate) fn changes_of(&self, resource: &str) -> impl DoubleEndedIterator<Item = &Change> {
        self.by_resource.get(resource).into_iter().flatten().map(|&at| &self.changes[at])
    }

    fn mix(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.hash =
                (self.hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }
}

/// The part of a key that names the resource: `services/specs`, `pods`.
pub(crate) fn resource(key: &str) -> &str {
    let rest = key.strip_prefix("/registry/").unwrap_or(key);
    let mut parts = rest.match_indices('/').map(|(at, _)| at);
    let first = parts.next().unwrap_or(rest.len());
    match &rest[..first] {
        "services" | "ranges" => &rest[..parts.next().unwrap_or(rest.len())],
        one => one,
    }
}

impl Log {
    pub(crate) fn new() -> Self {
        let state = State {
            started: Instant::now(),
            revision: 0,
            changes: Vec::new(),
            by_resource: BTreeMap::new(),
            live: BTreeMap::new(),
            uids: BTreeMap::new(),
            gone: BTreeMap::new(),
            quiet: false,
            noise: Vec::new(),
            witnessed: BTreeMap::new(),
            revision_acknowledged: 0,
            next_address: 0,
            violation: None,
            hash: 0,
            writes: 0,
            chaos: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), found: Arc::default() }
    }

    /// Looks at the state or changes it.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = f(&mut state);
        if state.violation.is_some() {
            self.found.notify_one();
        }
        result
    }

    /// Takes over what one transaction changed: key, value (none: deleted) and the revision it replaced.
    pub(crate) fn commit(&self, revision: Revision, changes: Vec<(String, Option<Bytes>)>) {
        let actor = ACTOR.try_with(Clone::clone).ok();
        self.with(|state| {
            if revision <= state.revision {
                let last = state.revision;
                state.report("I2", format!("revision {revision} comes after revision {last}"));
            }
            state.revision = revision;
            state.writes += 1;
            for (key, value) in changes {
                state.mix(key.as_bytes());
                state.mix(&revision.to_le_bytes());
                // What cryptography makes differs from run to run.
                if !key.starts_with("/registry/secrets/") && !key.starts_with("/registry/configmaps/") {
                    state.mix(value.as_deref().unwrap_or_default());
                }
                apply(state, revision, key, value, actor.as_deref());
            }
        });
    }

    /// Counts a fault that chaos brought.
    pub(crate) fn fault(&self, what: &str) {
        let at = self.with(|state| {
            state.chaos += 1;
            state.started.elapsed()
        });
        tracing::info!(at = at.as_secs_f64(), "fault: {what}");
    }

    pub(crate) fn report(&self, invariant: &'static str, text: String) {
        self.with(|state| state.report(invariant, text));
    }

    /// Returns once something was found wrong.
    pub(crate) async fn violated(&self) {
        self.found.notified().await;
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        let panic = PANIC.with(|panic| panic.borrow_mut().take());
        self.with(|state| {
            if let Some(panic) = panic {
                state.report("no panic", panic);
            }
            state.violation.clone()
        })
    }

    pub(crate) fn chaos(&self) -> u64 {
        self.with(|state| state.chaos)
    }

    /// How many transactions wrote, and the hash of all they wrote.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.with(|state| (state.writes, state.hash))
    }
}

fn apply(state: &mut State, revision: Revision, key: String, value: Option<Bytes>, actor: Option<&Actor>) {
    let old = state.live.get(&key).cloned();
    let resource = resource(&key).to_owned();
    let change = Change {
        revision,
        key: key.as_str().into(),
        deleted: value.is_none(),
        previous: old.as_ref().map_or(0, |old| old.revision),
    };
    let position = state.changes.len();
    state.changes.push(change);
    state.by_resource.entry(resource.clone()).or_default().push(position);
    if resource == "events" {
        return;
    }
    let new: Option<Arc<Value>> =
        value.map(|bytes| Arc::new(serde_json::from_slice(&bytes).unwrap_or(Value::Null)));
    let before = old.as_ref().map(|old| &*old.value);
    if let Some(uid) = before.and_then(uid) {
        state.uids.remove(uid);
    }
    match &new {
        Some(value) => {
            state.live.insert(key.clone(), Stored { revision, value: value.clone() });
            if let Some(uid) = uid(value) {
                state.uids.insert(uid.to_owned(), key.clone());
            }
        }
        None => {
            state.live.remove(&key);
            if let Some(uid) = before.and_then(uid) {
                state.gone.insert(uid.to_owned(), revision);
            }
        }
    }
    commit::check(
        state,
        &commit::Commit { key: &key, resource: &resource, old: before, new: new.as_deref(), actor },
    );
}

pub(crate) fn uid(object: &Value) -> Option<&str> {
    object.pointer("/metadata/uid").and_then(Value::as_str)
}

thread_local! {
    /// The first panic in this thread: a panic in a task ends only the task.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Takes note of panics, which would otherwise end no more than the task that they happen in.
pub(crate) fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANIC.with(|panic| {
                panic.borrow_mut().get_or_insert_with(|| info.to_string());
            });
            usual(info);
        }));
    });
    PANIC.with(|panic| panic.borrow_mut().take());
}
