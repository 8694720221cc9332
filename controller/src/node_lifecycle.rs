//! Notices nodes that fall silent, and shows the state of nodes as taints.
//!
//! A node is heard of when the heartbeat in its status or its Lease changes; when that was is told by this
//! machine's clock, never by the node's. A node that is silent for too long gets `Unknown` conditions, its
//! pods stop being ready, and a `NoExecute` taint lets [`crate::taint_eviction`] take them away: at a limited
//! rate, and not at all while no node is ready, because then the fault is more likely here.

mod health;
mod taints;
mod zones;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::Clock;
use client::{Cache, CacheConfig, Change, Key, Reference};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use self::health::Heard;
use self::zones::Zones;
use crate::Config;
use crate::harness::{self, BY_NODE, Context, Error, Plan, Reconciler, Worker, Write, WriteEvents};
use crate::pods;

/// The service account of this controller.
pub(crate) const ACCOUNT: &str = "node-controller";
const LEASES: &str = "kube-node-lease";
const WORKERS: usize = 2;

/// Everything that a decision about one node depends on.
#[derive(Debug)]
struct Situation {
    node: Arc<Node>,
    pods: Vec<Arc<Pod>>,
    heard: Timestamp,
    /// Whether a `NoExecute` taint may be added now, or when to ask again.
    eviction: zones::Permit,
    now: Timestamp,
}

struct Nodes {
    clock: Clock,
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// By node name.
    heard: BTreeMap<String, Heard>,
    zones: Zones,
}

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let (nodes, pods) = (context.caches.of::<Node>(), context.caches.pods());
    let leases = context
        .caches
        .own::<Lease>(CacheConfig { namespace: Some(LEASES.to_owned()), ..CacheConfig::default() });
    let memory: Arc<Mutex<Memory>> = Arc::default();
    let mut worker = Worker::new(context, "node_lifecycle_controller", WORKERS);
    worker.reads(&nodes);
    worker.reads(&pods);
    worker.reads(&leases);

    let (queue, shared, clock) = (worker.queue(), memory.clone(), context.clock.clone());
    nodes.on_change(move |change| {
        let mut memory = lock(&shared);
        let (node, ready, was_ready) = match change {
            Change::Applied(node, old) => {
                let name = node.metadata.name.clone().unwrap_or_default();
                memory
                    .heard
                    .entry(name)
                    .or_insert_with(|| Heard::new(node, clock.now()))
                    .node(node, clock.now());
                (node, health::ready(node), old.as_ref().and_then(|old| health::ready(old)))
            }
            Change::Deleted(node) => {
                memory.heard.remove(node.metadata.name.as_deref().unwrap_or_default());
                (node, None, health::ready(node))
            }
            Change::Missed => return,
        };
        queue.add(Key::of(&**node));
        if ready != was_ready {
            // What may be done about the others depends on how many nodes are ready.
            memory.heard.keys().for_each(|name| queue.add(Key::new("", name)));
        }
    });
    let (shared, clock) = (memory.clone(), context.clock.clone());
    leases.on_change(move |change| {
        if let Change::Applied(lease, _) = change {
            let mut memory = lock(&shared);
            let name = lease.metadata.name.as_deref().unwrap_or_default();
            if let Some(heard) = memory.heard.get_mut(name) {
                heard.lease(lease, clock.now());
            }
        }
    });
    // A pod that was bound to a node that is silent already.
    let queue = worker.queue();
    pods.on_change(move |change| {
        if let Change::Applied(pod, None) = change
            && let Some(node) = pods::node(pod)
        {
            queue.add(Key::new("", node));
        }
    });
    let clock = context.clock.clone();
    harness::start(context, worker, Nodes { clock, nodes, pods, memory });
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reconciler for Nodes {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let Some(node) = self.nodes.get_key(key) else { return Ok(Plan::nothing()) };
        let now = self.clock.now();
        // Read before the memory is locked: the cache's handlers take that lock while the cache is locked.
        let ready = health::ready(&node);
        let all = if ready.is_some_and(|ready| ready != "True") { self.nodes.list() } else { Vec::new() };
        let pods = self.pods.by(BY_NODE, &key.name);
        let (heard, registered, eviction) = {
            let mut memory = lock(&self.memory);
            let heard = memory.heard.entry(key.name.clone()).or_insert_with(|| Heard::new(&node, now));
            let registered = !std::mem::replace(&mut heard.registered, true);
            let heard = heard.at;
            let wants = ready.is_some_and(|ready| ready != "True") && !taints::evicts(&node);
            (heard, registered, memory.zones.permit(&node, &all, wants, now))
        };
        let mut plan = plan(&Situation { node: node.clone(), pods, heard, eviction, now });
        if registered {
            let text = format!("Node {0} event: Registered Node {0} in Controller", key.name);
            plan.normal(&Reference::to(&*node), "RegisteredNode", text);
        }
        Ok(plan)
    }
}

/// First what the node's silence means for its conditions; then, when these are known, taints and pods.
fn plan(situation: &Situation) -> Plan {
    let Situation { node, heard, now, .. } = situation;
    let mut plan = Plan::nothing();
    let silent_in = health::silent_in(node, *heard, *now);
    if silent_in > Duration::ZERO {
        plan.look_again(silent_in);
    } else if let Some(conditions) = health::unknown(node, *now) {
        let mut changed = (**node).clone();
        changed.status.get_or_insert_default().conditions = Some(conditions);
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let mut write = Write::replace_status(&changed);
        if health::ready(node) == Some("True") {
            write = write.announced(WriteEvents {
                about: Reference::to(&**node),
                done: ("NodeNotReady", format!("Node {name} status is now: NodeNotReady")),
                failed: ("", String::new()),
            });
        }
        plan.then(write);
        return plan;
    }
    mark_pods(situation, &mut plan);
    if let Some(taints) = taints::wanted(node, &situation.eviction, *now) {
        let version = &node.metadata.resource_version;
        plan.then(Write::merge(
            &**node,
            json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}}),
        ));
    }
    if let zones::Permit::After(delay) = situation.eviction {
        plan.look_again(delay);
    }
    plan
}

/// Nobody can say that the pods of a silent node serve.
fn mark_pods(situation: &Situation, plan: &mut Plan) {
    if health::ready(&situation.node) != Some("Unknown") {
        return;
    }
    let mut writes = Vec::new();
    for pod in situation.pods.iter().filter(|pod| pods::is_ready(pod)) {
        let condition =
            json!({"type": "Ready", "status": "False", "lastTransitionTime": Time(situation.now)});
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        writes.push(Write::strategic_status(&**pod, patch));
        plan.warning(&Reference::to(&**pod), "NodeNotReady", "Node is not ready");
    }
    plan.then_all(writes);
}

#[cfg(test)]
mod tests;
