//! Whether a rollout gets on: the condition `Progressing`, its deadline, and `ReplicaFailure`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rollout::Rollout;
use super::set::Set;
use super::{amounts, status};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

impl Rollout<'_> {
    /// All pods are of the new template and available, as the last reported status has it.
    pub(super) fn is_complete(&self) -> bool {
        self.deployment.status.as_ref().is_some_and(|status| self.completes(status))
    }

    fn completes(&self, status: &DeploymentStatus) -> bool {
        let wanted = amounts::wanted(&self.deployment);
        let counts = [status.replicas, status.updated_replicas, status.available_replicas];
        counts.iter().all(|count| count.unwrap_or(0) == wanted)
            && status.observed_generation >= self.deployment.metadata.generation
    }

    /// Notes a pause or its end, so that time spent paused does not count as lack of progress.
    pub(super) fn note_pause(&mut self) {
        let known = self.progressing().and_then(|condition| condition.reason.clone());
        if amounts::progress_deadline(&self.deployment).is_none() || known.as_deref() == Some(TIMED_OUT) {
            return;
        }
        let was_paused = known.as_deref() == Some(PAUSED);
        if self.paused() && !was_paused {
            self.note("Unknown", PAUSED, "Deployment is paused".to_owned());
        } else if !self.paused() && was_paused {
            self.note("Unknown", "DeploymentResumed", "Deployment is resumed".to_owned());
        }
    }

    pub(super) fn note_found(&mut self, name: &str) {
        if amounts::progress_deadline(&self.deployment).is_some() && self.progressing().is_none() {
            self.note("True", "FoundNewReplicaSet", format!("Found new replica set \"{name}\""));
        }
    }

    pub(super) fn note_created(&mut self, name: &str) {
        if amounts::progress_deadline(&self.deployment).is_some() {
            self.note("True", "NewReplicaSetCreated", format!("Created new replica set \"{name}\""));
        }
    }

    pub(super) fn note_creation_failure(&mut self, name: &str, failure: &str) {
        if amounts::progress_deadline(&self.deployment).is_some() {
            let message = format!("Failed to create new replica set \"{name}\": {failure}");
            self.note("False", "ReplicaSetCreateError", message);
        }
    }

    fn progressing(&self) -> Option<&DeploymentCondition> {
        self.deployment.status.as_ref().and_then(|status| status::find(status, PROGRESSING))
    }

    fn note(&mut self, truth: &str, reason: &str, message: String) {
        let condition = status::condition(PROGRESSING, truth, reason, message, self.now);
        status::set(self.deployment.status.get_or_insert_default(), condition);
    }

    /// Updates counts and all conditions after a step of a rollout.
    pub(super) fn report(&mut self) {
        let before = self.deployment.status.clone().unwrap_or_default();
        self.count();
        let mut after = self.deployment.status.clone().unwrap_or_default();
        self.report_progress(&before, &mut after);
        match self.failure() {
            Some(failure) => status::set(&mut after, failure),
            None => status::remove(&mut after, "ReplicaFailure"),
        }
        self.deployment.status = Some(after);
    }

    fn report_progress(&self, before: &DeploymentStatus, after: &mut DeploymentStatus) {
        if amounts::progress_deadline(&self.deployment).is_none() {
            status::remove(after, PROGRESSING);
            return;
        }
        let known = status::find(before, PROGRESSING);
        let reason = known.and_then(|condition| condition.reason.as_deref());
        // Once complete, a rollout stays so until there is a new one: pods that come and go are no progress.
        if reason == Some(AVAILABLE) && after.replicas == after.updated_replicas {
            return;
        }
        let what = match &self.new {
            Some(new) => format!("ReplicaSet \"{}\"", new.name()),
            None => {
                let name = self.deployment.metadata.name.as_deref().unwrap_or_default();
                format!("Deployment \"{name}\"")
            }
        };
        let make = |truth, reason, text: &str| {
            status::condition(PROGRESSING, truth, reason, format!("{what} {text}"), self.now)
        };
        if self.completes(after) {
            status::set(after, make("True", AVAILABLE, "has successfully progressed."));
        } else if got_on(before, after) {
            let mut condition = make("True", "ReplicaSetUpdated", "is progressing.");
            if let Some(known) = known.filter(|known| known.status == "True") {
                condition.last_transition_time.clone_from(&known.last_transition_time);
            }
            // Replaced even if only its time of update changes: the deadline counts from there.
            status::remove(after, PROGRESSING);
            status::set(after, condition);
        } else if self.is_timed_out(after) {
            status::set(after, make("False", TIMED_OUT, "has timed out progressing."));
        }
    }

    fn is_timed_out(&self, status: &DeploymentStatus) -> bool {
        let Some(condition) = status::find(status, PROGRESSING) else { return false };
        match condition.reason.as_deref() {
            Some(AVAILABLE) => false,
            Some(TIMED_OUT) => true,
            _ => self.deadline(condition).is_some_and(|deadline| deadline < self.now),
        }
    }

    fn deadline(&self, condition: &DeploymentCondition) -> Option<Timestamp> {
        let seconds = u64::try_from(amounts::progress_deadline(&self.deployment)?).ok()?;
        let Time(since) = condition.last_update_time.as_ref()?;
        since.checked_add(Duration::from_secs(seconds)).ok()
    }

    /// How long until the rollout counts as stuck unless it gets on.
    pub(super) fn stuck_in(&self) -> Option<Duration> {
        let status = self.deployment.status.as_ref()?;
        let condition = status::find(status, PROGRESSING)?;
        let settled = matches!(condition.reason.as_deref(), Some(TIMED_OUT | AVAILABLE | PAUSED));
        if settled || self.completes(status) {
            return None;
        }
        let left = self.deadline(condition)?.duration_since(self.now);
        // Times in the status are whole seconds.
        Some(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1))
    }

    /// The failure of the new set, or else of any other.
    fn failure(&self) -> Option<DeploymentCondition> {
        let failure = |set: &Set| {
            let conditions = set.status().conditions.unwrap_or_default();
            conditions.into_iter().find(|condition| condition.type_ == "ReplicaFailure")
        };
        let found = self.new.as_ref().and_then(failure).or_else(|| self.old.iter().find_map(failure))?;
        Some(DeploymentCondition {
            type_: found.type_,
            status: found.status,
            last_update_time: found.last_transition_time.clone(),
            last_transition_time: found.last_transition_time,
            reason: found.reason,
            message: found.message,
        })
    }
}

/// More pods of the new template, fewer of the others, more that are ready or available.
fn got_on(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let old = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    after.updated_replicas > before.updated_replicas
        || old(after) < old(before)
        || after.ready_replicas > before.ready_replicas
        || after.available_replicas > before.available_replicas
}
