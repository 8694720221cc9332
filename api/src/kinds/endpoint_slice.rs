//! The rules of discovery/v1 EndpointSlice.

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::object::Kind;

impl Kind for EndpointSlice {}
