//! The rules of admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use serde_json::Value;

use super::{
    admission_policy::{self, param_ref_cell},
    admission_rule::default_match,
    cells::age,
    check::{generation, one_of, same},
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

/// The columns of the bindings of both kinds of policies.
pub(super) const COLUMNS: &[Column] = &[
    Column::name(),
    Column::text("PolicyName")
        .about("PolicyName indicates the policy definition which the policy binding binded to"),
    Column::text("ParamRef").about("ParamRef indicates the param resource which sets the configration param"),
    Column::age(),
];

impl Kind for ValidatingAdmissionPolicyBinding {
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = COLUMNS;

    fn set_defaults(&mut self) {
        if let Some(matches) = &mut self.spec.match_resources {
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
        let spec = &self.spec;
        let path = Path::new("spec");
        let (param, matches) = (spec.param_ref.as_ref(), spec.match_resources.as_ref());
        admission_policy::binding(&mut errors, &path, &spec.policy_name, param, matches);
        actions(&mut errors, &path.child("validationActions"), &spec.validation_actions);
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name_cell(&self.metadata),
            self.spec.policy_name.as_str().into(),
            param_ref_cell(self.spec.param_ref.as_ref()),
            age(&self.metadata, now),
        ]
    }
}

fn actions(errors: &mut Errors, path: &Path, actions: &[String]) {
    let mut seen = BTreeSet::new();
    for (i, action) in actions.iter().enumerate() {
        one_of(errors, &path.index(i), action, &["Audit", "Deny", "Warn"]);
        if !seen.insert(action) {
            errors.push(FieldError::duplicate(&path.index(i), action));
        }
    }
    if ["Deny", "Warn"].iter().all(|both| actions.iter().any(|action| action == both)) {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                      API response and headers serves no purpose)";
        errors.push(FieldError::invalid(path, BadValue::of(&actions), detail));
    }
    if actions.is_empty() {
        errors.push(FieldError::required(path, "at least one validation action is required"));
    }
}
