//! The rules of authorization/v1 SelfSubjectRulesReview.

use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;

use crate::{name::NameRule, object::Kind};

impl Kind for SelfSubjectRulesReview {
    const NAME: Option<NameRule> = None;
}
