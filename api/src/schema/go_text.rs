//! JSON text in the order in which Go writes it: the fields of a struct as its source has them, the keys of a map sorted.
//!
//! It is shown in messages only. Objects are stored and answered in an order of their own.

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
    fn what_the_schema_does_not_know_comes_last() {
        let ty = TypeRef::builtin("", "v1", "ConfigMap").unwrap();
        let value = json!({"bogus": [1], "data": {"a": "b"}, "kind": "ConfigMap"});
        let expected = r#"{"kind":"ConfigMap","data":{"a":"b"},"bogus":[1]}"#;
        assert_eq!(text(&ty, &value, &Value::Null), expected);
    }
}
