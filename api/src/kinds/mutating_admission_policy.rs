//! The rules of admissionregistration.k8s.io/v1 MutatingAdmissionPolicy.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicySpec, Mutation,
};
use serde_json::Value;

use super::{
    admission_policy::{self, Common, expression, param_kind_cell},
    admission_rule::{REINVOCATION_POLICIES, default_match},
    cells::age,
    check::{generation, list, required_one_of, same, text},
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for MutatingAdmissionPolicy {
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::integer("Mutations")
            .about("Mutation indicates the number of mutations rules defined in this configuration"),
        Column::text("ParamKind")
            .about("ParamKind specifies the kind of resources used to parameterize this policy"),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.failure_policy.get_or_insert_with(|| "Fail".to_owned());
        spec.reinvocation_policy.get_or_insert_with(|| "Never".to_owned());
        if let Some(constraints) = &mut spec.match_constraints {
            default_match(constraints);
        }
    }

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn validate(&self) -> Errors {
        validate(self, None)
    }

    fn validate_update(&self, old: &Self) -> Errors {
        validate(self, Some(old))
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        vec![
            name_cell(&self.metadata),
            list(&spec.mutations).len().into(),
            param_kind_cell(spec.param_kind.as_ref()),
            age(&self.metadata, now),
        ]
    }
}

fn validate(policy: &MutatingAdmissionPolicy, old: Option<&MutatingAdmissionPolicy>) -> Errors {
    let mut errors = Errors::new();
    let empty = MutatingAdmissionPolicySpec::default();
    let spec = policy.spec.as_ref().unwrap_or(&empty);
    let path = Path::new("spec");
    let same_conditions = old.and_then(|old| old.spec.as_ref()).is_some_and(|old| {
        same(&spec.param_kind, &old.param_kind) && same(&spec.match_conditions, &old.match_conditions)
    });
    let common = Common {
        failure_policy: &spec.failure_policy,
        param_kind: &spec.param_kind,
        constraints: &spec.match_constraints,
        conditions: &spec.match_conditions,
        same_conditions,
        variables: &spec.variables,
        is_mutating: true,
    };
    admission_policy::common(&mut errors, &path, &common);
    let at = path.child("mutations");
    if list(&spec.mutations).is_empty() {
        errors.push(FieldError::required(&at, "mutations must contain at least one item"));
    }
    for (i, item) in list(&spec.mutations).iter().enumerate() {
        mutation(&mut errors, &at.index(i), item);
    }
    let at = path.child("reinvocationPolicy");
    required_one_of(&mut errors, &at, text(&spec.reinvocation_policy), &REINVOCATION_POLICIES);
    errors
}

fn mutation(errors: &mut Errors, path: &Path, mutation: &Mutation) {
    let patch = mutation.json_patch.as_ref().map(|patch| text(&patch.expression));
    let configuration = mutation.apply_configuration.as_ref().map(|apply| text(&apply.expression));
    let (kind, given, other) = match mutation.patch_type.as_str() {
        "JSONPatch" => ("JSONPatch", ("jsonPatch", patch), ("applyConfiguration", configuration)),
        "ApplyConfiguration" => {
            ("ApplyConfiguration", ("applyConfiguration", configuration), ("jsonPatch", patch))
        }
        other => {
            let types = &["ApplyConfiguration", "JSONPatch"];
            required_one_of(errors, &path.child("patchType"), other, types);
            return;
        }
    };
    let at = path.child(given.0);
    match given.1 {
        None => {
            errors.push(FieldError::required(&at, format!("must be specified when patchType is {kind}")));
        }
        Some(text) => expression(errors, &at.child("expression"), text, ""),
    }
    if other.1.is_some() {
        let detail = format!("must not be specified when patchType is {kind}");
        errors.push(FieldError::invalid(&path.child(other.0), format!("{{{}}}", other.0), detail));
    }
}
