//! The rules of core/v1 Node.

use k8s_openapi::api::core::v1::Node;

use crate::object::Kind;

impl Kind for Node {}
