//! Rules for the status of a job. Controllers of anybody may run jobs, so what they say is checked closely; but only
//! where it changes, so that a status which is odd already can be corrected piece by piece.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::batch::v1::{JobSpec, JobStatus, UncountedTerminatedPods},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{indexes, spec::is_indexed};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::check::{list, nonnegative, same, text},
};

/// Whether a condition is true.
pub(super) fn is_true(status: &JobStatus, condition: &str) -> bool {
    list(&status.conditions).iter().any(|c| c.type_ == condition && c.status == "True")
}

fn is_finished(status: &JobStatus) -> bool {
    is_true(status, "Complete") || is_true(status, "Failed")
}

/// Checks a change of the status.
pub(super) fn validate(errors: &mut Errors, spec: &JobSpec, new: &JobStatus, old: &JobStatus, path: &Path) {
    for (field, value) in [
        ("active", new.active),
        ("succeeded", new.succeeded),
        ("failed", new.failed),
        ("ready", new.ready),
        ("terminating", new.terminating),
    ] {
        nonnegative(errors, &path.child(field), value);
    }
    if let Some(pods) = &new.uncounted_terminated_pods {
        uncounted(errors, pods, &path.child("uncountedTerminatedPods"));
    }
    let mut check = Check { errors, spec, new, old, path };
    check.complete();
    check.finished();
    check.indexes();
    check.pods();
    check.success();
    check.ends();
    check.progress();
}

/// The pods that have ended and are not yet counted: each once.
fn uncounted(errors: &mut Errors, pods: &UncountedTerminatedPods, path: &Path) {
    let mut seen = BTreeSet::new();
    for (field, uids) in [("succeeded", &pods.succeeded), ("failed", &pods.failed)] {
        for (i, uid) in list(uids).iter().enumerate() {
            let at = path.child(field).index(i);
            if uid.is_empty() {
                errors.push(FieldError::invalid(&at, uid, "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(FieldError::duplicate(&at, uid));
            }
        }
    }
}

struct Check<'a> {
    errors: &'a mut Errors,
    spec: &'a JobSpec,
    new: &'a JobStatus,
    old: &'a JobStatus,
    path: &'a Path,
}

impl Check<'_> {
    fn has(&self, condition: &str) -> bool {
        is_true(self.new, condition)
    }

    /// Whether one of the conditions became true, or no longer is.
    fn turned(&self, conditions: &[&str]) -> bool {
        conditions.iter().any(|condition| is_true(self.new, condition) != is_true(self.old, condition))
    }

    fn turned_finished(&self) -> bool {
        is_finished(self.new) != is_finished(self.old)
    }

    fn invalid(&mut self, field: &str, shown: impl Into<BadValue>, detail: &str) {
        self.errors.push(FieldError::invalid(&self.path.child(field), shown, detail));
    }

    fn conditions(&mut self, detail: &str) {
        self.invalid("conditions", BadValue::Omitted, detail);
    }

    fn required(&mut self, field: &str, detail: &str) {
        self.errors.push(FieldError::required(&self.path.child(field), detail));
    }

    /// What belongs to a job that is complete, and what doesn't.
    fn complete(&mut self) {
        let (new, old) = (self.new, self.old);
        let complete = self.has("Complete");
        if complete && self.has("Failed") && self.turned(&["Complete", "Failed"]) {
            self.conditions("cannot set Complete=True and Failed=true conditions");
        }
        if complete && self.has("FailureTarget") && self.turned(&["Complete", "FailureTarget"]) {
            self.conditions("cannot set Complete=True and FailureTarget=true conditions");
        }
        let time_changed = new.completion_time != old.completion_time;
        if self.turned(&["Complete"]) || time_changed {
            match &new.completion_time {
                Some(time) if !complete => {
                    let detail = "cannot set completionTime when there is no Complete=True condition";
                    self.invalid("completionTime", shown(time), detail);
                }
                None if complete => {
                    self.required("completionTime", "completionTime is required for Complete jobs");
                }
                _ => {}
            }
        }
        if let (Some(start), Some(end)) = (&new.start_time, &new.completion_time)
            && (time_changed || new.start_time != old.start_time)
            && end.0 < start.0
        {
            self.invalid("completionTime", shown(end), "completionTime cannot be set before startTime");
        }
        if self.has("Failed") && !self.has("FailureTarget") && self.turned(&["Failed", "FailureTarget"]) {
            self.conditions("cannot set Failed=True condition without the FailureTarget=true condition");
        }
        if complete && !self.has("SuccessCriteriaMet") && self.turned(&["Complete", "SuccessCriteriaMet"]) {
            let detail = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
            self.conditions(detail);
        }
    }

    /// What a job that has ended no longer has.
    fn finished(&mut self) {
        let (new, old) = (self.new, self.old);
        if !is_finished(new) {
            return;
        }
        let turned = self.turned_finished();
        let count = |value: Option<i32>| value.unwrap_or_default();
        if count(new.active) > 0 && (turned || count(new.active) != count(old.active)) {
            self.invalid("active", count(new.active), "active>0 is invalid for finished job");
        }
        if new.start_time.is_none() && (turned || old.start_time.is_some()) {
            self.required("startTime", "startTime is required for finished job");
        }
        let changed = !same(&new.uncounted_terminated_pods, &old.uncounted_terminated_pods);
        if let Some(pods) = new.uncounted_terminated_pods.as_ref().filter(|_| turned || changed)
            && !(list(&pods.succeeded).is_empty() && list(&pods.failed).is_empty())
        {
            // Upstream shows its own struct.
            let list = |uids: &Option<Vec<String>>| serde_json::json!(uids);
            let shown =
                format!(r#"{{"Succeeded":{},"Failed":{}}}"#, list(&pods.succeeded), list(&pods.failed));
            let detail = "uncountedTerminatedPods needs to be empty for finished job";
            self.invalid("uncountedTerminatedPods", BadValue::Plain(shown), detail);
        }
    }

    /// The indexes that are done: well formed, below the number of completions, and in one list only.
    fn indexes(&mut self) {
        let (new, old) = (self.new, self.old);
        let completed = text(&new.completed_indexes);
        let completed_changed = completed != text(&old.completed_indexes);
        let failed_changed = new.failed_indexes != old.failed_indexes;
        if let Some(completions) = self.spec.completions {
            if completed_changed && let Err(problem) = indexes::count(completed, completions) {
                let detail = format!("error parsing completedIndexes: {problem}");
                self.invalid("completedIndexes", completed, &detail);
            }
            if failed_changed
                && self.spec.backoff_limit_per_index.is_some()
                && let Some(failed) = &new.failed_indexes
                && let Err(problem) = indexes::count(failed, completions)
            {
                let detail = format!("error parsing failedIndexes: {problem}");
                self.invalid("failedIndexes", failed, &detail);
            }
        }
        if completed_changed && !completed.is_empty() && !is_indexed(self.spec) {
            let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
            self.invalid("completedIndexes", completed, detail);
        }
        let Some(failed) = &new.failed_indexes else { return };
        if failed_changed && self.spec.backoff_limit_per_index.is_none() {
            let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            self.invalid("failedIndexes", failed, detail);
        }
        if (failed_changed || completed_changed)
            && let Some(completions) = self.spec.completions
            && let Some(problem) = indexes::overlap(completed, failed, completions)
        {
            self.invalid("failedIndexes", failed, &problem);
        }
    }

    /// Pods of a job that has ended have ended, and only those that run are ready.
    fn pods(&mut self) {
        let (new, old) = (self.new, self.old);
        if let Some(terminating) = new.terminating.filter(|count| *count > 0)
            && is_finished(new)
            && (self.turned_finished() || new.terminating != old.terminating)
        {
            self.invalid("terminating", terminating, "terminating>0 is invalid for finished job");
        }
        let active = new.active.unwrap_or_default();
        if let Some(ready) = new.ready.filter(|ready| *ready > active)
            && (new.ready != old.ready || active != old.active.unwrap_or_default())
        {
            self.invalid("ready", ready, "cannot set more ready pods than active");
        }
    }

    /// A job that met its criteria did not fail.
    fn success(&mut self) {
        let met = self.has("SuccessCriteriaMet");
        if met && self.has("Failed") {
            self.conditions("cannot set SuccessCriteriaMet=True and Failed=true conditions");
        }
        if met && self.has("FailureTarget") {
            self.conditions("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
        }
        if self.spec.success_policy.is_some() && !met && self.has("Complete") {
            let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
            self.conditions(detail);
        }
    }

    /// What has ended does not begin again.
    fn ends(&mut self) {
        for condition in ["Failed", "Complete", "FailureTarget"] {
            if is_true(self.old, condition) && !self.has(condition) {
                self.conditions(&format!("cannot disable the terminal {condition}=True condition"));
            }
        }
    }

    /// Counts go up, and times stay.
    fn progress(&mut self) {
        let (new, old) = (self.new, self.old);
        let count = |value: Option<i32>| value.unwrap_or_default();
        if count(new.failed) < count(old.failed) {
            self.invalid("failed", count(new.failed), "cannot decrease the failed counter");
        }
        // An indexed job can be made smaller.
        let elastic = is_indexed(self.spec) && self.spec.completions == self.spec.parallelism;
        if !elastic && count(new.succeeded) < count(old.succeeded) {
            self.invalid("succeeded", count(new.succeeded), "cannot decrease the succeeded counter");
        }
        if let (Some(time), Some(before)) = (&new.completion_time, &old.completion_time)
            && time != before
        {
            self.invalid("completionTime", shown(time), "completionTime cannot be mutated");
        }
        if old.start_time.is_some() && new.start_time != old.start_time && self.spec.suspend != Some(true) {
            self.required("startTime", "startTime cannot be removed for unsuspended job");
        }
        let (met, was_met) = (self.has("SuccessCriteriaMet"), is_true(old, "SuccessCriteriaMet"));
        if was_met && !met {
            self.conditions("cannot disable the SuccessCriteriaMet=True condition");
        }
        if is_true(old, "Complete") && !was_met && met {
            self.conditions(
                "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
            );
        }
    }
}

/// A time as upstream shows it in errors.
fn shown(time: &Time) -> BadValue {
    BadValue::Plain(time.0.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string())
}
