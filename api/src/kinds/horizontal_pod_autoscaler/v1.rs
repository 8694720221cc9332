//! The rules of autoscaling/v1 HorizontalPodAutoscaler: those of v2, which it becomes before it is asked.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::{
    v1::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus},
    v2,
};
use serde_json::Value;

use super::{
    COLUMNS,
    conversion::{self, BEHAVIOR, CONDITIONS, CURRENT_METRICS, METRICS},
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, Object},
    resource::Column,
};

impl Kind for HorizontalPodAutoscaler {
    const COLUMNS: &'static [Column] = COLUMNS;

    fn set_defaults(&mut self) {
        self.spec.min_replicas.get_or_insert(1);
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(HorizontalPodAutoscalerStatus::default());
        annotate_like(self, &Self::default(), &[CONDITIONS, CURRENT_METRICS]);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        annotate_like(self, old, &[CONDITIONS, CURRENT_METRICS]);
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        annotate_like(self, old, &[METRICS, BEHAVIOR]);
    }

    fn validate(&self) -> Errors {
        match stored(self) {
            Ok(stored) => stored.validate(),
            Err(errors) => errors,
        }
    }

    fn validate_update(&self, old: &Self) -> Errors {
        match (stored(self), stored(old)) {
            (Ok(stored), Ok(old)) => stored.validate_update(&old),
            (Ok(stored), Err(_)) => stored.validate(),
            (Err(errors), _) => errors,
        }
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        match stored(self) {
            Ok(stored) => stored.validate_status(&stored),
            Err(errors) => errors,
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        stored(self).unwrap_or_default().cells(now)
    }
}

/// Takes over what some annotations say.
fn annotate_like(it: &mut HorizontalPodAutoscaler, other: &HorizontalPodAutoscaler, names: &[&str]) {
    let before: BTreeMap<String, String> = other.metadata.annotations.clone().unwrap_or_default();
    let mut annotations = it.metadata.annotations.take().unwrap_or_default();
    for name in names {
        match before.get(*name) {
            Some(value) => annotations.insert((*name).to_owned(), value.clone()),
            None => annotations.remove(*name),
        };
    }
    it.metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
}

/// The autoscaler as it is stored.
fn stored(it: &HorizontalPodAutoscaler) -> Result<v2::HorizontalPodAutoscaler, Errors> {
    let mut errors = Errors::new();
    let path = Path::new("metadata").child("annotations");
    for (name, value) in it.metadata.annotations.iter().flatten() {
        if let Some(problem) = conversion::problem(name, value) {
            errors.push(FieldError::invalid(&path.key(name), value, problem));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut value = it.to_value();
    if let Some(fields) = value.as_object_mut() {
        (conversion::HPA.to_storage)(fields);
        fields.insert("apiVersion".to_owned(), "autoscaling/v2".into());
    }
    let stored: Result<v2::HorizontalPodAutoscaler, _> = serde_json::from_value(value);
    let mut stored = stored.map_err(|error| {
        let detail = error.to_string();
        Errors::from_iter([FieldError::invalid(&Path::new("spec"), "", detail)])
    })?;
    stored.set_defaults();
    Ok(stored)
}
