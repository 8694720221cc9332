//! The rules of authentication/v1 TokenRequest.

use k8s_openapi::api::authentication::v1::TokenRequest;

use crate::{name::NameRule, object::Kind};

impl Kind for TokenRequest {
    const NAME: Option<NameRule> = None;
}
