//! The plugin points: what a plugin is made of and how it answers.
//!
//! They are those of Kubernetes' scheduling framework that decide: a gate before the queue, a filter
//! (with its preparation per pod) and a score (with its preparation and normalisation). Queue order, reserve
//! and bind are the queue's, the cluster's and the driver's own.

use std::borrow::Cow;

use super::cluster::{Cluster, NodeState};
use super::types::PodSpec;

/// The best score of a plugin for a node.
pub(crate) const MAX_SCORE: i64 = 100;

/// Why a node can't run the pod, in words that are counted over the nodes and shown to the user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason {
    pub text: Cow<'static, str>,
}

/// A plugin's answer for one node: `Ok` means the node can run the pod.
pub type Verdict = Result<(), Vec<Reason>>;

/// A pod's constraint, compiled.
pub enum Filter<'a> {
    /// The pod has no such constraint.
    Skip,
    /// No node can run the pod as the cluster is now.
    Nowhere(Reason),
    /// To be asked for each node.
    PerNode(Box<dyn Fn(&NodeState) -> Verdict + 'a>),
}

/// One raw score per feasible node, in their order.
pub type NodeScores = Vec<i64>;

/// A pod's preference, compiled.
pub enum Score<'a> {
    /// The pod has no such preference.
    Skip,
    /// Raw scores, made comparable by `normalize`.
    Nodes { score: Box<dyn Fn(&NodeState) -> i64 + 'a>, normalize: fn(&mut [i64]) },
}

/// Changes of the cluster that can make a rejected pod fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClusterEvent {
    NodeAdded,
    NodeAllocatableChanged,
    NodeLabelsChanged,
    NodeTaintsChanged,
    /// A bound pod was added, or a pod was bound.
    AssignedPodAdded,
    AssignedPodChanged,
    /// A bound pod went away or ended.
    AssignedPodDeleted,
    NamespaceLabelsChanged,
}

/// One plugin. Each lives in a file of its own and is listed in [`super::plugins::PLUGINS`].
pub struct Plugin {
    pub name: &'static str,
    /// Keeps the pod out of the queue while it answers with a reason.
    pub gate: Option<fn(&PodSpec) -> Option<Reason>>,
    pub filter: Option<for<'a> fn(&'a PodSpec, &'a Cluster) -> Filter<'a>>,
    /// Its weight, and the score.
    pub score: Option<(i64, for<'a> fn(&'a PodSpec, &'a Cluster, &[&'a NodeState]) -> Score<'a>)>,
    /// What could make a pod fit that this plugin's filter rejected.
    pub events: &'static [ClusterEvent],
}

impl Reason {
    /// A reason in fixed words.
    pub const fn new(text: &'static str) -> Self {
        Self { text: Cow::Borrowed(text) }
    }

    /// A reason in words of this case.
    pub fn of(text: String) -> Self {
        Self { text: Cow::Owned(text) }
    }

    /// As the verdict on a node.
    pub fn verdict(self) -> Verdict {
        Err(vec![self])
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Plugin").field(&self.name).finish()
    }
}

impl std::fmt::Debug for Filter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Skip => "Skip",
            Self::Nowhere(_) => "Nowhere",
            Self::PerNode(_) => "PerNode",
        })
    }
}

impl std::fmt::Debug for Score<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Skip => "Skip",
            Self::Nodes { .. } => "Nodes",
        })
    }
}

/// Leaves scores that are already within `0..=MAX_SCORE` alone.
pub(super) fn as_they_are(_: &mut [i64]) {}

/// Scales so that the highest raw score becomes [`MAX_SCORE`].
pub(super) fn highest_is_best(scores: &mut [i64]) {
    let highest = scores.iter().copied().max().unwrap_or(0);
    if highest > 0 {
        for score in scores {
            *score = *score * MAX_SCORE / highest;
        }
    }
}

/// Scales so that the highest raw score becomes 0 and none becomes [`MAX_SCORE`].
pub(super) fn lowest_is_best(scores: &mut [i64]) {
    highest_is_best(scores);
    for score in scores {
        *score = MAX_SCORE - *score;
    }
}

/// Scales the range from lowest to highest onto `0..=MAX_SCORE`.
pub(super) fn spread_range(scores: &mut [i64]) {
    let (Some(lowest), Some(highest)) = (scores.iter().copied().min(), scores.iter().copied().max()) else {
        return;
    };
    for score in scores {
        *score = if highest == lowest { 0 } else { (*score - lowest) * MAX_SCORE / (highest - lowest) };
    }
}
