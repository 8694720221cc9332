//! What holds for any object of any kind: each form it is written in gives it back, and so do the patches.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::sample::sample;
use super::{Shape, TypeRef, Types, decode, protobuf};
use crate::cbor;
use crate::patch::{self, strategic};
use crate::resource::Table;

/// The types of all rows, and those of the kinds that only requests have.
fn kinds() -> Vec<TypeRef> {
    let types = Types::builtin();
    let is_kind = |shape: &Shape| matches!(shape, Shape::Struct(fields) if fields.type_meta);
    let ids: Vec<_> = types.iter().filter(|(_, ty)| is_kind(&ty.shape)).map(|(id, _)| id).collect();
    ids.into_iter().map(|id| TypeRef::new(types.clone(), id)).collect()
}

/// The types of the rows.
fn rows() -> Vec<TypeRef> {
    Table::builtin().rows().iter().map(|row| row.schema.clone()).collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn every_kind_comes_back_as_it_went_in_every_form(seed: u64) {
        for ty in kinds() {
            let value = sample(&ty, seed);
            let name = &ty.ty().go;
            let text = serde_json::to_vec(&value).unwrap();
            let decoded = decode::decode(&ty, &text).unwrap();
            prop_assert_eq!(&decoded.value, &value, "JSON of {}", name);
            prop_assert_eq!(decoded.strict, Vec::<String>::new(), "JSON of {}", name);
            prop_assert_eq!(&decode::parse(&text).unwrap(), &value, "untyped JSON of {}", name);
            let bytes = cbor::object(&value);
            prop_assert_eq!(&cbor::decode(&bytes).unwrap(), &value, "CBOR of {}", name);
            prop_assert_eq!(cbor::object(&cbor::decode(&bytes).unwrap()), bytes, "CBOR of {}", name);
            if let Ok(bytes) = protobuf::encode(&ty, &value) {
                prop_assert_eq!(&protobuf::decode(&ty, &bytes).unwrap(), &value, "protobuf of {}", name);
            }
        }
    }

    #[test]
    fn a_merge_patch_does_once_what_it_says(from: u64, to: u64) {
        for ty in rows() {
            let (from, to) = (sample(&ty, from), sample(&ty, to));
            let patch = patch::merge_diff(&object(from.clone()), &object(to.clone()));
            let after = patch::merge(from.clone(), patch.clone());
            prop_assert_eq!(&after, &to, "{}", ty.ty().go);
            prop_assert_eq!(patch::merge(after, patch), to);
            prop_assert_eq!(patch::merge_diff(&object(from.clone()), &object(from.clone())), Map::new());
            prop_assert_eq!(patch::merge(from.clone(), Map::new()), from);
        }
    }

    #[test]
    fn a_strategic_patch_does_once_what_it_says(from: u64, to: u64) {
        let mut merged = 0;
        for ty in rows() {
            let (from, to) = (sample(&ty, from), sample(&ty, to));
            prop_assert_eq!(strategic::diff(&ty, &object(from.clone()), &object(from.clone())), Ok(Map::new()));
            prop_assert_eq!(&strategic::apply(&ty, from.clone(), Map::new()).unwrap(), &from);
            // What has no key to be told apart by, and lists within maps, can't be merged at all; so it is upstream.
            let Ok(patch) = strategic::diff(&ty, &object(from.clone()), &object(to.clone())) else { continue };
            let Ok(after) = strategic::apply(&ty, from, patch.clone()) else { continue };
            prop_assert_eq!(&after, &to, "{}", ty.ty().go);
            let Ok(again) = strategic::apply(&ty, after, patch) else { continue };
            prop_assert_eq!(&again, &to, "{}", ty.ty().go);
            merged += 1;
        }
        prop_assert!(merged > rows().len() / 2, "{} of the kinds were merged", merged);
    }

    #[test]
    fn what_a_json_patch_does_it_can_take_back(seed: u64, at: prop::sample::Index) {
        for ty in rows() {
            let before = sample(&ty, seed);
            let mut places = Vec::new();
            pointers(&before, String::new(), &mut places);
            if places.is_empty() {
                continue;
            }
            let place = places[at.index(places.len())].clone();
            let old = before.pointer(&place).cloned().unwrap_or_default();
            let run = |object: &Value, operations: Value| patch::json(object, operations.to_string().as_bytes());
            let name = &ty.ty().go;
            let op = |op: &str| serde_json::json!({"op": op, "path": place, "value": old});
            prop_assert_eq!(&run(&before, serde_json::json!([op("test")])).unwrap(), &before, "{}", name);
            prop_assert_eq!(&run(&before, serde_json::json!([op("replace")])).unwrap(), &before, "{}", name);
            let removed = run(&before, serde_json::json!([{"op": "remove", "path": place}])).unwrap();
            prop_assert_eq!(&run(&removed, serde_json::json!([op("add")])).unwrap(), &before, "{}", name);
            let there = serde_json::json!({"op": "move", "from": place, "path": "/elsewhere"});
            let back = serde_json::json!({"op": "move", "from": "/elsewhere", "path": place});
            prop_assert_eq!(&run(&before, serde_json::json!([there, back])).unwrap(), &before, "{}", name);
        }
    }
}

/// Where values are within a value, as JSON pointers.
fn pointers(value: &Value, here: String, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let place = format!("{here}/{}", key.replace('~', "~0").replace('/', "~1"));
                out.push(place.clone());
                pointers(value, place, out);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let place = format!("{here}/{at}");
                out.push(place.clone());
                pointers(item, place, out);
            }
        }
        _ => {}
    }
}
