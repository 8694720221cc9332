//! The watch cache: every read is answered from here.
//!
//! One watch over the whole store feeds one [`Cache`] per stored resource ([`feed`]). A cache holds
//! - the objects, in an ordered persistent map: a snapshot costs nothing, so a list never blocks a write;
//! - an index ([`index`]) of labels and some fields, so that a list by what is rare costs what it finds;
//! - a window of the last events: a watch resumes from any revision in it, and a list as of a revision in it is
//!   the present with the newer events undone;
//! - the watchers, each with a bounded queue, in buckets by what they select, so that an event wakes only those
//!   that it may concern. A watcher whose queue is full is closed: its client resumes from where it was.
//!
//! A consistent read asks the store for its revision and waits until the cache has got there
//! ([`Caches::fresh`]). All caches live on one time line, so that their revisions compare.

mod entry;
mod event;
mod feed;
mod index;
mod selector;
mod window;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use imbl::OrdSet;
use store::Revision;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

pub(crate) use entry::ByKey;
pub use entry::{Corrupt, Entry};
pub(crate) use event::put_frame;
pub use event::{Change, Event};
pub use feed::{Caches, FreshError, NotReached};
use index::Index;
pub use selector::{Field, FieldTerm, Selector};
use window::Window;

use crate::metrics::StoreTimes;

/// How many events a watcher may lag behind before it is closed.
const WATCHER_QUEUE: usize = 1024;
/// How many snapshots with a continue token out are kept beyond the window.
const PINNED_SNAPSHOTS: usize = 8;

/// A revision that the cache can't answer for any more (or not yet).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The oldest revision that it can answer for.
    pub oldest: Revision,
}

/// An object that is stored can't be read, and so no list is whole without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(String);

/// All objects of a resource as of one revision.
#[derive(Clone)]
pub struct Snapshot {
    pub revision: Revision,
    objects: OrdSet<ByKey>,
}

/// The objects of one resource.
pub struct Cache {
    /// The key prefix in the store, with a slash at the end.
    prefix: String,
    /// The selectable fields, in the order of the entries' values.
    fields: Fields,
    /// What every cache has reached.
    global: Arc<AtomicI64>,
    state: Mutex<State>,
    /// Lock order: watchers before state.
    watchers: Mutex<Watchers>,
    /// What writers of this process know of the values on their way, by key.
    expected: Mutex<HashMap<String, Expected>>,
    changed: AtomicI64,
    /// How many events were sent to clients.
    pub(crate) sent: AtomicU64,
    /// How long the store takes.
    pub(crate) times: StoreTimes,
}

/// The selectable fields of a resource, beyond its name and namespace.
#[derive(Clone)]
pub struct Fields {
    pub names: Vec<&'static str>,
    /// Reads them from a stored value, in the order of `names`.
    pub read: Arc<dyn Fn(&[u8]) -> Box<[Box<str>]> + Send + Sync>,
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.names.fmt(f)
    }
}

/// Selectable fields with an index and watch buckets of their own: a node's pods, an object's events.
const INDEXED: &[&str] = &["spec.nodeName", "involvedObject.uid", "regarding.uid"];

struct Expected {
    value: Bytes,
    fields: Box<[Box<str>]>,
}

#[derive(Default)]
struct State {
    objects: OrdSet<ByKey>,
    /// Of the last event here.
    revision: Revision,
    window: Window,
    pinned: VecDeque<Snapshot>,
    index: Index,
    /// What is stored, but no object, by key: why. It is in no answer, and no answer is made as if it were not there.
    damaged: BTreeMap<Box<str>, String>,
}

/// Where a watcher waits: under the most selective thing that its selector pins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Bucket {
    All,
    Namespace(String),
    Key(String),
    /// Selectable field number, value.
    Field(usize, String),
}

#[derive(Default)]
struct Watchers {
    /// Ordered, so that watchers are woken in the same order in every run.
    by_bucket: HashMap<Bucket, BTreeMap<u64, Watcher>>,
}

struct Watcher {
    selector: Arc<Selector>,
    queue: mpsc::Sender<(Change, Arc<Event>)>,
}

static NEXT_WATCHER: AtomicU64 = AtomicU64::new(0);

/// A running watch of one resource. Dropping it ends it.
pub struct Subscription {
    cache: Arc<Cache>,
    bucket: Bucket,
    id: u64,
    /// What happened between the requested revision and the start of the queue.
    backlog: VecDeque<(Change, Arc<Event>)>,
    queue: mpsc::Receiver<(Change, Arc<Event>)>,
    /// What the watcher knows. The cache of this server may be behind it: what it catches up with is not told.
    after: Revision,
}

impl Cache {
    /// An empty cache of the objects below `prefix`; `global` is what all caches of the feed have reached.
    pub(crate) fn new(prefix: String, fields: Fields, global: Arc<AtomicI64>) -> Self {
        let indexed = fields.names.iter().copied().enumerate().filter(|(_, name)| INDEXED.contains(name));
        let state = State { index: Index::new(indexed.collect()), ..State::default() };
        Self {
            prefix,
            fields,
            global,
            state: Mutex::new(state),
            watchers: Mutex::default(),
            expected: Mutex::default(),
            changed: AtomicI64::new(0),
            sent: AtomicU64::new(0),
            times: StoreTimes::default(),
        }
    }

    /// The key prefix in the store, with a slash at the end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The number of a selectable field.
    pub fn field(&self, name: &str) -> Option<usize> {
        self.fields.names.iter().position(|field| *field == name)
    }

    /// The object as of now; `namespace` is empty for cluster-scoped objects.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.by_key(&key(namespace, name))
    }

    /// The object with this key within the resource, as of now.
    pub fn by_key(&self, key: &str) -> Option<Arc<Entry>> {
        self.state().objects.get(key).map(|ByKey(entry)| entry.clone())
    }

    /// Whether everything that is stored can be read; for lists and watches.
    pub fn check(&self) -> Result<(), Damaged> {
        let state = self.state();
        state.damaged.values().next().map_or(Ok(()), |why| Err(Damaged(why.clone())))
    }

    /// Whether this object can be read, if it is stored.
    pub fn check_one(&self, namespace: &str, name: &str) -> Result<(), Damaged> {
        let state = self.state();
        if state.damaged.is_empty() {
            return Ok(());
        }
        state.damaged.get(key(namespace, name).as_str()).map_or(Ok(()), |why| Err(Damaged(why.clone())))
    }

    /// Everything as of now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        Snapshot { revision: self.revision(&state), objects: state.objects.clone() }
    }

    /// Everything as of `revision`, which must not be in the future.
    pub fn snapshot_at(&self, revision: Revision) -> Result<Snapshot, Expired> {
        let state = self.state();
        if revision >= state.revision {
            let revision = revision.min(self.revision(&state));
            return Ok(Snapshot { revision, objects: state.objects.clone() });
        }
        if let Some(pinned) = state.pinned.iter().find(|pinned| pinned.revision == revision) {
            return Ok(pinned.clone());
        }
        let newer = state.window.since(revision).ok_or(Expired { oldest: state.window.oldest() })?;
        let mut objects = state.objects.clone();
        for event in newer.rev() {
            match &event.previous {
                Some(previous) => drop(objects.insert(ByKey(previous.clone()))),
                None => drop(objects.remove(event.key())),
            }
        }
        Ok(Snapshot { revision, objects })
    }

    /// Keeps a snapshot for the continue token that was given out for it.
    pub fn pin(&self, snapshot: &Snapshot) {
        let mut state = self.state();
        if state.pinned.iter().any(|pinned| pinned.revision == snapshot.revision) {
            return;
        }
        if state.pinned.len() >= PINNED_SNAPSHOTS {
            state.pinned.pop_front();
        }
        state.pinned.push_back(snapshot.clone());
    }

    /// Everything as of now; with the objects of it that the selector matches, in key order, if the index can tell.
    pub(crate) fn present(&self, selector: &Selector) -> (Snapshot, Option<Vec<Arc<Entry>>>) {
        let state = self.state();
        let snapshot = Snapshot { revision: self.revision(&state), objects: state.objects.clone() };
        let keys = state.index.narrow(selector, state.objects.len());
        let found = keys.map(|keys| {
            let entries = keys.filter_map(|key| state.objects.get(key)).map(|ByKey(entry)| entry);
            entries.filter(|entry| selector.matches(entry)).cloned().collect()
        });
        (snapshot, found)
    }

    /// The objects in `namespace` (all, if empty) that the selector matches, as of now.
    pub fn list(&self, selector: &Selector) -> Vec<Arc<Entry>> {
        let (snapshot, found) = self.present(selector);
        found.unwrap_or_else(|| snapshot.scan(selector, None).cloned().collect())
    }

    /// The revision of the last change here. What was derived from the cache at this revision is still true.
    pub fn last_change(&self) -> Revision {
        self.changed.load(Ordering::Acquire)
    }

    /// How many selectable fields there are.
    pub(crate) fn fields(&self) -> usize {
        self.fields.names.len()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state().objects.len()
    }

    /// True if there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many watches run.
    pub fn watchers(&self) -> usize {
        self.watch_list().by_bucket.values().map(BTreeMap::len).sum()
    }

    /// Watches what happens after `after`; `None` starts now and returns the present too.
    pub fn watch(
        self: &Arc<Self>,
        selector: Arc<Selector>,
        after: Option<Revision>,
    ) -> Result<(Snapshot, Subscription), Expired> {
        let mut watchers = self.watch_list();
        let (snapshot, backlog) = {
            let state = self.state();
            let snapshot = Snapshot { revision: self.revision(&state), objects: state.objects.clone() };
            let backlog = match after {
                None => VecDeque::new(),
                Some(after) => {
                    let events =
                        state.window.since(after).ok_or(Expired { oldest: state.window.oldest() })?;
                    events.filter_map(|event| Some((event.seen_by(&selector)?, event.clone()))).collect()
                }
            };
            (snapshot, backlog)
        };
        let bucket = self.bucket(&selector);
        let id = NEXT_WATCHER.fetch_add(1, Ordering::Relaxed);
        let (sender, queue) = mpsc::channel(WATCHER_QUEUE);
        watchers.by_bucket.entry(bucket.clone()).or_default().insert(id, Watcher { selector, queue: sender });
        drop(watchers);
        let after = after.unwrap_or(snapshot.revision);
        Ok((snapshot, Subscription { cache: self.clone(), bucket, id, backlog, queue, after }))
    }

    /// Tells the cache the selectable fields of a value that is about to be written, so that it need not
    /// decode the object when the store reports the write.
    pub(crate) fn expect(&self, key: &str, value: &Bytes, fields: Box<[Box<str>]>) {
        if !self.fields.names.is_empty() {
            let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
            expected.insert(key.to_owned(), Expected { value: value.clone(), fields });
        }
    }

    /// Forgets what [`Cache::expect`] told: the write failed.
    pub(crate) fn forget(&self, key: &str) {
        if !self.fields.names.is_empty() {
            self.expected.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        }
    }

    /// The entry of a stored value.
    pub(crate) fn entry(&self, key: &str, value: &[u8], revision: Revision) -> Result<Arc<Entry>, Corrupt> {
        let fields = match self.fields.names.is_empty() {
            true => Box::default(),
            false => self.expected_fields(key, value).unwrap_or_else(|| (self.fields.read)(value)),
        };
        Ok(Arc::new(Entry::new(key, value, revision, fields)?))
    }

    /// The selectable fields of a value that this process wrote itself.
    fn expected_fields(&self, key: &str, value: &[u8]) -> Option<Box<[Box<str>]>> {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        // A later write of the same key may have replaced the expectation; it stays for its own event.
        if expected.get(key)?.value != value {
            None
        } else {
            expected.remove(key).map(|expected| expected.fields)
        }
    }

    /// Takes over the whole state as of `revision`. Whatever was watched is closed: its clients find out
    /// by resuming whether they missed something.
    pub(crate) fn replace(&self, entries: Vec<Arc<Entry>>, revision: Revision) {
        let mut watchers = self.watch_list();
        watchers.by_bucket.clear();
        let mut state = self.state();
        state.index.clear();
        state.damaged.clear();
        for entry in &entries {
            state.index.replace(None, Some(entry));
        }
        state.objects = entries.into_iter().map(ByKey).collect();
        state.window = Window::starting(revision);
        state.pinned.clear();
        state.revision = revision;
        self.changed.store(revision, Ordering::Release);
    }

    /// What is stored under this key since `revision` can't be read. Whatever was watched is closed, and can't be
    /// resumed: who lists anew is told why.
    pub(crate) fn damage(&self, key: &str, why: String, revision: Revision) {
        let mut watchers = self.watch_list();
        watchers.by_bucket.clear();
        let mut state = self.state();
        if let Some(ByKey(previous)) = state.objects.remove(key) {
            state.index.replace(Some(&previous), None);
        }
        state.damaged.insert(key.into(), why);
        state.window = Window::starting(revision);
        state.pinned.clear();
        state.revision = state.revision.max(revision);
        self.changed.fetch_max(revision, Ordering::AcqRel);
    }

    /// Applies what happened here at `revision` and tells the watchers.
    pub(crate) fn apply(&self, revision: Revision, changes: Vec<(String, Option<Arc<Entry>>)>, now: Instant) {
        let watchers = self.watch_list();
        let mut events = Vec::with_capacity(changes.len());
        {
            let mut state = self.state();
            for (key, current) in changes {
                state.damaged.remove(key.as_str());
                let previous = match &current {
                    Some(entry) => state.objects.insert(ByKey(entry.clone())),
                    None => state.objects.remove(key.as_str()),
                }
                .map(|ByKey(entry)| entry);
                state.index.replace(previous.as_deref(), current.as_deref());
                if previous.is_none() && current.is_none() {
                    continue;
                }
                let event = Arc::new(Event::new(revision, previous, current));
                state.window.push(event.clone(), now);
                events.push(event);
            }
            state.revision = revision;
        }
        if events.is_empty() {
            return;
        }
        self.changed.store(revision, Ordering::Release);
        self.dispatch(watchers, &events);
    }

    /// The revision that the present of this cache stands for.
    fn revision(&self, state: &State) -> Revision {
        state.revision.max(self.global.load(Ordering::Acquire))
    }

    fn dispatch(&self, mut watchers: MutexGuard<'_, Watchers>, events: &[Arc<Event>]) {
        if watchers.by_bucket.is_empty() {
            return;
        }
        for event in events {
            for bucket in self.concerned(event) {
                let Some(waiting) = watchers.by_bucket.get_mut(&bucket) else { continue };
                waiting.retain(|id, watcher| {
                    let Some(change) = event.seen_by(&watcher.selector) else { return true };
                    let sent = watcher.queue.try_send((change, event.clone()));
                    if let Err(mpsc::error::TrySendError::Full(_)) = &sent {
                        debug!(prefix = %self.prefix, id, "closing a watch that lags too far behind");
                    }
                    sent.is_ok()
                });
                if waiting.is_empty() {
                    watchers.by_bucket.remove(&bucket);
                }
            }
        }
    }

    /// Ends all watches; what they have queued is still delivered.
    pub(crate) fn close_watches(&self) {
        self.watch_list().by_bucket.clear();
    }

    /// The first indexed field that the selector pins to a value.
    fn indexed<'a>(&self, selector: &'a Selector) -> Option<(usize, &'a str)> {
        selector.pinned_fields().find(|(index, _)| self.is_indexed(*index))
    }

    fn is_indexed(&self, index: usize) -> bool {
        self.fields.names.get(index).is_some_and(|name| INDEXED.contains(name))
    }

    fn bucket(&self, selector: &Selector) -> Bucket {
        if let (Some(namespace), Some(name)) = (&selector.namespace, &selector.name) {
            return Bucket::Key(key(namespace, name));
        }
        if let Some((index, value)) = self.indexed(selector) {
            return Bucket::Field(index, value.to_owned());
        }
        selector.namespace.clone().map_or(Bucket::All, Bucket::Namespace)
    }

    /// The buckets with the watchers that an event may concern.
    fn concerned(&self, event: &Event) -> Vec<Bucket> {
        let key = event.key();
        let mut buckets = vec![Bucket::All, Bucket::Key(key.to_owned())];
        // Cluster-scoped objects have the empty namespace.
        let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
        buckets.push(Bucket::Namespace(namespace.to_owned()));
        let value =
            |entry: &Option<Arc<Entry>>, index| entry.as_ref().map(|entry| entry.field(index).to_owned());
        for index in (0..self.fields.names.len()).filter(|index| self.is_indexed(*index)) {
            let (previous, current) = (value(&event.previous, index), value(&event.current, index));
            if previous != current {
                buckets.extend(
                    previous.filter(|value| !value.is_empty()).map(|value| Bucket::Field(index, value)),
                );
            }
            buckets
                .extend(current.filter(|value| !value.is_empty()).map(|value| Bucket::Field(index, value)));
        }
        buckets
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch_list(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("prefix", &self.prefix)
            .field("objects", &self.len())
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    /// The objects that the selector matches, in key order, from `start` on (within the resource).
    pub fn scan<'a>(
        &'a self,
        selector: &'a Selector,
        start: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Entry>> {
        let (prefix, single) = match (&selector.namespace, &selector.name) {
            (Some(namespace), Some(name)) => (key(namespace, name), true),
            (Some(namespace), None) if !namespace.is_empty() => (format!("{namespace}/"), false),
            // Everything, or all that is cluster-scoped, whose keys are bare names.
            _ => (String::new(), false),
        };
        let from = match start {
            Some(start) if start > prefix.as_str() => start.to_owned(),
            _ => prefix.clone(),
        };
        self.objects
            .range::<_, str>((Bound::Included(from.as_str()), Bound::Unbounded))
            .map(|ByKey(entry)| entry)
            .take_while(
                move |entry| if single { entry.key() == prefix } else { entry.key().starts_with(&prefix) },
            )
            .filter(|entry| selector.matches(entry))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// True if there are no objects.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({} objects at {})", self.len(), self.revision)
    }
}

impl Subscription {
    /// The next event; `None` if the watch was closed because the client was too slow, or the server ends.
    pub async fn next(&mut self) -> Option<(Change, Arc<Event>)> {
        if let Some(event) = self.backlog.pop_front() {
            return Some(event);
        }
        loop {
            let (change, event) = self.queue.recv().await?;
            if event.revision > self.after {
                return Some((change, event));
            }
        }
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<(Change, Arc<Event>)> {
        if let Some(event) = self.backlog.pop_front() {
            return Some(event);
        }
        loop {
            let (change, event) = self.queue.try_recv().ok()?;
            if event.revision > self.after {
                return Some((change, event));
            }
        }
    }

    /// Counts events that were sent to the client.
    pub(crate) fn count_sent(&self, events: u64) {
        self.cache.sent.fetch_add(events, Ordering::Relaxed);
    }

    /// The revision up to which everything was delivered, if nothing is waiting.
    pub fn caught_up(&mut self) -> Option<Revision> {
        // The cache tells its watchers before it moves on: what is not queued now is after this revision.
        let watchers = self.cache.watch_list();
        let revision = self.cache.revision(&self.cache.state());
        drop(watchers);
        let told = self.backlog.is_empty() && self.queue.is_empty();
        (told && revision >= self.after).then_some(revision)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut watchers = self.cache.watch_list();
        if let Some(waiting) = watchers.by_bucket.get_mut(&self.bucket) {
            waiting.remove(&self.id);
            if waiting.is_empty() {
                watchers.by_bucket.remove(&self.bucket);
            }
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("cache", &self.cache.prefix)
            .field("bucket", &self.bucket)
            .finish()
    }
}

/// The key of an object within its resource.
pub fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

#[cfg(test)]
mod tests;
