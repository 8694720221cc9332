//! When a node was last heard of, and what its silence does to its conditions.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

/// How long a node may be silent.
const GRACE: Duration = Duration::from_secs(50);
/// How long a new node may take until it is heard of for the first time.
const STARTUP_GRACE: Duration = Duration::from_secs(60);
/// The conditions that only the node itself can know.
const OWN: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The last sign of life.
#[derive(Debug)]
pub(super) struct Heard {
    pub at: Timestamp,
    /// It was announced that the node is watched over.
    pub registered: bool,
    heartbeat: Option<Time>,
    renewed: Option<MicroTime>,
}

impl Heard {
    /// A node that is seen for the first time gets the benefit of the doubt, unless it never said anything.
    pub(super) fn new(node: &Node, now: Timestamp) -> Self {
        let born = node.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
        let at = if ready(node).is_some() { now } else { born };
        Self { at, registered: false, heartbeat: heartbeat(node), renewed: None }
    }

    pub(super) fn node(&mut self, node: &Node, now: Timestamp) {
        let heartbeat = heartbeat(node);
        if heartbeat != self.heartbeat {
            (self.heartbeat, self.at) = (heartbeat, now);
        }
    }

    pub(super) fn lease(&mut self, lease: &Lease, now: Timestamp) {
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        if renewed != self.renewed {
            (self.renewed, self.at) = (renewed, now);
        }
    }
}

pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|condition| condition.type_ == kind)
}

/// The status of the condition `Ready`.
pub(super) fn ready(node: &Node) -> Option<&str> {
    condition(node, "Ready").map(|ready| ready.status.as_str())
}

fn heartbeat(node: &Node) -> Option<Time> {
    condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.clone())
}

/// How long until the node counts as silent, zero if it does now.
pub(super) fn silent_in(node: &Node, heard: Timestamp, now: Timestamp) -> Duration {
    let grace = if ready(node).is_none() { STARTUP_GRACE } else { GRACE };
    Duration::try_from((heard + grace).duration_since(now)).unwrap_or_default()
}

/// The conditions of a silent node; `None` if they say so already.
pub(super) fn unknown(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let before = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut after = before.clone();
    for kind in OWN {
        match after.iter_mut().find(|condition| condition.type_ == kind) {
            None => after.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(Time(now));
            }
        }
    }
    (after != before).then_some(after)
}
