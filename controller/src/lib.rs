//! Controllers: each a pure plan function over cached state, on one harness.
//!
//! [`CONTROLLERS`] lists them all; [`start`] starts them. Each one's file holds its plan function (which objects it
//! looks at is an argument, time too), the thin reader that collects these objects from the caches, and its
//! tests. Nothing here loops, sleeps or lists on its own: see [`harness`].

use std::fmt;
use std::sync::Arc;

use base::{Clock, Random, Tasks};
use client::Client;

pub use crate::harness::Queues;
use crate::harness::{Caches, Context};

mod claim;
mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod garbage_collector;
pub mod harness;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod pods;
mod replicaset;
mod resource_quota;
mod resources;
mod root_ca;
mod scaled;
mod service_account;
mod serving;
mod storage_protection;
mod taint_eviction;
mod token_cleaner;

/// What the controllers need to run.
#[derive(Clone)]
pub struct Config {
    /// Reads all shared caches: `system:kube-controller-manager`.
    pub caches: Client,
    /// The client of a service account in `kube-system`, for example `replicaset-controller`.
    pub client_as: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    pub clock: Clock,
    pub random: Random,
    /// The cluster's root certificate in PEM, published to each namespace.
    pub root_ca: String,
    /// Where the controllers' queues are counted.
    pub queues: Queues,
    /// What the nodes' pod address ranges are cut from, for example `10.244.0.0/16`.
    pub cluster_cidr: String,
}

/// One controller: the service account that it acts as, and how it is started.
struct Controller {
    account: &'static str,
    start: fn(&Context, &Config),
}

/// All controllers.
const CONTROLLERS: &[Controller] = &[
    Controller { account: deployment::ACCOUNT, start: deployment::start },
    Controller { account: replicaset::ACCOUNT, start: replicaset::start },
    Controller { account: disruption::ACCOUNT, start: disruption::start },
    Controller { account: pod_gc::ACCOUNT, start: pod_gc::start },
    Controller { account: node_lifecycle::ACCOUNT, start: node_lifecycle::start },
    Controller { account: node_lifecycle::ACCOUNT, start: taint_eviction::start },
    Controller { account: "node-controller", start: node_ipam::start },
    Controller { account: "service-account-controller", start: service_account::start },
    Controller { account: "root-ca-cert-publisher", start: root_ca::start },
    Controller { account: "endpointslice-controller", start: endpoint_slice::start },
    Controller { account: "endpointslicemirroring-controller", start: endpoint_slice_mirroring::start },
    Controller { account: "endpoint-controller", start: endpoints::start },
    Controller { account: "generic-garbage-collector", start: garbage_collector::start },
    Controller { account: "namespace-controller", start: namespace::start },
    Controller { account: resource_quota::ACCOUNT, start: resource_quota::start },
    Controller { account: storage_protection::CLAIMS, start: storage_protection::start_claims },
    Controller { account: storage_protection::VOLUMES, start: storage_protection::start_volumes },
    Controller { account: storage_protection::CLASSES, start: storage_protection::start_classes },
    Controller { account: "token-cleaner", start: token_cleaner::start },
];

/// Starts every controller. They end with `tasks`, of which the caller must keep a handle.
pub fn start(tasks: &Tasks, config: Config) {
    let caches =
        Caches::new(config.caches.clone(), config.clock.clone(), config.random.clone(), tasks.clone());
    for controller in CONTROLLERS {
        let context = Context {
            client: (config.client_as)(controller.account),
            clock: config.clock.clone(),
            random: config.random.clone(),
            tasks: tasks.clone(),
            caches: caches.clone(),
            queues: config.queues.clone(),
        };
        (controller.start)(&context, &config);
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("cluster_cidr", &self.cluster_cidr).finish_non_exhaustive()
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("account", &self.account).finish_non_exhaustive()
    }
}
