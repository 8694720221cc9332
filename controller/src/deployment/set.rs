//! A replica set as it was read and as it is to become.

use std::sync::Arc;

use client::Reference;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};

use super::amounts;
use crate::harness::{Write, WriteEvents};

/// Annotation with the number of a template in the deployment's history.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation with the numbers that a template had before it was rolled out again.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const REVISION_HISTORY_LENGTH: usize = 2000;
/// Annotations with the deployment's size when the set was last scaled: what proportions are computed from.
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the deployment that are not passed on to its replica sets.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
];

/// A working copy.
#[derive(Debug)]
pub(super) struct Set {
    /// As it was read; `None` if it is to be created.
    was: Option<Arc<ReplicaSet>>,
    pub set: ReplicaSet,
}

impl Set {
    pub(super) fn read(set: &Arc<ReplicaSet>) -> Self {
        Self { was: Some(set.clone()), set: (**set).clone() }
    }

    pub(super) fn created(set: ReplicaSet) -> Self {
        Self { was: None, set }
    }

    pub(super) fn name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn born(&self) -> Option<Timestamp> {
        self.set.metadata.creation_timestamp.as_ref().map(|time| time.0)
    }

    pub(super) fn replicas(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    pub(super) fn status(&self) -> ReplicaSetStatus {
        self.set.status.clone().unwrap_or_default()
    }

    /// Available pods that stay when the set has shrunk to its wanted size. The status may be older than
    /// that wish: pods beyond it are as good as gone.
    pub(super) fn available(&self) -> i32 {
        self.status().available_replicas.unwrap_or(0).min(self.replicas())
    }

    pub(super) fn number(&self, annotation: &str) -> Option<i64> {
        self.annotation(annotation)?.parse().ok()
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.set.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    fn annotate(&mut self, name: &str, value: String) {
        self.set.metadata.annotations.get_or_insert_default().insert(name.to_owned(), value);
    }

    /// Sets the size, and notes the deployment's size for which it is meant.
    pub(super) fn scale(&mut self, replicas: i32, deployment: &Deployment) {
        self.set.spec.get_or_insert_default().replicas = Some(replicas);
        self.note_size(deployment);
    }

    pub(super) fn note_size(&mut self, deployment: &Deployment) {
        let wanted = amounts::wanted(deployment);
        self.annotate(DESIRED_REPLICAS, wanted.to_string());
        self.annotate(MAX_REPLICAS, (wanted + amounts::max_surge(deployment)).to_string());
    }

    /// Passes on the deployment's annotations and makes this its newest revision. A set that gets a new
    /// number, because the deployment was rolled back to it, remembers the old one.
    pub(super) fn make_newest(&mut self, deployment: &Deployment, revision: i64) {
        for (name, value) in deployment.metadata.annotations.iter().flatten() {
            if !OWN_ANNOTATIONS.contains(&name.as_str()) {
                self.annotate(name, value.clone());
            }
        }
        let before = self.number(REVISION);
        if before.is_some_and(|before| before >= revision) {
            return;
        }
        if let Some(before) = before {
            let mut history: Vec<String> = self
                .annotation(REVISION_HISTORY)
                .map(|history| history.split(',').map(str::to_owned).collect())
                .unwrap_or_default();
            history.push(before.to_string());
            let length = |history: &[String]| history.iter().map(|entry| entry.len() + 1).sum::<usize>();
            while history.len() > 1 && length(&history) > REVISION_HISTORY_LENGTH {
                history.remove(0);
            }
            history.retain(|entry| !entry.is_empty());
            self.annotate(REVISION_HISTORY, history.join(","));
        }
        self.annotate(REVISION, revision.to_string());
    }

    /// The write that makes the set what it became, if it became anything else.
    pub(super) fn write(&self, about: &Reference) -> Option<Write> {
        let before =
            self.was.as_ref().map_or(0, |was| was.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1));
        let (name, after) = (self.name(), self.replicas());
        let done = if before == after {
            ("", String::new())
        } else {
            let direction = if after > before { "up" } else { "down" };
            let text = format!("Scaled {direction} replica set {name} from {before} to {after}");
            ("ScalingReplicaSet", text)
        };
        let (write, failed) = match &self.was {
            None => {
                let text = format!("Failed to create new replica set \"{name}\": ");
                (Write::create(&self.set), ("ReplicaSetCreateError", text))
            }
            Some(was) if **was == self.set => return None,
            Some(_) => (Write::replace(&self.set), ("", String::new())),
        };
        Some(write.announced(WriteEvents { about: about.clone(), done, failed }))
    }
}
