//! The rules of core/v1 Event.

use k8s_openapi::api::core::v1::Event;

use crate::object::Kind;

impl Kind for Event {}
