//! The rules of node/v1 RuntimeClass.

use k8s_openapi::api::node::v1::RuntimeClass;

use crate::object::Kind;

impl Kind for RuntimeClass {}
