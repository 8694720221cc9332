//! The rules of rbac.authorization.k8s.io/v1 RoleBinding.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::Value;

use super::{cells::age, check::list, role};
use crate::{
    field::Errors,
    name::NameRule,
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for RoleBinding {
    const NAME: Option<NameRule> = Some(role::any_path_segment);
    const CREATE_ON_UPDATE: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Role").about(
            "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error. This field is immutable.",
        ),
        Column::age(),
        Column::text("Users").wide().about("Users in the roleBinding"),
        Column::text("Groups").wide().about("Groups in the roleBinding"),
        Column::text("ServiceAccounts").wide().about("ServiceAccounts in the roleBinding"),
    ];

    fn set_defaults(&mut self) {
        role::binding_defaults(&mut self.role_ref, &mut self.subjects);
    }

    fn validate(&self) -> Errors {
        role::binding(&self.role_ref, list(&self.subjects), true)
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        role::same_role(&mut errors, &self.role_ref, &old.role_ref);
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let [role, users, groups, accounts] = role::binding_cells(&self.role_ref, list(&self.subjects));
        vec![name_cell(&self.metadata), role, age(&self.metadata, now), users, groups, accounts]
    }
}
