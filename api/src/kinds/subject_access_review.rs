//! The rules of authorization.k8s.io/v1 SubjectAccessReview, and what all access reviews have in common.

use k8s_openapi::{
    api::authorization::v1::{
        NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;

use super::check::{list, text};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    name::NameRule,
    object::Kind,
};

impl Kind for SubjectAccessReview {
    const NAME: Option<NameRule> = None;

    fn set_defaults(&mut self) {
        self.status.get_or_insert_default();
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        spec(&mut errors, &self.spec);
        no_metadata(&mut errors, &self.metadata, "must be empty");
        errors
    }
}

/// Whose access to what.
pub(super) fn spec(errors: &mut Errors, spec: &SubjectAccessReviewSpec) {
    what(errors, spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    if text(&spec.user).is_empty() && list(&spec.groups).is_empty() {
        let detail = "at least one of user or group must be specified";
        errors.push(FieldError::invalid(&Path::new("spec").child("user"), text(&spec.user), detail));
    }
}

/// Either a resource or another path.
pub(super) fn what(
    errors: &mut Errors,
    resource: Option<&ResourceAttributes>,
    other: Option<&NonResourceAttributes>,
) {
    let path = Path::new("spec");
    let shown = || other.map_or(BadValue::Json(Value::Null), BadValue::of);
    match (resource, other) {
        (Some(_), Some(_)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            errors.push(FieldError::invalid(&path.child("nonResourceAttributes"), shown(), detail));
        }
        (None, None) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid(&path.child("resourceAttributes"), shown(), detail));
        }
        _ => {}
    }
    let Some(resource) = resource else { return };
    let at = path.child("resourceAttributes");
    if let Some(selector) = &resource.field_selector {
        let requirements = list(&selector.requirements);
        let raw = text(&selector.raw_selector);
        selector_of(errors, raw, requirements.len(), &at.child("fieldSelector"));
    }
    if let Some(selector) = &resource.label_selector {
        let requirements = list(&selector.requirements);
        let raw = text(&selector.raw_selector);
        selector_of(errors, raw, requirements.len(), &at.child("labelSelector"));
    }
}

fn selector_of(errors: &mut Errors, raw: &str, requirements: usize, path: &Path) {
    if !raw.is_empty() && requirements > 0 {
        let detail = "may not specified at the same time as requirements";
        errors.push(FieldError::invalid(&path.child("rawSelector"), raw, detail));
    }
    if raw.is_empty() && requirements == 0 {
        let detail = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(FieldError::required(&path.child("requirements"), detail));
    }
}

/// A question has no name.
pub(super) fn no_metadata(errors: &mut Errors, meta: &ObjectMeta, detail: &str) {
    let rest = ObjectMeta { managed_fields: None, ..meta.clone() };
    if rest != ObjectMeta::default() {
        errors.push(FieldError::invalid(&Path::new("metadata"), BadValue::of(meta), detail));
    }
}
