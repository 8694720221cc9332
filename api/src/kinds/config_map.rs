//! The rules of core/v1 ConfigMap.

use k8s_openapi::api::core::v1::ConfigMap;

use crate::object::Kind;

impl Kind for ConfigMap {}
