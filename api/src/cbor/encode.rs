//! Values to CBOR, in the one deterministic form.

use serde_json::{Map, Number, Value};

use super::{SELF_DESCRIBED, float, major};

/// An object as clients read it, with the tag that says what it is.
pub fn object(value: &Value) -> Vec<u8> {
    let mut out = SELF_DESCRIBED.to_vec();
    put(&mut out, value);
    out
}

/// A value alone.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, value);
    out
}

/// One item of a watch's sequence. The object within it says itself what it is, as upstream's does.
pub fn put_event(out: &mut Vec<u8>, word: &str, object: &Value) {
    out.extend_from_slice(&SELF_DESCRIBED);
    head(out, major::MAP, 2);
    text(out, "type");
    text(out, word);
    text(out, "object");
    out.extend_from_slice(&SELF_DESCRIBED);
    put(out, object);
}

/// A list as clients read it, made item by item.
#[derive(Debug)]
pub struct List<'a> {
    api_version: &'a str,
    metadata: &'a Value,
    out: Vec<u8>,
}

impl<'a> List<'a> {
    /// A list that will have `count` items.
    pub fn new(api_version: &'a str, kind: &str, metadata: &'a Value, count: usize) -> Self {
        let mut out = SELF_DESCRIBED.to_vec();
        head(&mut out, major::MAP, 4);
        text(&mut out, "kind");
        text(&mut out, kind);
        text(&mut out, "items");
        head(&mut out, major::ARRAY, count as u64);
        Self { api_version, metadata, out }
    }

    pub fn push(&mut self, item: &Value) {
        put(&mut self.out, item);
    }

    /// The list, tag and all.
    pub fn finish(mut self) -> Vec<u8> {
        text(&mut self.out, "metadata");
        put(&mut self.out, self.metadata);
        text(&mut self.out, "apiVersion");
        text(&mut self.out, self.api_version);
        self.out
    }
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(false) => out.push(0xf4),
        Value::Bool(true) => out.push(0xf5),
        Value::Number(value) => number(out, value),
        Value::String(value) => text(out, value),
        Value::Array(items) => {
            head(out, major::ARRAY, items.len() as u64);
            items.iter().for_each(|item| put(out, item));
        }
        Value::Object(map) => object_items(out, map),
    }
}

fn object_items(out: &mut Vec<u8>, map: &Map<String, Value>) {
    head(out, major::MAP, map.len() as u64);
    let mut items: Vec<(&String, &Value)> = map.iter().collect();
    // The bytes of a key begin with its length.
    items.sort_unstable_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    for (key, value) in items {
        text(out, key);
        put(out, value);
    }
}

fn text(out: &mut Vec<u8>, value: &str) {
    head(out, major::BYTES, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

fn number(out: &mut Vec<u8>, value: &Number) {
    match value.as_i64() {
        Some(whole) if whole >= 0 => head(out, major::UNSIGNED, whole.unsigned_abs()),
        // -1 is written as 0.
        Some(whole) => head(out, major::NEGATIVE, whole.unsigned_abs() - 1),
        None => float::put(out, value.as_f64().unwrap_or_default()),
    }
}

fn head(out: &mut Vec<u8>, kind: u8, value: u64) {
    let kind = kind << 5;
    match value {
        0..24 => out.push(kind | value as u8),
        24..0x100 => out.extend_from_slice(&[kind | 24, value as u8]),
        0x100..0x1_0000 => {
            out.push(kind | 25);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(kind | 26);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(kind | 27);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}
