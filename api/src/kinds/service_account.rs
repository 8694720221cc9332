//! The rules of core/v1 ServiceAccount.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::object::Kind;

impl Kind for ServiceAccount {}
