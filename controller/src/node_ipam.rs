//! Gives each node a range of pod addresses, in `spec.podCIDR` and `spec.podCIDRs`.
//!
//! Promises: the lowest free range is given; no two nodes get the same one, also while a cache lags; ranges that
//! nodes have already are respected, whatever their size; a deleted node's range is free again, and is given to
//! a node that waits for one.

mod pool;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use client::{Cache, Change, Key, Reference};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use tracing::error;

use self::pool::Pool;
use crate::Config;
use crate::harness::{self, Context, Error, Plan, Reconciler, Worker, Write};

/// Starts the controller.
pub(crate) fn start(context: &Context, config: &Config) {
    let pool = match Pool::new(&config.cluster_cidr) {
        Ok(pool) => Arc::new(Mutex::new(pool)),
        Err(failure) => {
            error!(cluster_cidr = config.cluster_cidr, %failure, "nodes get no pod addresses");
            return;
        }
    };
    let nodes = context.caches.of::<Node>();
    let mut worker = Worker::new(context, "cidrallocator_node", 1);
    worker.reads(&nodes);
    let (queue, ranges) = (worker.queue(), pool.clone());
    nodes.on_change(move |change| {
        let mut pool = ranges.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = match change {
            Change::Applied(node, _) => {
                if lacks_range(node) {
                    queue.add(Key::of(&**node));
                }
                pool.observe(&node.metadata, pod_cidrs(node))
            }
            Change::Deleted(node) => pool.forget(&node.metadata),
            Change::Missed => Vec::new(),
        };
        waiting.into_iter().for_each(|name| queue.add(Key::new("", name)));
    });
    harness::start(context, worker, NodeIpam { nodes, pool });
}

struct NodeIpam {
    nodes: Cache<Node>,
    /// Locked under the node cache's lock, so never the other way round.
    pool: Arc<Mutex<Pool>>,
}

impl Reconciler for NodeIpam {
    fn name(&self) -> &'static str {
        "cidrAllocator"
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let Some(node) = self.nodes.get_key(key).filter(|node| lacks_range(node)) else {
            return Ok(Plan::nothing());
        };
        let plan = plan(&node, &mut self.pool());
        let still = self.nodes.get_key(key);
        if still.is_none_or(|still| still.metadata.uid != node.metadata.uid) {
            // It went after it was read, so nobody else will give its range back.
            let waiting = self.pool().forget(&node.metadata);
            tracing::debug!(node = key.name, ?waiting, "the node went before it got its range");
            return Err(Error::Other(format!("node {key} is gone")));
        }
        Ok(plan)
    }
}

impl NodeIpam {
    fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a range to a node that has none.
fn plan(node: &Node, pool: &mut Pool) -> Plan {
    let mut plan = Plan::nothing();
    match pool.assign(&node.metadata) {
        Ok(range) => plan.then(Write::merge(
            node,
            json!({
                "metadata": {"uid": node.metadata.uid},
                "spec": {"podCIDR": range, "podCIDRs": [range]},
            }),
        )),
        Err(pool::Full { news: true }) => {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            plan.normal(
                &Reference::to(node),
                "CIDRNotAvailable",
                format!("Node {name} status is now: CIDRNotAvailable"),
            );
        }
        Err(pool::Full { news: false }) => {}
    }
    plan
}

fn pod_cidrs(node: &Node) -> Vec<String> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let several = spec.pod_cidrs.clone().unwrap_or_default();
    if several.is_empty() { spec.pod_cidr.clone().into_iter().collect() } else { several }
}

fn lacks_range(node: &Node) -> bool {
    pod_cidrs(node).is_empty()
}
