//! The rules of batch/v1 Job.

pub(super) mod indexes;
mod policies;
pub(super) mod spec;
mod status;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use serde_json::Value;

use super::{
    cells::{age, containers, human_duration, or_none},
    check::{generation, is_empty, same, selector_matches, selector_text, text},
    workload,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    name,
    object::{Kind, name_cell},
    resource::Column,
};

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const OLD_CONTROLLER_UID: &str = "controller-uid";
const OLD_JOB_NAME: &str = "job-name";

impl Kind for Job {
    const DEPENDENTS_STAY: Option<&'static str> = Some(
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or \
         set propagationPolicy=Orphan to suppress this warning",
    );
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Status").about("Status of the job."),
        Column::text("Completions").about(
            "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. \
             However, it may decrease in reaction to scale down of elastic indexed jobs.",
        ),
        Column::text("Duration").about("Time required to complete the job."),
        Column::age(),
        Column::text("Containers").wide().about("Names of each container in the template."),
        Column::text("Images").wide().about("Images referenced by each container in the template."),
        Column::text("Selector").wide().about(SELECTOR),
    ];
    const FIELDS: &'static [&'static str] = &["status.successful"];

    fn set_defaults(&mut self) {
        spec::set_defaults(self.spec.get_or_insert_default());
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        let uid = text(&self.metadata.uid).to_owned();
        let name = text(&self.metadata.name).to_owned();
        let spec = self.spec.get_or_insert_default();
        let labelled = workload::labels(&spec.template).is_some_and(|labels| !labels.is_empty());
        if spec.manual_selector != Some(true) {
            generate_selector(spec, &name, &uid);
        }
        // Upstream refuses a name that is too long for a label once, at the template.
        if labelled || name::label_value(&name).is_empty() {
            inherit_labels(self);
        }
        self.status = Some(JobStatus::default());
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        inherit_labels(self);
        self.status.clone_from(&old.status);
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.metadata.generation = old.metadata.generation;
    }

    fn validate(&self) -> Errors {
        validate(self, true)
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let empty = JobSpec::default();
        let (new_spec, old_spec) =
            (self.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
        // Jobs that were made before these labels were.
        let prefixed = workload::labels(&old_spec.template)
            .is_some_and(|labels| labels.contains_key(JOB_NAME) && labels.contains_key(CONTROLLER_UID));
        // Upstream checks it as a new one, and as a changed one.
        let mut errors = validate(self, prefixed);
        let at = Path::new("spec");
        spec::validate_with_selector(&mut errors, new_spec, &at);
        spec::validate_change(&mut errors, new_spec, old_spec, old.status.as_ref(), &at);
        errors
    }

    fn validate_status(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        let (empty_spec, empty) = (JobSpec::default(), JobStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&empty_spec);
        let (new, old) = (self.status.as_ref().unwrap_or(&empty), old.status.as_ref().unwrap_or(&empty));
        status::validate(&mut errors, spec, new, old, &Path::new("status"));
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let spec = |job: &Self| job.spec.clone().unwrap_or_default();
        let mut out = Vec::new();
        if old.is_none() {
            out.extend(workload::name_warning(&self.metadata));
        }
        out.extend(spec::warnings(&spec(self), old.map(spec).as_ref(), &Path::new("spec")));
        out
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let succeeded = self.status.as_ref().and_then(|status| status.succeeded).unwrap_or_default();
        vec![("status.successful", succeeded.to_string())]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (empty_spec, empty_status) = (JobSpec::default(), JobStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&empty_spec);
        let status = self.status.as_ref().unwrap_or(&empty_status);
        let succeeded = status.succeeded.unwrap_or_default();
        let completions = match (spec.completions, spec.parallelism.unwrap_or_default()) {
            (Some(completions), _) => format!("{succeeded}/{completions}"),
            (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            (None, _) => format!("{succeeded}/1"),
        };
        let duration = status.start_time.as_ref().map(|start| {
            let end = status.completion_time.as_ref().map_or(now, |time| time.0);
            human_duration(end.as_second() - start.0.as_second())
        });
        let is = |condition| status::is_true(status, condition);
        let state = match () {
            () if is("Complete") => "Complete",
            () if is("Failed") => "Failed",
            () if self.metadata.deletion_timestamp.is_some() => "Terminating",
            () if is("Suspended") => "Suspended",
            () if is("FailureTarget") => "FailureTarget",
            () => "Running",
        };
        let [names, images] = containers(workload::pods(Some(&spec.template)));
        vec![
            name_cell(&self.metadata),
            state.into(),
            completions.into(),
            duration.unwrap_or_default().into(),
            age(&self.metadata, now),
            names,
            images,
            or_none(&selector_text(spec.selector.as_ref())),
        ]
    }
}

/// What the column of a job's selector shows.
pub(super) const SELECTOR: &str = "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: \
     https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors";

/// Labels and a selector that only the pods of this job have. What a user gave stays, and is refused if it conflicts.
fn generate_selector(spec: &mut JobSpec, name: &str, uid: &str) {
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (key, value) in
        [(OLD_JOB_NAME, name), (JOB_NAME, name), (OLD_CONTROLLER_UID, uid), (CONTROLLER_UID, uid)]
    {
        labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    let selector = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
    selector.entry(CONTROLLER_UID.to_owned()).or_insert_with(|| uid.to_owned());
}

/// A job without labels has those of its pods.
fn inherit_labels(job: &mut Job) {
    if is_empty(&job.metadata.labels) {
        let labels = job.spec.as_ref().and_then(|spec| workload::labels(&spec.template)).cloned();
        job.metadata.labels = labels.filter(|labels| !labels.is_empty());
    }
}

fn validate(job: &Job, prefixed_labels: bool) -> Errors {
    let mut errors = Errors::new();
    let empty = JobSpec::default();
    let spec = job.spec.as_ref().unwrap_or(&empty);
    if spec.manual_selector != Some(true) {
        generated_selector(&mut errors, job, spec, prefixed_labels);
    }
    spec::validate_with_selector(&mut errors, spec, &Path::new("spec"));
    if text(&spec.completion_mode) == "Indexed"
        && let Some(completions) = spec.completions.filter(|completions| *completions > 0)
    {
        // The hostname of the last pod.
        let name = text(&job.metadata.name);
        let hostname = format!("{name}-{}", completions - 1);
        if !name::dns1123_label(&hostname).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {hostname}");
            errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, detail));
        }
    }
    errors
}

/// What was generated is there, and as it was generated.
fn generated_selector(errors: &mut Errors, job: &Job, spec: &JobSpec, prefixed_labels: bool) {
    let Some(selector) = &spec.selector else { return };
    let (uid, name) = (text(&job.metadata.uid), text(&job.metadata.name));
    if uid.is_empty() {
        errors.push(FieldError::required(&Path::new("metadata").child("uid"), ""));
    }
    let labels = workload::labels(&spec.template);
    let at = Path::new("spec").child("template").child("metadata").child("labels");
    let mut expected = BTreeMap::new();
    let old = [(OLD_CONTROLLER_UID, uid), (OLD_JOB_NAME, name)];
    let new = [(CONTROLLER_UID, uid), (JOB_NAME, name)];
    for (key, value) in old.into_iter().chain(new.into_iter().filter(|_| prefixed_labels)) {
        let (at, detail) = (at.key(key), format!("must be '{value}'"));
        match labels.and_then(|labels| labels.get(key)) {
            None => errors.push(FieldError::required(&at, detail)),
            Some(actual) if actual != value => {
                errors.push(FieldError::invalid(&at, BadValue::of(&labels), detail));
            }
            Some(_) => {}
        }
        expected.insert(key.to_owned(), value.to_owned());
    }
    if selector_matches(selector, &expected) == Some(false) {
        let at = Path::new("spec").child("selector");
        errors.push(FieldError::invalid(&at, BadValue::of(selector), "`selector` not auto-generated"));
    }
}

#[cfg(test)]
mod tests;
