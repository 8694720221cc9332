//! The rules of apps/v1 Deployment.

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{
        Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy, RollingUpdateDeployment,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use super::{
    cells::{age, containers},
    check::{
        at_most_100_percent, generation, immutable, int_or_percent, int_or_percent_value, nonnegative, same,
        selector_text, text,
    },
    pod::defaults,
    workload,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    object::{Kind, Replicas, name_cell},
    resource::Column,
    schema::given::Given,
};

impl Kind for Deployment {
    const GIVEN: &'static [Given] = workload::GIVEN;
    const STATUS_RESETS: &'static [&'static [&'static str]] = &[&["spec"], &["metadata", "labels"]];
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Ready").about("Number of the pod with ready state"),
        Column::text("Up-to-date").about(
            "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
        ),
        Column::text("Available").about(
            "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this \
             deployment.",
        ),
        Column::age(),
        Column::text("Containers").wide().about("Names of each container in the template."),
        Column::text("Images").wide().about("Images referenced by each container in the template."),
        Column::text("Selector").wide().about(
            "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by \
             this deployment.",
        ),
    ];

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let strategy = spec.strategy.get_or_insert_default();
        if text(&strategy.type_).is_empty() {
            strategy.type_ = Some("RollingUpdate".to_owned());
        }
        if text(&strategy.type_) == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            let quarter = || IntOrString::String("25%".to_owned());
            rolling.max_unavailable.get_or_insert_with(quarter);
            rolling.max_surge.get_or_insert_with(quarter);
        }
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        defaults::template(&mut spec.template);
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(DeploymentStatus::default());
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        let changed =
            !same(&self.spec, &old.spec) || !same(&self.metadata.annotations, &old.metadata.annotations);
        generation(&mut self.metadata, &old.metadata, changed);
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.metadata.labels.clone_from(&old.metadata.labels);
        self.metadata.generation = old.metadata.generation;
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let empty = DeploymentSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        nonnegative(&mut errors, &at.child("replicas"), spec.replicas);
        workload::replicated(&mut errors, &spec.selector, &spec.template, &at);
        let empty = DeploymentStrategy::default();
        strategy(&mut errors, spec.strategy.as_ref().unwrap_or(&empty), &at.child("strategy"));
        nonnegative(&mut errors, &at.child("minReadySeconds"), spec.min_ready_seconds);
        nonnegative(&mut errors, &at.child("revisionHistoryLimit"), spec.revision_history_limit);
        let at = at.child("progressDeadlineSeconds");
        nonnegative(&mut errors, &at, spec.progress_deadline_seconds);
        if let Some(seconds) = spec.progress_deadline_seconds
            && seconds <= spec.min_ready_seconds.unwrap_or_default()
        {
            errors.push(FieldError::invalid(&at, seconds, "must be greater than minReadySeconds"));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        let selector = |d: &Self| d.spec.as_ref().map(|s| s.selector.clone()).unwrap_or_default();
        immutable(&mut errors, &Path::new("spec").child("selector"), &selector(self), &selector(old));
        errors
    }

    fn validate_status(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        let empty = DeploymentStatus::default();
        let (new, old) = (self.status.as_ref().unwrap_or(&empty), old.status.as_ref().unwrap_or(&empty));
        let at = Path::new("status");
        nonnegative(&mut errors, &at.child("observedGeneration"), new.observed_generation);
        for (field, value) in [
            ("replicas", new.replicas),
            ("updatedReplicas", new.updated_replicas),
            ("readyReplicas", new.ready_replicas),
            ("availableReplicas", new.available_replicas),
            ("unavailableReplicas", new.unavailable_replicas),
            ("terminatingReplicas", new.terminating_replicas),
            ("collisionCount", new.collision_count),
        ] {
            nonnegative(&mut errors, &at.child(field), value);
        }
        let total = new.replicas.unwrap_or_default();
        for (field, value) in [
            ("updatedReplicas", new.updated_replicas),
            ("readyReplicas", new.ready_replicas),
            ("availableReplicas", new.available_replicas),
        ] {
            if let Some(value) = value.filter(|v| *v > total) {
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
        let at = at.child("collisionCount");
        workload::not_decremented(&mut errors, &at, new.collision_count, old.collision_count);
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let template = |d: &Self| d.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let mut out = Vec::new();
        if old.is_none() {
            out.extend(workload::name_warning(&self.metadata));
        }
        let at = Path::new("spec").child("template");
        out.extend(workload::template_warnings(&template(self), old.map(template).as_ref(), &at));
        out
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (empty_spec, empty_status) = (DeploymentSpec::default(), DeploymentStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&empty_spec);
        let status = self.status.as_ref().unwrap_or(&empty_status);
        let ready = status.ready_replicas.unwrap_or_default();
        let [names, images] = containers(workload::pods(Some(&spec.template)));
        vec![
            name_cell(&self.metadata),
            format!("{ready}/{}", spec.replicas.unwrap_or_default()).into(),
            status.updated_replicas.unwrap_or_default().into(),
            status.available_replicas.unwrap_or_default().into(),
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
            current: self.status.as_ref().and_then(|s| s.replicas).unwrap_or_default(),
            selector: selector_text(Some(&spec.selector)),
        })
    }

    fn set_replicas(&mut self, wanted: i32) {
        self.spec.get_or_insert_default().replicas = Some(wanted);
    }
}

fn strategy(errors: &mut Errors, strategy: &DeploymentStrategy, path: &Path) {
    let at = path.child("rollingUpdate");
    match text(&strategy.type_) {
        "Recreate" => {
            if strategy.rolling_update.is_some() {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden(&at, detail));
            }
        }
        "RollingUpdate" => match &strategy.rolling_update {
            None => errors.push(FieldError::required(&at, "this should be defaulted and never be nil")),
            Some(rolling) => rolling_update(errors, rolling, &at),
        },
        other => {
            let rolling = strategy.rolling_update.as_ref();
            let rolling = rolling.map(|rolling| (&rolling.max_unavailable, &rolling.max_surge));
            let shown = workload::strategy_text(other, rolling);
            errors.push(FieldError::not_supported(path, shown, &["Recreate", "RollingUpdate"]));
        }
    }
}

fn rolling_update(errors: &mut Errors, rolling: &RollingUpdateDeployment, path: &Path) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    let at = path.child("maxUnavailable");
    int_or_percent(errors, &at, unavailable);
    int_or_percent(errors, &path.child("maxSurge"), surge);
    if int_or_percent_value(unavailable) == 0 && int_or_percent_value(surge) == 0 {
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(&at, BadValue::of(unavailable), detail));
    }
    at_most_100_percent(errors, &at, unavailable);
}
