//! The rules of core/v1 Endpoints.

use k8s_openapi::api::core::v1::Endpoints;

use crate::object::Kind;

impl Kind for Endpoints {}
