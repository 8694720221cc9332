//! The services and endpoint slices that the proxy and cluster DNS share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use base::Tasks;
use client::{Cache, CacheConfig, Change, Index, Key};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::Notify;

use super::inbox::Inbox;
use crate::config::Config;

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const BY_SERVICE: &str = "service";

/// One copy of the cluster's services and endpoint slices for all users on a node.
#[derive(Clone, Debug)]
pub struct ServiceCaches {
    pub(crate) services: Cache<Service>,
    pub(crate) slices: Cache<EndpointSlice>,
}

impl ServiceCaches {
    /// Starts to follow the API; the caches live as long as `config.tasks`.
    pub fn start(config: &Config) -> Self {
        let Config { tasks, client, clock, random, .. } = config;
        let services = CacheConfig {
            trim: Some(|service: &mut Service| trim(&mut service.metadata)),
            ..CacheConfig::default()
        };
        let slices = CacheConfig {
            indexes: vec![Index {
                name: BY_SERVICE,
                values: |slice: &EndpointSlice| {
                    service_of(slice).map(|key| key.to_string()).into_iter().collect()
                },
            }],
            trim: Some(|slice: &mut EndpointSlice| trim(&mut slice.metadata)),
            ..CacheConfig::default()
        };
        Self {
            services: Cache::start(tasks, client.clone(), clock.clone(), random.clone(), services),
            slices: Cache::start(tasks, client.clone(), clock.clone(), random.clone(), slices),
        }
    }

    /// Returns once both caches have taken over the API server's state.
    pub async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
    }

    pub(crate) fn slices_of(&self, service: &Key) -> Vec<Arc<EndpointSlice>> {
        self.slices.by(BY_SERVICE, &service.to_string())
    }

    /// All services now, and then each that changes.
    pub(crate) fn follow(&self) -> Arc<DirtyServices> {
        let dirty = Arc::new(DirtyServices::default());
        let sink = dirty.clone();
        self.on_change(move |key| {
            sink.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
            sink.changed.notify_one();
        });
        dirty
    }

    /// Calls `changed` with each service of which something is new. It runs under the caches' locks.
    pub(crate) fn on_change(&self, changed: impl Fn(Key) + Clone + Send + Sync + 'static) {
        let of_slice = changed.clone();
        self.services.on_change(move |change| match change {
            Change::Applied(service, _) | Change::Deleted(service) => changed(Key::of(&**service)),
            Change::Missed => {}
        });
        self.slices.on_change(move |change| {
            let (new, old) = match change {
                Change::Applied(new, old) => (Some(new), old.as_ref()),
                Change::Deleted(old) => (None, Some(old)),
                Change::Missed => (None, None),
            };
            let (new, old) =
                (new.and_then(|slice| service_of(slice)), old.and_then(|slice| service_of(slice)));
            if let Some(key) = old.filter(|old| new.as_ref() != Some(old)) {
                of_slice(key);
            }
            if let Some(key) = new {
                of_slice(key);
            }
        });
    }
}

/// Tells the zone of this node, now and when it changes.
pub(super) fn follow_zone(config: &Config, tasks: &Tasks, inbox: Arc<Inbox>) {
    let Config { client, clock, random, node_name, .. } = config;
    let own = CacheConfig {
        fields: Some(format!("metadata.name={node_name}")),
        trim: Some(|node: &mut Node| {
            trim(&mut node.metadata);
            node.spec = None;
            node.status = None;
        }),
        ..CacheConfig::default()
    };
    let nodes: Cache<Node> = Cache::start(tasks, client.clone(), clock.clone(), random.clone(), own);
    let name = node_name.clone();
    nodes.on_change(move |change| {
        if let Change::Applied(node, _) = change
            && node.metadata.name.as_ref() == Some(&name)
        {
            inbox.zone_is(node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL).cloned()));
        }
    });
}

/// Services of which something is new; bounded by their number.
#[derive(Debug, Default)]
pub(crate) struct DirtyServices {
    keys: Mutex<BTreeSet<Key>>,
    changed: Notify,
}

impl DirtyServices {
    pub(crate) fn take(&self) -> BTreeSet<Key> {
        std::mem::take(&mut self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns when something may have changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// The service that a slice belongs to.
fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name))
}

fn trim(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    meta.annotations = None;
    meta.owner_references = None;
}
