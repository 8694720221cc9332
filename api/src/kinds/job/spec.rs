//! Rules for the spec of a job, in a job or in the template of a cron job.

use k8s_openapi::api::{
    batch::v1::{JobSpec, JobStatus},
    core::v1::{Affinity, PodSpec, PodTemplateSpec},
};

use super::{policies, status::is_true};
use crate::{
    field::{BadValue, Errors, FieldError, Path, quote},
    kinds::{
        check::{
            immutable, immutable_struct, list, nonnegative, one_of, problems, same, selector,
            selector_matches, text,
        },
        pod::{defaults, spec as pod_spec},
        workload,
    },
    name,
};

/// As many completions make everything that is told of single indexes large.
const MANY_COMPLETIONS: i32 = 100_000;
const MOST_PARALLEL: i32 = 100_000;
const MOST_FAILED: i32 = 100_000;
/// What is allowed together with many completions.
const FEWER: i32 = 10_000;
const MOST_MANAGED_BY: usize = 63;

/// What a user may leave out.
pub(super) fn set_defaults(spec: &mut JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let per_index = spec.backoff_limit_per_index.is_some();
    spec.backoff_limit.get_or_insert(if per_index { i32::MAX } else { 6 });
    spec.completion_mode.get_or_insert_with(|| "NonIndexed".to_owned());
    spec.suspend.get_or_insert(false);
    let replaced = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    spec.pod_replacement_policy.get_or_insert_with(|| replaced.to_owned());
    spec.manual_selector.get_or_insert(false);
    set_template_defaults(spec);
}

/// What a user may leave out of the spec in a cron job, whose jobs get the rest when they are made.
pub(in crate::kinds) fn set_template_defaults(spec: &mut JobSpec) {
    for rule in spec.pod_failure_policy.iter_mut().flat_map(|policy| &mut policy.rules) {
        for pattern in rule.on_pod_conditions.iter_mut().flatten() {
            if text(&pattern.status).is_empty() {
                pattern.status = Some("True".to_owned());
            }
        }
    }
    defaults::template(&mut spec.template);
}

/// The spec of a job, with the selector that a cron job's template can't have.
pub(super) fn validate_with_selector(errors: &mut Errors, spec: &JobSpec, path: &Path) {
    validate(errors, spec, path);
    let at = path.child("selector");
    match &spec.selector {
        None => errors.push(FieldError::required(&at, "")),
        Some(_) => selector(errors, &at, spec.selector.as_ref()),
    }
    let labels = workload::labels(&spec.template).cloned().unwrap_or_default();
    let matches = spec.selector.as_ref().map_or(Some(false), |s| selector_matches(s, &labels));
    if matches == Some(false) {
        errors.push(workload::mismatch(&spec.template, &path.child("template")));
    }
}

/// The spec but for its selector.
pub(in crate::kinds) fn validate(errors: &mut Errors, spec: &JobSpec, path: &Path) {
    nonnegative(errors, &path.child("parallelism"), spec.parallelism);
    nonnegative(errors, &path.child("completions"), spec.completions);
    nonnegative(errors, &path.child("activeDeadlineSeconds"), spec.active_deadline_seconds);
    for (field, value) in [
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ] {
        nonnegative(errors, &path.child(field), value);
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        let at = path.child("backoffLimitPerIndex");
        errors.push(FieldError::required(&at, "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = &spec.managed_by {
        managed_by(errors, manager, &path.child("managedBy"));
    }
    completion_mode(errors, spec, path);
    if let Some(policy) = &spec.pod_failure_policy {
        policies::failure(errors, policy, spec, &path.child("podFailurePolicy"));
    }
    if let Some(policy) = &spec.success_policy {
        let at = path.child("successPolicy");
        if is_indexed(spec) {
            policies::success(errors, policy, spec.completions.unwrap_or_default(), &at);
        } else {
            let shown = BadValue::Plain(policies::shown(policy));
            errors.push(FieldError::invalid(&at, shown, "requires indexed completion mode"));
        }
    }
    if let Some(policy) = &spec.pod_replacement_policy {
        let both = &["Failed", "TerminatingOrFailed"];
        let allowed = if spec.pod_failure_policy.is_some() { &both[..1] } else { &both[..] };
        one_of(errors, &path.child("podReplacementPolicy"), policy, allowed);
    }
    let at = path.child("template");
    pod_spec::validate_template(errors, &spec.template, &at);
    restart_policy(errors, spec, &at.child("spec").child("restartPolicy"));
}

pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    text(&spec.completion_mode) == "Indexed"
}

fn restart_policy(errors: &mut Errors, spec: &JobSpec, path: &Path) {
    let policy = spec.template.spec.as_ref().map(|pod| text(&pod.restart_policy)).unwrap_or_default();
    match policy {
        "" | "Always" => {
            errors.push(FieldError::required(path, r#"valid values: "OnFailure", "Never""#));
        }
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let detail = r#"only "Never" is supported when podFailurePolicy is specified"#;
            errors.push(FieldError::invalid(path, policy, detail));
        }
        _ => one_of(errors, path, policy, &["OnFailure", "Never"]),
    }
}

/// A path that starts with a domain.
fn managed_by(errors: &mut Errors, manager: &str, path: &Path) {
    match manager.split_once('/') {
        _ if manager.is_empty() => errors.push(FieldError::required(path, "")),
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            problems(errors, path, host, name::dns1123_subdomain(host));
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
            if !rest.bytes().all(allowed) {
                let regex = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";
                let detail = name::regex_message("Invalid path", regex, &[]);
                errors.push(FieldError::invalid(path, rest, detail));
            }
        }
        _ => {
            let detail = r#"must be a domain-prefixed path (such as "acme.io/foo")"#;
            errors.push(FieldError::invalid(path, manager, detail));
        }
    }
    if manager.len() > MOST_MANAGED_BY {
        errors.push(FieldError::too_long(path, MOST_MANAGED_BY));
    }
}

fn completion_mode(errors: &mut Errors, spec: &JobSpec, path: &Path) {
    let (at_parallelism, at_failed) = (path.child("parallelism"), path.child("maxFailedIndexes"));
    match spec.completion_mode.as_deref() {
        Some("Indexed") => indexed(errors, spec, path),
        None | Some("NonIndexed") => {
            let detail = "requires indexed completion mode";
            if let Some(limit) = spec.backoff_limit_per_index {
                errors.push(FieldError::invalid(&path.child("backoffLimitPerIndex"), limit, detail));
            }
            if let Some(failed) = spec.max_failed_indexes {
                errors.push(FieldError::invalid(&at_failed, failed, detail));
            }
            return;
        }
        Some(other) => {
            let supported = &["NonIndexed", "Indexed"];
            errors.push(FieldError::not_supported(&path.child("completionMode"), other, supported));
            return;
        }
    }
    let many = spec.completions.is_some_and(|completions| completions > MANY_COMPLETIONS);
    if !many || spec.backoff_limit_per_index.is_none() {
        return;
    }
    if spec.max_failed_indexes.is_none() {
        let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        errors.push(FieldError::required(&at_failed, detail));
    }
    for (at, value) in [(&at_parallelism, spec.parallelism), (&at_failed, spec.max_failed_indexes)] {
        if let Some(value) = value.filter(|value| *value > FEWER) {
            let detail = format!(
                "must be less than or equal to {FEWER} when completions are above {MANY_COMPLETIONS} and used with \
                 backoff limit per index"
            );
            errors.push(FieldError::invalid(at, value, detail));
        }
    }
}

fn indexed(errors: &mut Errors, spec: &JobSpec, path: &Path) {
    let at_failed = path.child("maxFailedIndexes");
    if spec.completions.is_none() {
        let detail = "when completion mode is Indexed";
        errors.push(FieldError::required(&path.child("completions"), detail));
    }
    if let Some(parallelism) = spec.parallelism.filter(|parallelism| *parallelism > MOST_PARALLEL) {
        let detail = format!("must be less than or equal to {MOST_PARALLEL} when completion mode is Indexed");
        errors.push(FieldError::invalid(&path.child("parallelism"), parallelism, detail));
    }
    let Some(failed) = spec.max_failed_indexes else { return };
    if spec.completions.is_some_and(|completions| failed > completions) {
        errors.push(FieldError::invalid(&at_failed, failed, "must be less than or equal to completions"));
    }
    if failed > MOST_FAILED {
        let detail = format!("must be less than or equal to {MOST_FAILED}");
        errors.push(FieldError::invalid(&at_failed, failed, detail));
    }
}

/// What may not change; `old_status` is that of the job before the change.
pub(super) fn validate_change(
    errors: &mut Errors,
    new: &JobSpec,
    old: &JobSpec,
    old_status: Option<&JobStatus>,
    path: &Path,
) {
    completions(errors, new, old, path);
    immutable(errors, &path.child("selector"), &new.selector, &old.selector);
    let template = if may_be_rescheduled(old, old_status) {
        rescheduled(&old.template, &new.template)
    } else {
        old.template.clone()
    };
    immutable(errors, &path.child("template"), &new.template, &template);
    immutable(errors, &path.child("completionMode"), &new.completion_mode, &old.completion_mode);
    let (at, name) = (path.child("podFailurePolicy"), "api/batch/v1.PodFailurePolicy");
    immutable_struct(errors, &at, &new.pod_failure_policy, &old.pod_failure_policy, name);
    let at = path.child("backoffLimitPerIndex");
    immutable(errors, &at, &new.backoff_limit_per_index, &old.backoff_limit_per_index);
    immutable(errors, &path.child("managedBy"), &new.managed_by, &old.managed_by);
    let (at, name) = (path.child("successPolicy"), "api/batch/v1.SuccessPolicy");
    immutable_struct(errors, &at, &new.success_policy, &old.success_policy, name);
}

/// Only the number of indexes can change, and only with that of the pods that run at once.
fn completions(errors: &mut Errors, new: &JobSpec, old: &JobSpec, path: &Path) {
    let at = path.child("completions");
    match new.completions {
        _ if !is_indexed(new) => immutable(errors, &at, &new.completions, &old.completions),
        Some(completions) if old.completions != new.completions && new.parallelism != Some(completions) => {
            let detail = format!("can only be modified in tandem with {}", path.child("parallelism"));
            errors.push(FieldError::invalid(&at, completions, detail));
        }
        _ => {}
    }
}

/// Whether a job is suspended, and has no pods that a change of the template would contradict.
fn may_be_rescheduled(spec: &JobSpec, status: Option<&JobStatus>) -> bool {
    let Some(status) = status else { return spec.suspend == Some(true) };
    let stopped = status.start_time.is_none()
        || (is_true(status, "Suspended") && status.active.unwrap_or_default() == 0);
    spec.suspend == Some(true) && stopped
}

/// The old template with all that may change while the job is suspended: where its pods may go and what they need.
fn rescheduled(old: &PodTemplateSpec, new: &PodTemplateSpec) -> PodTemplateSpec {
    let mut out = old.clone();
    let metadata = out.metadata.get_or_insert_default();
    metadata.labels = workload::labels(new).cloned();
    metadata.annotations = new.metadata.as_ref().and_then(|m| m.annotations.clone());
    let empty = PodSpec::default();
    let (pod, new) = (out.spec.get_or_insert_default(), new.spec.as_ref().unwrap_or(&empty));
    let node_affinity = new.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    if new.affinity.is_some() || pod.affinity.is_some() {
        let affinity = Affinity { node_affinity, ..pod.affinity.clone().unwrap_or_default() };
        pod.affinity =
            Some(affinity).filter(|affinity| new.affinity.is_some() || *affinity != Affinity::default());
    }
    pod.node_selector.clone_from(&new.node_selector);
    pod.tolerations.clone_from(&new.tolerations);
    pod.scheduling_gates.clone_from(&new.scheduling_gates);
    for (old, new) in pod.containers.iter_mut().zip(&new.containers) {
        old.resources.clone_from(&new.resources);
    }
    let inits = pod.init_containers.iter_mut().flatten();
    for (old, new) in inits.zip(list(&new.init_containers)) {
        old.resources.clone_from(&new.resources);
    }
    out
}

/// Advice about a spec that is new, or has changed.
pub(in crate::kinds) fn warnings(spec: &JobSpec, old: Option<&JobSpec>, path: &Path) -> Vec<String> {
    if old.is_some_and(|old| same(spec, old)) {
        return Vec::new();
    }
    let mut out = Vec::new();
    if is_indexed(spec)
        && spec.completions.is_some_and(|completions| completions > MANY_COMPLETIONS)
        && spec.parallelism.is_some_and(|parallelism| parallelism > FEWER)
    {
        out.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    let old_template = old.map(|old| &old.template);
    out.extend(workload::template_warnings(&spec.template, old_template, &path.child("template")));
    out
}

/// Values as Go prints a list of quoted texts.
pub(super) fn quoted(values: &[&str]) -> String {
    let values: Vec<String> = values.iter().map(|value| quote(value)).collect();
    format!("[{}]", values.join(" "))
}
