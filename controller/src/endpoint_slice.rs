//! Keeps the EndpointSlices of services with a selector.
//!
//! Promises: each pod that can serve is in exactly one slice of its address family and set of ports; a slice
//! holds at most 100; what changes is written with as few writes as possible (a pod that becomes ready is one
//! write); a service without endpoints has one empty slice.

mod desired;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Cache, CacheConfig, Change, Index, Key};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::Config;
use crate::harness::{self, BY_NODE, Context, Error, Plan, Reconciler, WorkQueue, Worker};
use crate::serving::{Sources, has_endpoints};

pub(crate) use desired::{Ports, ports_key};

/// The label with the name of a slice's service.
pub(crate) const SERVICE: &str = "kubernetes.io/service-name";
/// The label with the name of who keeps a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";
/// The index of slices by the key of their service.
pub(crate) const BY_SERVICE: &str = "service";

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let slices = slices_of(context, CONTROLLER);
    let nodes = context.caches.of::<Node>();
    let mut worker = Worker::new(context, "endpoint_slice", 5);
    let sources = Sources::follow(context, &mut worker);
    worker.watches(&slices, |slice| vec![service_of(slice)]);
    worker.reads(&nodes);
    let queue = worker.queue();
    let nodes_queue = queue.clone();
    nodes.on_change(move |change| match change {
        Change::Applied(node, Some(old)) if desired::zone(node) == desired::zone(old) => {}
        Change::Applied(node, _) | Change::Deleted(node) => nodes_queue.add(Key::of(&**node)),
        Change::Missed => {}
    });
    harness::start(context, worker, Slices { sources, slices, nodes, queue });
}

struct Slices {
    sources: Sources,
    slices: Cache<EndpointSlice>,
    nodes: Cache<Node>,
    queue: Arc<WorkQueue>,
}

impl Reconciler for Slices {
    fn name(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        if key.namespace.is_empty() {
            self.node_changed(&key.name);
            return Ok(Plan::nothing());
        }
        let Some(service) = self.sources.services.get_key(key) else { return Ok(Plan::nothing()) };
        if !service.spec.as_ref().is_some_and(has_endpoints) {
            return Ok(Plan::nothing());
        }
        let pods = self.sources.selected(&service);
        let existing = self.slices.by(BY_SERVICE, &key.to_string());
        let node = |name: &str| self.nodes.get("", name);
        Ok(plan::plan(&service, &pods, node, &existing))
    }
}

impl Slices {
    /// A node came, went or moved to another zone: that shows in the endpoints on it.
    fn node_changed(&self, node: &str) {
        for pod in self.sources.pods.by(BY_NODE, node) {
            self.sources.selecting(&pod).into_iter().for_each(|key| self.queue.add(key));
        }
    }
}

/// The slices that `manager` keeps, indexed by their service.
pub(crate) fn slices_of(context: &Context, manager: &str) -> Cache<EndpointSlice> {
    context.caches.own(CacheConfig {
        labels: Some(format!("{MANAGED_BY}={manager}")),
        indexes: vec![Index { name: BY_SERVICE, values: |slice| vec![service_of(slice).to_string()] }],
        trim: Some(|slice| slice.metadata.managed_fields = None),
        ..CacheConfig::default()
    })
}

/// The service whose slice it is.
pub(crate) fn service_of(slice: &EndpointSlice) -> Key {
    let label = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE));
    Key::new(slice.metadata.namespace.clone().unwrap_or_default(), label.cloned().unwrap_or_default())
}
