//! JSON text as Go writes it: the fields of a struct as its source has them, the keys of a map sorted.
//!
//! It is shown in messages only. Objects are stored and answered in an order of their own.
//!
//! - [`text`]: a value of a published type.
//! - [`internal`]: the value as upstream has it inside of the server, where fields have no names but those of Go.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Shape, Struct, TypeRef};

/// The text of a value of this type. What a patch went through was a map to upstream, so it is sorted there:
/// `touched` has an object for each such place.
pub fn text(ty: &TypeRef, value: &Value, touched: &Value) -> String {
    let mut out = String::new();
    put(&mut out, Some(ty), value, touched);
    out
}

fn put(out: &mut String, ty: Option<&TypeRef>, value: &Value, touched: &Value) {
    let shape = ty.map_or(&Shape::Any, |ty| &ty.ty().shape);
    match (value, shape) {
        (Value::Object(map), Shape::Struct(fields)) => put_struct(out, ty, fields, map, touched),
        (Value::Object(map), Shape::Map(item)) => {
            let item = ty.map(|ty| TypeRef::new(ty.types().clone(), *item));
            let entries = map.iter().map(|(name, value)| (name.as_str(), value, item.clone()));
            put_entries(out, entries, touched);
        }
        (Value::Array(items), Shape::List(item)) => {
            let item = ty.map(|ty| TypeRef::new(ty.types().clone(), *item));
            out.push('[');
            for (number, value) in items.iter().enumerate() {
                out.push_str(if number == 0 { "" } else { "," });
                put(out, item.as_ref(), value, &Value::Null);
            }
            out.push(']');
        }
        (other, _) => drop(write!(out, "{other}")),
    }
}

fn put_struct(
    out: &mut String,
    ty: Option<&TypeRef>,
    fields: &Struct,
    map: &Map<String, Value>,
    touched: &Value,
) {
    let of_field = |name: &str| Some(ty?.at(&[name])?.1);
    if touched.is_object() {
        let entries = map.iter().map(|(name, value)| (name.as_str(), value, of_field(name)));
        return put_entries(out, entries, touched);
    }
    let head = ["kind", "apiVersion"].into_iter().filter(|_| fields.type_meta);
    let known: Vec<&str> = head.chain(fields.fields.iter().map(|field| field.name.as_ref())).collect();
    let unknown = map.keys().map(String::as_str).filter(|name| !known.contains(name));
    let names = known.iter().copied().chain(unknown).filter_map(|name| map.get_key_value(name));
    put_entries(out, names.map(|(name, value)| (name.as_str(), value, of_field(name))), touched);
}

fn put_entries<'a>(
    out: &mut String,
    entries: impl Iterator<Item = (&'a str, &'a Value, Option<TypeRef>)>,
    touched: &Value,
) {
    out.push('{');
    for (number, (name, value, ty)) in entries.enumerate() {
        out.push_str(if number == 0 { "" } else { "," });
        // A name is a string, which is always written.
        let _ = write!(out, "{}:", Value::from(name));
        put(out, ty.as_ref(), value, touched.get(name).unwrap_or(&Value::Null));
    }
    out.push('}');
}

/// The text of a value of the internal type that is like this one: nothing is left out, and fields have Go's names.
/// Types of `meta/v1` are the same inside of the server and outside.
pub fn internal(ty: &TypeRef, value: &Value) -> String {
    let mut out = String::new();
    put_internal(&mut out, ty, value);
    out
}

fn put_internal(out: &mut String, ty: &TypeRef, value: &Value) {
    let of = |id| TypeRef::new(ty.types().clone(), id);
    match (value, &ty.ty().shape) {
        (Value::Object(map), Shape::Struct(fields)) if !ty.ty().name.contains(META) => {
            out.push('{');
            for (number, field) in fields.fields.iter().enumerate() {
                let comma = if number == 0 { "" } else { "," };
                // Writing to a string can't fail.
                let _ = write!(out, "{comma}\"{}\":", go_name(&field.name));
                let ty = of(field.ty);
                match map.get(field.name.as_ref()) {
                    Some(value) => put_internal(out, &ty, value),
                    None if field.pointer => out.push_str("null"),
                    None => put_internal(out, &ty, &zero(&ty)),
                }
            }
            out.push('}');
        }
        (Value::Array(items), Shape::List(item)) => {
            let item = of(*item);
            out.push('[');
            for (number, value) in items.iter().enumerate() {
                out.push_str(if number == 0 { "" } else { "," });
                put_internal(out, &item, value);
            }
            out.push(']');
        }
        (value, _) => put(out, Some(ty), value, &Value::Null),
    }
}

/// What Go has where nothing was set.
fn zero(ty: &TypeRef) -> Value {
    match &ty.ty().shape {
        Shape::Struct(_) => Value::Object(Map::new()),
        Shape::String { .. } => "".into(),
        Shape::Integer(_) | Shape::Float | Shape::IntOrString => 0.into(),
        Shape::Boolean => false.into(),
        Shape::Quantity | Shape::Duration => "0".into(),
        _ => Value::Null,
    }
}

const META: &str = "apis/meta/";

/// The name of a field in Go's source: `uid` is `UID`, `apiVersion` is `APIVersion`.
fn go_name(name: &str) -> String {
    for word in ["uid", "api", "ip"] {
        let rest = name.strip_prefix(word);
        if let Some(rest) = rest.filter(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase())) {
            return format!("{}{rest}", word.to_uppercase());
        }
    }
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn structs_are_written_in_the_order_of_their_source_and_maps_sorted() {
        let pod = json!({
            "metadata": {"labels": {"b": "1", "a": "2"}, "name": "x", "annotations": {}},
            "spec": {"restartPolicy": "Never", "containers": [{"image": "i", "name": "c"}], "volumes": []},
            "kind": "Pod", "apiVersion": "v1",
        });
        let ty = TypeRef::builtin("", "v1", "Pod").unwrap();
        for (touched, expected) in [
            (
                json!(null),
                r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x","labels":{"a":"2","b":"1"},"annotations":{}},"spec":{"volumes":[],"containers":[{"name":"c","image":"i"}],"restartPolicy":"Never"}}"#,
            ),
            (
                json!({"metadata": {"labels": {"b": 1}}}),
                r#"{"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{},"labels":{"a":"2","b":"1"},"name":"x"},"spec":{"volumes":[],"containers":[{"name":"c","image":"i"}],"restartPolicy":"Never"}}"#,
            ),
        ] {
            assert_eq!(text(&ty, &pod, &touched), expected);
        }
    }

    #[test]
    fn inside_of_the_server_fields_have_the_names_of_go_and_none_is_left_out() {
        let ty = |name: &str| {
            let types = crate::schema::Types::builtin();
            let id = types.find(name).expect(name);
            TypeRef::new(types, id)
        };
        for (name, value, expected) in [
            (
                "api/core/v1.ObjectReference",
                json!({"kind": "Pod", "name": "p"}),
                r#"{"Kind":"Pod","Namespace":"","Name":"p","UID":"","APIVersion":"","ResourceVersion":"","FieldPath":""}"#,
            ),
            (
                "api/storage/v1.VolumeAttachmentSpec",
                json!({"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}),
                r#"{"Attacher":"a","Source":{"PersistentVolumeName":"v","InlineVolumeSpec":null},"NodeName":"n"}"#,
            ),
            (
                "api/storage/v1.CSINodeDriver",
                json!({"name": "d", "nodeID": "x", "allocatable": {"count": 3}}),
                r#"{"Name":"d","NodeID":"x","TopologyKeys":null,"Allocatable":{"Count":3}}"#,
            ),
            (
                "api/core/v1.VolumeNodeAffinity",
                json!({"required": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}]}}),
                r#"{"Required":{"NodeSelectorTerms":[{"MatchExpressions":[{"Key":"k","Operator":"In","Values":["v"]}],"MatchFields":null}]}}"#,
            ),
            ("api/core/v1.VolumeNodeAffinity", json!(null), "null"),
            (
                "api/core/v1.WeightedPodAffinityTerm",
                json!({"weight": 1, "podAffinityTerm": {"topologyKey": "k", "labelSelector": {"matchLabels": {"a": "b"}}}}),
                r#"{"Weight":1,"PodAffinityTerm":{"LabelSelector":{"matchLabels":{"a":"b"}},"Namespaces":null,"TopologyKey":"k","NamespaceSelector":null,"MatchLabelKeys":null,"MismatchLabelKeys":null}}"#,
            ),
        ] {
            assert_eq!(internal(&ty(name), &value), expected);
        }
    }

    #[test]
    fn what_the_schema_does_not_know_comes_last() {
        let ty = TypeRef::builtin("", "v1", "ConfigMap").unwrap();
        let value = json!({"bogus": [1], "data": {"a": "b"}, "kind": "ConfigMap"});
        let expected = r#"{"kind":"ConfigMap","data":{"a":"b"},"bogus":[1]}"#;
        assert_eq!(text(&ty, &value, &Value::Null), expected);
    }
}
