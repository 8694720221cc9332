//! The rules of rbac.authorization.k8s.io/v1 Role, and what all kinds of RBAC have in common.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleRef, Subject};
use serde_json::{Value, json};

use super::check::{dns_subdomain, list, one_of, problems, text};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    name::{self, NameRule},
    object::{Kind, Null},
};

const GROUP: &str = "rbac.authorization.k8s.io";

impl Kind for Role {
    const NAME: Option<NameRule> = Some(any_path_segment);
    const CREATE_ON_UPDATE: bool = true;
    const NULLS: &'static [Null<Self>] = &[("rules", |it| it.rules.is_none())];

    fn set_defaults(&mut self) {
        self.rules.take_if(|rules| rules.is_empty());
    }

    fn validate(&self) -> Errors {
        rules(list(&self.rules), true)
    }
}

/// Names of RBAC are segments of paths, with nothing left out for generated ones.
pub(super) fn any_path_segment(name: &str, _prefix: bool) -> Vec<String> {
    name::path_segment(name)
}

/// The rules of a role.
pub(super) fn rules(rules: &[PolicyRule], namespaced: bool) -> Errors {
    let mut errors = Errors::new();
    for (i, rule) in rules.iter().enumerate() {
        self::rule(&mut errors, rule, namespaced, &Path::new("rules").index(i));
    }
    errors
}

fn rule(errors: &mut Errors, rule: &PolicyRule, namespaced: bool, path: &Path) {
    let mut missing = |field: &str, detail: &str| {
        errors.push(FieldError::required(&path.child(field), detail));
    };
    if rule.verbs.is_empty() {
        missing("verbs", "verbs must contain at least one value");
    }
    let (groups, resources, names) =
        (list(&rule.api_groups), list(&rule.resources), list(&rule.resource_names));
    let urls = list(&rule.non_resource_urls);
    if urls.is_empty() {
        if groups.is_empty() {
            missing("apiGroups", "resource rules must supply at least one api group");
        }
        if resources.is_empty() {
            missing("resources", "resource rules must supply at least one resource");
        }
        return;
    }
    let at = path.child("nonResourceURLs");
    if namespaced {
        let detail = "namespaced rules cannot apply to non-resource URLs";
        errors.push(FieldError::invalid(&at, BadValue::of(&urls), detail));
    }
    if !(groups.is_empty() && resources.is_empty() && names.is_empty()) {
        let detail = "rules cannot apply to both regular resources and non-resource URLs";
        errors.push(FieldError::invalid(&at, BadValue::of(&urls), detail));
    }
}

/// What a binding leaves out of its reference and its subjects.
pub(super) fn binding_defaults(role: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    if text(&role.api_group).is_empty() {
        role.api_group = Some(GROUP.to_owned());
    }
    for subject in subjects.iter_mut().flatten() {
        let unset = text(&subject.api_group).is_empty();
        if unset && matches!(subject.kind.as_str(), "User" | "Group") {
            subject.api_group = Some(GROUP.to_owned());
        }
    }
}

/// A binding.
pub(super) fn binding(role: &RoleRef, subjects: &[Subject], namespaced: bool) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("roleRef");
    one_of(&mut errors, &path.child("apiGroup"), text(&role.api_group), &[GROUP]);
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    one_of(&mut errors, &path.child("kind"), &role.kind, kinds);
    if role.name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else {
        problems(&mut errors, &path.child("name"), &role.name, name::path_segment(&role.name));
    }
    for (i, subject) in subjects.iter().enumerate() {
        self::subject(&mut errors, subject, namespaced, &Path::new("subjects").index(i));
    }
    errors
}

fn subject(errors: &mut Errors, subject: &Subject, namespaced: bool, path: &Path) {
    let (name_at, group_at) = (path.child("name"), path.child("apiGroup"));
    let (name, group) = (subject.name.as_str(), text(&subject.api_group));
    if name.is_empty() {
        errors.push(FieldError::required(&name_at, ""));
    }
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !name.is_empty() {
                dns_subdomain(errors, &name_at, name);
            }
            one_of(errors, &group_at, group, &[""]);
            if !namespaced && text(&subject.namespace).is_empty() {
                errors.push(FieldError::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => one_of(errors, &group_at, group, &[GROUP]),
        other => one_of(errors, &path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// The role of a binding is for good: one could give it to others by changing it.
pub(super) fn same_role(errors: &mut Errors, new: &RoleRef, old: &RoleRef) {
    if new != old {
        // Upstream shows its own struct.
        let shown = json!({"APIGroup": text(&new.api_group), "Kind": new.kind, "Name": new.name});
        errors.push(FieldError::invalid(&Path::new("roleRef"), shown, "cannot change roleRef"));
    }
}

/// The role, and the subjects by kind.
pub(super) fn binding_cells(role: &RoleRef, subjects: &[Subject]) -> [Value; 4] {
    let of = |kind: &str| -> Value {
        let names: Vec<String> = subjects
            .iter()
            .filter(|s| s.kind == kind)
            .map(|s| match kind {
                "ServiceAccount" => format!("{}/{}", text(&s.namespace), s.name),
                _ => s.name.clone(),
            })
            .collect();
        names.join(", ").into()
    };
    [format!("{}/{}", role.kind, role.name).into(), of("User"), of("Group"), of("ServiceAccount")]
}
