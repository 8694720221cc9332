//! The rules of core/v1 Pod.

use k8s_openapi::api::core::v1::Pod;

use crate::object::Kind;

impl Kind for Pod {}
