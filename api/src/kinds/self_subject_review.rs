//! The rules of authentication/v1 SelfSubjectReview.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;

use crate::{name::NameRule, object::Kind};

impl Kind for SelfSubjectReview {
    const NAME: Option<NameRule> = None;
}
