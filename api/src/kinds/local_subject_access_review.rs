//! The rules of authorization.k8s.io/v1 LocalSubjectAccessReview.

use k8s_openapi::{
    api::authorization::v1::LocalSubjectAccessReview, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    check::text,
    subject_access_review::{no_metadata, spec},
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    name::NameRule,
    object::Kind,
};

impl Kind for LocalSubjectAccessReview {
    const NAME: Option<NameRule> = None;

    fn set_defaults(&mut self) {
        self.status.get_or_insert_default();
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        spec(&mut errors, &self.spec);
        let rest = ObjectMeta { namespace: None, ..self.metadata.clone() };
        no_metadata(&mut errors, &rest, "must be empty except for namespace");
        if let Some(resource) = &self.spec.resource_attributes
            && text(&resource.namespace) != text(&self.metadata.namespace)
        {
            let at = Path::new("spec.resourceAttributes.namespace");
            errors.push(FieldError::invalid(&at, text(&resource.namespace), "must match metadata.namespace"));
        }
        if let Some(other) = &self.spec.non_resource_attributes {
            let at = Path::new("spec.nonResourceAttributes");
            errors.push(FieldError::invalid(&at, BadValue::of(other), "disallowed on this kind of request"));
        }
        errors
    }
}
