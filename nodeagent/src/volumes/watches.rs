//! The ConfigMaps and Secrets that pods of this node use: each is watched alone, by its name, for as long as a pod
//! uses it. That is all that a node may watch.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::{Clock, Random, Tasks};
use client::{Cache, CacheConfig, Cached, Change, Key};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use tokio::sync::Notify;

/// How long a pod's start waits for the first answer of the API.
const PATIENCE: Duration = Duration::from_secs(10);

/// A kind that volumes show.
pub(super) trait Shown: Cached<DynamicType = ()> {
    /// As in messages.
    const KIND: &'static str;

    /// It never changes, so there is nothing to watch.
    fn is_immutable(&self) -> bool;
}

impl Shown for ConfigMap {
    const KIND: &'static str = "configmap";

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl Shown for Secret {
    const KIND: &'static str = "secret";

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

/// Pods whose volumes may show something old.
#[derive(Debug, Default)]
pub(super) struct Outdated {
    pods: Mutex<HashSet<String>>,
    pub(super) wake: Notify,
}

impl Outdated {
    fn add(&self, users: &HashSet<String>) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).extend(users.iter().cloned());
        self.wake.notify_one();
    }

    pub(super) fn take(&self) -> HashSet<String> {
        std::mem::take(&mut self.pods.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) struct Watches<K> {
    client: kube::Client,
    clock: Clock,
    random: Random,
    tasks: Tasks,
    outdated: Arc<Outdated>,
    watched: Mutex<HashMap<Key, Watched<K>>>,
}

struct Watched<K> {
    state: State<K>,
    /// The pods that use it.
    users: Arc<Mutex<HashSet<String>>>,
}

enum State<K> {
    Live {
        cache: Cache<K>,
        /// The watch ends with this group.
        _tasks: Tasks,
    },
    Fixed(Arc<K>),
}

impl<K: Shown> Watches<K> {
    pub(super) fn new(
        client: kube::Client,
        clock: Clock,
        random: Random,
        tasks: Tasks,
        outdated: Arc<Outdated>,
    ) -> Self {
        Self { client, clock, random, tasks, outdated, watched: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Watched<K>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the pod uses exactly `keys`.
    pub(super) fn used_by(&self, pod_uid: &str, keys: &HashSet<Key>) {
        let mut watched = self.lock();
        watched.retain(|key, entry| {
            let mut users = entry.users.lock().unwrap_or_else(PoisonError::into_inner);
            if !keys.contains(key) {
                users.remove(pod_uid);
            }
            !users.is_empty()
        });
        for key in keys {
            let entry = watched.entry(key.clone()).or_insert_with(|| self.start(key));
            entry.users.lock().unwrap_or_else(PoisonError::into_inner).insert(pod_uid.to_owned());
        }
    }

    fn start(&self, key: &Key) -> Watched<K> {
        let tasks = self.tasks.child(&format!("{} {key}", K::KIND));
        let config = CacheConfig {
            namespace: Some(key.namespace.clone()),
            fields: Some(format!("metadata.name={}", key.name)),
            ..CacheConfig::default()
        };
        let cache: Cache<K> =
            Cache::start(&tasks, self.client.clone(), self.clock.clone(), self.random.clone(), config);
        let users = Arc::new(Mutex::new(HashSet::new()));
        let (of_object, outdated) = (users.clone(), self.outdated.clone());
        cache.on_change(move |_: &Change<K>| {
            outdated.add(&of_object.lock().unwrap_or_else(PoisonError::into_inner));
        });
        Watched { state: State::Live { cache, _tasks: tasks }, users }
    }

    /// The object as it is now: `None` if nobody uses it, so that nothing is known of it.
    pub(super) async fn get(&self, key: &Key) -> Option<Result<Option<Arc<K>>, String>> {
        let cache = match &self.lock().get(key)?.state {
            State::Fixed(object) => return Some(Ok(Some(object.clone()))),
            State::Live { cache, .. } => cache.clone(),
        };
        if tokio::time::timeout(PATIENCE, cache.synced()).await.is_err() {
            let kind = K::KIND;
            return Some(Err(format!("failed to sync {kind} cache: timed out waiting for the condition")));
        }
        let found = cache.get_key(key);
        if let Some(object) = found.as_ref().filter(|object| object.is_immutable())
            && let Some(entry) = self.lock().get_mut(key)
        {
            entry.state = State::Fixed(object.clone());
        }
        Some(Ok(found))
    }
}
