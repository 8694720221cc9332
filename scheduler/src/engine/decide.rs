//! One decision: filter the nodes, score those that are left, choose.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{Cluster, NodeState};
use super::framework::{Filter, Reason, Score};
use super::plugins::PLUGINS;
use super::types::PodSpec;

/// In clusters larger than this, the search ends once enough feasible nodes are found.
const SEARCH_ALL_UP_TO: usize = 100;

/// What became of a pod.
#[derive(Debug)]
pub enum Decision {
    /// It is to run on this node. `searched` nodes were looked at.
    Placed { node: String, searched: usize },
    /// No node can run it now.
    Rejected(Rejection),
}

/// Why no node can run a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejection {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes gave each reason.
    pub reasons: BTreeMap<Reason, usize>,
    /// The plugins that rejected a node: only their events can help.
    pub plugins: BTreeSet<&'static str>,
}

impl std::fmt::Display for Rejection {
    /// In upstream's words: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut reasons: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {}", reason.text)).collect();
        reasons.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, reasons.join(", "))
    }
}

/// Chooses a node for `pod`. `chance` decides between nodes of equal score.
pub fn decide(pod: &PodSpec, cluster: &Cluster, chance: u64) -> Decision {
    let mut rejection = Rejection { nodes: cluster.nodes().len(), ..Rejection::default() };
    let mut filters = Vec::new();
    for plugin in PLUGINS {
        match plugin.filter.map(|prepare| prepare(pod, cluster)) {
            None | Some(Filter::Skip) => {}
            Some(Filter::Nowhere(reason)) => {
                rejection.plugins.insert(plugin.name);
                rejection.reasons.insert(reason, rejection.nodes);
                return Decision::Rejected(rejection);
            }
            Some(Filter::PerNode(check)) => filters.push((plugin.name, check)),
        }
    }

    let wanted = enough(cluster.nodes().len());
    let mut feasible: Vec<&NodeState> = Vec::new();
    let mut searched = 0;
    for node in cluster.search_order() {
        searched += 1;
        match filters.iter().find_map(|(name, check)| check(node).err().map(|reasons| (name, reasons))) {
            None => {
                feasible.push(node);
                if feasible.len() == wanted {
                    break;
                }
            }
            Some((name, reasons)) => {
                rejection.plugins.insert(name);
                for reason in reasons {
                    *rejection.reasons.entry(reason).or_default() += 1;
                }
            }
        }
    }

    match feasible.as_slice() {
        [] => Decision::Rejected(rejection),
        [only] => Decision::Placed { node: only.spec.name.clone(), searched },
        _ => Decision::Placed { node: best(pod, cluster, &feasible, chance).spec.name.clone(), searched },
    }
}

fn best<'a>(
    pod: &'a PodSpec,
    cluster: &'a Cluster,
    feasible: &[&'a NodeState],
    chance: u64,
) -> &'a NodeState {
    let mut totals = vec![0; feasible.len()];
    for plugin in PLUGINS {
        let Some((weight, prepare)) = plugin.score else { continue };
        let Score::Nodes { score, normalize } = prepare(pod, cluster, feasible) else { continue };
        let mut scores: Vec<i64> = feasible.iter().map(|node| score(node)).collect();
        normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    }
    let highest = totals.iter().copied().max().unwrap_or(0);
    let winners: Vec<usize> = (0..totals.len()).filter(|&position| totals[position] == highest).collect();
    let choice = usize::try_from(chance % winners.len() as u64).unwrap_or(0);
    feasible[winners[choice]]
}

/// How many feasible nodes are enough, as upstream's adaptive percentage: all of a small cluster, half of
/// a middling one, down to 5 % of a huge one, and never fewer than 100.
fn enough(nodes: usize) -> usize {
    if nodes <= SEARCH_ALL_UP_TO {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(SEARCH_ALL_UP_TO)
}
