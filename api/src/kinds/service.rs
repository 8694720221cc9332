//! The rules of core/v1 Service.

use k8s_openapi::api::core::v1::Service;

use crate::object::Kind;

impl Kind for Service {}
