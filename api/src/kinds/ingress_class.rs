//! The rules of networking.k8s.io/v1 IngressClass.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IngressClass, IngressClassParametersReference};
use serde_json::Value;

use super::{
    cells::{age, or_none},
    check::{dns_label, dns_subdomain, generation, immutable, same, text},
    format::domain_prefixed_path,
    ingress::path_segment,
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

/// A controller's name may have this many bytes.
const MAX_CONTROLLER: usize = 250;

impl Kind for IngressClass {
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Controller").about("Controller that is responsible for handling this class"),
        Column::text("Parameters").about("A reference to a resource with additional parameters"),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        if let Some(parameters) = &mut self.spec.get_or_insert_default().parameters {
            parameters.scope.get_or_insert_with(|| "Cluster".to_owned());
        }
    }

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let spec = self.spec.clone().unwrap_or_default();
        let path = Path::new("spec");
        let at = path.child("controller");
        let controller = text(&spec.controller);
        if controller.len() > MAX_CONTROLLER {
            errors.push(FieldError::too_long(&at, MAX_CONTROLLER));
        }
        domain_prefixed_path(&mut errors, &at, controller);
        if let Some(reference) = &spec.parameters {
            parameters(&mut errors, &path.child("parameters"), reference);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        let controller = |class: &Self| class.spec.as_ref().and_then(|spec| spec.controller.clone());
        let at = Path::new("spec").child("controller");
        immutable(&mut errors, &at, &controller(self), &controller(old));
        errors.extend(self.validate());
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        let parameters = spec.parameters.map(|p| match &p.api_group {
            Some(group) => format!("{}.{group}/{}", p.kind, p.name),
            None => format!("{}/{}", p.kind, p.name),
        });
        vec![
            name_cell(&self.metadata),
            text(&spec.controller).into(),
            or_none(&parameters.unwrap_or_default()),
            age(&self.metadata, now),
        ]
    }
}

fn parameters(errors: &mut Errors, path: &Path, parameters: &IngressClassParametersReference) {
    if let Some(group) = &parameters.api_group {
        dns_subdomain(errors, &path.child("apiGroup"), group);
    }
    path_segment(errors, &path.child("kind"), &parameters.kind, "kind is required");
    path_segment(errors, &path.child("name"), &parameters.name, "name is required");
    let at = path.child("namespace");
    match (parameters.scope.as_deref(), &parameters.namespace) {
        (None, _) => errors.push(FieldError::required(&path.child("scope"), "")),
        (Some("Namespace"), None) => {
            errors.push(FieldError::required(&at, "`parameters.scope` is set to 'Namespace'"));
        }
        (Some("Namespace"), Some(namespace)) => dns_label(errors, &at, namespace),
        (Some("Cluster"), Some(_)) => {
            errors.push(FieldError::forbidden(&at, "`parameters.scope` is set to 'Cluster'"));
        }
        (Some("Cluster"), None) => {}
        (Some(other), _) => {
            let scopes = &["Cluster", "Namespace"];
            errors.push(FieldError::not_supported(&path.child("scope"), other, scopes));
        }
    }
}
