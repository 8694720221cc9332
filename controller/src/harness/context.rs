//! What all controllers share: the client, time, events, and one cache per kind.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base::{Clock, Random, Tasks};
use client::{Cache, CacheConfig, Client, Index};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use serde::de::DeserializeOwned;

/// What a controller is given.
#[derive(Clone)]
pub struct Context {
    /// Acts as the controller's own service account.
    pub client: Client,
    pub clock: Clock,
    pub random: Random,
    pub tasks: Tasks,
    pub caches: Caches,
}

/// One cache per kind, started when it is first asked for, shared by all controllers.
#[derive(Clone)]
pub struct Caches {
    client: Client,
    clock: Clock,
    random: Random,
    tasks: Tasks,
    /// By group and plural; each value is a `Cache<K>`.
    started: Arc<Mutex<HashMap<String, Box<dyn Any + Send>>>>,
}

/// Name of the pod index by `spec.nodeName`.
pub const BY_NODE: &str = "node";
/// Name of the pod index by the UID of the controlling owner; empty for pods without one.
pub const BY_OWNER: &str = "owner";

impl Caches {
    /// Caches that read with `client` and live as long as `tasks`.
    pub fn new(client: Client, clock: Clock, random: Random, tasks: Tasks) -> Self {
        Self { client, clock, random, tasks, started: Arc::default() }
    }

    /// The cache of a kind, indexed by the UID of the controlling owner.
    pub fn of<K>(&self) -> Cache<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.with(|| CacheConfig {
            indexes: vec![Index { name: BY_OWNER, values: owner }],
            trim: Some(|object: &mut K| object.meta_mut().managed_fields = None),
            ..CacheConfig::default()
        })
    }

    /// The cache of all pods, indexed by owner and by node.
    pub fn pods(&self) -> Cache<Pod> {
        self.with(|| CacheConfig {
            indexes: vec![
                Index { name: BY_OWNER, values: owner },
                Index {
                    name: BY_NODE,
                    values: |pod: &Pod| {
                        let spec = pod.spec.as_ref();
                        spec.and_then(|spec| spec.node_name.clone()).into_iter().collect()
                    },
                },
            ],
            trim: Some(|pod: &mut Pod| pod.metadata.managed_fields = None),
            ..CacheConfig::default()
        })
    }

    /// A cache that is not shared, for a controller that looks only at some objects of a kind.
    pub fn own<K>(&self, config: CacheConfig<K>) -> Cache<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    {
        Cache::start(&self.tasks, self.client.clone(), self.clock.clone(), self.random.clone(), config)
    }

    fn with<K>(&self, config: impl FnOnce() -> CacheConfig<K>) -> Cache<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let name = format!("{}/{}", K::group(&()), K::plural(&()));
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = started.get(&name).and_then(|cache| cache.downcast_ref::<Cache<K>>()) {
            return cache.clone();
        }
        let (client, clock, random) = (self.client.clone(), self.clock.clone(), self.random.clone());
        let cache = Cache::start(&self.tasks, client, clock, random, config());
        started.insert(name, Box::new(cache.clone()));
        cache
    }
}

/// The UID of the controlling owner, or nothing as the empty text.
fn owner<K: Resource>(object: &K) -> Vec<String> {
    let owners = object.meta().owner_references.iter().flatten();
    let controller =
        owners.filter(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()).next();
    vec![controller.unwrap_or_default()]
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caches").finish_non_exhaustive()
    }
}
