//! Every built-in kind there and back, bytes that `protoc` made, and input that nobody should send.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::{Id, Shape, TypeRef, Types, sample::sample};
use super::*;

/// The kinds that protobuf carries.
fn kinds() -> Vec<TypeRef> {
    let types = Types::builtin();
    let carried = |shape: &Shape| matches!(shape, Shape::Struct(s) if s.type_meta && s.plan().complete());
    let ids: Vec<Id> = types.iter().filter(|(_, ty)| carried(&ty.shape)).map(|(id, _)| id).collect();
    ids.into_iter().map(|id| TypeRef::new(types.clone(), id)).collect()
}

/// Compares piece by piece, so that a failure names the field.
fn differing(path: &str, a: &Value, b: &Value) -> Option<String> {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let keys = x.keys().chain(y.keys());
            keys.filter_map(|key| {
                let get = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differing(&format!("{path}.{key}"), &get(x), &get(y))
            })
            .next()
        }
        _ => (a != b).then(|| format!("{path}: {a} became {b}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn every_kind_comes_back_as_it_went(seed: u64) {
        for ty in kinds() {
            let value = sample(&ty, seed);
            let bytes = encode(&ty, &value).unwrap();
            let back = decode(&ty, &bytes).unwrap();
            prop_assert_eq!(differing(&ty.ty().go, &value, &back), None);
            prop_assert_eq!(&value, &back);
        }
    }

    #[test]
    fn broken_messages_are_refused_without_harm(seed: u64, cut: prop::sample::Index, flip: prop::sample::Index) {
        for ty in kinds().into_iter().step_by(7) {
            let mut bytes = seal("v1", "X", &encode(&ty, &sample(&ty, seed)).unwrap());
            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << (seed % 8);
            let cut = cut.index(bytes.len());
            for part in [&bytes[..], &bytes[..cut]] {
                let _ = open(part).and_then(|envelope| decode(&ty, envelope.raw));
                let _ = decode(&ty, part);
            }
        }
    }

    #[test]
    fn any_bytes_do_no_harm(bytes: Vec<u8>) {
        let _ = open(&[MAGIC, &bytes].concat());
        for ty in [pod(), TypeRef::builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap()] {
            let _ = decode(&ty, &bytes);
        }
    }
}

fn pod() -> TypeRef {
    kind("v1", "Pod").unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// Made by `protoc --encode` with upstream's `generated.proto`, of a text with every field that Go writes.
const POD: &str = "0a280a016112001a0022002a003200380042080880e2cfaa0610005a050a017812005a060a017912017a12a8010a160a0176 \
    1211120f0a064d656d6f727912050a03314769125e0a01631201692a00320a0a001000185022002a003a060a014512013142 \
    0f0a0d0a0363707512060a043530306d521f0a1312110a001209080110001a037765621a002200100018002000280030006a \
    007200800100880100900100a201001a002000320042004a005200580060006800721010ffffffffffffffffff01200120ac \
    028201008a01009a0100c201001a130a001a0022002a0032004a005a007200880100";

#[test]
fn the_bytes_of_a_pod_are_those_of_upstream() {
    let value = json!({
        "metadata": {"name": "a", "creationTimestamp": "2023-11-14T22:13:20Z", "labels": {"x": "", "y": "z"}},
        "spec": {
            "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}],
            "containers": [{
                "name": "c", "image": "i", "ports": [{"containerPort": 80}], "env": [{"name": "E", "value": "1"}],
                "resources": {"limits": {"cpu": "500m"}}, "livenessProbe": {"httpGet": {"port": "web"}},
            }],
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": -1, "supplementalGroups": [1, 300]},
        },
        "status": {},
    });
    let bytes = hex(POD);
    assert_eq!(encode(&pod(), &value).unwrap(), bytes);
    assert_eq!(decode(&pod(), &bytes).unwrap(), value);
}

#[test]
fn an_envelope_is_what_upstream_makes() {
    let bytes = object(&json!({"apiVersion": "v1", "kind": "Status", "code": 404})).unwrap();
    assert!(bytes.starts_with(b"k8s\0\x0a\x0c\x0a\x02v1\x12\x06Status\x12"), "{bytes:?}");
    assert!(bytes.ends_with(b"\x1a\0\"\0"));
    let envelope = open(&bytes).unwrap();
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("v1", "Status"));
    let value = unseal(&envelope, &kind("v1", "Status").unwrap()).unwrap();
    assert_eq!(value, json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "code": 404}));
    let mut frame = Vec::new();
    put_frame(&mut frame, "ADDED", b"xyz");
    assert_eq!(frame, b"\0\0\0\x0e\x0a\x05ADDED\x12\x05\x0a\x03xyz");
}

#[test]
fn a_list_made_item_by_item_is_that_made_at_once() {
    let metadata = json!({"resourceVersion": "7", "continue": "x"});
    let items = [json!({"metadata": {"name": "a"}}), json!({"metadata": {"name": "b"}, "data": {"k": "v"}})];
    let mut list = List::new("v1", "ConfigMapList", &metadata).unwrap();
    items.iter().for_each(|item| list.push(item).unwrap());
    let whole = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items});
    assert_eq!(list.finish(), object(&whole).unwrap());
    assert!(List::new("v1", "ConfigMap", &json!({})).is_err());
}

#[test]
fn packed_and_unpacked_numbers_and_unknown_fields_are_read() {
    let ty = TypeRef::builtin("", "v1", "PodSecurityContext").unwrap();
    for bytes in
        ["20 01 20 ac 02", "22 03 01 ac 02", "22 01 01 20 ac 02", "20 01 9a 06 01 78 93 06 94 06 20 ac 02"]
    {
        assert_eq!(decode(&ty, &hex(bytes)), Ok(json!({"supplementalGroups": [1, 300]})), "{bytes}");
    }
}

#[test]
fn messages_that_come_twice_are_merged() {
    // metadata {name: "a"}, metadata {namespace: "b"}, metadata {name: ""}
    let bytes = hex("0a03 0a0161 0a03 1a0162");
    assert_eq!(decode(&pod(), &bytes), Ok(json!({"metadata": {"name": "a", "namespace": "b"}})));
    let bytes = [bytes, hex("0a02 0a00")].concat();
    assert_eq!(decode(&pod(), &bytes), Ok(json!({"metadata": {"namespace": "b"}})));
}

#[test]
fn an_object_within_an_object_may_be_in_either_form() {
    let revision = kind("apps/v1", "ControllerRevision").unwrap();
    let inner = object(&json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}})).unwrap();
    let mut bytes = Vec::new();
    wire::put_message(&mut bytes, 2, |out| {
        wire::put_bytes(out, 1, &inner);
        Ok::<(), Error>(())
    })
    .unwrap();
    let value = decode(&revision, &bytes).unwrap();
    let inner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"a": "b"}});
    assert_eq!(value, json!({"data": inner}));
}

#[test]
fn bad_input_is_refused_in_the_words_of_upstream() {
    for (bytes, error) in [
        ("", "empty data"),
        ("7b7d", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"),
        ("6b387300", "empty body"),
        ("6b387300 12", "unexpected EOF"),
        ("6b387300 12 ffffffffffffffffff01", "proto: negative length found during unmarshaling"),
        ("6b387300 12 ffffffffffffffff7f", "unexpected EOF"),
        ("6b387300 12 ffffffffffffffffffff01", "proto: integer overflow"),
        ("6b387300 10 01", "proto: wrong wireType = 0 for field Raw"),
        ("6b387300 04", "proto: Unknown: wiretype end group for non-group"),
        ("6b387300 02 00", "proto: Unknown: illegal tag 0 (wire type 2)"),
        ("6b387300 0f", "proto: illegal wireType 7"),
    ] {
        assert_eq!(open(&hex(bytes)).unwrap_err().to_string(), error, "{bytes}");
    }
    let wrong = decode(&pod(), &hex("0801")).unwrap_err().to_string();
    assert_eq!(wrong, "proto: wrong wireType = 0 for field Metadata");
}

#[test]
fn what_unfolds_too_far_is_refused() {
    // Two hundred thousand empty containers.
    let list = [hex("12 80b518"), b"\x12\0".repeat(200_000)].concat();
    assert_eq!(decode(&pod(), &list), Err(Error::TooMany));
    let props = TypeRef::builtin("apiextensions.k8s.io", "v1", "JSONSchemaProps").unwrap();
    let mut nested = Vec::new();
    for _ in 0..200 {
        let inner = std::mem::take(&mut nested);
        wire::put_bytes(&mut nested, 28, &inner);
    }
    assert_eq!(decode(&props, &nested), Err(Error::TooDeep));
    let groups = b"\x0b".repeat(1000);
    assert_eq!(decode(&pod(), &groups), Err(Error::TooDeep));
}

#[test]
fn tables_are_not_carried() {
    assert!(kind("meta.k8s.io/v1", "Table").is_none());
    assert!(kind("meta.k8s.io/v1", "PartialObjectMetadataList").is_some());
    let error = object(&json!({"apiVersion": "example.com/v1", "kind": "Foo"})).unwrap_err().to_string();
    assert!(
        error.starts_with("object *Foo does not implement the protobuf marshalling interface"),
        "{error}"
    );
}
