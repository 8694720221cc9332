//! The rules of rbac/v1 RoleBinding.

use k8s_openapi::api::rbac::v1::RoleBinding;

use crate::{
    name::{self, NameRule},
    object::Kind,
};

impl Kind for RoleBinding {
    const NAME: Option<NameRule> = Some(name::path_segment_name);
    const CREATE_ON_UPDATE: bool = true;
}
