//! The rules of `metadata`, the same for every kind, in the order and words of upstream.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference};

use crate::{
    field::{self, BadValue, Errors, FieldError, Path, Whole, quote},
    name::{self, NameRule},
};

/// The finalizer that keeps the dependents of a deleted object.
pub const ORPHAN: &str = "orphan";
/// The finalizer that deletes the dependents first.
pub const FOREGROUND: &str = "foregroundDeletion";
/// All annotations of an object together may have this many bytes.
pub const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Checks the metadata of an object as it is created.
pub fn validate(meta: &ObjectMeta, namespaced: bool, rule: NameRule, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(prefix) = meta.generate_name.as_deref().filter(|p| !p.is_empty()) {
        let path = path.child("generateName");
        errors.extend(rule(prefix, true).into_iter().map(|p| FieldError::invalid(&path, prefix, p)));
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => {
            errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
        }
        name => {
            let path = path.child("name");
            errors.extend(rule(name, false).into_iter().map(|p| FieldError::invalid(&path, name, p)));
        }
    }
    let at = path.child("namespace");
    match (namespaced, meta.namespace.as_deref().unwrap_or_default()) {
        (true, "") => errors.push(FieldError::required(&at, "")),
        (true, ns) => {
            errors.extend(name::dns1123_label(ns).into_iter().map(|p| FieldError::invalid(&at, ns, p)));
        }
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden(&at, "not allowed on this type")),
    }
    nonnegative(meta.generation.unwrap_or_default(), &path.child("generation"), &mut errors);
    common(meta, path, &mut errors);
    let finalizers = path.child("finalizers");
    let names = meta.finalizers.as_deref().unwrap_or_default();
    for name in names {
        errors.extend(
            name::qualified_name(name).into_iter().map(|p| FieldError::invalid(&finalizers, name, p)),
        );
    }
    if [ORPHAN, FOREGROUND].iter().all(|f| names.iter().any(|n| n == f)) {
        let detail = format!("finalizer {FOREGROUND} and {ORPHAN} cannot be both set");
        errors.push(FieldError::invalid(&finalizers, BadValue::of(&names), detail));
    }
    managed_fields(meta, path, &mut errors);
    errors
}

/// Checks the metadata of an object against what is stored.
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if old.deletion_timestamp.is_some() {
        let had = old.finalizers.as_deref().unwrap_or_default();
        let had: BTreeSet<&String> = had.iter().collect();
        let added: BTreeSet<&String> =
            new.finalizers.iter().flatten().filter(|name| !had.contains(name)).collect();
        if !added.is_empty() {
            let added: Vec<String> = added.into_iter().map(|name| quote(name)).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden(&path.child("finalizers"), detail));
        }
    }
    if new.resource_version.as_deref().unwrap_or_default().is_empty() {
        let detail = "must be specified for an update";
        errors.push(FieldError::invalid(&path.child("resourceVersion"), "", detail));
    }
    let (generation, before) = (new.generation.unwrap_or_default(), old.generation.unwrap_or_default());
    nonnegative(generation, &path.child("generation"), &mut errors);
    if generation < before {
        errors.push(FieldError::invalid(&path.child("generation"), generation, "must not be decremented"));
    }
    immutable(&text(&new.name), &text(&old.name), &path.child("name"), &mut errors);
    immutable(&text(&new.namespace), &text(&old.namespace), &path.child("namespace"), &mut errors);
    immutable(&text(&new.uid), &text(&old.uid), &path.child("uid"), &mut errors);
    let at = path.child("creationTimestamp");
    immutable(&new.creation_timestamp, &old.creation_timestamp, &at, &mut errors);
    let at = path.child("deletionTimestamp");
    immutable(&new.deletion_timestamp, &old.deletion_timestamp, &at, &mut errors);
    let at = path.child("deletionGracePeriodSeconds");
    immutable(&new.deletion_grace_period_seconds, &old.deletion_grace_period_seconds, &at, &mut errors);
    common(new, path, &mut errors);
    managed_fields(new, path, &mut errors);
    errors
}

/// Restores what an update of the status leaves alone, for kinds whose status has nothing to do with metadata.
pub fn keep_for_status(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.generation = old.generation;
    new.labels.clone_from(&old.labels);
    new.annotations.clone_from(&old.annotations);
    new.finalizers.clone_from(&old.finalizers);
    new.owner_references.clone_from(&old.owner_references);
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_default()
}

/// Adds an error if a field that may not change did.
pub fn immutable<T: PartialEq + serde::Serialize>(new: &T, old: &T, path: &Path, errors: &mut Errors) {
    if new != old {
        errors.push(FieldError::invalid(path, BadValue::of(new), "field is immutable"));
    }
}

/// Adds an error if a number is negative.
pub fn nonnegative(value: i64, path: &Path, errors: &mut Errors) {
    if value < 0 {
        errors.push(FieldError::invalid(path, value, "must be greater than or equal to 0"));
    }
}

fn common(meta: &ObjectMeta, path: &Path, errors: &mut Errors) {
    if let Some(labels) = &meta.labels {
        errors.extend(validate_labels(labels, &path.child("labels")));
    }
    if let Some(annotations) = &meta.annotations {
        errors.extend(validate_annotations(annotations, &path.child("annotations")));
    }
    owners(meta.owner_references.as_deref().unwrap_or_default(), &path.child("ownerReferences"), errors);
}

/// Checks the keys and values of labels.
pub fn validate_labels(labels: &BTreeMap<String, String>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (key, value) in labels {
        errors.extend(name::qualified_name(key).into_iter().map(|p| FieldError::invalid(path, key, p)));
        errors.extend(name::label_value(value).into_iter().map(|p| FieldError::invalid(path, value, p)));
    }
    errors
}

/// Checks the keys of annotations and the size of them all.
pub fn validate_annotations(annotations: &BTreeMap<String, String>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for key in annotations.keys() {
        let problems = name::qualified_name(&key.to_lowercase());
        errors.extend(problems.into_iter().map(|p| FieldError::invalid(path, key, p)));
    }
    if annotations.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(path, MAX_ANNOTATIONS));
    }
    errors
}

fn owners(references: &[OwnerReference], path: &Path, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    let mut whole: Option<Whole> = None;
    for (i, owner) in references.iter().enumerate() {
        let at = path.index(i);
        let parts = owner.api_version.split('/').collect::<Vec<_>>();
        let detail = "must not be empty";
        match parts.as_slice() {
            [""] => errors.push(FieldError::required(&at.child("apiVersion"), detail)),
            [version] | [_, version] if !version.is_empty() => {}
            _ => errors.push(FieldError::invalid(
                &at.child("apiVersion"),
                &owner.api_version,
                "must be <group>/<version> or <version>",
            )),
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.push(FieldError::required(&at.child(field), detail));
            }
        }
        // Events come and go by themselves; what they owned would be lost with them.
        if owner.api_version == "v1" && owner.kind == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(&at, BadValue::of(owner), detail));
        }
        if owner.controller == Some(true) {
            let this = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    whole
                        .get_or_insert_with(|| Whole::new(BadValue::of(&references)))
                        .invalid(errors, path, detail);
                }
                None => controller = Some(this),
            }
        }
    }
}

fn managed_fields(meta: &ObjectMeta, path: &Path, errors: &mut Errors) {
    for (i, entry) in meta.managed_fields.iter().flatten().enumerate() {
        managed_fields_entry(entry, &path.child("managedFields").index(i), errors);
    }
}

fn managed_fields_entry(entry: &ManagedFieldsEntry, at: &Path, errors: &mut Errors) {
    match entry.operation.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(&at.child("operation"), "must not be empty")),
        "Apply" | "Update" => {}
        other => {
            errors.push(FieldError::not_supported(&at.child("operation"), other, &["Apply", "Update"]));
        }
    }
    if let Some(kind) = entry.fields_type.as_deref().filter(|k| !k.is_empty() && *k != "FieldsV1") {
        errors.push(FieldError::invalid(&at.child("fieldsType"), kind, "must be `FieldsV1`"));
    }
    let manager = entry.manager.as_deref().unwrap_or_default();
    errors.extend(validate_field_manager(manager, &at.child("manager")));
    if entry.subresource.as_deref().unwrap_or_default().len() > 256 {
        errors.push(FieldError::too_long(&at.child("subresource"), 256));
    }
}

/// The name of a field manager may have this many bytes.
pub const MAX_FIELD_MANAGER: usize = 128;

/// Checks the name of a field manager, in an object or in a request.
pub fn validate_field_manager(manager: &str, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if manager.len() > MAX_FIELD_MANAGER {
        errors.push(FieldError::too_long(path, MAX_FIELD_MANAGER));
    }
    for (i, c) in manager.char_indices().filter(|(_, c)| !field::is_printable(*c)) {
        let detail = format!("invalid character U+{:04X} (at position {i})", c as u32);
        errors.push(FieldError::invalid(path, manager, detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(name: &str, namespace: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        }
    }

    fn texts(errors: Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_and_namespaces_are_required_where_they_belong() {
        let path = Path::new("metadata");
        let rule = name::subdomain_name as NameRule;
        assert_eq!(texts(validate(&meta("x", "default"), true, rule, &path)), [""; 0]);
        assert_eq!(
            texts(validate(&meta("", ""), true, rule, &path)),
            [
                "metadata.name: Required value: name or generateName is required",
                "metadata.namespace: Required value"
            ]
        );
        assert_eq!(
            texts(validate(&meta("x", "default"), false, rule, &path)),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
    }

    #[test]
    fn an_update_may_not_change_who_the_object_is() {
        let path = Path::new("metadata");
        let old =
            ObjectMeta { uid: Some("1".into()), resource_version: Some("5".into()), ..meta("x", "default") };
        let new = ObjectMeta { uid: Some("2".into()), resource_version: None, ..old.clone() };
        assert_eq!(
            texts(validate_update(&new, &old, &path)),
            [
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.uid: Invalid value: \"2\": field is immutable"
            ]
        );
    }
}
