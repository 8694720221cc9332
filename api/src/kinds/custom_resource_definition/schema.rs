//! What can be said of a schema without the rules of structural schemas: types, lists, maps, and keywords that there
//! are not.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};

use super::defaults;
use crate::{
    field::{BadValue, Errors, FieldError, Path, Whole},
    kinds::check::{is_empty, list, one_of, text},
};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Where in a schema a part of it is.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Checks the schema of a version, which has the subresource `status` or not.
pub(super) fn validate(errors: &mut Errors, path: &Path, root: &JSONSchemaProps, status: bool) {
    let kind = text(&root.type_);
    if status && !kind.is_empty() && kind != "object" {
        let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.push(FieldError::invalid(&path.child("type"), kind, detail));
    }
    if root.nullable == Some(true) {
        errors.push(FieldError::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    keywords(errors, path, root);
    let mut shape = Errors::new();
    self::shape(&mut shape, path, root, Level::Root);
    if shape.is_empty() {
        defaults::validate(&mut shape, path, root);
    }
    shape.sort_by_cached_key(ToString::to_string);
    errors.extend(shape);
}

fn single(items: Option<&JSONSchemaPropsOrArray>) -> Option<&JSONSchemaProps> {
    match items? {
        JSONSchemaPropsOrArray::Schema(schema) => Some(schema),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

fn additional(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match schema.additional_properties.as_ref()? {
        JSONSchemaPropsOrBool::Schema(schema) => Some(schema),
        JSONSchemaPropsOrBool::Bool(_) => None,
    }
}

/// Every part has a type, and the root is an object.
fn shape(errors: &mut Errors, path: &Path, schema: &JSONSchemaProps, level: Level) {
    let kind = text(&schema.type_);
    let at = path.child("type");
    let items = single(schema.items.as_ref());
    if kind == "array" && items.is_none() {
        errors.push(FieldError::required(&path.child("items"), "must be specified"));
    }
    if let Some(items) = items {
        shape(errors, &path.child("items"), items, Level::Item);
    }
    for (name, property) in schema.properties.iter().flatten() {
        shape(errors, &path.child("properties").key(name), property, Level::Field);
    }
    if schema.additional_properties.is_some() && level == Level::Root {
        let at = path.child("additionalProperties");
        errors.push(FieldError::forbidden(&at, "must not be used at the root"));
    }
    if let Some(values) = additional(schema) {
        shape(errors, &path.child("additionalProperties"), values, Level::Field);
    }
    let preserves = schema.x_kubernetes_preserve_unknown_fields == Some(true);
    if schema.x_kubernetes_embedded_resource == Some(true) && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(typed(&at, kind, detail));
    } else if kind.is_empty() && schema.x_kubernetes_int_or_string != Some(true) && !preserves {
        errors.push(FieldError::required(
            &at,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        ));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(FieldError::invalid(&at, kind, "must be object at the root"));
    }
}

/// A type that is missing or another one.
fn typed(path: &Path, kind: &str, detail: &str) -> FieldError {
    match kind {
        "" => FieldError::required(path, detail),
        kind => FieldError::invalid(path, kind, detail),
    }
}

/// Keywords that are known, and mean something where they are.
fn keywords(errors: &mut Errors, path: &Path, schema: &JSONSchemaProps) {
    let kind = text(&schema.type_);
    if !kind.is_empty() {
        one_of(errors, &path.child("type"), kind, &TYPES);
    }
    let many = matches!(&schema.items, Some(JSONSchemaPropsOrArray::Schemas(items)) if !items.is_empty());
    for (field, given, detail) in [
        ("id", !text(&schema.id).is_empty(), "id is not supported"),
        ("additionalItems", schema.additional_items.is_some(), "additionalItems is not supported"),
        ("patternProperties", !is_empty(&schema.pattern_properties), "patternProperties is not supported"),
        ("definitions", !is_empty(&schema.definitions), "definitions is not supported"),
        ("dependencies", schema.dependencies.is_some(), "dependencies is not supported"),
        ("$ref", schema.ref_path.is_some(), "$ref is not supported"),
        ("type", kind == "null", "type cannot be set to null, use nullable as an alternative"),
        ("items", many, "items must be a schema object and not an array"),
        (
            "uniqueItems",
            schema.unique_items == Some(true),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            "additionalProperties",
            !is_empty(&schema.properties)
                && !matches!(schema.additional_properties, None | Some(JSONSchemaPropsOrBool::Bool(true))),
            "additionalProperties and properties are mutual exclusive",
        ),
    ] {
        if given {
            errors.push(FieldError::forbidden(&path.child(field), detail));
        }
    }
    if let Some(values) = additional(schema) {
        keywords(errors, &path.child("additionalProperties"), values);
    }
    for (name, property) in schema.properties.iter().flatten() {
        keywords(errors, &path.child("properties").key(name), property);
    }
    if let Some(not) = &schema.not {
        keywords(errors, &path.child("not"), not);
    }
    for (field, parts) in [("allOf", &schema.all_of), ("oneOf", &schema.one_of), ("anyOf", &schema.any_of)] {
        for (i, part) in list(parts).iter().enumerate() {
            keywords(errors, &path.child(field).index(i), part);
        }
    }
    if let Some(items) = single(schema.items.as_ref()) {
        keywords(errors, &path.child("items"), items);
    }
    if schema.x_kubernetes_preserve_unknown_fields == Some(false) {
        let at = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(&at, false, "must be true or undefined"));
    }
    maps_and_lists(errors, path, schema);
    for (i, rule) in list(&schema.x_kubernetes_validations).iter().enumerate() {
        validation(errors, &path.child("x-kubernetes-validations").index(i), rule);
    }
}

fn maps_and_lists(errors: &mut Errors, path: &Path, schema: &JSONSchemaProps) {
    let kind = text(&schema.type_);
    let type_at = path.child("type");
    if let Some(map_type) = &schema.x_kubernetes_map_type {
        if kind != "object" {
            errors.push(typed(&type_at, kind, "must be object if x-kubernetes-map-type is specified"));
        }
        one_of(errors, &path.child("x-kubernetes-map-type"), map_type, &["atomic", "granular"]);
    }
    let list_at = path.child("x-kubernetes-list-type");
    let list_type = schema.x_kubernetes_list_type.as_deref();
    let items = single(schema.items.as_ref());
    if let Some(list_type) = list_type {
        if kind != "array" {
            errors.push(typed(&type_at, kind, "must be array if x-kubernetes-list-type is specified"));
        } else if list_type == "set" {
            items_of_set(errors, &path.child("items"), items);
        }
        one_of(errors, &list_at, list_type, &["atomic", "set", "map"]);
    }
    let keys = list(&schema.x_kubernetes_list_map_keys);
    let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
    match list_type {
        None if !keys.is_empty() => errors.push(FieldError::required(&list_at, detail)),
        Some("map") => items_of_map(errors, path, schema, keys),
        Some(other) if !keys.is_empty() => errors.push(FieldError::invalid(&list_at, other, detail)),
        _ => {}
    }
}

fn items_of_set(errors: &mut Errors, path: &Path, items: Option<&JSONSchemaProps>) {
    const DETAIL: &str = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let Some(items) = items else { return };
    let list_type = &items.x_kubernetes_list_type;
    match text(&items.type_) {
        "array" if list_type.as_deref().is_some_and(|list_type| list_type != "atomic") => {
            errors.push(FieldError::invalid(&path.child("x-kubernetes-list-type"), list_type, DETAIL));
        }
        "object" if items.x_kubernetes_map_type.as_deref() != Some("atomic") => {
            // Upstream shows the list type here.
            let at = path.child("x-kubernetes-map-type");
            errors.push(FieldError::invalid(&at, BadValue::of(list_type), DETAIL));
        }
        _ => {}
    }
}

fn items_of_map(errors: &mut Errors, path: &Path, schema: &JSONSchemaProps, keys: &[String]) {
    let keys_at = path.child("x-kubernetes-list-map-keys");
    let items_at = path.child("items");
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&keys_at, detail));
    }
    let Some(items) = single(schema.items.as_ref()) else {
        let detail = "must have a schema if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&items_at, detail));
        return;
    };
    let kind = text(&items.type_);
    if kind != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(&items_at.child("type"), kind, detail));
        return;
    }
    let mut seen = BTreeSet::new();
    let mut whole = Whole::new(BadValue::of(&keys));
    for key in keys {
        match items.properties.as_ref().and_then(|properties| properties.get(key)) {
            Some(property) if matches!(text(&property.type_), "array" | "object") => {
                let at = items_at.child("properties").key(key).child("type");
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.push(FieldError::invalid(&at, kind, detail));
            }
            Some(_) => {}
            None => {
                let detail = "entries must all be names of item properties";
                whole.invalid(errors, &keys_at, detail);
            }
        }
        if !seen.insert(key) {
            whole.invalid(errors, &keys_at, "must not contain duplicate entries");
        }
    }
}

/// A rule in the expression language, as far as that goes without reading it.
fn validation(errors: &mut Errors, path: &Path, rule: &ValidationRule) {
    const BREAKS: [char; 2] = ['\n', '\r'];
    const NOT_EMPTY: &str = "must be non-empty if specified";
    let is_blank = |value: &str| !value.is_empty() && value.trim().is_empty();
    let message = text(&rule.message);
    let at = path.child("message");
    if rule.rule.trim().is_empty() {
        errors.push(FieldError::required(&path.child("rule"), "rule is not specified"));
    } else if is_blank(message) {
        errors.push(FieldError::invalid(&at, message, NOT_EMPTY));
    } else if message.trim().contains(BREAKS) {
        errors.push(FieldError::invalid(&at, message, "must not contain line breaks"));
    } else if rule.rule.trim().contains(BREAKS) && message.is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(&at, detail));
    }
    if is_blank(text(&rule.message_expression)) {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(FieldError::required(&path.child("messageExpression"), detail));
    }
    if let Some(reason) = &rule.reason {
        one_of(errors, &path.child("reason"), reason, &REASONS);
    }
    let field = text(&rule.field_path);
    let at = path.child("fieldPath");
    if is_blank(field) {
        errors.push(FieldError::invalid(&at, field, NOT_EMPTY));
    }
    if field.contains(BREAKS) {
        errors.push(FieldError::invalid(&at, field, "must not contain line breaks"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn texts(schema: Value) -> Vec<String> {
        let schema: JSONSchemaProps = serde_json::from_value(schema).unwrap();
        let mut errors = Errors::new();
        validate(&mut errors, &Path::new("s"), &schema, true);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_part_of_a_schema_has_a_known_type() {
        let types =
            "supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"";
        let object = |properties: Value| json!({"type": "object", "properties": properties});
        for (schema, expected) in [
            (object(json!({"a": {"type": "string"}})), vec![]),
            (
                object(json!({"a": {}})),
                vec!["s.properties[a].type: Required value: must not be empty for specified object fields".to_owned()],
            ),
            (
                object(json!({"a": {"type": "x"}})),
                vec![format!("s.properties[a].type: Unsupported value: \"x\": {types}")],
            ),
            (
                object(json!({"a": {"type": "array"}})),
                vec!["s.properties[a].items: Required value: must be specified".to_owned()],
            ),
            (
                object(json!({"a": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "b"}})),
                vec![
                    "s.properties[a].x-kubernetes-list-type: Unsupported value: \"b\": supported values: \"atomic\", \
                     \"set\", \"map\""
                        .to_owned(),
                ],
            ),
            (
                object(json!({"a": {"x-kubernetes-list-type": "set", "items": {"type": "string"}}})),
                vec![
                    "s.properties[a].type: Required value: must be array if x-kubernetes-list-type is specified"
                        .to_owned(),
                    "s.properties[a].type: Required value: must not be empty for specified object fields".to_owned(),
                ],
            ),
            (json!({}), vec!["s.type: Required value: must not be empty at the root".to_owned()]),
        ] {
            assert_eq!(texts(schema.clone()), expected, "{schema}");
        }
    }
}
