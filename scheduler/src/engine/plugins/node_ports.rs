//! NodePorts: two pods can't bind the same port of a node.

use crate::engine::cluster::{Cluster, NodeState};
use crate::engine::framework::{ClusterEvent, Filter, Plugin, Reason};
use crate::engine::types::{HostPort, PodSpec};

pub(super) const PLUGIN: Plugin = Plugin {
    name: "NodePorts",
    gate: None,
    filter: Some(filter),
    score: None,
    events: &[ClusterEvent::NodeAdded, ClusterEvent::AssignedPodDeleted],
};

const ANY: &str = "0.0.0.0";

fn filter<'a>(pod: &'a PodSpec, _: &'a Cluster) -> Filter<'a> {
    if pod.host_ports.is_empty() {
        return Filter::Skip;
    }
    Filter::PerNode(Box::new(|node: &NodeState| {
        let taken = |wanted: &HostPort| node.host_ports.keys().any(|used| conflict(wanted, used));
        if pod.host_ports.iter().any(taken) {
            Reason::new("node(s) didn't have free ports for the requested pod ports").verdict()
        } else {
            Ok(())
        }
    }))
}

fn conflict(a: &HostPort, b: &HostPort) -> bool {
    a.port == b.port && a.protocol == b.protocol && (a.ip == b.ip || a.ip == ANY || b.ip == ANY)
}
