//! NodeUnschedulable: a cordoned node takes no pods, except those that tolerate its taint.

use crate::engine::cluster::{Cluster, NodeState};
use crate::engine::framework::{ClusterEvent, Filter, Plugin, Reason};
use crate::engine::types::{Effect, PodSpec, Taint};

pub(super) const PLUGIN: Plugin = Plugin {
    name: "NodeUnschedulable",
    gate: None,
    filter: Some(filter),
    score: None,
    events: &[ClusterEvent::NodeAdded, ClusterEvent::NodeTaintsChanged],
};

fn filter<'a>(pod: &'a PodSpec, _: &'a Cluster) -> Filter<'a> {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: String::new(),
        effect: Effect::NoSchedule,
    };
    if pod.tolerates(&taint) {
        return Filter::Skip;
    }
    Filter::PerNode(Box::new(|node: &NodeState| {
        if node.spec.unschedulable { Reason::new("node(s) were unschedulable").verdict() } else { Ok(()) }
    }))
}
