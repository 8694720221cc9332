//! SchedulingGates: a pod is not considered while it has gates (KEP-3521).

use crate::engine::framework::{Plugin, Reason};
use crate::engine::types::PodSpec;

pub(super) const PLUGIN: Plugin =
    Plugin { name: "SchedulingGates", gate: Some(gate), filter: None, score: None, events: &[] };

fn gate(pod: &PodSpec) -> Option<Reason> {
    (!pod.scheduling_gates.is_empty())
        .then(|| Reason::of(format!("waiting for scheduling gates: [{}]", pod.scheduling_gates.join(" "))))
}
