//! The rules of rbac.authorization.k8s.io/v1 ClusterRole.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::Value;

use super::{
    check::{list, selector, selector_matches},
    role,
};
use crate::{
    field::{Errors, FieldError, Path},
    name::NameRule,
    object::{Kind, Null},
};

impl Kind for ClusterRole {
    const NAME: Option<NameRule> = Some(role::any_path_segment);
    const CREATE_ON_UPDATE: bool = true;
    const NULLS: &'static [Null<Self>] = &[("rules", |it| it.rules.is_none())];

    fn set_defaults(&mut self) {
        self.rules.take_if(|rules| rules.is_empty());
    }

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
                let at = path.index(i);
                selector(&mut errors, &at, Some(entry));
                if selector_matches(entry, &BTreeMap::new()).is_none() {
                    errors.push(FieldError::invalid(&at, Value::Null, "invalid label selector."));
                }
            }
        }
        errors
    }
}
