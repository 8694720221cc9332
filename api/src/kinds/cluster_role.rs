//! The rules of rbac/v1 ClusterRole.

use k8s_openapi::api::rbac::v1::ClusterRole;

use crate::{
    name::{self, NameRule},
    object::Kind,
};

impl Kind for ClusterRole {
    const NAME: Option<NameRule> = Some(name::path_segment_name);
    const CREATE_ON_UPDATE: bool = true;
}
