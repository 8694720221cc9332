//! The rules of apps/v1 Deployment.

use k8s_openapi::api::apps::v1::Deployment;

use crate::object::Kind;

impl Kind for Deployment {}
