//! What is done with arbitrary bytes, one function per parser, and the seeds that lead into it.
//!
//! A target must neither panic nor hang, nor take memory or time out of proportion to its input; what can be read must
//! also be written and read again. [`TARGETS`] is the one list: `cargo fuzz` (in this folder), the bounded test of
//! `make test` (`apiserver/tests/fuzz.rs`) and the loop of `cargo run --example fuzz` all run what is in it.

use std::sync::{Arc, LazyLock};

use api::apply::{Managed, Set};
use api::cbor;
use api::patch::{self, strategic};
use api::quantity::Quantity;
use api::resource::{GroupVersionKind, Resource, Table};
use api::schema::decode::{self, FieldValidation};
use api::schema::protobuf;
use api::schema::sample::sample;
use api::selector::{FieldSelector, LabelSelector};
use apiserver::RequestInfo;
use apiserver::negotiate::Media;
use apiserver::pki::Pki;
use apiserver::registry::{decode as request, read};
use base::{Clock, Random};
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

/// One parser.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Inputs that are (nearly) right, of which others are made.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every parser that reads what clients or peers send.
pub const TARGETS: &[Target] = &[
    Target { name: "json", run: json, seeds: json_seeds },
    Target { name: "yaml", run: yaml, seeds: yaml_seeds },
    Target { name: "cbor", run: cbor, seeds: || samples(|_, value| cbor::object(value)) },
    Target { name: "protobuf", run: protobuf, seeds: protobuf_seeds },
    Target { name: "objects", run: objects, seeds: object_seeds },
    Target {
        name: "labels",
        run: labels,
        seeds: || texts(&["a=b,c!=d", "x in (a,b), !y", "a>1,b<2", "a notin ()"]),
    },
    Target {
        name: "fields",
        run: fields,
        seeds: || texts(&["a=b,c!=d", r"metadata.name==a\,b\\\=", "spec.nodeName="]),
    },
    Target {
        name: "quantity",
        run: quantity,
        seeds: || texts(&["100m", "1.5Gi", "-12e3", "9223372036854775807Ei", ".1n"]),
    },
    Target { name: "json_patch", run: json_patch, seeds: json_patch_seeds },
    Target { name: "strategic", run: strategic, seeds: strategic_seeds },
    Target { name: "field_sets", run: field_sets, seeds: field_set_seeds },
    Target {
        name: "cron",
        run: cron,
        seeds: || texts(&["*/5 1-3 ? jan,FEB mon-fri", "@hourly", "TZ=Asia/Tokyo 0 0 31 2 *", "@every 1h"]),
    },
    Target { name: "token", run: token, seeds: token_seeds },
    Target {
        name: "continue_token",
        run: continue_token,
        seeds: || {
            texts(&[
                "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NywiZGFydCI6ImEifQ",
                "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYVx1MDAwMCJ9",
            ])
        },
    },
    Target { name: "spdy", run: spdy, seeds: spdy_seeds },
    Target {
        name: "request",
        run: request_info,
        seeds: || {
            texts(&[
                "GET /api/v1/namespaces/a/pods/b/log?follow=1",
                "POST /apis/apps/v1/deployments?dryRun=All&x=%41+%zz",
                "PATCH /apis/a/b/watch/namespaces/c/d/e/f/g",
                "DELETE //api//v1/%2e%2e/..;a=b?limit=5&continue",
            ])
        },
    },
];

static POD: LazyLock<Arc<Resource>> = LazyLock::new(|| row("v1", "Pod"));
static CRD: LazyLock<Arc<Resource>> =
    LazyLock::new(|| row("apiextensions.k8s.io/v1", "CustomResourceDefinition"));
static PKI: LazyLock<Pki> = LazyLock::new(|| Pki::in_memory(Clock::system(), Random::seeded(1)).unwrap());

fn row(api_version: &str, kind: &str) -> Arc<Resource> {
    Table::builtin().kind_of(api_version, kind).unwrap().clone()
}

fn pod_kind() -> GroupVersionKind {
    GroupVersionKind::fixed("", "v1", "Pod")
}

fn texts(seeds: &[&str]) -> Vec<Vec<u8>> {
    seeds.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A written sample of every kind.
fn samples(write: impl Fn(&Resource, &Value) -> Vec<u8>) -> Vec<Vec<u8>> {
    let one = |(seed, row): (u64, &Arc<Resource>)| {
        let mut value = sample(&row.schema, seed);
        value["apiVersion"] = row.api_version().into();
        value["kind"] = row.kind.as_ref().into();
        write(row, &value)
    };
    (0..).zip(Table::builtin().rows()).map(one).collect()
}

/// The input as text, whatever it is.
fn text(data: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(data)
}

fn json(data: &[u8]) {
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

fn json_seeds() -> Vec<Vec<u8>> {
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

fn yaml(data: &[u8]) {
    let _ = request::value(Media::Yaml, &Bytes::copy_from_slice(data), &pod_kind());
}

fn yaml_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - {name: c, image: i}\n",
        "a: &a [1, 2]\nb: *a\nc: {<<: {x: 1}, y: 0644}\n",
        "a: |\n  text\n   more\n\nb: >-\n  folded\n  text\n? key\n: value\n",
        "---\na: !!binary AP8=\n...\n---\n# second\nb: .inf\n",
        "a: \"\\u0041\\x41\\n\"\nb: 'it''s'\nc: 2024-02-29\nd: ~\n\"e\": [yes, 0x1f, 1_000, 1e3]\n",
    ])
}

fn cbor(data: &[u8]) {
    let Ok(value) = cbor::decode(data) else { return };
    let written = cbor::object(&value);
    assert_eq!(cbor::decode(&written).as_ref(), Ok(&value));
    assert_eq!(cbor::object(&value), written);
}

fn protobuf(data: &[u8]) {
    for row in [&POD, &CRD] {
        let again = |value: &Value| {
            protobuf::encode(&row.schema, value)
                .ok()
                .map(|bytes| protobuf::decode(&row.schema, &bytes).unwrap())
        };
        // Writing adds what Go always writes; from then on nothing changes.
        if let Some(value) = protobuf::decode(&row.schema, data).ok().as_ref().and_then(again) {
            assert_eq!(again(&value), Some(value));
        }
    }
    let _ = request::value(Media::Protobuf, &Bytes::copy_from_slice(data), &pod_kind());
}

fn protobuf_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples(|_, value| protobuf::object(value).unwrap_or_default());
    seeds.extend([&POD, &CRD].map(|row| protobuf::encode(&row.schema, &sample(&row.schema, 1)).unwrap()));
    seeds
}

/// The first byte says which kind it is to be; the rest is the object in JSON. What the schema takes goes through
/// defaults and validation, which must stand anything.
fn objects(data: &[u8]) {
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

fn object_seeds() -> Vec<Vec<u8>> {
    let table = Table::builtin();
    let number = |row: &Resource| {
        let at = table.rows().iter().position(|other| other.gvk() == row.gvk());
        at.and_then(|at| u8::try_from(at).ok()).unwrap_or_default()
    };
    samples(|row, value| [vec![number(row)], value.to_string().into_bytes()].concat())
}

fn labels(data: &[u8]) {
    if let Ok(selector) = LabelSelector::parse(&text(data)) {
        assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
    }
}

fn fields(data: &[u8]) {
    if let Ok(selector) = FieldSelector::parse(&text(data)) {
        assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector));
    }
}

fn quantity(data: &[u8]) {
    // Binary amounts lose their fraction when they are written; from then on nothing changes.
    let again = |quantity: Quantity| Quantity::parse(&quantity.to_string()).unwrap();
    if let Ok(quantity) = Quantity::parse(&text(data)).map(again) {
        assert_eq!(again(quantity), quantity);
    }
}

fn json_patch(data: &[u8]) {
    let _ = patch::json(&sample(&POD.schema, data.len() as u64), data);
}

fn json_patch_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"[{"op":"add","path":"/metadata/labels/a~1b","value":{"x":[1]}},{"op":"remove","path":"/spec/containers/0"}]"#,
        r#"[{"op":"test","path":"","value":null},{"op":"move","from":"/spec","path":"/metadata/spec"}]"#,
        r#"[{"op":"copy","from":"/metadata","path":"/spec/-"},{"op":"replace","path":"/spec/volumes/00","value":1}]"#,
    ])
}

/// Patches of objects, and the differences of one object and another.
fn strategic(data: &[u8]) {
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

fn strategic_seeds() -> Vec<Vec<u8>> {
    let mut seeds = texts(&[
        r#"{"spec":{"$setElementOrder/containers":[{"name":"a"}],"containers":[{"$patch":"delete","name":"a"}]}}"#,
        r#"{"spec":{"$patch":"replace"},"metadata":{"$deleteFromPrimitiveList/finalizers":["a"],"finalizers":["b"]}}"#,
        r#"{"spec":{"volumes":[{"$retainKeys":["name","emptyDir"],"name":"v","emptyDir":{}}]}}"#,
    ]);
    seeds.push(sample(&POD.schema, 3).to_string().into_bytes());
    seeds
}

fn field_sets(data: &[u8]) {
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

fn field_set_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"f:metadata":{"f:labels":{".":{},"f:a":{}},"f:finalizers":{"v:\"x/y\"":{}}}}"#,
        r#"{"f:spec":{"f:containers":{"k:{\"name\":\"a\",\"port\":1}":{".":{},"f:image":{}},"i:3":{}}}}"#,
    ])
}

fn cron(data: &[u8]) {
    let _ = api::cron::parse(&text(data));
}

fn token(data: &[u8]) {
    let _ = PKI.tokens().verify(&text(data));
}

fn token_seeds() -> Vec<Vec<u8>> {
    vec![PKI.tokens().sign(&json!({"iss": "x", "sub": "y", "exp": 1})).unwrap().into_bytes()]
}

fn continue_token(data: &[u8]) {
    let _ = read::Token::read(&text(data));
}

fn spdy(data: &[u8]) {
    let (mut whole, mut decoder) = (BytesMut::from(data), ::spdy::codec::Decoder::new());
    let mut frames = 0;
    while let Ok(Some(_)) = decoder.decode(&mut whole) {
        frames += 1;
    }
    // The same bytes one by one are the same frames, but for data, which comes in pieces.
    let (mut input, mut decoder, mut pieces) = (BytesMut::new(), ::spdy::codec::Decoder::new(), 0);
    for byte in data {
        input.extend_from_slice(&[*byte]);
        while let Ok(Some(_)) = decoder.decode(&mut input) {
            pieces += 1;
        }
    }
    assert!(pieces >= frames, "{pieces} pieces of {frames} frames");
}

fn spdy_seeds() -> Vec<Vec<u8>> {
    use ::spdy::Frame;
    let headers = || ::spdy::Headers::new().with("streamtype", "data").with("port", "80");
    let mut encoder = ::spdy::codec::Encoder::default();
    let mut all = BytesMut::new();
    for frame in [
        Frame::SynStream {
            id: 1,
            associated: 0,
            priority: 0,
            fin: false,
            unidirectional: false,
            headers: headers(),
        },
        Frame::SynReply { id: 1, fin: false, headers: headers() },
        Frame::Data { id: 1, fin: true, data: Bytes::from_static(b"data") },
        Frame::Ping { id: 2 },
        Frame::RstStream { id: 1, status: ::spdy::Reset::Cancel },
        Frame::GoAway { last_good: 1, status: 0 },
        Frame::WindowUpdate { id: 1, delta: 5 },
    ] {
        encoder.encode(&frame, &mut all);
    }
    vec![all.to_vec()]
}

fn request_info(data: &[u8]) {
    let text = text(data);
    let (method, target) = text.split_once(' ').unwrap_or(("GET", &text));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Ok(method) = method.parse::<http::Method>() else { return };
    let _ = RequestInfo::new(&method, path, query);
}
