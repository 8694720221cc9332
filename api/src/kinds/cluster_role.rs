//! The rules of rbac.authorization.k8s.io/v1 ClusterRole.

use k8s_openapi::api::rbac::v1::ClusterRole;

use super::{
    check::{list, selector},
    role,
};
use crate::{
    field::{Errors, FieldError, Path},
    name::NameRule,
    object::Kind,
};

impl Kind for ClusterRole {
    const NAME: Option<NameRule> = Some(role::any_path_segment);
    const CREATE_ON_UPDATE: bool = true;

    fn validate(&self) -> Errors {
        let mut errors = role::rules(list(&self.rules), false);
        if let Some(aggregation) = &self.aggregation_rule {
            let path = Path::new("aggregationRule").child("clusterRoleSelectors");
            let selectors = list(&aggregation.cluster_role_selectors);
            if selectors.is_empty() {
                let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(FieldError::required(&path, detail));
            }
            for (i, entry) in selectors.iter().enumerate() {
                selector(&mut errors, &path.index(i), Some(entry));
            }
        }
        errors
    }
}
