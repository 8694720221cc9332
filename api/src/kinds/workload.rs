//! What the kinds that run pods from a template have in common.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodTemplateSpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use serde_json::json;

use super::{
    check::{nonnegative, same, selector, selector_is_empty, selector_matches, text},
    pod::{spec, warnings},
};
use crate::{
    field::{BadValue, Errors, FieldError, Path, quote},
    name,
    schema::given::{Given, Way},
};

/// How upstream shows the strategy of an update, which is its own struct.
pub(super) fn strategy_text(
    strategy: &str,
    rolling: Option<(&Option<IntOrString>, &Option<IntOrString>)>,
) -> BadValue {
    let shown = |value: &Option<IntOrString>| json!(value.clone().unwrap_or(IntOrString::Int(0)));
    let rolling = rolling.map_or_else(
        || "null".to_owned(),
        |(unavailable, surge)| {
            format!(r#"{{"MaxUnavailable":{},"MaxSurge":{}}}"#, shown(unavailable), shown(surge))
        },
    );
    BadValue::Plain(format!(r#"{{"Type":{},"RollingUpdate":{rolling}}}"#, quote(strategy)))
}

/// The containers of a template.
pub(super) fn pods(template: Option<&PodTemplateSpec>) -> &[Container] {
    template.and_then(|t| t.spec.as_ref()).map(|s| s.containers.as_slice()).unwrap_or_default()
}

/// The labels of the pods of a template.
pub(super) fn labels(template: &PodTemplateSpec) -> Option<&BTreeMap<String, String>> {
    template.metadata.as_ref().and_then(|m| m.labels.as_ref())
}

/// A selector that was given and says nothing is told from one that was forgotten; so are the labels of the pods.
pub(super) const GIVEN: &[Given] =
    &[("spec.selector", Way::Holds("matchLabels")), ("spec.template.metadata.labels", Way::Kept)];

/// Whether a selector is not there at all, which selects nothing.
pub(super) fn is_absent(selector: &LabelSelector) -> bool {
    selector.match_labels.is_none() && selector.match_expressions.is_none()
}

/// Whether a selector selects the pods of a template. None: the selector makes no sense.
pub(super) fn selects(selector: &LabelSelector, template: &PodTemplateSpec) -> Option<bool> {
    if is_absent(selector) {
        return Some(false);
    }
    selector_matches(selector, labels(template).unwrap_or(&BTreeMap::new()))
}

/// The selector does not select the pods of the template.
pub(super) fn mismatch(template: &PodTemplateSpec, path: &Path) -> FieldError {
    let at = path.child("metadata").child("labels");
    let shown = BadValue::of(&labels(template));
    FieldError::invalid(&at, shown, "`selector` does not match template `labels`")
}

/// A selector that must be there and say something. `workload` is upstream's word for the kind.
pub(super) fn required_selector(
    errors: &mut Errors,
    label_selector: &LabelSelector,
    workload: &str,
    path: &Path,
) {
    if is_absent(label_selector) {
        errors.push(FieldError::required(path, ""));
        return;
    }
    selector(errors, path, Some(label_selector));
    if selector_is_empty(label_selector) {
        let detail = format!("empty selector is invalid for {workload}");
        errors.push(FieldError::invalid(path, BadValue::Json(serde_json::json!({})), detail));
    }
}

/// The selector of a ReplicaSet or a Deployment, and a template that it selects.
pub(super) fn replicated(
    errors: &mut Errors,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    path: &Path,
) {
    let (at, at_template) = (path.child("selector"), path.child("template"));
    // Upstream's word for both kinds.
    required_selector(errors, selector, "deployment", &at);
    match selects(selector, template) {
        None => {
            errors.push(FieldError::invalid(&at, BadValue::of(selector), "invalid label selector"));
            return;
        }
        Some(true) => {}
        Some(false) => errors.push(mismatch(template, &at_template)),
    }
    spec::validate_template(errors, template, &at_template);
    spec::validate_always(errors, template, "ReplicaSet", &at_template);
}

/// The counts in the status of a ReplicaSet or a ReplicationController.
pub(super) struct Counts {
    pub(super) replicas: i32,
    pub(super) fully_labeled: Option<i32>,
    pub(super) ready: Option<i32>,
    pub(super) available: Option<i32>,
    pub(super) terminating: Option<i32>,
    pub(super) observed_generation: Option<i64>,
}

impl Counts {
    /// No count is negative, and none of a part is greater than that of the whole.
    pub(super) fn validate(&self, errors: &mut Errors, path: &Path) {
        let parts = [
            ("fullyLabeledReplicas", self.fully_labeled),
            ("readyReplicas", self.ready),
            ("availableReplicas", self.available),
        ];
        nonnegative(errors, &path.child("replicas"), Some(self.replicas));
        for (field, value) in parts {
            nonnegative(errors, &path.child(field), value);
        }
        nonnegative(errors, &path.child("terminatingReplicas"), self.terminating);
        nonnegative(errors, &path.child("observedGeneration"), self.observed_generation);
        for (field, value) in parts {
            if let Some(value) = value.filter(|v| *v > self.replicas) {
                let detail = "cannot be greater than status.replicas";
                errors.push(FieldError::invalid(&path.child(field), value, detail));
            }
        }
        if let Some(available) = self.available.filter(|a| *a > self.ready.unwrap_or_default()) {
            let detail = "cannot be greater than readyReplicas";
            errors.push(FieldError::invalid(&path.child("availableReplicas"), available, detail));
        }
    }
}

/// A count that may never go down.
pub(super) fn not_decremented(errors: &mut Errors, path: &Path, new: Option<i32>, old: Option<i32>) {
    if let Some(before) = old
        && new.is_none_or(|now| now < before)
    {
        errors.push(FieldError::invalid(path, new.unwrap_or_default(), "cannot be decremented"));
    }
}

/// Advice about a name that becomes part of the names of pods.
pub(super) fn name_warning(meta: &ObjectMeta) -> Option<String> {
    let problems = name::dns1123_label(text(&meta.name));
    (!problems.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS \
             label is recommended: [{}]",
            problems.join(" ")
        )
    })
}

/// Advice about a template that is new, or has changed.
pub(super) fn template_warnings(
    template: &PodTemplateSpec,
    old: Option<&PodTemplateSpec>,
    path: &Path,
) -> Vec<String> {
    if old.is_some_and(|old| same(template, old)) { Vec::new() } else { warnings::template(template, path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_that_was_forgotten_is_told_from_one_that_says_nothing() {
        let given = LabelSelector { match_labels: Some(BTreeMap::new()), match_expressions: None };
        for (selector, text) in [
            (LabelSelector::default(), "spec.selector: Required value"),
            (given, "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
        ] {
            let mut errors = Errors::new();
            required_selector(&mut errors, &selector, "deployment", &Path::new("spec").child("selector"));
            assert_eq!(crate::field::aggregate(&errors), text);
        }
    }
}
