//! Records Events about objects: what happened and why, for `describe` and `get events`.
//!
//! The same event again raises the count of the one on record instead of making another, and each object
//! may speak only so often, so that a crash loop can't flood the store. Recording never blocks and never
//! fails the caller: when the queue is full the event is dropped and counted.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, Random, Tasks};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use crate::error;

const QUEUE: usize = 1024;
/// How many events and objects are remembered for counting and limiting.
const REMEMBERED: usize = 2048;
/// Events that one object may have at once, and how often it earns another (upstream's values).
const BURST: u32 = 25;
const EARN: Duration = Duration::from_secs(300);
const ATTEMPTS: u32 = 4;

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    Normal,
    Warning,
}

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Reference {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// A part of the object, for example `spec.containers{web}`.
    pub field_path: String,
}

/// A recorder; cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::Sender<Record>,
    clock: Clock,
    dropped: Arc<AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    about: Reference,
    kind: EventKind,
    reason: String,
    message: String,
}

#[derive(Debug)]
struct Record {
    identity: Identity,
    at: jiff::Timestamp,
}

// === impl Reference ===

impl Reference {
    /// A reference to an object of a built-in kind.
    pub fn to<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            field_path: String::new(),
        }
    }

    /// The same object, narrowed to a part of it.
    #[must_use]
    pub fn at(mut self, field_path: impl Into<String>) -> Self {
        self.field_path = field_path.into();
        self
    }
}

// === impl Events ===

impl Events {
    /// Starts a recorder that writes as `component`, on `host` if it is bound to one.
    pub fn start(
        tasks: &Tasks,
        client: Client,
        clock: Clock,
        random: Random,
        component: &str,
        host: &str,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = Writer {
            client,
            clock: clock.clone(),
            random,
            source: EventSource {
                component: Some(component.to_owned()),
                host: Some(host.to_owned()).filter(|host| !host.is_empty()),
            },
            known: Memory::default(),
            budgets: Memory::default(),
        };
        tasks.spawn(&format!("events of {component}"), writer.run(receiver));
        Self { sender, clock, dropped: Arc::default() }
    }

    /// Records a `Normal` event.
    pub fn normal(&self, about: &Reference, reason: &str, message: impl Into<String>) {
        self.record(about, EventKind::Normal, reason, message.into());
    }

    /// Records a `Warning` event.
    pub fn warning(&self, about: &Reference, reason: &str, message: impl Into<String>) {
        self.record(about, EventKind::Warning, reason, message.into());
    }

    /// How many events were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn record(&self, about: &Reference, kind: EventKind, reason: &str, mut message: String) {
        if message.len() > 1024 {
            let end = message.floor_char_boundary(1021);
            message.truncate(end);
            message.push_str("...");
        }
        let identity = Identity { about: about.clone(), kind, reason: reason.to_owned(), message };
        if self.sender.try_send(Record { identity, at: self.clock.now() }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl Writer ===

struct Writer {
    client: Client,
    clock: Clock,
    random: Random,
    source: EventSource,
    known: Memory<Identity, (String, i32)>,
    budgets: Memory<Reference, Budget>,
}

#[derive(Clone, Copy)]
struct Budget {
    left: f64,
    at: Instant,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Record>) {
        while let Some(record) = receiver.recv().await {
            if !self.may_speak(&record.identity.about) {
                continue;
            }
            let mut wait = Duration::from_millis(100);
            for attempt in 1..=ATTEMPTS {
                match self.write(&record).await {
                    Ok(()) => break,
                    Err(failure) => {
                        debug!(error = %failure, reason = %record.identity.reason, attempt, "can't record an event");
                        let useless = error::is_permanent(&failure) || error::is_not_found(&failure);
                        if useless || attempt == ATTEMPTS {
                            break;
                        }
                        self.clock.wait(wait).await;
                        wait *= 4;
                    }
                }
            }
        }
    }

    fn may_speak(&mut self, about: &Reference) -> bool {
        let now = self.clock.instant();
        let full = f64::from(BURST);
        let mut budget = self.budgets.get(about).copied().unwrap_or(Budget { left: full, at: now });
        budget.left = (budget.left + (now - budget.at).as_secs_f64() / EARN.as_secs_f64()).min(full);
        budget.at = now;
        let allowed = budget.left >= 1.0;
        if allowed {
            budget.left -= 1.0;
        }
        self.budgets.put(about.clone(), budget);
        allowed
    }

    async fn write(&mut self, record: &Record) -> Result<(), kube::Error> {
        let about = &record.identity.about;
        let namespace = if about.namespace.is_empty() { "default" } else { &about.namespace };
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if let Some((name, count)) = self.known.get(&record.identity).cloned() {
            let patch = json!({ "count": count + 1, "lastTimestamp": Time(record.at) });
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {
                    self.known.put(record.identity.clone(), (name, count + 1));
                    return Ok(());
                }
                // It has outlived its time to live: start a new one.
                Err(failure) if error::is_not_found(&failure) => {}
                Err(failure) => return Err(failure),
            }
        }
        // Names sort as what happened: events of the same second are otherwise listed in any order.
        let time = u64::try_from(record.at.as_nanosecond()).unwrap_or_default() & !0xffff;
        let name = format!("{}.{:016x}", about.name, time | self.random.u64() & 0xffff);
        let event = self.event(&name, namespace, record);
        api.create(&PostParams::default(), &event).await?;
        self.known.put(record.identity.clone(), (name, 1));
        Ok(())
    }

    fn event(&self, name: &str, namespace: &str, record: &Record) -> Event {
        let Identity { about, kind, reason, message } = &record.identity;
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: some(&about.api_version),
                kind: some(&about.kind),
                namespace: some(&about.namespace),
                name: some(&about.name),
                uid: some(&about.uid),
                field_path: some(&about.field_path),
                ..ObjectReference::default()
            },
            type_: Some(format!("{kind:?}")),
            reason: Some(reason.clone()),
            message: Some(message.clone()),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            count: Some(1),
            first_timestamp: Some(Time(record.at)),
            last_timestamp: Some(Time(record.at)),
            ..Event::default()
        }
    }
}

// === impl Memory ===

/// A map that forgets its oldest entries.
struct Memory<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + std::hash::Hash, V> Memory<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    fn put(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.entries.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_forgets_the_oldest_entry_first() {
        let mut memory = Memory::default();
        for key in 0..=REMEMBERED {
            memory.put(key, ());
        }
        assert!(memory.get(&0).is_none());
        assert!(memory.get(&1).is_some());
        assert_eq!(memory.entries.len(), memory.order.len());
    }
}
