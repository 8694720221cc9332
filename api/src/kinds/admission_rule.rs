//! Which requests an admission webhook or policy is asked about: rules, resources, match conditions.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, RuleWithOperations,
};

use super::check::{list, one_of, problems, qualified_name, required, selector};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    name,
};

pub(super) const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
pub(super) const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
pub(super) const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// What a policy that changes objects can be asked about: there is nothing to change in what is deleted.
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const MAX_CONDITIONS: usize = 64;

/// A rule of a webhook or a policy.
pub(super) struct Rule<'a> {
    operations: &'a [String],
    api_groups: &'a [String],
    api_versions: &'a [String],
    resources: &'a [String],
    scope: &'a Option<String>,
}

impl<'a> From<&'a RuleWithOperations> for Rule<'a> {
    fn from(rule: &'a RuleWithOperations) -> Self {
        Self {
            operations: list(&rule.operations),
            api_groups: list(&rule.api_groups),
            api_versions: list(&rule.api_versions),
            resources: list(&rule.resources),
            scope: &rule.scope,
        }
    }
}

impl<'a> From<&'a NamedRuleWithOperations> for Rule<'a> {
    fn from(rule: &'a NamedRuleWithOperations) -> Self {
        Self {
            operations: list(&rule.operations),
            api_groups: list(&rule.api_groups),
            api_versions: list(&rule.api_versions),
            resources: list(&rule.resources),
            scope: &rule.scope,
        }
    }
}

fn has_wildcard(items: &[String]) -> bool {
    items.iter().any(|item| item == "*")
}

/// At least one, and `*` only alone.
fn some_or_all(errors: &mut Errors, path: &Path, items: &[String], what: &str) {
    if items.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    if items.len() > 1 && has_wildcard(items) {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(path, BadValue::of(&items), detail));
    }
}

/// Checks one rule.
pub(super) fn check(errors: &mut Errors, path: &Path, rule: &Rule<'_>) {
    let at = path.child("operations");
    some_or_all(errors, &at, rule.operations, "operations");
    for (i, operation) in rule.operations.iter().enumerate() {
        one_of(errors, &at.index(i), operation, &OPERATIONS);
    }
    some_or_all(errors, &path.child("apiGroups"), rule.api_groups, "API groups");
    let at = path.child("apiVersions");
    some_or_all(errors, &at, rule.api_versions, "API versions");
    for (i, version) in rule.api_versions.iter().enumerate() {
        required(errors, &at.index(i), version);
    }
    resources(errors, &path.child("resources"), rule.resources);
    if let Some(scope) = rule.scope {
        one_of(errors, &path.child("scope"), scope, &SCOPES);
    }
}

fn resources(errors: &mut Errors, path: &Path, resources: &[String]) {
    if resources.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    // `x/*` and `*/x`, as far as they were seen.
    let (mut all_of, mut of_all) = (BTreeSet::new(), BTreeSet::new());
    // As upstream: only the last one without a subresource counts.
    let mut plain = false;
    for (i, resource) in resources.iter().enumerate() {
        let at = path.index(i);
        let Some((name, part)) = resource.split_once('/') else {
            required(errors, &at, resource);
            plain = if resource.is_empty() { plain } else { resource != "*" };
            continue;
        };
        if all_of.contains(name) {
            let detail = format!("if '{name}/*' is present, must not specify {resource}");
            errors.push(FieldError::invalid(&at, resource, detail));
        }
        if of_all.contains(part) {
            let detail = format!("if '*/{part}' is present, must not specify {resource}");
            errors.push(FieldError::invalid(&at, resource, detail));
        }
        if part == "*" {
            all_of.insert(name);
        }
        if name == "*" {
            of_all.insert(part);
        }
    }
    if resources.len() > 1 && resources.iter().any(|resource| resource == "*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(path, BadValue::of(&resources), detail));
    }
    if has_wildcard(resources) && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, BadValue::of(&resources), detail));
    }
}

/// Checks match conditions, as far as that goes without reading their expressions.
pub(super) fn match_conditions(errors: &mut Errors, path: &Path, conditions: &[MatchCondition]) {
    if conditions.len() > MAX_CONDITIONS {
        errors.push(FieldError::too_many(path, conditions.len(), MAX_CONDITIONS));
    }
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = path.index(i);
        required(errors, &at.child("expression"), condition.expression.trim());
        let at = at.child("name");
        required(errors, &at, &condition.name);
        if condition.name.is_empty() {
            continue;
        }
        qualified_name(errors, &at, &condition.name);
        if !seen.insert(&condition.name) {
            errors.push(FieldError::duplicate(&at, &condition.name));
        }
    }
}

/// Fills in what a policy or a binding left out of what it matches.
pub(super) fn default_match(matches: &mut MatchResources) {
    matches.match_policy.get_or_insert_with(|| "Equivalent".to_owned());
    matches.namespace_selector.get_or_insert_default();
    matches.object_selector.get_or_insert_default();
    let rules = matches.resource_rules.iter_mut().flatten();
    for rule in rules.chain(matches.exclude_resource_rules.iter_mut().flatten()) {
        rule.scope.get_or_insert_with(|| "*".to_owned());
    }
}

/// Checks what a policy or a binding matches.
pub(super) fn match_resources(errors: &mut Errors, path: &Path, matches: &MatchResources) {
    let at = path.child("matchPolicy");
    match &matches.match_policy {
        None => errors.push(FieldError::required(&at, "")),
        Some(policy) => one_of(errors, &at, policy, &MATCH_POLICIES),
    }
    for (field, value) in
        [("namespaceSelector", &matches.namespace_selector), ("objectSelector", &matches.object_selector)]
    {
        if value.is_none() {
            errors.push(FieldError::required(&path.child(field), ""));
        }
        selector(errors, &path.child(field), value.as_ref());
    }
    for (field, rules) in [
        ("resourceRules", &matches.resource_rules),
        ("excludeResourceRules", &matches.exclude_resource_rules),
    ] {
        for (i, rule) in list(rules).iter().enumerate() {
            named_rule(errors, &path.child(field).index(i), rule);
        }
    }
}

fn named_rule(errors: &mut Errors, path: &Path, rule: &NamedRuleWithOperations) {
    let names = list(&rule.resource_names);
    let mut seen = BTreeSet::new();
    for (i, name) in names.iter().enumerate() {
        let at = path.child("resourceNames").index(i);
        problems(errors, &at, name, name::path_segment(name));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&at, name));
        }
    }
    check(errors, path, &rule.into());
}

/// A policy that changes objects is not asked about deletions.
pub(super) fn only_mutable(errors: &mut Errors, path: &Path, matches: &MatchResources) {
    let operations = list(&matches.resource_rules).iter().flat_map(|rule| list(&rule.operations));
    for operation in operations {
        let at = path.child("resourceRules").child("operations");
        one_of(errors, &at, operation, &MUTATING_OPERATIONS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_alone() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["pods", "pods/log"], &[]),
            (&["*", "pods/log"], &[]),
            (&["*", "pods"], &["if '*' is present, must not specify other resources without subresources"]),
            (&["pods/*", "pods/log"], &["if 'pods/*' is present, must not specify pods/log"]),
            (&["*/scale", "pods/scale"], &["if '*/scale' is present, must not specify pods/scale"]),
            (&["*/*", "pods"], &["if '*/*' is present, must not specify other resources"]),
        ];
        for (items, expected) in cases {
            let items: Vec<String> = items.iter().map(|item| (*item).to_owned()).collect();
            let mut errors = Errors::new();
            resources(&mut errors, &Path::new("resources"), &items);
            let said: Vec<&str> = errors.iter().map(|error| error.detail.as_str()).collect();
            assert_eq!(&said, expected, "{items:?}");
        }
    }
}
