//! The rules of core/v1 ReplicationController.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus,
};
use serde_json::Value;

use super::{
    cells::{age, containers, labels},
    check::{generation, is_empty, nonnegative, same},
    pod::{defaults, spec},
    workload,
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, Replicas, name_cell},
    resource::Column,
};

impl Kind for ReplicationController {
    /// Its pods stay when a client deletes it without saying what is to become of them.
    const DEPENDENTS_STAY: Option<&'static str> = Some("");
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::integer("Desired").about(
            "Replicas is the number of desired replicas. This is a pointer to distinguish between explicit zero and \
             unspecified. Defaults to 1. More info: \
             https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
        ),
        Column::integer("Current").about(
            "Replicas is the most recently observed number of replicas. More info: \
             https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
        ),
        Column::integer("Ready").about("The number of ready replicas for this replication controller."),
        Column::age(),
        Column::text("Containers").wide().about("Names of each container in the template."),
        Column::text("Images").wide().about("Images referenced by each container in the template."),
        Column::text("Selector").wide().about(
            "Selector is a label query over pods that should match the Replicas count. If Selector is empty, it is \
             defaulted to the labels present on the Pod template. Label keys and values that must match in order to be \
             controlled by this replication controller, if empty defaulted to labels on Pod template. More info: \
             https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
        ),
    ];
    const FIELDS: &'static [&'static str] = &["status.replicas"];

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        let labels = spec.template.as_ref().and_then(workload::labels);
        if let Some(labels) = labels.cloned().filter(|labels| !labels.is_empty()) {
            if is_empty(&spec.selector) {
                spec.selector = Some(labels.clone());
            }
            if is_empty(&self.metadata.labels) {
                self.metadata.labels = Some(labels);
            }
        }
        spec.replicas.get_or_insert(1);
        if let Some(template) = &mut spec.template {
            defaults::template(template);
        }
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(ReplicationControllerStatus::default());
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
        let empty = ReplicationControllerSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        nonnegative(&mut errors, &at.child("minReadySeconds"), spec.min_ready_seconds);
        if is_empty(&spec.selector) {
            errors.push(FieldError::required(&at.child("selector"), ""));
        }
        nonnegative(&mut errors, &at.child("replicas"), spec.replicas);
        let at = at.child("template");
        match &spec.template {
            None => errors.push(FieldError::required(&at, "")),
            Some(template) => validate_template(&mut errors, template, spec.selector.as_ref(), &at),
        }
        errors
    }

    fn validate_update(&self, _old: &Self) -> Errors {
        // Upstream checks it as a new one, and as a changed one.
        let mut errors = Kind::validate(self);
        errors.extend(errors.clone());
        errors
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        let mut errors = Errors::new();
        let empty = ReplicationControllerStatus::default();
        let new = self.status.as_ref().unwrap_or(&empty);
        let counts = workload::Counts {
            replicas: new.replicas,
            fully_labeled: new.fully_labeled_replicas,
            ready: new.ready_replicas,
            available: new.available_replicas,
            terminating: None,
            observed_generation: new.observed_generation,
        };
        counts.validate(&mut errors, &Path::new("status"));
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let template = |rc: &Self| rc.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
        let mut out = Vec::new();
        if old.is_none() {
            out.extend(workload::name_warning(&self.metadata));
        }
        let at = Path::new("spec").child("template");
        out.extend(workload::template_warnings(&template(self), old.map(template).as_ref(), &at));
        out
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let replicas = self.status.as_ref().map(|s| s.replicas).unwrap_or_default();
        vec![("status.replicas", replicas.to_string())]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (empty_spec, empty_status) =
            (ReplicationControllerSpec::default(), ReplicationControllerStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&empty_spec);
        let status = self.status.as_ref().unwrap_or(&empty_status);
        let [names, images] = containers(workload::pods(spec.template.as_ref()));
        vec![
            name_cell(&self.metadata),
            spec.replicas.unwrap_or_default().into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or_default().into(),
            age(&self.metadata, now),
            names,
            images,
            labels(spec.selector.as_ref()),
        ]
    }

    fn replicas(&self) -> Option<Replicas> {
        let spec = self.spec.as_ref()?;
        let pairs: Vec<String> =
            spec.selector.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
        Some(Replicas {
            wanted: spec.replicas.unwrap_or_default(),
            current: self.status.as_ref().map(|s| s.replicas).unwrap_or_default(),
            selector: pairs.join(","),
        })
    }

    fn set_replicas(&mut self, wanted: i32) {
        self.spec.get_or_insert_default().replicas = Some(wanted);
    }
}

fn validate_template(
    errors: &mut Errors,
    template: &PodTemplateSpec,
    selector: Option<&BTreeMap<String, String>>,
    path: &Path,
) {
    let has = |(key, value): (&String, &String)| {
        workload::labels(template).is_some_and(|labels| labels.get(key) == Some(value))
    };
    if !selector.into_iter().flatten().all(has) {
        errors.push(workload::mismatch(template, path));
    }
    spec::validate_template(errors, template, path);
    spec::validate_always(errors, template, "ReplicationController", path);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::field::aggregate;

    fn controller(spec: Value) -> ReplicationController {
        let mut rc: ReplicationController =
            serde_json::from_value(json!({"metadata": {"name": "rc"}, "spec": spec})).unwrap_or_default();
        rc.set_defaults();
        rc
    }

    #[test]
    fn the_labels_of_the_template_are_the_selector_unless_it_is_given() {
        let rc = controller(json!({"template": {"metadata": {"labels": {"app": "a"}}}}));
        let labels = Some(BTreeMap::from([("app".to_owned(), "a".to_owned())]));
        assert_eq!((&rc.metadata.labels, &rc.spec.unwrap_or_default().selector), (&labels, &labels));
    }

    #[test]
    fn selector_and_template_are_required_and_match() {
        let pods = json!({"containers": [{"name": "c", "image": "i"}]});
        for (spec, text) in [
            (json!({}), "[spec.selector: Required value, spec.template: Required value]"),
            (
                json!({"selector": {"app": "x"}, "template": {"metadata": {"labels": {"app": "a"}}, "spec": pods}}),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
            ),
            (json!({"replicas": 2, "template": {"metadata": {"labels": {"app": "a"}}, "spec": pods}}), ""),
        ] {
            assert_eq!(aggregate(&Kind::validate(&controller(spec))), text);
        }
    }
}
