//! What all controllers share: the client, time, events, and one cache per kind.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::resource::Resource;
use base::{Clock, Random, Tasks};
use client::{Cache, CacheConfig, Cached, Client, Index, Source};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DynamicObject, PartialObjectMeta};

use super::metrics::Queues;

/// What a controller is given.
#[derive(Clone)]
pub struct Context {
    /// Acts as the controller's own service account.
    pub client: Client,
    pub clock: Clock,
    pub random: Random,
    pub tasks: Tasks,
    pub caches: Caches,
    pub queues: Queues,
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

/// Name of the index of [`Caches::metadata`] by the UIDs of all owners.
pub const BY_ANY_OWNER: &str = "owners";

/// The metadata of any object.
pub type Metadata = PartialObjectMeta<DynamicObject>;

impl Caches {
    /// Caches that read with `client` and live as long as `tasks`.
    pub fn new(client: Client, clock: Clock, random: Random, tasks: Tasks) -> Self {
        Self { client, clock, random, tasks, started: Arc::default() }
    }

    /// The cache of a kind, indexed by the UID of the controlling owner.
    pub fn of<K: Cached<DynamicType = ()>>(&self) -> Cache<K> {
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
    pub fn own<K: Cached<DynamicType = ()>>(&self, config: CacheConfig<K>) -> Cache<K> {
        Cache::start(&self.tasks, self.client.clone(), self.clock.clone(), self.random.clone(), config)
    }

    /// The cache of the metadata of a resource that is known only at run time, indexed by the UIDs of all
    /// owners ([`BY_ANY_OWNER`]). It holds only what deletion is decided by.
    pub fn metadata(&self, row: &Resource) -> Cache<Metadata> {
        let name = format!("metadata of {}", row.group_resource());
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = started.get(&name).and_then(|cache| cache.downcast_ref::<Cache<Metadata>>()) {
            return cache.clone();
        }
        let source = Source {
            path: collection(row, None),
            plural: row.plural.clone().into_owned(),
            metadata_only: true,
        };
        let config = CacheConfig {
            indexes: vec![Index { name: BY_ANY_OWNER, values: owners }],
            trim: Some(trim),
            ..CacheConfig::default()
        };
        let (client, clock, random) = (self.client.clone(), self.clock.clone(), self.random.clone());
        let cache = Cache::start_at(&self.tasks, client, clock, random, source, config);
        started.insert(name, Box::new(cache.clone()));
        cache
    }

    fn with<K: Cached<DynamicType = ()>>(&self, config: impl FnOnce() -> CacheConfig<K>) -> Cache<K> {
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

/// The path of a resource's collection.
pub fn collection(row: &Resource, namespace: Option<&str>) -> String {
    let root = if row.group.is_empty() { "/api" } else { "/apis/" };
    let version = format!("{root}{}/{}", row.group, row.version);
    match namespace.filter(|namespace| !namespace.is_empty() && row.namespaced()) {
        Some(namespace) => format!("{version}/namespaces/{namespace}/{}", row.plural),
        None => format!("{version}/{}", row.plural),
    }
}

fn owners(object: &Metadata) -> Vec<String> {
    object.metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect()
}

fn trim(object: &mut Metadata) {
    let whole = std::mem::take(&mut object.metadata);
    object.types = None;
    object.metadata = ObjectMeta {
        name: whole.name,
        namespace: whole.namespace,
        uid: whole.uid,
        resource_version: whole.resource_version,
        owner_references: whole.owner_references,
        finalizers: whole.finalizers,
        deletion_timestamp: whole.deletion_timestamp,
        deletion_grace_period_seconds: whole.deletion_grace_period_seconds,
        ..ObjectMeta::default()
    };
}

/// The UID of the controlling owner, or nothing as the empty text.
fn owner<K: kube::Resource>(object: &K) -> Vec<String> {
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
