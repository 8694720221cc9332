//! The rules of apps/v1 ControllerRevision.

use k8s_openapi::api::apps::v1::ControllerRevision;

use crate::object::Kind;

impl Kind for ControllerRevision {}
