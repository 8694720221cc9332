//! NodeResourcesBalancedAllocation: prefers the node whose CPU and memory would be used to similar shares.

use crate::engine::cluster::{Cluster, NodeState};
use crate::engine::framework::{MAX_SCORE, Plugin, Score, as_they_are};
use crate::engine::types::PodSpec;

pub(super) const PLUGIN: Plugin = Plugin {
    name: "NodeResourcesBalancedAllocation",
    gate: None,
    filter: None,
    score: Some((1, score)),
    events: &[],
};

fn score<'a>(pod: &'a PodSpec, _: &'a Cluster, _: &[&'a NodeState]) -> Score<'a> {
    if pod.requests.cpu == 0 && pod.requests.memory == 0 {
        return Score::Skip;
    }
    let balance = |node: &NodeState| {
        let (has, used, wanted) = (&node.spec.allocatable, &node.requested, &pod.requests);
        let share = |has: i64, used: i64| if has <= 0 { 1.0 } else { (used as f64 / has as f64).min(1.0) };
        let cpu = share(has.cpu, used.cpu + wanted.cpu);
        let memory = share(has.memory, used.memory + wanted.memory);
        // The standard deviation of two shares is half their distance.
        ((1.0 - (cpu - memory).abs() / 2.0) * MAX_SCORE as f64) as i64
    };
    Score::Nodes { score: Box::new(balance), normalize: as_they_are }
}
