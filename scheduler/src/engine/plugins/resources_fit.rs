//! NodeResourcesFit: the node has what the pod requests; the emptier node scores higher (LeastAllocated).

use crate::engine::cluster::{Cluster, NodeState};
use crate::engine::framework::{
    ClusterEvent, Filter, MAX_SCORE, Plugin, Reason, Score, Verdict, as_they_are,
};
use crate::engine::types::PodSpec;

pub(super) const PLUGIN: Plugin = Plugin {
    name: "NodeResourcesFit",
    gate: None,
    filter: Some(filter),
    score: Some((1, score)),
    events: &[
        ClusterEvent::NodeAdded,
        ClusterEvent::NodeAllocatableChanged,
        ClusterEvent::AssignedPodDeleted,
        ClusterEvent::AssignedPodChanged,
    ],
};

fn filter<'a>(pod: &'a PodSpec, _: &'a Cluster) -> Filter<'a> {
    Filter::PerNode(Box::new(|node: &NodeState| fits(pod, node)))
}

/// Every resource that is missing is a reason of its own.
fn fits(pod: &PodSpec, node: &NodeState) -> Verdict {
    let mut reasons = Vec::new();
    if node.pods.len() as i64 + 1 > node.spec.max_pods {
        reasons.push(Reason::new("Too many pods"));
    }
    let (wanted, has, used) = (&pod.requests, &node.spec.allocatable, &node.requested);
    let lacks = |wanted: i64, has: i64, used: i64| wanted > 0 && wanted > has - used;
    if lacks(wanted.cpu, has.cpu, used.cpu) {
        reasons.push(Reason::new("Insufficient cpu"));
    }
    if lacks(wanted.memory, has.memory, used.memory) {
        reasons.push(Reason::new("Insufficient memory"));
    }
    if lacks(wanted.ephemeral_storage, has.ephemeral_storage, used.ephemeral_storage) {
        reasons.push(Reason::new("Insufficient ephemeral-storage"));
    }
    for (name, amount) in &wanted.others {
        if lacks(*amount, has.other(name), used.other(name)) {
            reasons.push(Reason::of(format!("Insufficient {name}")));
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

fn score<'a>(pod: &'a PodSpec, _: &'a Cluster, _: &[&'a NodeState]) -> Score<'a> {
    let least_allocated = |node: &NodeState| {
        let (has, used, wanted) = (&node.spec.allocatable, &node.assumed, &pod.assumed);
        let free =
            |has: i64, used: i64| if has <= 0 || used > has { 0 } else { (has - used) * MAX_SCORE / has };
        (free(has.cpu, used.cpu + wanted.cpu) + free(has.memory, used.memory + wanted.memory)) / 2
    };
    Score::Nodes { score: Box::new(least_allocated), normalize: as_they_are }
}
