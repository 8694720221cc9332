//! What bodies are read as, in each of their forms.

use api::cbor;
use api::resource::{Resource, Table};
use api::schema::decode::{self, FieldValidation};
use api::schema::protobuf;
use api::schema::sample::sample;
use base::Clock;
use base::fuzz::texts;
use bytes::Bytes;
use serde_json::Value;

use super::{CRD, POD, pod_kind, samples};
use crate::negotiate::Media;
use crate::registry::decode as request;

pub(super) fn json(data: &[u8]) {
    let parsed = decode::parse(data);
    assert!(parsed.is_ok() || serde_json::from_slice::<Value>(data).is_err() || data.len() > 300);
    if let Ok(value) = parsed {
        assert_eq!(decode::parse(value.to_string().as_bytes()), Ok(value));
    }
    for row in [&POD, &CRD] {
        let table = Table::builtin();
        let _ =
            decode::body(&table, &row.gvk(), &row.schema, data, FieldValidation::Strict, row.rules.given());
    }
}

pub(super) fn json_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples(|_, value| value.to_string().into_bytes());
    seeds.extend(texts(&[
        "[[[[",
        "{\"a\":1,\"a\":2}",
        "\"\\ud800\\u0041\"",
        "1e400",
        "-0.0E-7",
        "nul",
        "[1,]",
    ]));
    seeds
}

pub(super) fn yaml(data: &[u8]) {
    let _ = request::value(Media::Yaml, &Bytes::copy_from_slice(data), &pod_kind());
}

pub(super) fn yaml_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - {name: c, image: i}\n",
        "a: &a [1, 2]\nb: *a\nc: {<<: {x: 1}, y: 0644}\n",
        "a: |\n  text\n   more\n\nb: >-\n  folded\n  text\n? key\n: value\n",
        "---\na: !!binary AP8=\n...\n---\n# second\nb: .inf\n",
        "a: \"\\u0041\\x41\\n\"\nb: 'it''s'\nc: 2024-02-29\nd: ~\n\"e\": [yes, 0x1f, 1_000, 1e3]\n",
    ])
}

pub(super) fn cbor(data: &[u8]) {
    let Ok(value) = cbor::decode(data) else { return };
    let written = cbor::object(&value);
    assert_eq!(cbor::decode(&written).as_ref(), Ok(&value));
    assert_eq!(cbor::object(&value), written);
}

pub(super) fn cbor_seeds() -> Vec<Vec<u8>> {
    samples(|_, value| cbor::object(value))
}

pub(super) fn protobuf(data: &[u8]) {
    for row in [&POD, &CRD] {
        let again = |value: &Value| {
            protobuf::encode(&row.schema, value).ok().map(|bytes| protobuf::decode(&row.schema, &bytes))
        };
        // Writing adds what Go always writes; from then on nothing changes.
        if let Some(value) = protobuf::decode(&row.schema, data).ok().as_ref().and_then(again) {
            assert_eq!(value.as_ref().ok().and_then(again), Some(value.clone()));
        }
    }
    let _ = request::value(Media::Protobuf, &Bytes::copy_from_slice(data), &pod_kind());
}

pub(super) fn protobuf_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples(|_, value| protobuf::object(value).unwrap_or_default());
    let whole = [&POD, &CRD].map(|row| protobuf::encode(&row.schema, &sample(&row.schema, 1)));
    seeds.extend(whole.into_iter().flatten());
    seeds
}

/// The first byte says which kind it is to be; the rest is the object in JSON. What the schema takes goes through
/// defaults and validation, which must stand anything.
pub(super) fn objects(data: &[u8]) {
    let (Some(first), table) = (data.first(), Table::builtin()) else { return };
    let row = &table.rows()[usize::from(*first) % table.rows().len()];
    let Ok(body) =
        decode::body(&table, &row.gvk(), &row.schema, &data[1..], FieldValidation::Ignore, row.rules.given())
    else {
        return;
    };
    let Ok(mut object) = row.rules.decode(body.value) else { return };
    let rules = &row.rules;
    rules.set_defaults(&mut *object);
    let old = object.clone_box();
    rules.prepare_create(&mut *object);
    let _ = (rules.validate(&*object), rules.warnings(&*object, None), rules.fields(&*object));
    rules.prepare_update(&mut *object, &*old);
    let _ = (rules.validate_update(&*object, &*old), rules.validate_status(&*object, &*old));
    let now = Clock::system().now();
    let _ = (rules.cells(&*object, now), rules.replicas(&*object), rules.held(&*object));
}

pub(super) fn object_seeds() -> Vec<Vec<u8>> {
    let table = Table::builtin();
    let number = |row: &Resource| {
        let at = table.rows().iter().position(|other| other.gvk() == row.gvk());
        at.and_then(|at| u8::try_from(at).ok()).unwrap_or_default()
    };
    samples(|row, value| [vec![number(row)], value.to_string().into_bytes()].concat())
}
