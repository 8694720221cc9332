//! The rules of policy/v1 PodDisruptionBudget.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::object::Kind;

impl Kind for PodDisruptionBudget {}
