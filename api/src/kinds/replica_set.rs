//! The rules of apps/v1 ReplicaSet.

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus},
    core::v1::PodTemplateSpec,
};
use serde_json::Value;

use super::{
    cells::{age, containers},
    check::{generation, immutable, nonnegative, same, selector_text},
    pod::defaults,
    workload,
};
use crate::{
    field::{Errors, Path},
    object::{Kind, Replicas, name_cell},
    resource::Column,
    schema::given::Given,
};

impl Kind for ReplicaSet {
    const GIVEN: &'static [Given] = workload::GIVEN;
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
        workload::replicated(&mut errors, &spec.selector, template, &at);
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
        let counts = workload::Counts {
            replicas: new.replicas,
            fully_labeled: new.fully_labeled_replicas,
            ready: new.ready_replicas,
            available: new.available_replicas,
            terminating: new.terminating_replicas,
            observed_generation: new.observed_generation,
        };
        counts.validate(&mut errors, &Path::new("status"));
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let template = |s: &Self| s.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
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
        let (empty_spec, empty_status) = (ReplicaSetSpec::default(), ReplicaSetStatus::default());
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
