//! The rules of core/v1 Binding.

use k8s_openapi::api::core::v1::Binding;

use crate::{name::NameRule, object::Kind};

impl Kind for Binding {
    const NAME: Option<NameRule> = None;
}
