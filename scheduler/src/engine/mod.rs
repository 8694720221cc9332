//! The pure decision core.
//!
//! ```text
//!   pods, nodes, namespaces ──► Cluster (aggregates per node)
//!   pending pods ──► Queue ──pop──► decide(pod, cluster) ──► Placed(node) | Rejected(why, per node)
//!                      ▲                                          │
//!                      └── events that could help ◄── plugins that rejected it
//! ```
//!
//! Each plugin of [`plugins::PLUGINS`] is one file: it compiles a pod's constraint once into a check (and a
//! score) that then runs over the nodes. Time, randomness and events are arguments.

mod cluster;
mod decide;
mod framework;
mod matching;
pub mod plugins;
mod queue;
mod types;

#[cfg(test)]
mod tests;

pub use cluster::{Cluster, NodeState};
pub use decide::{Decision, Rejection, decide};
pub use framework::{ClusterEvent, Filter, NodeScores, Plugin, Reason, Score, Verdict};
pub use matching::{LabelSelector, NodeSelector, NodeSelectorTerm, Operator, Requirement};
pub use queue::{Now, Queue, QueuedPod};
pub use types::{
    Effect, HostPort, Labels, NodeSpec, PodAffinity, PodKey, PodSpec, PodTerm, Resources, SpreadConstraint,
    Taint, Toleration, WeightedPodTerm, WhenUnsatisfiable,
};
