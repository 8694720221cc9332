//! The rules of apps/v1 ReplicaSet.

use k8s_openapi::api::apps::v1::ReplicaSet;

use crate::object::Kind;

impl Kind for ReplicaSet {}
