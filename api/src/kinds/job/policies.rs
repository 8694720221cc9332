//! Rules for a job's policies: which failures of pods count, and which indexes are enough for success.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule, SuccessPolicy, SuccessPolicyRule,
};

use super::{indexes, spec::quoted};
use crate::{
    field::{BadValue, Errors, FieldError, Path, quote},
    kinds::check::{list, nonnegative, one_of, qualified_name, text},
};

const MOST_RULES: usize = 20;
const MOST_EXIT_CODES: usize = 255;
const MOST_CONDITIONS: usize = 20;
const MOST_INDEXES: usize = 64 * 1024;

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];

/// Which failures of pods count.
pub(super) fn failure(errors: &mut Errors, policy: &PodFailurePolicy, spec: &JobSpec, path: &Path) {
    let at = path.child("rules");
    if policy.rules.len() > MOST_RULES {
        errors.push(FieldError::too_many(&at, policy.rules.len(), MOST_RULES));
    }
    let pod = spec.template.spec.as_ref();
    let containers = pod.into_iter().flat_map(|pod| pod.containers.iter().chain(list(&pod.init_containers)));
    let names: BTreeSet<&str> = containers.map(|container| container.name.as_str()).collect();
    for (i, rule) in policy.rules.iter().enumerate() {
        failure_rule(errors, rule, spec, &names, &at.index(i));
    }
}

/// One of several values, which are named if it is missing.
fn one_of_these(errors: &mut Errors, value: &str, allowed: &[&str], path: &Path) {
    if value.is_empty() {
        errors.push(FieldError::required(path, format!("valid values: {}", quoted(allowed))));
    } else {
        one_of(errors, path, value, allowed);
    }
}

fn failure_rule(
    errors: &mut Errors,
    rule: &PodFailurePolicyRule,
    spec: &JobSpec,
    names: &BTreeSet<&str>,
    path: &Path,
) {
    let at = path.child("action");
    if rule.action == "FailIndex" {
        if spec.backoff_limit_per_index.is_none() {
            let detail = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(&at, &rule.action, detail));
        }
    } else {
        one_of_these(errors, &rule.action, ACTIONS, &at);
    }
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(errors, codes, names, &path.child("onExitCodes"));
    }
    let conditions = list(&rule.on_pod_conditions);
    pod_conditions(errors, conditions, &path.child("onPodConditions"));
    let detail = match (rule.on_exit_codes.is_some(), !conditions.is_empty()) {
        (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(FieldError::invalid(path, BadValue::Omitted, detail));
}

fn pod_conditions(errors: &mut Errors, patterns: &[PodFailurePolicyOnPodConditionsPattern], path: &Path) {
    if patterns.len() > MOST_CONDITIONS {
        errors.push(FieldError::too_many(path, patterns.len(), MOST_CONDITIONS));
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let at = path.index(i);
        qualified_name(errors, &at.child("type"), &pattern.type_);
        one_of_these(errors, text(&pattern.status), STATUSES, &at.child("status"));
    }
}

fn exit_codes(
    errors: &mut Errors,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    names: &BTreeSet<&str>,
    path: &Path,
) {
    one_of_these(errors, &codes.operator, OPERATORS, &path.child("operator"));
    if let Some(name) = codes.container_name.as_deref().filter(|name| !names.contains(name)) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(&path.child("containerName"), name, detail));
    }
    let at = path.child("values");
    let values = &codes.values;
    if values.is_empty() {
        errors.push(FieldError::invalid(&at, BadValue::of(values), "at least one value is required"));
    } else if values.len() > MOST_EXIT_CODES {
        errors.push(FieldError::too_many(&at, values.len(), MOST_EXIT_CODES));
    }
    let mut seen = BTreeSet::new();
    for (i, value) in values.iter().enumerate() {
        if codes.operator == "In" && *value == 0 {
            let detail = "must not be 0 for the In operator";
            errors.push(FieldError::invalid(&at.index(i), *value, detail));
        }
        if !seen.insert(value) {
            errors.push(FieldError::duplicate(&at.index(i), *value));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(&at, BadValue::of(values), "must be ordered"));
    }
}

/// Which indexes are enough for success.
pub(super) fn success(errors: &mut Errors, policy: &SuccessPolicy, completions: i32, path: &Path) {
    let at = path.child("rules");
    if policy.rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(&at, detail));
    }
    if policy.rules.len() > MOST_RULES {
        errors.push(FieldError::too_many(&at, policy.rules.len(), MOST_RULES));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        success_rule(errors, rule, completions, &at.index(i));
    }
}

fn success_rule(errors: &mut Errors, rule: &SuccessPolicyRule, completions: i32, path: &Path) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(path, detail));
    }
    let mut total = 0;
    if let Some(text) = &rule.succeeded_indexes {
        let at = path.child("succeededIndexes");
        if text.len() > MOST_INDEXES {
            errors.push(FieldError::too_long(&at, MOST_INDEXES));
        }
        match indexes::count(text, completions) {
            Ok(count) => total = count,
            Err(problem) => {
                let detail = format!("error parsing succeededIndexes: {problem}");
                errors.push(FieldError::invalid(&at, text, detail));
            }
        }
    }
    let Some(count) = rule.succeeded_count else { return };
    let at = path.child("succeededCount");
    nonnegative(errors, &at, Some(count));
    if count > completions {
        let detail =
            format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.push(FieldError::invalid(&at, count, detail));
    }
    if rule.succeeded_indexes.is_some() && count > total {
        let detail = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.push(FieldError::invalid(&at, count, detail));
    }
}

/// As upstream shows its own struct.
pub(super) fn shown(policy: &SuccessPolicy) -> String {
    let null = || "null".to_owned();
    let rules: Vec<String> = policy
        .rules
        .iter()
        .map(|rule| {
            let indexes = rule.succeeded_indexes.as_deref().map_or_else(null, quote);
            let count = rule.succeeded_count.map_or_else(null, |count| count.to_string());
            format!(r#"{{"SucceededIndexes":{indexes},"SucceededCount":{count}}}"#)
        })
        .collect();
    format!(r#"{{"Rules":[{}]}}"#, rules.join(","))
}
