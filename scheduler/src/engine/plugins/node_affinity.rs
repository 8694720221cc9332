//! NodeAffinity: node selector and required node affinity filter, preferred node affinity scores.

use std::collections::BTreeSet;

use crate::engine::cluster::{Cluster, NodeState};
use crate::engine::framework::{ClusterEvent, Filter, Plugin, Reason, Score, highest_is_best};
use crate::engine::types::PodSpec;

pub(super) const PLUGIN: Plugin = Plugin {
    name: "NodeAffinity",
    gate: None,
    filter: Some(filter),
    score: Some((2, score)),
    events: &[ClusterEvent::NodeAdded, ClusterEvent::NodeLabelsChanged],
};

const REASON: Reason = Reason::new("node(s) didn't match Pod's node affinity/selector");

fn filter<'a>(pod: &'a PodSpec, _: &'a Cluster) -> Filter<'a> {
    if pod.node_selector.is_empty() && pod.node_affinity.is_none() {
        return Filter::Skip;
    }
    // Pods of a DaemonSet name their node by a field: compare names before looking at labels.
    let names: Option<BTreeSet<&str>> = pod
        .node_affinity
        .as_ref()
        .and_then(|affinity| affinity.names())
        .map(|names| names.into_iter().collect());
    Filter::PerNode(Box::new(move |node: &NodeState| {
        let possible = names.as_ref().is_none_or(|names| names.contains(node.spec.name.as_str()));
        if possible && matches(pod, node) { Ok(()) } else { REASON.verdict() }
    }))
}

/// True if the node satisfies the pod's node selector and required node affinity.
pub(super) fn matches(pod: &PodSpec, node: &NodeState) -> bool {
    let labels = &node.spec.labels;
    pod.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        && pod.node_affinity.as_ref().is_none_or(|affinity| affinity.matches(&node.spec.name, labels))
}

fn score<'a>(pod: &'a PodSpec, _: &'a Cluster, _: &[&'a NodeState]) -> Score<'a> {
    if pod.preferred_nodes.is_empty() {
        return Score::Skip;
    }
    let weight = |node: &NodeState| {
        let terms = pod.preferred_nodes.iter();
        terms
            .filter(|(_, term)| term.matches(&node.spec.name, &node.spec.labels))
            .map(|(weight, _)| weight)
            .sum()
    };
    Score::Nodes { score: Box::new(weight), normalize: highest_is_best }
}
