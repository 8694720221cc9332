//! The rules of scheduling/v1 PriorityClass.

use k8s_openapi::api::scheduling::v1::PriorityClass;

use crate::object::Kind;

impl Kind for PriorityClass {}
