//! The rules of authorization/v1 SubjectAccessReview.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;

use crate::{name::NameRule, object::Kind};

impl Kind for SubjectAccessReview {
    const NAME: Option<NameRule> = None;
}
