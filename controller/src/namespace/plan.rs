//! The next step of a namespace's end: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use api::resource::Resource;
use client::Key;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::harness::{Plan, What, Write, collection};

/// The finalizer in `spec.finalizers` that this controller takes off.
pub(super) const FINALIZER: &str = "kubernetes";
/// After a deletion that no cache may tell of, look again.
const AGAIN: Duration = Duration::from_millis(100);

/// Conditions in their order, with reason and message while nothing is in the way.
const CONDITIONS: [(&str, &str, &str); 5] = [
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    (REMAINING, "ContentRemoved", "All content successfully removed"),
    (FINALIZERS, "ContentRemoved", "All content successfully removed"),
];
const REMAINING: &str = "NamespaceContentRemaining";
const FINALIZERS: &str = "NamespaceFinalizersRemaining";

/// Objects of one kind that a namespace still has.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    resource: String,
    group: String,
    path: String,
    count: usize,
    /// How many of them were not asked to go yet.
    staying: usize,
    /// How many have each finalizer.
    finalizers: BTreeMap<String, usize>,
}

impl Content {
    pub(super) fn of<'a>(row: &Resource, objects: impl Iterator<Item = &'a ObjectMeta>) -> Self {
        let mut content = Self {
            resource: row.plural.clone().into_owned(),
            group: row.group.clone().into_owned(),
            ..Self::default()
        };
        for object in objects {
            if content.path.is_empty() {
                content.path = collection(row, object.namespace.as_deref());
            }
            content.count += 1;
            content.staying += usize::from(object.deletion_timestamp.is_none());
            for finalizer in object.finalizers.iter().flatten() {
                *content.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
        }
        content
    }

    /// Counts objects of which nothing is known.
    pub(super) fn more(&mut self, count: usize) {
        self.count += count;
        self.staying += count;
    }

    pub(super) fn is_pods(&self) -> bool {
        self.resource == "pods" && self.group.is_empty()
    }
}

/// Whether there is something to do for a namespace.
pub(super) fn is_terminating(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    namespace.metadata.deletion_timestamp.is_some()
        && finalizers.into_iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// The next step, given everything that is left.
pub(super) fn plan(namespace: &Namespace, contents: &[Content], now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let name = namespace.metadata.name.clone().unwrap_or_default();
    let pods = contents.iter().any(Content::is_pods);
    let next = contents.iter().filter(|content| !pods || content.is_pods());
    let staying: Vec<&Content> = next.clone().filter(|content| content.staying > 0).collect();
    if !staying.is_empty() {
        let delete = |content: &&Content| {
            Write::at(content.path.clone(), &content.resource, Key::new(&name, ""), What::DeleteCollection)
        };
        plan.then_all(staying.iter().map(delete).collect());
        plan.look_again(AGAIN);
        return plan;
    }
    let remaining: Vec<&Content> = next.collect();
    if let Some(told) = with_conditions(namespace, &remaining, now) {
        plan.then(Write::replace_status(&told));
        // What follows is done on the namespace as it is then.
        return plan;
    }
    if contents.is_empty() {
        let mut finished = namespace.clone();
        let finalizers = finished.spec.get_or_insert_default().finalizers.get_or_insert_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        plan.then(Write::replace_subresource(&finished, "finalize"));
    }
    plan
}

/// The namespace with conditions that tell what is left; `None` if nothing is to be told: it goes right away,
/// or its conditions are right.
fn with_conditions(namespace: &Namespace, remaining: &[&Content], now: Timestamp) -> Option<Namespace> {
    let mut told = namespace.clone();
    let status = told.status.get_or_insert_default();
    let mut changed = status.phase.as_deref() != Some("Terminating");
    status.phase = Some("Terminating".to_owned());
    if status.conditions.is_none() && remaining.is_empty() {
        return changed.then_some(told);
    }
    let conditions = status.conditions.get_or_insert_default();
    for (kind, reason, message) in CONDITIONS {
        let in_the_way = match kind {
            REMAINING => some_resources(remaining),
            FINALIZERS => some_finalizers(remaining),
            _ => None,
        };
        let (state, reason, message) = match in_the_way {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", reason, message.to_owned()),
        };
        let wanted = NamespaceCondition {
            type_: kind.to_owned(),
            status: state.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        };
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            None => {
                changed = true;
                conditions.push(wanted);
            }
            Some(known) => {
                let since = known.last_transition_time.clone().filter(|_| known.status == wanted.status);
                let wanted = NamespaceCondition {
                    last_transition_time: since.or(wanted.last_transition_time),
                    ..wanted
                };
                changed |= *known != wanted;
                *known = wanted;
            }
        }
    }
    changed.then_some(told)
}

fn some_resources(remaining: &[&Content]) -> Option<(&'static str, String)> {
    let mut texts: Vec<String> = remaining
        .iter()
        .map(|content| {
            format!("{}.{} has {} resource instances", content.resource, content.group, content.count)
        })
        .collect();
    texts.sort();
    let message = format!("Some resources are remaining: {}", texts.join(", "));
    (!texts.is_empty()).then_some(("SomeResourcesRemain", message))
}

fn some_finalizers(remaining: &[&Content]) -> Option<(&'static str, String)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in remaining.iter().flat_map(|content| &content.finalizers) {
        *counts.entry(finalizer).or_default() += count;
    }
    let texts: Vec<String> = counts
        .iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    let message = format!("Some finalizers are remaining: {}", texts.join(", "));
    (!texts.is_empty()).then_some(("SomeFinalizerRemain", message))
}
