//! Changes of objects: the patches, and who owns what.

use api::apply::{Managed, Set};
use api::patch::{self, strategic};
use api::schema::decode;
use api::schema::sample::sample;
use base::fuzz::texts;
use serde_json::{Value, json};

use super::{CRD, POD};

pub(super) fn json_patch(data: &[u8]) {
    let _ = patch::json(&sample(&POD.schema, data.len() as u64), data);
}

pub(super) fn json_patch_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"[{"op":"add","path":"/metadata/labels/a~1b","value":{"x":[1]}},{"op":"remove","path":"/spec/containers/0"}]"#,
        r#"[{"op":"test","path":"","value":null},{"op":"move","from":"/spec","path":"/metadata/spec"}]"#,
        r#"[{"op":"copy","from":"/metadata","path":"/spec/-"},{"op":"replace","path":"/spec/volumes/00","value":1}]"#,
    ])
}

/// Patches of objects, and the differences of one object and another.
pub(super) fn strategic(data: &[u8]) {
    let Ok(patch) = patch::parse_object(data) else { return };
    for row in [&POD, &CRD] {
        let object = sample(&row.schema, data.len() as u64);
        let Value::Object(before) = &object else { continue };
        let _ = strategic::apply(&row.schema, object.clone(), patch.clone());
        let _ = strategic::diff(&row.schema, before, &patch);
        let _ = strategic::three_way(&row.schema, before, &patch, &patch, false);
        let _ = patch::merge(object.clone(), patch.clone());
    }
}

pub(super) fn strategic_seeds() -> Vec<Vec<u8>> {
    let mut seeds = texts(&[
        r#"{"spec":{"$setElementOrder/containers":[{"name":"a"}],"containers":[{"$patch":"delete","name":"a"}]}}"#,
        r#"{"spec":{"$patch":"replace"},"metadata":{"$deleteFromPrimitiveList/finalizers":["a"],"finalizers":["b"]}}"#,
        r#"{"spec":{"volumes":[{"$retainKeys":["name","emptyDir"],"name":"v","emptyDir":{}}]}}"#,
    ]);
    seeds.push(sample(&POD.schema, 3).to_string().into_bytes());
    seeds
}

pub(super) fn field_sets(data: &[u8]) {
    let Ok(value) = decode::parse(data) else { return };
    if let Ok(set) = Set::read(&value) {
        let written = set.into_value();
        assert_eq!(Set::read(&written).map(Set::into_value), Ok(written));
    }
    let entry = json!({
        "manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": value,
    });
    if let Ok(entries) = serde_json::from_value(json!([entry])) {
        let _ = Managed::read(entries);
    }
}

pub(super) fn field_set_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"f:metadata":{"f:labels":{".":{},"f:a":{}},"f:finalizers":{"v:\"x/y\"":{}}}}"#,
        r#"{"f:spec":{"f:containers":{"k:{\"name\":\"a\",\"port\":1}":{".":{},"f:image":{}},"i:3":{}}}}"#,
    ])
}
