//! The rules of apps/v1 ReplicaSet, and what all workloads have in common.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus},
        core::v1::{Container, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde_json::Value;

use super::{
    cells::{age, containers},
    check::{
        generation, immutable, nonnegative, same, selector, selector_is_empty, selector_matches,
        selector_text, text,
    },
    pod::{defaults, spec, warnings},
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    name,
    object::{Kind, Replicas, name_cell},
    resource::Column,
};

impl Kind for ReplicaSet {
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::integer("Desired").about(
            "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and \
             unspecified. Defaults to 1. More info: \
             https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
        ),
        Column::integer("Current").about(
            "Replicas is the most recently observed number of non-terminating pods. More info: \
             https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
        ),
        Column::integer("Ready")
            .about("The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition."),
        Column::age(),
        Column::text("Containers").wide().about("Names of each container in the template."),
        Column::text("Images").wide().about("Images referenced by each container in the template."),
        Column::text("Selector").wide().about(
            "Selector is a label query over pods that should match the replica count. Label keys and values that must \
             match in order to be controlled by this replica set. It must match the pod template's labels. More info: \
             https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
        ),
    ];
    const FIELDS: &'static [&'static str] = &["status.replicas"];

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        defaults::template(spec.template.get_or_insert_default());
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(ReplicaSetStatus::default());
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.metadata.generation = old.metadata.generation;
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let (empty, no_template) = (ReplicaSetSpec::default(), PodTemplateSpec::default());
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        nonnegative(&mut errors, &at.child("replicas"), spec.replicas);
        nonnegative(&mut errors, &at.child("minReadySeconds"), spec.min_ready_seconds);
        let template = spec.template.as_ref().unwrap_or(&no_template);
        workload(&mut errors, &spec.selector, template, &at);
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        let selector = |s: &Self| s.spec.as_ref().map(|s| s.selector.clone()).unwrap_or_default();
        immutable(&mut errors, &Path::new("spec").child("selector"), &selector(self), &selector(old));
        errors
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        let mut errors = Errors::new();
        let empty = ReplicaSetStatus::default();
        let new = self.status.as_ref().unwrap_or(&empty);
        let at = Path::new("status");
        let parts = [
            ("fullyLabeledReplicas", new.fully_labeled_replicas),
            ("readyReplicas", new.ready_replicas),
            ("availableReplicas", new.available_replicas),
        ];
        nonnegative(&mut errors, &at.child("replicas"), Some(new.replicas));
        for (field, value) in parts {
            nonnegative(&mut errors, &at.child(field), value);
        }
        nonnegative(&mut errors, &at.child("terminatingReplicas"), new.terminating_replicas);
        nonnegative(&mut errors, &at.child("observedGeneration"), new.observed_generation);
        for (field, value) in parts {
            if let Some(value) = value.filter(|v| *v > new.replicas) {
                errors.push(FieldError::invalid(
                    &at.child(field),
                    value,
                    "cannot be greater than status.replicas",
                ));
            }
        }
        if let Some(available) =
            new.available_replicas.filter(|a| *a > new.ready_replicas.unwrap_or_default())
        {
            let detail = "cannot be greater than readyReplicas";
            errors.push(FieldError::invalid(&at.child("availableReplicas"), available, detail));
        }
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let mut out = Vec::new();
        if old.is_none() {
            let problems = name::dns1123_label(text(&self.metadata.name));
            if !problems.is_empty() {
                out.push(format!(
                    "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a \
                     DNS label is recommended: [{}]",
                    problems.join(" ")
                ));
            }
        }
        let template = |s: &Self| s.spec.as_ref().and_then(|s| s.template.clone());
        let changed = old.is_none_or(|old| !same(&template(self), &template(old)));
        if let Some(template) = template(self).filter(|_| changed) {
            out.extend(warnings::template(&template, &Path::new("spec").child("template")));
        }
        out
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let replicas = self.status.as_ref().map(|s| s.replicas).unwrap_or_default();
        vec![("status.replicas", replicas.to_string())]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (empty_spec, empty_status) = (ReplicaSetSpec::default(), ReplicaSetStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&empty_spec);
        let status = self.status.as_ref().unwrap_or(&empty_status);
        let [names, images] = containers(pods(spec.template.as_ref()));
        vec![
            name_cell(&self.metadata),
            spec.replicas.unwrap_or_default().into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or_default().into(),
            age(&self.metadata, now),
            names,
            images,
            selector_text(Some(&spec.selector)).into(),
        ]
    }

    fn replicas(&self) -> Option<Replicas> {
        let spec = self.spec.as_ref()?;
        Some(Replicas {
            wanted: spec.replicas.unwrap_or_default(),
            current: self.status.as_ref().map(|s| s.replicas).unwrap_or_default(),
            selector: selector_text(Some(&spec.selector)),
        })
    }

    fn set_replicas(&mut self, wanted: i32) {
        self.spec.get_or_insert_default().replicas = Some(wanted);
    }
}

/// The containers of a template.
pub(super) fn pods(template: Option<&PodTemplateSpec>) -> &[Container] {
    template.and_then(|t| t.spec.as_ref()).map(|s| s.containers.as_slice()).unwrap_or_default()
}

/// The selector, and a template that it selects.
pub(super) fn workload(
    errors: &mut Errors,
    label_selector: &LabelSelector,
    template: &PodTemplateSpec,
    path: &Path,
) {
    let at = path.child("selector");
    let shown = || BadValue::of(label_selector);
    let empty = BTreeMap::new();
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref()).unwrap_or(&empty);
    let at_template = path.child("template");
    let matches = if selector_is_empty(label_selector) {
        // The typed struct doesn't tell `{}` from nothing at all, which is what people forget, and which selects nothing.
        errors.push(FieldError::required(&at, ""));
        Some(false)
    } else {
        selector(errors, &at, Some(label_selector));
        selector_matches(label_selector, labels)
    };
    match matches {
        None => {
            errors.push(FieldError::invalid(&at, shown(), "invalid label selector"));
            return;
        }
        Some(true) => {}
        Some(false) => {
            let detail = "`selector` does not match template `labels`";
            let at = at_template.child("metadata").child("labels");
            errors.push(FieldError::invalid(&at, BadValue::of(labels), detail));
        }
    }
    spec::validate_template(errors, template, &at_template);
    spec::validate_always(errors, template, "ReplicaSet", &at_template);
}
