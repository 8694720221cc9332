//! The rules of authorization/v1 SelfSubjectAccessReview.

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;

use crate::{name::NameRule, object::Kind};

impl Kind for SelfSubjectAccessReview {
    const NAME: Option<NameRule> = None;
}
