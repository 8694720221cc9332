//! The rules of authentication/v1 TokenReview.

use k8s_openapi::api::authentication::v1::TokenReview;

use crate::{name::NameRule, object::Kind};

impl Kind for TokenReview {
    const NAME: Option<NameRule> = None;
}
