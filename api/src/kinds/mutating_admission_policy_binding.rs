//! The rules of admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicyBinding;
use serde_json::Value;

use super::{
    admission_policy::{self, param_ref_cell},
    admission_rule::{default_match, only_mutable},
    cells::age,
    check::{generation, same, text},
    validating_admission_policy_binding,
};
use crate::{
    field::{Errors, Path},
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for MutatingAdmissionPolicyBinding {
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = validating_admission_policy_binding::COLUMNS;

    fn set_defaults(&mut self) {
        if let Some(matches) = &mut self.spec.get_or_insert_default().match_resources {
            default_match(matches);
        }
    }

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let spec = self.spec.clone().unwrap_or_default();
        let path = Path::new("spec");
        let (param, matches) = (spec.param_ref.as_ref(), spec.match_resources.as_ref());
        admission_policy::binding(&mut errors, &path, text(&spec.policy_name), param, matches);
        if let Some(matches) = matches {
            only_mutable(&mut errors, &path.child("matchResources"), matches);
        }
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        vec![
            name_cell(&self.metadata),
            text(&spec.policy_name).into(),
            param_ref_cell(spec.param_ref.as_ref()),
            age(&self.metadata, now),
        ]
    }
}
