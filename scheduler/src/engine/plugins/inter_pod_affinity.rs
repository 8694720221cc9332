//! InterPodAffinity: pods that want to be near to, or away from, other pods; and pods that already run and
//! want the new one away.

use std::collections::HashMap;

use crate::engine::cluster::{Cluster, NodeState};
use crate::engine::framework::{ClusterEvent, Filter, Plugin, Reason, Score, spread_range};
use crate::engine::types::{PodSpec, PodTerm};

pub(super) const PLUGIN: Plugin = Plugin {
    name: "InterPodAffinity",
    gate: None,
    filter: Some(filter),
    score: Some((2, score)),
    events: &[
        ClusterEvent::NodeAdded,
        ClusterEvent::NodeLabelsChanged,
        ClusterEvent::AssignedPodAdded,
        ClusterEvent::AssignedPodChanged,
        ClusterEvent::AssignedPodDeleted,
        ClusterEvent::NamespaceLabelsChanged,
    ],
};

const AFFINITY: Reason = Reason::new("node(s) didn't match pod affinity rules");
const ANTI_AFFINITY: Reason = Reason::new("node(s) didn't match pod anti-affinity rules");
const EXISTING: Reason = Reason::new("node(s) didn't satisfy existing pods anti-affinity rules");

/// How required terms of running pods weigh for the score of a pod that they would like near.
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// Counts per (topology key, topology value).
type Topologies<'a> = HashMap<(&'a str, &'a str), i64>;

fn filter<'a>(pod: &'a PodSpec, cluster: &'a Cluster) -> Filter<'a> {
    let (near, away) = (&pod.affinity.required, &pod.anti_affinity.required);
    if near.is_empty() && away.is_empty() && !cluster.has_pods_with_affinity() {
        return Filter::Skip;
    }

    // Where pods run that don't want this one near.
    let mut unwelcome: Topologies<'a> = HashMap::new();
    for node in cluster.nodes().iter().filter(|node| node.pods_with_affinity > 0) {
        for other in node.pods.values() {
            for term in &other.anti_affinity.required {
                if let Some(value) = node.topology(&term.topology_key)
                    && selects(term, &other.namespace, pod, cluster)
                {
                    *unwelcome.entry((&term.topology_key, value)).or_default() += 1;
                }
            }
        }
    }
    // Where pods run that this one wants away from; and those that satisfy all its affinity terms at once.
    let mut avoided: Topologies<'a> = HashMap::new();
    let mut wanted: Topologies<'a> = HashMap::new();
    if !near.is_empty() || !away.is_empty() {
        for node in cluster.nodes() {
            for other in node.pods.values() {
                for term in away {
                    if let Some(value) = node.topology(&term.topology_key)
                        && selects(term, &pod.namespace, other, cluster)
                    {
                        *avoided.entry((&term.topology_key, value)).or_default() += 1;
                    }
                }
                if !near.is_empty() && near.iter().all(|term| selects(term, &pod.namespace, other, cluster)) {
                    for term in near {
                        if let Some(value) = node.topology(&term.topology_key) {
                            *wanted.entry((&term.topology_key, value)).or_default() += 1;
                        }
                    }
                }
            }
        }
    }
    // The first pod of a group that wants to be near its own kind may start anywhere.
    let first_of_group =
        wanted.is_empty() && near.iter().all(|term| selects(term, &pod.namespace, pod, cluster));
    let unwelcome_keys: std::collections::BTreeSet<&'a str> = unwelcome.keys().map(|(key, _)| *key).collect();

    Filter::PerNode(Box::new(move |node: &NodeState| {
        for term in near {
            let Some(value) = node.topology(&term.topology_key) else { return AFFINITY.verdict() };
            if !first_of_group && !wanted.contains_key(&(term.topology_key.as_str(), value)) {
                return AFFINITY.verdict();
            }
        }
        for term in away {
            if let Some(value) = node.topology(&term.topology_key)
                && avoided.contains_key(&(term.topology_key.as_str(), value))
            {
                return ANTI_AFFINITY.verdict();
            }
        }
        for key in &unwelcome_keys {
            if node.topology(key).is_some_and(|value| unwelcome.contains_key(&(*key, value))) {
                return EXISTING.verdict();
            }
        }
        Ok(())
    }))
}

fn score<'a>(pod: &'a PodSpec, cluster: &'a Cluster, _: &[&'a NodeState]) -> Score<'a> {
    let own = !pod.affinity.preferred.is_empty() || !pod.anti_affinity.preferred.is_empty();
    if !own && !cluster.has_pods_with_affinity() {
        return Score::Skip;
    }
    let mut weights: Topologies<'a> = HashMap::new();
    let mut add = |node: &'a NodeState, term: &'a PodTerm, weight: i64| {
        if let Some(value) = node.topology(&term.topology_key) {
            *weights.entry((&term.topology_key, value)).or_default() += weight;
        }
    };
    for node in cluster.nodes() {
        if !own && node.pods_with_affinity == 0 {
            continue;
        }
        for other in node.pods.values() {
            for (terms, sign) in [(&pod.affinity.preferred, 1), (&pod.anti_affinity.preferred, -1)] {
                for weighted in terms {
                    if selects(&weighted.term, &pod.namespace, other, cluster) {
                        add(node, &weighted.term, sign * weighted.weight);
                    }
                }
            }
            for term in &other.affinity.required {
                if selects(term, &other.namespace, pod, cluster) {
                    add(node, term, HARD_AFFINITY_WEIGHT);
                }
            }
            for (terms, sign) in [(&other.affinity.preferred, 1), (&other.anti_affinity.preferred, -1)] {
                for weighted in terms {
                    if selects(&weighted.term, &other.namespace, pod, cluster) {
                        add(node, &weighted.term, sign * weighted.weight);
                    }
                }
            }
        }
    }
    if weights.is_empty() {
        return Score::Skip;
    }
    let sum = move |node: &NodeState| {
        weights
            .iter()
            .filter(|((key, value), _)| node.topology(key) == Some(*value))
            .map(|(_, weight)| weight)
            .sum()
    };
    Score::Nodes { score: Box::new(sum), normalize: spread_range }
}

/// True if the term of a pod in `namespace` selects `other`.
fn selects(term: &PodTerm, namespace: &str, other: &PodSpec, cluster: &Cluster) -> bool {
    let by_default = term.namespaces.is_empty() && term.namespace_selector.is_none();
    let in_scope = if by_default {
        other.namespace == namespace
    } else {
        term.namespaces.contains(&other.namespace)
            || term.namespace_selector.as_ref().is_some_and(|selector| {
                cluster.namespace(&other.namespace).is_some_and(|labels| selector.matches(labels))
            })
    };
    in_scope && term.selector.matches(&other.labels)
}
