//! What a deployment reports: counts over its sets, and conditions.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::amounts;
use super::rollout::Rollout;
use super::set::Set;

impl Rollout<'_> {
    /// Updates the counts and the condition `Available`.
    pub(super) fn count(&mut self) {
        let sum = |count: fn(&Set) -> i32| self.sets().map(count).sum::<i32>();
        let available = sum(|set| set.status().available_replicas.unwrap_or(0));
        let terminating: Option<Vec<i32>> =
            self.sets().map(|set| set.status().terminating_replicas).collect();
        let before = self.deployment.status.clone().unwrap_or_default();
        let mut status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: Some(sum(|set| set.status().replicas)),
            updated_replicas: self.new.as_ref().map(|new| new.status().replicas),
            ready_replicas: Some(sum(|set| set.status().ready_replicas.unwrap_or(0))),
            available_replicas: Some(available),
            unavailable_replicas: Some((self.total() - available).max(0)),
            terminating_replicas: terminating.map(|counts| counts.into_iter().sum()),
            collision_count: before.collision_count,
            conditions: before.conditions,
        };
        let enough = amounts::wanted(&self.deployment) - amounts::max_unavailable(&self.deployment);
        let (truth, reason, message) = if available >= enough {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        set(&mut status, condition("Available", truth, reason, message.to_owned(), self.now));
        self.deployment.status = Some(omit_zeros(status));
    }
}

/// Zeros are left out of the status, as every client expects.
fn omit_zeros(mut status: DeploymentStatus) -> DeploymentStatus {
    for count in [
        &mut status.replicas,
        &mut status.updated_replicas,
        &mut status.ready_replicas,
        &mut status.available_replicas,
        &mut status.unavailable_replicas,
    ] {
        *count = count.filter(|count| *count > 0);
    }
    status.conditions = status.conditions.filter(|conditions| !conditions.is_empty());
    status
}

/// True if nothing is to be reported anew.
pub(super) fn same(a: Option<&DeploymentStatus>, b: Option<&DeploymentStatus>) -> bool {
    let normal = |status: Option<&DeploymentStatus>| omit_zeros(status.cloned().unwrap_or_default());
    normal(a) == normal(b)
}

pub(super) fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
        reason: Some(reason.to_owned()),
        message: Some(message),
    }
}

pub(super) fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

pub(super) fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != kind);
    }
}

/// Sets a condition. One of the same status and reason stays as it is; a status that stays keeps its time of
/// transition.
pub(super) fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(known) = find(status, &condition.type_) {
        if known.status == condition.status && known.reason == condition.reason {
            return;
        }
        if known.status == condition.status {
            condition.last_transition_time.clone_from(&known.last_transition_time);
        }
    }
    remove(status, &condition.type_);
    status.conditions.get_or_insert_default().push(condition);
}
