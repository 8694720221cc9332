//! The rules of core/v1 Secret.

use k8s_openapi::api::core::v1::Secret;

use crate::object::Kind;

impl Kind for Secret {}
