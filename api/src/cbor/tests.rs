//! What upstream's own tests of its CBOR say, and what must be refused at no cost.

use serde_json::json;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn refused(text: &str) -> String {
    decode(&hex(text)).unwrap_err().to_string()
}

#[test]
fn values_are_written_in_their_one_form() {
    for (value, expect) in [
        (json!(null), "f6"),
        (json!(true), "f5"),
        (json!(23), "17"),
        (json!(24), "1818"),
        (json!(256), "190100"),
        (json!(65536), "1a00010000"),
        (json!(i64::MAX), "1b7fffffffffffffff"),
        (json!(-1), "20"),
        (json!(-25), "3818"),
        (json!(i64::MIN), "3b7fffffffffffffff"),
        (json!(0.0), "f90000"),
        (json!(-0.0), "f98000"),
        (json!(1.5), "f93e00"),
        (json!(65504.0), "f97bff"),
        (json!(5.960464477539063e-8), "f90001"),
        (json!(0.00006103515625), "f90400"),
        (json!(6.097555160522461e-5), "f903ff"),
        (json!(100000.0), "fa47c35000"),
        (json!(1.1), "fb3ff199999999999a"),
        (json!("a"), "4161"),
        (json!(["a", 1]), "82416101"),
        // Shorter keys first, then by their bytes.
        (json!({"b": 1, "aa": 2, "a": 3}), "a3 4161 03 4162 01 426161 02"),
    ] {
        assert_eq!(encode(&value), hex(expect), "{value}");
        assert_eq!(decode(&hex(expect)), Ok(value));
    }
    let list = json!({"apiVersion": "v", "kind": "kList", "metadata": {}, "items": [{"foo": 1}]});
    let mut written = List::new("v", "kList", &list["metadata"], 1);
    written.push(&list["items"][0]);
    let written = written.finish();
    assert_eq!(written, object(&list));
    assert_eq!(decode(&written), Ok(list));
}

#[test]
fn an_event_is_one_item_around_an_object() {
    let mut sequence = Vec::new();
    put_event(&mut sequence, "ADDED", &json!({"a": 1}));
    assert_eq!(sequence, hex("d9d9f7 a2 4474797065 454144444544 466f626a656374 d9d9f7 a1 4161 01"));
    assert_eq!(decode(&sequence), Ok(json!({"type": "ADDED", "object": {"a": 1}})));
}

#[test]
fn whatever_has_a_form_in_json_is_read() {
    for (bytes, expect) in [
        ("d9d9f7 a1 6161 01", json!({"a": 1})),
        ("7f 6161 61 62 61 63 ff", json!("abc")),
        ("5f 4161 4162 ff", json!("ab")),
        ("9f 9f 80 80 ff 80 ff", json!([[[], []], []])),
        ("bf 6161 01 4162 02 ff", json!({"a": 1, "b": 2})),
        ("f94200", json!(3.0)),
        ("fa7f7fffff", json!(3.4028234663852886e38)),
        ("fb0000000000000001", json!(5e-324)),
        // Bytes for which a text form is expected later: base64url, base64, hex; also within a list.
        ("d5 42 fbff", json!("-_8")),
        ("d6 44 01020304", json!("AQIDBA==")),
        ("d7 42 01ab", json!("01ab")),
        ("d6 82 41ff d7 41ff", json!(["/w==", "ff"])),
        ("c0 74 323030362d30312d30325431353a30343a30355a", json!("2006-01-02T15:04:05Z")),
        ("c1 1a43b940e5", json!("2006-01-02T15:04:05Z")),
        ("c1 f93e00", json!("1970-01-01T00:00:01.5Z")),
        ("c1 20", json!("1969-12-31T23:59:59Z")),
        // Tags that nobody knows: what they stand before.
        ("c4 82 21 19 6ab3", json!([-2, 27315])),
    ] {
        assert_eq!(decode(&hex(bytes)), Ok(expect), "{bytes}");
    }
    assert_eq!(decode_object(&hex("f6"), "v1.TypeMeta"), Ok(Map::new()));
}

#[test]
fn what_is_refused_is_refused_in_upstreams_words() {
    let not_accepted = "is not accepted by protocol:";
    for (bytes, error) in [
        ("", "EOF"),
        ("a1", "unexpected EOF"),
        ("4261", "unexpected EOF"),
        ("9f", "unexpected EOF"),
        ("5bffffffffffffffff", "unexpected EOF"),
        ("9bffffffffffffffff", "unexpected EOF"),
        ("0000", "cbor: 1 bytes of extraneous data starting at index 1"),
        ("ff", "cbor: unexpected \"break\" code"),
        ("bf 6161 ff", "cbor: unexpected \"break\" code"),
        ("1c", "cbor: invalid additional information 28 for type positive integer"),
        ("3f", "cbor: invalid additional information 31 for type negative integer"),
        ("f818", "cbor: invalid simple value 24 for type primitives"),
        ("7f 4161 ff", "cbor: wrong element type byte string for indefinite-length UTF-8 text string"),
        ("5f 5f ff ff", "cbor: indefinite-length byte string chunk is not definite-length"),
        (
            "1bffffffffffffffff",
            "cbor: cannot unmarshal positive integer into Go value of type int64 (18446744073709551615 overflows \
             Go's int64)",
        ),
        (
            "3bffffffffffffffff",
            "cbor: cannot unmarshal negative integer into Go value of type int64 (-18446744073709551616 overflows \
             Go's int64)",
        ),
        ("6180", "cbor: invalid UTF-8 string"),
        ("a2 4141 01 6141 02", "cbor: found duplicate map key \"A\" at map element index 1"),
        ("a2 5f 4141 ff 01 4141 02", "cbor: found duplicate map key \"A\" at map element index 1"),
        ("a1 01 02", "cbor: cannot unmarshal positive integer into Go value of type string"),
        ("a1 fb40091eb851eb851f 63706965", "cbor: cannot unmarshal primitives into Go value of type string"),
        (
            "f97c00",
            &format!("cbor: data item of cbor type primitives {not_accepted} floating-point infinity"),
        ),
        (
            "faff800000",
            &format!("cbor: data item of cbor type primitives {not_accepted} floating-point infinity"),
        ),
        (
            "fb7ff8000000000000",
            &format!("cbor: data item of cbor type primitives {not_accepted} floating-point NaN"),
        ),
        (
            "f7",
            &format!(
                "cbor: data item of cbor type primitives {not_accepted} simple value 23 is not recognized"
            ),
        ),
        (
            "e0",
            &format!(
                "cbor: data item of cbor type primitives {not_accepted} simple value 0 is not recognized"
            ),
        ),
        ("c2 41 01", &format!("cbor: data item of cbor type tag {not_accepted} bignum")),
        ("c0 41 61", "cbor: tag number 0 must be followed by text string, got byte string"),
        (
            "c0 64 74657874",
            "cbor: cannot set text for time.Time: parsing time \"text\" as \"2006-01-02T15:04:05Z07:00\": cannot \
             parse \"text\" as \"2006\"",
        ),
        (
            "c1 1b0000003afff44181",
            "cbor: decoded time cannot be represented in RFC3339 format with sub-second precision: Time.MarshalText: \
             year outside of range [0,9999]",
        ),
    ] {
        assert_eq!(refused(bytes), error, "{bytes}");
    }
    let array = decode_object(&hex("d9d9f780"), "v1.TypeMeta").unwrap_err().to_string();
    assert_eq!(array, "cbor: cannot unmarshal array into Go value of type v1.TypeMeta");
}

#[test]
fn what_unfolds_too_far_is_refused() {
    let error = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
    for deep in [b"\x81".repeat(3_000_000), b"\x9f".repeat(3_000_000), b"\xc6".repeat(3_000_000)] {
        assert_eq!(error(&deep), "cbor: exceeded max nested level 300");
    }
    let wide = [vec![0x9f], b"\x80".repeat(3_000_000), vec![0xff]].concat();
    assert_eq!(error(&wide), "cbor: exceeded max number of elements 1000000 for CBOR array");
    // A length alone takes no memory.
    assert_eq!(error(&hex("9a7fffffff")), "unexpected EOF");
    assert_eq!(error(&hex("ba7fffffff")), "unexpected EOF");
}
