//! What controllers ask of pods.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The pod's phase; empty before it has one.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The pod has ended, for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// The pod is wanted and has not ended.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// The pod is being deleted and has not ended yet.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_some()
}

/// The name of the pod's node, or nothing.
pub(crate) fn node(pod: &Pod) -> Option<&str> {
    let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    name.filter(|name| !name.is_empty())
}

/// A condition of the pod.
pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|condition| condition.type_ == kind)
}

/// The pod serves.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// How long until the pod counts as available, if nothing changes: zero when it does now, `None` when it is
/// not even ready.
pub(crate) fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    if min_ready_seconds <= 0 {
        return Some(Duration::ZERO);
    }
    let Time(since) = ready.last_transition_time.as_ref()?;
    let due = *since + Duration::from_secs(u64::from(min_ready_seconds.unsigned_abs()));
    Some(due.duration_since(now).try_into().unwrap_or_default())
}

/// A pod made from a template, controlled by `owner`, its name made from `prefix`.
pub(crate) fn from_template(
    template: &PodTemplateSpec,
    namespace: &str,
    prefix: String,
    owner: OwnerReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            generate_name: Some(prefix),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Orders pods by how little is lost when they are deleted: first those without a node, those that do not
/// run, those that are not ready, the cheap ones, those that share their node with many of their kind
/// (`crowd` counts them by node), those that have been ready for a short time, those that restart often, the
/// young ones. Times are compared by their order of magnitude, and chance (the UID) decides among equals, so
/// that pods of one age are not all taken from the same place.
pub(crate) fn deletion_order(a: &Pod, b: &Pod, crowd: &BTreeMap<String, usize>, now: Timestamp) -> Ordering {
    let simple = |pod: &Pod| {
        let phase = match phase(pod) {
            "Running" => 2,
            "Unknown" => 1,
            _ => 0,
        };
        let crowd = node(pod).and_then(|node| crowd.get(node)).copied().unwrap_or(0);
        (node(pod).is_some(), phase, is_ready(pod), deletion_cost(pod), Reverse(crowd))
    };
    let ready_since = |pod: &Pod| {
        let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    let born = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let uid = |pod: &Pod| pod.metadata.uid.clone();
    simple(a).cmp(&simple(b)).then_with(|| {
        let by_readiness = if is_ready(a) && is_ready(b) {
            younger_first(ready_since(a), ready_since(b), now, || uid(a).cmp(&uid(b)))
        } else {
            Ordering::Equal
        };
        by_readiness
            .then_with(|| restarts(b).cmp(&restarts(a)))
            .then_with(|| younger_first(born(a), born(b), now, || uid(a).cmp(&uid(b))))
    })
}

/// An unknown time counts as younger than any other. Different times of one order of magnitude are left to
/// `chance`; equal times are equal.
fn younger_first(
    a: Option<Timestamp>,
    b: Option<Timestamp>,
    now: Timestamp,
    chance: impl Fn() -> Ordering,
) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let (Some(a), Some(b)) = (a, b) else { return a.is_some().cmp(&b.is_some()) };
    let magnitude = |time: Timestamp| {
        let age = u128::try_from(now.duration_since(time).as_nanos()).unwrap_or(0);
        age.checked_ilog2().map_or(-1, i64::from)
    };
    magnitude(a).cmp(&magnitude(b)).then_with(chance)
}

fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests;
