//! Taints that show a node's state.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::health;
use super::zones::Permit;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, the status at which it counts, and its taint.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// The node has a taint of ours that drives its pods away.
pub(super) fn evicts(node: &Node) -> bool {
    of(node).iter().any(|taint| taint.effect == "NoExecute" && matches!(&*taint.key, NOT_READY | UNREACHABLE))
}

fn of(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn is_ours(taint: &Taint) -> bool {
    let by_condition = BY_CONDITION.iter().any(|(_, _, key)| *key == taint.key);
    match taint.effect.as_str() {
        "NoSchedule" => by_condition || taint.key == UNSCHEDULABLE,
        "NoExecute" => matches!(&*taint.key, NOT_READY | UNREACHABLE),
        _ => false,
    }
}

/// All taints that the node should have, others' included; `None` if it has them.
pub(super) fn wanted(node: &Node, eviction: &Permit, now: Timestamp) -> Option<Vec<Taint>> {
    let mut ours: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in BY_CONDITION {
        if health::condition(node, kind).is_some_and(|condition| condition.status == status) {
            ours.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        ours.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let evicting = match health::ready(node) {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    };
    let allowed = match eviction {
        Permit::Now => true,
        // One that is there already stays, or gives way to the other.
        Permit::After(_) | Permit::Never => evicts(node),
        Permit::Withdraw => false,
    };
    ours.extend(evicting.filter(|_| allowed).map(|key| (key, "NoExecute")));

    let present = of(node);
    let is_wanted = |taint: &Taint| ours.contains(&(&*taint.key, &*taint.effect));
    let mut taints: Vec<Taint> =
        present.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in ours {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: Some(Time(now)),
            });
        }
    }
    (taints != present).then_some(taints)
}
