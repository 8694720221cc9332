//! NodeName: a pod that names its node runs nowhere else.

use crate::engine::cluster::{Cluster, NodeState};
use crate::engine::framework::{ClusterEvent, Filter, Plugin, Reason};
use crate::engine::types::PodSpec;

pub(super) const PLUGIN: Plugin = Plugin {
    name: "NodeName",
    gate: None,
    filter: Some(filter),
    score: None,
    events: &[ClusterEvent::NodeAdded],
};

fn filter<'a>(pod: &'a PodSpec, _: &'a Cluster) -> Filter<'a> {
    let Some(wanted) = pod.node_name.as_deref() else { return Filter::Skip };
    Filter::PerNode(Box::new(move |node: &NodeState| {
        if node.spec.name == wanted {
            Ok(())
        } else {
            Reason::new("node(s) didn't match the requested node name").verdict()
        }
    }))
}
