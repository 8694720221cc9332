//! The rules of authorization.k8s.io/v1 SelfSubjectAccessReview.

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;

use super::subject_access_review::{no_metadata, what};
use crate::{field::Errors, name::NameRule, object::Kind};

impl Kind for SelfSubjectAccessReview {
    const NAME: Option<NameRule> = None;

    fn set_defaults(&mut self) {
        self.status.get_or_insert_default();
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        what(&mut errors, self.spec.resource_attributes.as_ref(), self.spec.non_resource_attributes.as_ref());
        no_metadata(&mut errors, &self.metadata, "must be empty");
        errors
    }
}
