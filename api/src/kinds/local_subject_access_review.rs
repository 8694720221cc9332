//! The rules of authorization/v1 LocalSubjectAccessReview.

use k8s_openapi::api::authorization::v1::LocalSubjectAccessReview;

use crate::{name::NameRule, object::Kind};

impl Kind for LocalSubjectAccessReview {
    const NAME: Option<NameRule> = None;
}
