//! PodTopologySpread: keeps the pods of a set even over zones, hosts, or any other topology.
//!
//! A `DoNotSchedule` constraint filters: placing the pod must not make its domain exceed the emptiest one
//! by more than maxSkew. A `ScheduleAnyway` constraint scores. A pod of a controller that states no
//! constraint is spread over hosts and zones by score, like upstream's default constraints.

use std::collections::{HashMap, HashSet};

use crate::engine::cluster::{Cluster, NodeState};
use crate::engine::framework::{ClusterEvent, Filter, Plugin, Reason, Score, lowest_is_best};
use crate::engine::plugins::node_affinity;
use crate::engine::types::{Effect, PodSpec, SpreadConstraint, WhenUnsatisfiable};

pub(super) const PLUGIN: Plugin = Plugin {
    name: "PodTopologySpread",
    gate: None,
    filter: Some(filter),
    score: Some((2, score)),
    events: &[
        ClusterEvent::NodeAdded,
        ClusterEvent::NodeLabelsChanged,
        ClusterEvent::NodeTaintsChanged,
        ClusterEvent::AssignedPodAdded,
        ClusterEvent::AssignedPodChanged,
        ClusterEvent::AssignedPodDeleted,
    ],
};

const SKEW: Reason = Reason::new("node(s) didn't match pod topology spread constraints");
const NO_LABEL: Reason =
    Reason::new("node(s) didn't match pod topology spread constraints (missing required label)");
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Matching pods per topology value of one constraint.
struct Domains<'a> {
    constraint: &'a SpreadConstraint,
    counts: HashMap<&'a str, i64>,
    fewest: i64,
    /// Whether the pod would count itself.
    own: i64,
}

fn filter<'a>(pod: &'a PodSpec, cluster: &'a Cluster) -> Filter<'a> {
    let hard: Vec<&SpreadConstraint> =
        pod.spread.iter().filter(|constraint| constraint.when == WhenUnsatisfiable::DoNotSchedule).collect();
    if hard.is_empty() {
        return Filter::Skip;
    }
    let keys: Vec<&str> = hard.iter().map(|constraint| constraint.topology_key.as_str()).collect();
    let domains: Vec<Domains<'a>> =
        hard.into_iter().map(|constraint| Domains::count(pod, cluster, constraint, &keys)).collect();
    Filter::PerNode(Box::new(move |node: &NodeState| {
        for domain in &domains {
            let Some(value) = node.topology(&domain.constraint.topology_key) else {
                return NO_LABEL.verdict();
            };
            let matching = domain.counts.get(value).copied().unwrap_or(0);
            if matching + domain.own - domain.fewest > domain.constraint.max_skew {
                return SKEW.verdict();
            }
        }
        Ok(())
    }))
}

impl<'a> Domains<'a> {
    fn count(pod: &PodSpec, cluster: &'a Cluster, constraint: &'a SpreadConstraint, keys: &[&str]) -> Self {
        let mut counts: HashMap<&'a str, i64> = HashMap::new();
        for node in cluster.nodes() {
            // Only nodes that carry the keys of all constraints form domains.
            if !keys.iter().all(|key| node.spec.labels.contains_key(*key))
                || !counts_node(pod, constraint, node)
            {
                continue;
            }
            let Some(value) = node.topology(&constraint.topology_key) else { continue };
            *counts.entry(value).or_default() += matching_pods(pod, constraint, node);
        }
        let enough_domains = counts.len() as i64 >= constraint.min_domains;
        let fewest = if enough_domains { counts.values().copied().min().unwrap_or(0) } else { 0 };
        let own = i64::from(constraint.selector.matches(&pod.labels));
        Self { constraint, counts, fewest, own }
    }
}

fn counts_node(pod: &PodSpec, constraint: &SpreadConstraint, node: &NodeState) -> bool {
    (!constraint.honor_affinity || node_affinity::matches(pod, node))
        && (!constraint.honor_taints
            || node
                .spec
                .taints
                .iter()
                .all(|taint| taint.effect == Effect::PreferNoSchedule || pod.tolerates(taint)))
}

fn matching_pods(pod: &PodSpec, constraint: &SpreadConstraint, node: &NodeState) -> i64 {
    let same = node.pods.values().filter(|other| {
        !other.terminating && other.namespace == pod.namespace && constraint.selector.matches(&other.labels)
    });
    same.count() as i64
}

fn score<'a>(pod: &'a PodSpec, cluster: &'a Cluster, feasible: &[&'a NodeState]) -> Score<'a> {
    let soft: Vec<&SpreadConstraint> =
        pod.spread.iter().filter(|constraint| constraint.when == WhenUnsatisfiable::ScheduleAnyway).collect();
    if pod.spread.is_empty() {
        return by_controller(pod, feasible);
    }
    if soft.is_empty() {
        return Score::Skip;
    }
    let mut tables = Vec::new();
    for constraint in soft {
        let mut counts: HashMap<&'a str, i64> = HashMap::new();
        for node in cluster.nodes().iter().filter(|node| counts_node(pod, constraint, node)) {
            if let Some(value) = node.topology(&constraint.topology_key) {
                *counts.entry(value).or_default() += matching_pods(pod, constraint, node);
            }
        }
        let values: HashSet<&str> =
            feasible.iter().filter_map(|node| node.topology(&constraint.topology_key)).collect();
        tables.push((constraint, counts, domain_weight(values.len())));
    }
    let score = move |node: &NodeState| {
        let crowding = tables.iter().map(|(constraint, counts, weight)| {
            match node.topology(&constraint.topology_key) {
                Some(value) => {
                    let matching = counts.get(value).copied().unwrap_or(0) as f64;
                    matching * weight + (constraint.max_skew - 1) as f64
                }
                // A node outside the topology is worse than any in it.
                None => counts.values().copied().max().unwrap_or(0) as f64 * weight + 100.0,
            }
        });
        // Kept in hundredths, because scores are integers.
        (crowding.sum::<f64>() * 100.0) as i64
    };
    Score::Nodes { score: Box::new(score), normalize: lowest_is_best }
}

/// Default spreading: few pods of the same controller on the host, and in the zone.
fn by_controller<'a>(pod: &'a PodSpec, feasible: &[&'a NodeState]) -> Score<'a> {
    let Some(controller) = &pod.controller else { return Score::Skip };
    let mut hosts: HashMap<&'a str, i64> = HashMap::new();
    let mut zones: HashMap<&'a str, i64> = HashMap::new();
    for node in feasible {
        let same = node.pods.values().filter(|other| {
            !other.terminating
                && other.namespace == pod.namespace
                && other.controller.as_ref() == Some(controller)
        });
        let same = same.count() as i64;
        *hosts.entry(node.topology(HOSTNAME).unwrap_or(&node.spec.name)).or_default() += same;
        if let Some(zone) = node.topology(ZONE) {
            *zones.entry(zone).or_default() += same;
        }
    }
    if hosts.values().all(|&count| count == 0) {
        return Score::Skip;
    }
    let (host_weight, zone_weight) = (domain_weight(hosts.len()), domain_weight(zones.len()));
    let score = move |node: &NodeState| {
        let host = hosts.get(node.topology(HOSTNAME).unwrap_or(&node.spec.name)).copied().unwrap_or(0) as f64;
        let zone = node.topology(ZONE).and_then(|zone| zones.get(zone)).copied().unwrap_or(0) as f64;
        ((host * host_weight + zone * zone_weight) * 100.0) as i64
    };
    Score::Nodes { score: Box::new(score), normalize: lowest_is_best }
}

/// A topology with more values weighs more, because each value then holds fewer pods.
fn domain_weight(values: usize) -> f64 {
    ((values + 2) as f64).ln()
}
