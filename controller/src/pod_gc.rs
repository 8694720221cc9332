//! Removes pods that nobody else will: those of nodes that are gone, those that are being deleted and never
//! had a node, those on nodes that were declared out of service, and old ended ones when there are too many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::Clock;
use client::{Cache, Change, Client, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use serde_json::json;

use crate::Config;
use crate::harness::{self, Context, Error, Plan, Reconciler, Worker, Write};
use crate::pods;

/// The service account of this controller.
pub(crate) const ACCOUNT: &str = "pod-garbage-collector";
/// Ended pods that are kept.
const ENDED_LIMIT: usize = 12_500;
/// How long a node must be gone before its pods are removed: it may be registering again.
const QUARANTINE: Duration = Duration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Everything that a decision depends on.
#[derive(Debug)]
struct Situation {
    pods: Vec<Arc<Pod>>,
    /// Names of all nodes.
    nodes: BTreeSet<String>,
    /// Nodes that are not ready and were declared out of service.
    out_of_service: BTreeSet<String>,
    /// Nodes that pods name and that do not exist, since when.
    missing: BTreeMap<String, Timestamp>,
    limit: usize,
    now: Timestamp,
}

struct Collector {
    client: Client,
    clock: Clock,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    missing: Mutex<BTreeMap<String, Timestamp>>,
}

/// There is one situation, of all pods together.
fn everything() -> Key {
    Key::new("", "pods")
}

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let (pods, nodes) = (context.caches.pods(), context.caches.of::<Node>());
    let mut worker = Worker::new(context, "orphaned_pods_nodes", 1);
    worker.reads(&pods);
    worker.reads(&nodes);
    // Known here because a handler of one cache must not look into another that looks back.
    let known: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let (queue, names) = (worker.queue(), known.clone());
    nodes.on_change(move |change| {
        let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
        let concerns = match change {
            Change::Applied(node, _) => {
                names.insert(node.metadata.name.clone().unwrap_or_default());
                is_out_of_service(node)
            }
            Change::Deleted(node) => names.remove(node.metadata.name.as_deref().unwrap_or_default()),
            Change::Missed => true,
        };
        if concerns {
            queue.add(everything());
        }
    });
    let queue = worker.queue();
    pods.on_change(move |change| {
        let Change::Applied(pod, _) = change else { return };
        let names = known.lock().unwrap_or_else(PoisonError::into_inner);
        let homeless = pods::node(pod).is_some_and(|node| !names.contains(node));
        if homeless || pods::is_terminal(pod) || pod.metadata.deletion_timestamp.is_some() {
            queue.add(everything());
        }
    });
    // Pods may have lost their nodes while no controller ran.
    worker.queue().add(everything());
    let (client, clock) = (context.client.clone(), context.clock.clone());
    harness::start(context, worker, Collector { client, clock, pods, nodes, missing: Mutex::default() });
}

fn is_out_of_service(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    !ready && taints.into_iter().flatten().any(|taint| taint.key == OUT_OF_SERVICE)
}

impl Reconciler for Collector {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    async fn plan(&self, _: &Key) -> Result<Plan, Error> {
        let (pods, all, now) = (self.pods.list(), self.nodes.list(), self.clock.now());
        let nodes: BTreeSet<String> = all.iter().filter_map(|node| node.metadata.name.clone()).collect();
        let gone: BTreeSet<&str> =
            pods.iter().filter_map(|pod| pods::node(pod)).filter(|node| !nodes.contains(*node)).collect();
        let mut missing = {
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            missing.retain(|node, _| gone.contains(node.as_str()));
            for node in gone {
                missing.entry(node.to_owned()).or_insert(now);
            }
            missing.clone()
        };
        // The cache may be behind; the API server has the last word before anything is removed.
        let api: Api<Node> = Api::all(self.client.clone());
        for (node, since) in missing.clone() {
            if since + QUARANTINE <= now {
                let found = api.get_opt(&node).await;
                let found =
                    found.map_err(|source| Error::Api { what: format!("get nodes {node}"), source })?;
                if found.is_some() {
                    missing.remove(&node);
                }
            }
        }
        let out_of_service =
            all.iter().filter(|node| is_out_of_service(node)).filter_map(|node| node.metadata.name.clone());
        let out_of_service = out_of_service.collect();
        Ok(plan(&Situation { pods, nodes, out_of_service, missing, limit: ENDED_LIMIT, now }))
    }
}

/// Marks and removes what nobody else will.
fn plan(situation: &Situation) -> Plan {
    let mut plan = Plan::nothing();
    let (mut marks, mut removals) = (Vec::new(), Vec::new());
    let mut ended = Vec::new();
    for pod in &situation.pods {
        let node = pods::node(pod);
        let missing = node.filter(|node| !situation.nodes.contains(*node));
        if let Some(since) = missing.and_then(|node| situation.missing.get(node)) {
            let left = (*since + QUARANTINE).duration_since(situation.now);
            match Duration::try_from(left) {
                Ok(left) if !left.is_zero() => plan.look_again(left),
                _ => {
                    marks.push(mark(pod, true, situation.now));
                    removals.push(Write::delete_now(&**pod));
                }
            }
            continue;
        }
        let abandoned = node.is_none_or(|node| situation.out_of_service.contains(node));
        if pod.metadata.deletion_timestamp.is_some() && abandoned {
            if !pods::is_terminal(pod) {
                marks.push(mark(pod, false, situation.now));
            }
            removals.push(Write::delete_now(&**pod));
        } else if pods::is_terminal(pod) && pod.metadata.deletion_timestamp.is_none() {
            ended.push(pod);
        }
    }
    // Evicted pods first: they are of no interest to anybody.
    let evicted = |pod: &Pod| pod.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("Evicted");
    ended.sort_by_key(|pod| {
        let born = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!evicted(pod), born, pod.metadata.name.clone())
    });
    let surplus = ended.len().saturating_sub(situation.limit);
    removals.extend(ended.into_iter().take(surplus).map(|pod| Write::delete_now(&**pod)));
    plan.then_all(marks);
    plan.then_all(removals);
    plan
}

/// Ends a pod that did not end by itself, and says why it goes.
fn mark(pod: &Pod, orphaned: bool, now: Timestamp) -> Write {
    let mut status = json!({});
    if !pods::is_terminal(pod) {
        status["phase"] = json!("Failed");
    }
    if orphaned {
        status["conditions"] = json!([{
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists",
            "lastTransitionTime": Time(now),
        }]);
    }
    Write::strategic_status(pod, json!({"metadata": {"uid": pod.metadata.uid}, "status": status}))
}

#[cfg(test)]
mod tests;
