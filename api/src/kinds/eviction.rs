//! The rules of policy/v1 Eviction.

use k8s_openapi::api::policy::v1::Eviction;

use crate::{name::NameRule, object::Kind};

impl Kind for Eviction {
    const NAME: Option<NameRule> = None;
}
