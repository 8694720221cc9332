//! A shared copy of one kind, kept up to date by list and watch, with the indexes its users declare.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Debug};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use base::{Clock, Progress, Random, Tasks};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::broadcast;

use crate::reflector::{Listing, Mirror, Reflector};

/// How many changes a subscriber may be behind before it is told to read everything again.
const SUBSCRIBER_BUFFER: usize = 4096;

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

/// Values under which an object is found by [`Cache::by`].
pub struct Index<K> {
    pub name: &'static str,
    pub values: fn(&K) -> Vec<String>,
}

/// Where a cache's objects are.
#[derive(Clone, Debug)]
pub struct Source {
    /// The collection's path, for example `/api/v1/pods`.
    pub path: String,
    /// The resource's plural name, for messages.
    pub plural: String,
    /// Ask for `PartialObjectMetadata` instead of whole objects.
    pub metadata_only: bool,
}

/// What a cache holds.
pub struct CacheConfig<K> {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Label selector, as in a list request.
    pub labels: Option<String>,
    /// Field selector, as in a list request.
    pub fields: Option<String>,
    pub indexes: Vec<Index<K>>,
    /// Drops what no user of this cache decides on, to keep it small.
    pub trim: Option<fn(&mut K)>,
}

/// One change of a cache, in the order of the API server's history.
#[derive(Debug)]
pub enum Change<K> {
    /// The object is new or changed; with the state that the cache had before.
    Applied(Arc<K>, Option<Arc<K>>),
    /// The object is gone; its last known state.
    Deleted(Arc<K>),
    /// Changes were dropped because the subscriber was too slow: read the cache as a whole.
    Missed,
}

/// A cheap handle on a shared cache.
pub struct Cache<K> {
    shared: Arc<Shared<K>>,
}

/// A stream of changes; see [`Cache::subscribe`].
pub struct Changes<K> {
    receiver: broadcast::Receiver<Change<K>>,
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

pub(crate) struct Shared<K> {
    state: RwLock<State<K>>,
    /// The revision up to which this cache shows the API server's history; 0 before the first list.
    revision: Progress,
    indexes: Vec<Index<K>>,
    trim: Option<fn(&mut K)>,
    changes: broadcast::Sender<Change<K>>,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// Per declared index: value → keys.
    index: Vec<HashMap<String, BTreeSet<Key>>>,
    /// Called for each change while the state is locked, so in order and without gaps.
    handlers: Vec<Handler<K>>,
}

// === impl Key ===

impl Key {
    /// The key of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }

    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

// === impl CacheConfig ===

impl<K> Default for CacheConfig<K> {
    fn default() -> Self {
        Self { namespace: None, labels: None, fields: None, indexes: Vec::new(), trim: None }
    }
}

impl<K> Debug for CacheConfig<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheConfig")
            .field("namespace", &self.namespace)
            .field("labels", &self.labels)
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

impl<K> Debug for Index<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Index").field(&self.name).finish()
    }
}

/// What a cache can hold: the objects of a kind, `Cached<DynamicType = ()>` if it is a built-in one.
pub trait Cached: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}

impl<K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Cached for K {}

// === impl Cache ===

impl<K: Cached> Cache<K> {
    /// Starts to follow the API. The cache is empty until [`Cache::synced`] returns.
    pub fn start(tasks: &Tasks, client: Client, clock: Clock, random: Random, config: CacheConfig<K>) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        let source = Source {
            path: K::url_path(&(), config.namespace.as_deref()),
            plural: K::plural(&()).into_owned(),
            metadata_only: false,
        };
        Self::start_at(tasks, client, clock, random, source, config)
    }

    /// Follows a resource that is known only at run time.
    pub fn start_at(
        tasks: &Tasks,
        client: Client,
        clock: Clock,
        random: Random,
        source: Source,
        config: CacheConfig<K>,
    ) -> Self {
        let cache = Self { shared: Arc::new(Shared::new(config.indexes, config.trim)) };
        let name = format!("cache {}", source.plural);
        let follow = Reflector {
            client,
            clock,
            random,
            source,
            labels: config.labels,
            fields: config.fields,
            mirror: cache.shared.clone(),
        };
        tasks.spawn(&name, follow.run());
        cache
    }

    /// The object of this name. `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.shared.read().objects.get(&Key::new(namespace, name)).cloned()
    }

    /// The object under this key.
    pub fn get_key(&self, key: &Key) -> Option<Arc<K>> {
        self.shared.read().objects.get(key).cloned()
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.read().objects.values().cloned().collect()
    }

    /// The objects of one namespace, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let start = Key::new(namespace, "");
        let state = self.shared.read();
        let of_namespace = state.objects.range(start..).take_while(|(key, _)| key.namespace == namespace);
        of_namespace.map(|(_, object)| object.clone()).collect()
    }

    /// The objects with this value in a declared index; empty for an index that was not declared.
    pub fn by(&self, index: &'static str, value: &str) -> Vec<Arc<K>> {
        let Some(position) = self.shared.indexes.iter().position(|declared| declared.name == index) else {
            debug_assert!(false, "index {index} was not declared");
            return Vec::new();
        };
        let state = self.shared.read();
        let Some(keys) = state.index[position].get(value) else { return Vec::new() };
        keys.iter().filter_map(|key| state.objects.get(key).cloned()).collect()
    }

    /// How many objects the cache holds.
    pub fn len(&self) -> usize {
        self.shared.read().objects.len()
    }

    /// True when the cache holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns once the first full list has been taken over.
    pub async fn synced(&self) {
        self.reached(1).await;
    }

    /// True once the first full list has been taken over.
    pub fn is_synced(&self) -> bool {
        self.revision() > 0
    }

    /// The revision that this cache has reached.
    pub fn revision(&self) -> u64 {
        u64::try_from(self.shared.revision.get()).unwrap_or(0)
    }

    /// Returns once the cache shows the state at `revision` or later: read-your-writes.
    pub async fn reached(&self, revision: u64) {
        self.shared.revision.reached(signed(revision)).await;
    }

    /// Calls `handler` for each object now and for each later change, in order and without gaps.
    ///
    /// It runs under the cache's lock: it must be quick and must not read this cache. It may hold other caches: it goes
    /// when the tasks end that fill this one.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut state = self.shared.write();
        for object in state.objects.values() {
            handler(&Change::Applied(object.clone(), None));
        }
        state.handlers.push(Box::new(handler));
    }

    /// A bounded stream of changes from now on.
    pub fn subscribe(&self) -> Changes<K> {
        Changes { receiver: self.shared.changes.subscribe() }
    }
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K> Debug for Cache<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("revision", &self.shared.revision.get()).finish_non_exhaustive()
    }
}

// === impl Changes ===

impl<K> Changes<K> {
    /// The next change; `None` when the cache is gone.
    pub async fn next(&mut self) -> Option<Change<K>> {
        match self.receiver.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Change::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl<K> Debug for Changes<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Applied(new, old) => Self::Applied(new.clone(), old.clone()),
            Self::Deleted(last) => Self::Deleted(last.clone()),
            Self::Missed => Self::Missed,
        }
    }
}

// === impl Shared ===

impl<K> Shared<K>
where
    K: Resource + Clone + Debug,
{
    fn new(indexes: Vec<Index<K>>, trim: Option<fn(&mut K)>) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            index: indexes.iter().map(|_| HashMap::new()).collect(),
            handlers: Vec::new(),
        };
        Self {
            state: RwLock::new(state),
            revision: Progress::new(0),
            indexes,
            trim,
            changes: broadcast::Sender::new(SUBSCRIBER_BUFFER),
        }
    }

    /// Takes over a full list: what is not in it is gone.
    fn replace(&self, objects: Vec<K>, revision: u64) {
        let mut state = self.write();
        let listed: BTreeSet<Key> = objects.iter().map(Key::of).collect();
        let gone: Vec<Key> = state.objects.keys().filter(|key| !listed.contains(key)).cloned().collect();
        for key in gone {
            self.remove(&mut state, &key, None);
        }
        for object in objects {
            self.insert(&mut state, object);
        }
        self.advance(revision);
    }

    /// Takes over one added or modified object.
    fn apply(&self, object: K, revision: u64) {
        self.insert(&mut self.write(), object);
        self.advance(revision);
    }

    /// Takes over a deletion; `last` is the state that the API server sent with it.
    fn delete(&self, last: K, revision: u64) {
        let key = Key::of(&last);
        self.remove(&mut self.write(), &key, Some(last));
        self.advance(revision);
    }

    /// Notes that nothing up to `revision` is missing.
    fn advance(&self, revision: u64) {
        self.revision.advance(signed(revision));
    }

    fn insert(&self, state: &mut State<K>, mut object: K) {
        if let Some(trim) = self.trim {
            trim(&mut object);
        }
        let key = Key::of(&object);
        let old = state.objects.get(&key).cloned();
        if let Some(old) = &old {
            if old.meta().resource_version == object.meta().resource_version {
                return;
            }
            if old.meta().uid != object.meta().uid {
                // The deletion between the two was not seen: show it, so that nobody mistakes one for the other.
                self.remove(state, &key, None);
                return self.insert(state, object);
            }
            self.unindex(state, &key, old);
        }
        let object = Arc::new(object);
        for (index, values) in self.indexes.iter().zip(&mut state.index) {
            for value in (index.values)(&object) {
                values.entry(value).or_default().insert(key.clone());
            }
        }
        state.objects.insert(key, object.clone());
        self.announce(state, Change::Applied(object, old));
    }

    fn remove(&self, state: &mut State<K>, key: &Key, last: Option<K>) {
        let Some(old) = state.objects.remove(key) else { return };
        self.unindex(state, key, &old);
        let last = last.map_or(old, Arc::new);
        self.announce(state, Change::Deleted(last));
    }

    fn unindex(&self, state: &mut State<K>, key: &Key, old: &K) {
        for (index, values) in self.indexes.iter().zip(&mut state.index) {
            for value in (index.values)(old) {
                if let Some(keys) = values.get_mut(&value) {
                    keys.remove(key);
                    if keys.is_empty() {
                        values.remove(&value);
                    }
                }
            }
        }
    }

    fn announce(&self, state: &State<K>, change: Change<K>) {
        for handler in &state.handlers {
            handler(&change);
        }
        // Fails only when nobody is subscribed.
        let _ = self.changes.send(change);
    }
}

impl<K: Cached> Mirror for Shared<K> {
    fn listing(self: Arc<Self>) -> Box<dyn Listing> {
        Box::new(Listed { shared: self, objects: Vec::new() })
    }

    fn applied(&self, object: &RawValue) -> serde_json::Result<String> {
        let object: K = serde_json::from_str(object.get())?;
        let revision = version(&object);
        self.apply(object, number(&revision));
        Ok(revision)
    }

    fn deleted(&self, object: &RawValue) -> serde_json::Result<String> {
        let last: K = serde_json::from_str(object.get())?;
        let revision = version(&last);
        self.delete(last, number(&revision));
        Ok(revision)
    }

    fn reached(&self, revision: &str) {
        self.advance(number(revision));
    }

    fn ended(&self) {
        // They may hold other caches, whose handlers hold this one: nobody else would free them. What they hold goes
        // after the lock.
        let handlers = std::mem::take(&mut self.write().handlers);
        drop(handlers);
    }
}

/// A full list on its way into a cache.
struct Listed<K> {
    shared: Arc<Shared<K>>,
    objects: Vec<K>,
}

impl<K: Cached> Listing for Listed<K> {
    fn add(&mut self, object: &RawValue) -> serde_json::Result<()> {
        self.objects.push(serde_json::from_str(object.get())?);
        Ok(())
    }

    fn complete(self: Box<Self>, revision: &str) {
        self.shared.replace(self.objects, number(revision));
    }
}

impl<K> Shared<K> {
    fn read(&self) -> RwLockReadGuard<'_, State<K>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version<K: Resource>(object: &K) -> String {
    object.meta().resource_version.clone().unwrap_or_default()
}

/// Revisions are opaque to clients but since Kubernetes 1.35 (KEP-5504) comparable as integers.
fn number(revision: &str) -> u64 {
    revision.parse().unwrap_or(0)
}

/// Revisions fit, as the store counts them so.
fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, uid: &str, version: u64, label: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some("default".into());
        object.metadata.name = Some(name.into());
        object.metadata.uid = Some(uid.into());
        object.metadata.resource_version = Some(version.to_string());
        object.metadata.labels = Some([("app".to_owned(), label.to_owned())].into());
        object
    }

    fn cache() -> Cache<ConfigMap> {
        let values = |object: &ConfigMap| {
            object.metadata.labels.iter().flatten().map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        Cache { shared: Arc::new(Shared::new(vec![Index { name: "app", values }], None)) }
    }

    fn recorded(cache: &Cache<ConfigMap>) -> Arc<Mutex<Vec<String>>> {
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        cache.on_change(move |change| {
            sink.lock().unwrap().push(match change {
                Change::Applied(new, old) => format!(
                    "{} {}{}",
                    if old.is_some() { "changed" } else { "added" },
                    new.metadata.name.as_deref().unwrap(),
                    new.metadata.uid.as_deref().unwrap()
                ),
                Change::Deleted(last) => format!(
                    "deleted {}{}",
                    last.metadata.name.as_deref().unwrap(),
                    last.metadata.uid.as_deref().unwrap()
                ),
                Change::Missed => "missed".into(),
            });
        });
        log
    }

    #[test]
    fn caches_whose_handlers_hold_each_other_go_when_nothing_fills_them_any_more() {
        let (one, other) = (cache(), cache());
        let (held, holder) = (other.clone(), one.clone());
        one.on_change(move |_| assert!(held.is_empty()));
        other.on_change(move |_| assert!(holder.is_empty()));
        let (weak_one, weak_other) = (Arc::downgrade(&one.shared), Arc::downgrade(&other.shared));
        one.shared.ended();
        drop((one, other));
        assert!(weak_one.upgrade().is_none() && weak_other.upgrade().is_none());
    }

    #[test]
    fn an_index_follows_a_changed_value() {
        let cache = cache();
        cache.shared.replace(vec![object("a", "1", 1, "web")], 1);
        cache.shared.apply(object("a", "1", 2, "db"), 2);
        assert!(cache.by("app", "web").is_empty());
        assert_eq!(cache.by("app", "db").len(), 1);
        cache.shared.delete(object("a", "1", 3, "db"), 3);
        assert!(cache.by("app", "db").is_empty());
        assert_eq!(cache.revision(), 3);
    }

    #[test]
    fn a_list_tells_what_went_away_in_between() {
        let cache = cache();
        let log = recorded(&cache);
        cache.shared.replace(vec![object("a", "1", 1, "x"), object("b", "2", 1, "x")], 1);
        cache.shared.replace(vec![object("b", "2", 1, "x"), object("c", "3", 5, "x")], 6);
        assert_eq!(*log.lock().unwrap(), ["added a1", "added b2", "deleted a1", "added c3"]);
    }

    #[test]
    fn a_recreated_object_is_first_deleted() {
        let cache = cache();
        let log = recorded(&cache);
        cache.shared.replace(vec![object("a", "1", 1, "x")], 1);
        cache.shared.replace(vec![object("a", "9", 7, "x")], 7);
        assert_eq!(*log.lock().unwrap(), ["added a1", "deleted a1", "added a9"]);
    }

    #[test]
    fn an_unchanged_object_is_not_announced_again() {
        let cache = cache();
        let log = recorded(&cache);
        cache.shared.replace(vec![object("a", "1", 1, "x")], 1);
        cache.shared.replace(vec![object("a", "1", 1, "x")], 4);
        assert_eq!(*log.lock().unwrap(), ["added a1"]);
    }
}
