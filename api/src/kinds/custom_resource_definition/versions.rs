//! The versions of a definition.
//!
//! What all versions have alike, upstream moves up to the spec before it looks at it, so that it is reported there:
//! `spec.validation` for a schema, and the names of the others.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinitionSpec, CustomResourceDefinitionVersion,
    CustomResourceSubresources, CustomResourceValidation, SelectableField,
};
use serde::Serialize;

use super::schema;
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::check::{list, required, same, text},
    name,
};

const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// So many characters a warning about a deprecated version may have.
const MAX_WARNING: usize = 256;
const MAX_SELECTABLE: usize = 8;

/// Whether all versions have the same there.
fn is_common<T: Serialize>(
    versions: &[CustomResourceDefinitionVersion],
    part: fn(&CustomResourceDefinitionVersion) -> &T,
) -> bool {
    versions.windows(2).all(|pair| same(part(&pair[0]), part(&pair[1])))
}

fn has_schema(version: &CustomResourceDefinitionVersion) -> bool {
    version.schema.as_ref().is_some_and(|schema| schema.open_api_v3_schema.is_some())
}

fn has_status(version: &CustomResourceDefinitionVersion) -> bool {
    version.subresources.as_ref().is_some_and(|parts| parts.status.is_some())
}

/// Checks each version, and all of them together.
pub(super) fn validate(
    errors: &mut Errors,
    path: &Path,
    spec: &CustomResourceDefinitionSpec,
    old: Option<&CustomResourceDefinitionSpec>,
) {
    let versions = spec.versions.as_slice();
    if old.is_none_or(|old| old.versions.iter().all(has_schema)) {
        for (i, _) in versions.iter().enumerate().filter(|(_, version)| !has_schema(version)) {
            errors.push(FieldError::required(&path.index(i).child("schema").child("openAPIV3Schema"), ""));
        }
    }
    // Found out once: all versions are compared for it.
    let common_schema = is_common(versions, |version| &version.schema);
    let common_parts = is_common(versions, |version| &version.subresources);
    let common_columns = is_common(versions, |version| &version.additional_printer_columns);
    let common_selectable = is_common(versions, |version| &version.selectable_fields);
    for (i, version) in versions.iter().enumerate() {
        let at = path.index(i);
        let wrong = name::dns1035_label(&version.name);
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(&at.child("name"), &version.name, wrong.join(",")));
        }
        warning(errors, &at.child("deprecationWarning"), version);
        if !common_schema {
            schema(errors, &at.child("schema"), version.schema.as_ref(), has_status(version));
        }
        if !common_parts {
            subresources(errors, &at.child("subresources"), version.subresources.as_ref());
        }
        if !common_columns {
            let at = at.child("additionalPrinterColumns");
            columns(errors, &at, list(&version.additional_printer_columns));
        }
        if !common_selectable {
            selectable(errors, &at.child("selectableFields"), list(&version.selectable_fields));
        }
    }
    let mut refuse = |why: &str| {
        // Upstream's inner form shows here; an empty list is the same in both.
        errors.push(FieldError::invalid(path, BadValue::of(&versions), why));
    };
    let mut names = BTreeSet::new();
    if !versions.iter().all(|version| names.insert(&version.name)) {
        refuse("must contain unique version names");
    }
    if versions.iter().filter(|version| version.storage).count() != 1 {
        refuse("must have exactly one version marked as storage version");
    }
    if let Some(first) = versions.first().filter(|first| !first.name.is_empty()) {
        let wrong = name::dns1035_label(&first.name);
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(
                &Path::new("spec").child("version"),
                &first.name,
                wrong.join(","),
            ));
        }
    }
}

/// Checks what all versions have alike.
pub(super) fn validate_common(errors: &mut Errors, path: &Path, spec: &CustomResourceDefinitionSpec) {
    let versions = spec.versions.as_slice();
    let Some(first) = versions.first() else { return };
    if is_common(versions, |version| &version.schema) {
        let status = versions.iter().any(has_status);
        schema(errors, &path.child("validation"), first.schema.as_ref(), status);
    }
    if is_common(versions, |version| &version.subresources) {
        subresources(errors, &path.child("subresources"), first.subresources.as_ref());
    }
    if is_common(versions, |version| &version.additional_printer_columns) {
        let at = path.child("additionalPrinterColumns");
        columns(errors, &at, list(&first.additional_printer_columns));
    }
    if is_common(versions, |version| &version.selectable_fields) {
        selectable(errors, &path.child("selectableFields"), list(&first.selectable_fields));
    }
}

fn schema(errors: &mut Errors, path: &Path, given: Option<&CustomResourceValidation>, status: bool) {
    if let Some(root) = given.and_then(|given| given.open_api_v3_schema.as_ref()) {
        schema::validate(errors, &path.child("openAPIV3Schema"), root, status);
    }
}

fn warning(errors: &mut Errors, path: &Path, version: &CustomResourceDefinitionVersion) {
    let Some(warning) = &version.deprecation_warning else { return };
    let mut refuse = |why: String| errors.push(FieldError::invalid(path, warning, why));
    if version.deprecated != Some(true) {
        refuse("can only be set for deprecated versions".to_owned());
        return;
    }
    if warning.len() > MAX_WARNING {
        refuse(format!("must be <= {MAX_WARNING} characters long"));
    }
    if warning.is_empty() {
        refuse("must not be an empty string".to_owned());
    }
    if let Some((i, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        refuse(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {i}"
        ));
    }
}

fn simple_path(errors: &mut Errors, path: &Path, value: &str) -> bool {
    let simple = value.starts_with('.');
    if !simple {
        errors.push(FieldError::invalid(path, value, "must be a simple json path starting with ."));
    }
    simple
}

fn subresources(errors: &mut Errors, path: &Path, parts: Option<&CustomResourceSubresources>) {
    let Some(scale) = parts.and_then(|parts| parts.scale.as_ref()) else { return };
    let path = path.child("scale");
    for (field, value, begin, detail) in [
        ("specReplicasPath", &scale.spec_replicas_path, ".spec.", "should be a json path under .spec"),
        (
            "statusReplicasPath",
            &scale.status_replicas_path,
            ".status.",
            "should be a json path under .status",
        ),
    ] {
        let at = path.child(field);
        required(errors, &at, value);
        if !value.is_empty() && simple_path(errors, &at, value) && !value.starts_with(begin) {
            errors.push(FieldError::invalid(&at, value, detail));
        }
    }
    let selector = text(&scale.label_selector_path);
    let at = path.child("labelSelectorPath");
    let within = [".spec.", ".status."].iter().any(|begin| selector.starts_with(begin));
    if !selector.is_empty() && simple_path(errors, &at, selector) && !within {
        let detail = "should be a json path under either .spec or .status";
        errors.push(FieldError::invalid(&at, selector, detail));
    }
}

fn columns(errors: &mut Errors, path: &Path, columns: &[CustomResourceColumnDefinition]) {
    for (i, column) in columns.iter().enumerate() {
        let path = path.index(i);
        required(errors, &path.child("name"), &column.name);
        let at = path.child("type");
        let types = format!("must be one of {}", TYPES.join(","));
        if column.type_.is_empty() {
            errors.push(FieldError::required(&at, types));
        } else if !TYPES.contains(&column.type_.as_str()) {
            errors.push(FieldError::invalid(&at, &column.type_, types));
        }
        let format = text(&column.format);
        if !format.is_empty() && !FORMATS.contains(&format) {
            let detail = format!("must be one of {}", FORMATS.join(","));
            errors.push(FieldError::invalid(&path.child("format"), format, detail));
        }
        let at = path.child("JSONPath");
        required(errors, &at, &column.json_path);
        if !column.json_path.is_empty() {
            simple_path(errors, &at, &column.json_path);
        }
    }
}

/// Checks what can be said of selectable fields without looking into the schema.
fn selectable(errors: &mut Errors, path: &Path, fields: &[SelectableField]) {
    let mut seen = BTreeSet::new();
    for (i, field) in fields.iter().enumerate() {
        let at = path.index(i).child("jsonPath");
        let value = field.json_path.as_str();
        required(errors, &at, value);
        if value == ".metadata" || value.starts_with(".metadata.") {
            errors.push(FieldError::invalid(&at, value, "must not point to fields in metadata"));
        }
        if !value.is_empty() && !seen.insert(value) {
            errors.push(FieldError::duplicate(&at, value));
        }
    }
    if seen.len() > MAX_SELECTABLE {
        errors.push(FieldError::too_many(path, seen.len(), MAX_SELECTABLE));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(name: &str, storage: bool) -> CustomResourceDefinitionVersion {
        serde_json::from_value(json!({
            "name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object"}},
            "additionalPrinterColumns": [{"name": "", "type": "integer", "jsonPath": ".x"}],
        }))
        .unwrap()
    }

    fn texts(versions: Vec<CustomResourceDefinitionVersion>) -> Vec<String> {
        let spec = CustomResourceDefinitionSpec { versions, ..Default::default() };
        let mut errors = Errors::new();
        validate(&mut errors, &Path::new("spec").child("versions"), &spec, None);
        validate_common(&mut errors, &Path::new("spec"), &spec);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_all_versions_have_is_reported_at_the_spec() {
        let at_spec = "spec.additionalPrinterColumns[0].name: Required value";
        assert_eq!(texts(vec![version("v1", true)]), [at_spec]);
        assert_eq!(texts(vec![version("v1", true), version("v2", false)]), [at_spec]);
        let mut other = version("v2", false);
        other.additional_printer_columns = None;
        assert_eq!(
            texts(vec![version("v1", true), other]),
            ["spec.versions[0].additionalPrinterColumns[0].name: Required value"]
        );
    }

    #[test]
    fn exactly_one_version_is_stored() {
        let none =
            "spec.versions: Invalid value: []: must have exactly one version marked as storage version";
        assert_eq!(texts(Vec::new()), [none]);
    }
}
