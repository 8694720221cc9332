//! The rules of admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec,
    ValidatingAdmissionPolicyStatus, Validation,
};
use serde_json::Value;

use super::{
    admission_policy::{self, Common, expression, param_kind_cell},
    admission_rule::default_match,
    cells::age,
    check::{generation, list, one_of, problems, required, same, text},
    format::conditions,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    name,
    object::{Kind, name_cell},
    resource::Column,
};

const MAX_ANNOTATIONS: usize = 20;
const MAX_ANNOTATION_EXPRESSION: usize = 5 * 1024;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];

impl Kind for ValidatingAdmissionPolicy {
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::integer("Validations")
            .about("Validations indicates the number of validation rules defined in this configuration"),
        Column::text("ParamKind")
            .about("ParamKind specifies the kind of resources used to parameterize this policy"),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.failure_policy.get_or_insert_with(|| "Fail".to_owned());
        if let Some(constraints) = &mut spec.match_constraints {
            default_match(constraints);
        }
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(ValidatingAdmissionPolicyStatus::default());
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        crate::meta::keep_for_status(&mut self.metadata, &old.metadata);
    }

    fn validate(&self) -> Errors {
        validate(self, None)
    }

    fn validate_update(&self, old: &Self) -> Errors {
        validate(self, Some(old))
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        let mut errors = Errors::new();
        let Some(status) = &self.status else { return errors };
        let path = Path::new("status");
        let warnings = status.type_checking.as_ref().map(|checking| list(&checking.expression_warnings));
        for (i, warning) in warnings.unwrap_or_default().iter().enumerate() {
            let at = path.child("typeChecking").child("expressionWarnings").index(i);
            required(&mut errors, &at.child("warning"), &warning.warning);
            required(&mut errors, &at.child("fieldRef"), warning.field_ref.trim());
        }
        conditions(&mut errors, &path.child("conditions"), list(&status.conditions));
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        vec![
            name_cell(&self.metadata),
            list(&spec.validations).len().into(),
            param_kind_cell(spec.param_kind.as_ref()),
            age(&self.metadata, now),
        ]
    }
}

fn validate(policy: &ValidatingAdmissionPolicy, old: Option<&ValidatingAdmissionPolicy>) -> Errors {
    let mut errors = Errors::new();
    let empty = ValidatingAdmissionPolicySpec::default();
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
        is_mutating: false,
    };
    admission_policy::common(&mut errors, &path, &common);
    let (validations, annotations) = (list(&spec.validations), list(&spec.audit_annotations));
    if validations.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.push(FieldError::required(&path.child("validations"), detail));
        errors.push(FieldError::required(&path.child("auditAnnotations"), detail));
    }
    for (i, item) in validations.iter().enumerate() {
        validation(&mut errors, &path.child("validations").index(i), item);
    }
    let at = path.child("auditAnnotations");
    if annotations.len() > MAX_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.push(FieldError::invalid(&at, BadValue::of(&annotations), detail));
    }
    let name = text(&policy.metadata.name);
    let mut seen = BTreeSet::new();
    for (i, item) in annotations.iter().enumerate() {
        let at = at.index(i);
        annotation(&mut errors, &at, item, name);
        if !seen.insert(&item.key) {
            errors.push(FieldError::duplicate(&at.child("key"), &item.key));
        }
    }
    errors
}

fn validation(errors: &mut Errors, path: &Path, validation: &Validation) {
    expression(errors, &path.child("expression"), &validation.expression, "expression is not specified");
    let (message, computed) = (text(&validation.message), text(&validation.message_expression));
    for (field, value) in [("messageExpression", computed), ("message", message)] {
        if !value.is_empty() && value.trim().is_empty() {
            errors.push(FieldError::invalid(&path.child(field), value, "must be non-empty if specified"));
        }
    }
    if message.trim().contains(['\n', '\r']) {
        errors.push(FieldError::invalid(&path.child("message"), message, "must not contain line breaks"));
    }
    if let Some(reason) = &validation.reason {
        one_of(errors, &path.child("reason"), reason, &REASONS);
    }
}

fn annotation(errors: &mut Errors, path: &Path, annotation: &AuditAnnotation, policy: &str) {
    let at = path.child("key");
    if policy.is_empty() {
        errors.push(FieldError::invalid(&at, &annotation.key, "requires metadata.name be non-empty"));
    } else {
        let whole = format!("{policy}/{}", annotation.key);
        problems(errors, &at, &whole, name::qualified_name(&whole));
    }
    let at = path.child("valueExpression");
    expression(errors, &at, &annotation.value_expression, "valueExpression is not specified");
    if annotation.value_expression.trim().len() > MAX_ANNOTATION_EXPRESSION {
        let detail = format!("must not exceed {MAX_ANNOTATION_EXPRESSION} bytes in length");
        errors.push(FieldError::required(&at, detail));
    }
}
