//! The rules of core/v1 Namespace.

use k8s_openapi::api::core::v1::Namespace;

use crate::object::Kind;

impl Kind for Namespace {}
