//! The rules of events/v1 Event.

use k8s_openapi::api::events::v1::Event;

use crate::object::Kind;

impl Kind for Event {}
