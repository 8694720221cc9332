//! What the rules of admission policies and their bindings share. Expressions are checked as far as that goes without
//! reading them.

use k8s_openapi::{
    api::admissionregistration::v1::{MatchCondition, MatchResources, ParamKind, ParamRef, Variable},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde_json::Value;

use super::{
    admission_rule::{self, FAILURE_POLICIES},
    check::{list, one_of, problems, required_one_of, selector, text},
};
use crate::{
    field::{Errors, FieldError, Path},
    name,
};

/// What both kinds of policies begin with.
pub(super) struct Common<'a> {
    pub failure_policy: &'a Option<String>,
    pub param_kind: &'a Option<ParamKind>,
    pub constraints: &'a Option<MatchResources>,
    pub conditions: &'a Option<Vec<MatchCondition>>,
    /// The conditions and what they mean are those of the stored policy.
    pub same_conditions: bool,
    pub variables: &'a Option<Vec<Variable>>,
    pub is_mutating: bool,
}

/// Checks what both kinds of policies begin with.
pub(super) fn common(errors: &mut Errors, path: &Path, policy: &Common<'_>) {
    let at = path.child("failurePolicy");
    match policy.failure_policy {
        None => errors.push(FieldError::required(&at, "")),
        Some(value) => one_of(errors, &at, value, &FAILURE_POLICIES),
    }
    if let Some(kind) = policy.param_kind {
        param_kind(errors, &path.child("paramKind"), kind);
    }
    let at = path.child("matchConstraints");
    match policy.constraints {
        None => errors.push(FieldError::required(&at, "")),
        Some(constraints) => {
            admission_rule::match_resources(errors, &at, constraints);
            if list(&constraints.resource_rules).is_empty() {
                errors.push(FieldError::required(&at.child("resourceRules"), ""));
            }
            if policy.is_mutating {
                admission_rule::only_mutable(errors, &at, constraints);
            }
        }
    }
    if !policy.same_conditions {
        admission_rule::match_conditions(errors, &path.child("matchConditions"), list(policy.conditions));
    }
    for (i, variable) in list(policy.variables).iter().enumerate() {
        let path = path.child("variables").index(i);
        let at = path.child("name");
        if variable.name.trim().is_empty() {
            errors.push(FieldError::required(&at, "name is not specified"));
        } else if !is_identifier(&variable.name) {
            errors.push(FieldError::invalid(&at, &variable.name, "must be a valid CEL identifier"));
        }
        expression(errors, &path.child("expression"), &variable.expression, "expression is not specified");
    }
}

/// An expression that is more than blanks.
pub(super) fn expression(errors: &mut Errors, path: &Path, value: &str, detail: &str) {
    if value.trim().is_empty() {
        errors.push(FieldError::required(path, detail));
    }
}

fn is_identifier(name: &str) -> bool {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    name::c_identifier(name).is_empty() && !RESERVED.contains(&name)
}

fn param_kind(errors: &mut Errors, path: &Path, kind: &ParamKind) {
    let at = path.child("apiVersion");
    let version = text(&kind.api_version);
    let (group, name) = version.split_once('/').unwrap_or(("", version));
    if version.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else if name.contains('/') {
        let detail = format!("unexpected GroupVersion string: {version}");
        errors.push(FieldError::invalid(&at, version, detail));
    } else {
        let joined = |problems: Vec<String>| Some(problems.join(",")).filter(|joined| !joined.is_empty());
        if let Some(wrong) = joined(name::dns1123_subdomain(group)).filter(|_| !group.is_empty()) {
            errors.push(FieldError::invalid(&at, group, wrong));
        }
        if name.is_empty() {
            errors.push(FieldError::invalid(&at, version, "version must be specified"));
        } else if let Some(wrong) = joined(name::dns1035_label(name)) {
            errors.push(FieldError::invalid(&at, name, wrong));
        }
    }
    let at = path.child("kind");
    let name = text(&kind.kind);
    let wrong = name::dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else if !wrong.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.push(FieldError::invalid(&at, name, detail));
    }
}

/// Checks what both kinds of bindings have.
pub(super) fn binding(
    errors: &mut Errors,
    path: &Path,
    policy: &str,
    param: Option<&ParamRef>,
    matches: Option<&MatchResources>,
) {
    let at = path.child("policyName");
    if policy.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else {
        problems(errors, &at, policy, name::dns1123_subdomain(policy));
    }
    if let Some(param) = param {
        param_ref(errors, &path.child("paramRef"), param);
    }
    if let Some(matches) = matches {
        admission_rule::match_resources(errors, &path.child("matchResources"), matches);
    }
}

fn param_ref(errors: &mut Errors, path: &Path, param: &ParamRef) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let name = text(&param.name);
    if !name.is_empty() {
        let at = path.child("name");
        problems(errors, &at, name, name::path_segment(name));
        if param.selector.is_some() {
            errors.push(FieldError::forbidden(&at, EXCLUSIVE));
        }
    }
    if param.selector.is_some() {
        let at = path.child("selector");
        selector(errors, &at, param.selector.as_ref());
        if !name.is_empty() {
            errors.push(FieldError::forbidden(&at, EXCLUSIVE));
        }
    } else if name.is_empty() {
        errors.push(FieldError::required(path, "one of name or selector must be specified"));
    }
    let at = path.child("parameterNotFoundAction");
    required_one_of(errors, &at, text(&param.parameter_not_found_action), &["Deny", "Allow"]);
}

/// The cell of the kind of a policy's parameters.
pub(super) fn param_kind_cell(kind: Option<&ParamKind>) -> Value {
    match kind {
        Some(kind) => format!("{}/{}", text(&kind.api_version), text(&kind.kind)).into(),
        None => "<unset>".into(),
    }
}

/// The cell of a binding's parameters.
pub(super) fn param_ref_cell(param: Option<&ParamRef>) -> Value {
    let Some(param) = param else { return "<unset>".into() };
    match (text(&param.name), text(&param.namespace), &param.selector) {
        ("", _, None) => "<unset>".into(),
        ("", _, Some(selector)) => selector_as_go(selector).into(),
        (name, "", _) => format!("*/{name}").into(),
        (name, namespace, _) => format!("{namespace}/{name}").into(),
    }
}

/// A selector as Go's generated `String` method writes it.
fn selector_as_go(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},"));
    let expressions = list(&selector.match_expressions).iter().map(|requirement| {
        let values = list(&requirement.values).join(" ");
        format!(
            "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},",
            requirement.key, requirement.operator
        )
    });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.collect::<String>(),
        expressions.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_of_a_group_version_and_kind() {
        for (version, kind, expected) in [
            ("v1", "ConfigMap", &[] as &[&str]),
            ("a.b/v1", "Thing", &[]),
            ("", "", &["k.apiVersion: Required value", "k.kind: Required value"]),
            ("/", "A", &["k.apiVersion: Invalid value: \"/\": version must be specified"]),
            (
                "a/b/c",
                "A",
                &["k.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"],
            ),
            ("a/", "A", &["k.apiVersion: Invalid value: \"a/\": version must be specified"]),
        ] {
            let kind = ParamKind { api_version: Some(version.to_owned()), kind: Some(kind.to_owned()) };
            let mut errors = Errors::new();
            param_kind(&mut errors, &Path::new("k"), &kind);
            let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(said, expected, "{version}");
        }
    }

    #[test]
    fn variables_have_names_of_the_expression_language() {
        for (name, good) in
            [("a", true), ("_b1", true), ("1a", false), ("in", false), ("a-b", false), ("", false)]
        {
            assert_eq!(is_identifier(name), good, "{name}");
        }
    }
}
