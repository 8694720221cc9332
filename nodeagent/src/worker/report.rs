//! Writes a pod's status: the difference to what the API has, one write at a time, at once.

use std::time::Duration;

use api::schema::TypeRef;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use crate::pod;

/// What is to be written next, and when a failed write may be tried again.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) in_flight: bool,
    pub(super) retry_at: Option<Timestamp>,
    failures: u32,
    /// The API will never take a status for this pod again.
    pub(super) closed: bool,
    /// The status that is being written, or that was written last.
    sent: PodStatus,
    /// What the API made of it, if that is something else.
    kept: Option<PodStatus>,
}

impl Report {
    /// Counts a failed write.
    pub(super) fn failed(&mut self, now: Timestamp) {
        let wait = Duration::from_millis(100) * 2u32.saturating_pow(self.failures.min(7));
        self.failures += 1;
        self.retry_at = Some(now + wait.min(Duration::from_secs(10)));
    }

    pub(super) fn send(&mut self, status: &PodStatus) {
        self.in_flight = true;
        self.sent = status.clone();
    }

    /// Takes the answer to a write: the pod as the API has it now.
    pub(super) fn succeeded(&mut self, pod: &Pod) {
        self.failures = 0;
        self.retry_at = None;
        self.kept = None;
        if let Some(rest) = patch(pod, &self.sent) {
            let rest = Value::Object(rest);
            tracing::warn!(pod = %pod::title(pod), %rest, "the API keeps another status than was written");
            self.kept = Some(pod.status.clone().unwrap_or_default());
        }
    }

    /// Whether the API answered with its present status to just this one: it would again.
    pub(super) fn is_vain(&self, pod: &Pod, status: &PodStatus) -> bool {
        self.kept.is_some() && self.kept == pod.status && self.sent == *status
    }
}

/// The patch that turns the status in the API into this one; `None` if they are the same.
pub(super) fn patch(pod: &Pod, status: &PodStatus) -> Option<Map<String, Value>> {
    let old = pod.status.clone().unwrap_or_default();
    if old == *status {
        return None;
    }
    let object = |status: &PodStatus| match json!({ "status": status }) {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let ty = TypeRef::builtin("", "v1", "Pod").unwrap_or_else(TypeRef::unknown);
    let mut patch = match api::patch::strategic::diff(&ty, &object(&old), &object(status)) {
        Ok(patch) => patch,
        Err(error) => {
            tracing::error!(pod = %pod::title(pod), %error, "can't compare two statuses");
            object(status)
        }
    };
    if patch.is_empty() {
        return None;
    }
    // With the uid, a pod that has taken this one's name refuses the patch.
    patch.insert("metadata".to_owned(), json!({ "uid": pod::uid(pod) }));
    Some(patch)
}

/// Sends the patch. Returns the pod as the API has it then.
pub(super) async fn write(
    client: client::Client,
    namespace: String,
    name: String,
    patch: Map<String, Value>,
) -> Result<Pod, kube::Error> {
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(Value::Object(patch))).await
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodCondition;

    use super::*;
    use crate::pod::testing::pod;

    #[test]
    fn a_status_that_the_api_does_not_keep_is_not_written_again() {
        let phase = |phase: &str| PodStatus { phase: Some(phase.into()), ..PodStatus::default() };
        let mut pod = pod().build();
        let mut report = Report::default();
        report.send(&phase("Running"));
        pod.status = Some(phase("Pending"));
        assert!(!report.is_vain(&pod, &phase("Running")), "nothing was answered yet");
        report.succeeded(&pod);
        assert!(report.is_vain(&pod, &phase("Running")));
        assert!(!report.is_vain(&pod, &phase("Failed")), "another status");
        pod.status = Some(phase("Unknown"));
        assert!(!report.is_vain(&pod, &phase("Running")), "the API has another one by now");
        pod.status = Some(phase("Running"));
        report.succeeded(&pod);
        assert!(!report.is_vain(&pod, &phase("Running")), "it was kept");
    }

    #[test]
    fn only_what_changed_is_written() {
        let condition = |kind: &str, status: &str| PodCondition {
            type_: kind.into(),
            status: status.into(),
            ..PodCondition::default()
        };
        let mut before = pod().build();
        let status = PodStatus {
            phase: Some("Pending".into()),
            conditions: Some(vec![condition("Ready", "False"), condition("example.com/gate", "True")]),
            ..PodStatus::default()
        };
        before.status = Some(status.clone());
        assert_eq!(patch(&before, &status), None);
        let mut after = status;
        after.conditions.get_or_insert_default()[0].status = "True".into();
        let patch = Value::Object(patch(&before, &after).unwrap());
        assert_eq!(patch["metadata"]["uid"], "uid-web");
        assert_eq!(patch["status"]["conditions"][0]["type"], "Ready");
        assert!(patch["status"]["conditions"].as_array().unwrap().len() == 1, "{patch}");
        assert!(patch["status"].get("phase").is_none());
    }
}
