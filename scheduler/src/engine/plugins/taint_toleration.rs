//! TaintToleration: taints keep pods away unless tolerated; `PreferNoSchedule` ones only lower the score.

use crate::engine::cluster::{Cluster, NodeState};
use crate::engine::framework::{ClusterEvent, Filter, Plugin, Reason, Score, lowest_is_best};
use crate::engine::types::{Effect, PodSpec};

pub(super) const PLUGIN: Plugin = Plugin {
    name: "TaintToleration",
    gate: None,
    filter: Some(filter),
    score: Some((3, score)),
    events: &[ClusterEvent::NodeAdded, ClusterEvent::NodeTaintsChanged],
};

fn filter<'a>(pod: &'a PodSpec, _: &'a Cluster) -> Filter<'a> {
    Filter::PerNode(Box::new(|node: &NodeState| {
        let untolerated = node
            .spec
            .taints
            .iter()
            .find(|taint| taint.effect != Effect::PreferNoSchedule && !pod.tolerates(taint));
        match untolerated {
            None => Ok(()),
            Some(taint) => {
                Reason::of(format!("node(s) had untolerated taint {{{}: {}}}", taint.key, taint.value))
                    .verdict()
            }
        }
    }))
}

fn score<'a>(pod: &'a PodSpec, _: &'a Cluster, feasible: &[&'a NodeState]) -> Score<'a> {
    let soft =
        |node: &&NodeState| node.spec.taints.iter().any(|taint| taint.effect == Effect::PreferNoSchedule);
    if !feasible.iter().any(soft) {
        return Score::Skip;
    }
    let untolerated = |node: &NodeState| {
        let taints = node.spec.taints.iter();
        taints.filter(|taint| taint.effect == Effect::PreferNoSchedule && !pod.tolerates(taint)).count()
            as i64
    };
    Score::Nodes { score: Box::new(untolerated), normalize: lowest_is_best }
}
