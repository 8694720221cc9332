//! The document of version 2 as protobuf, in the messages of gnostic's `OpenAPIv2.proto`: what clients of Kubernetes
//! before 1.24 ask for, and nothing else.

use serde_json::{Map, Value};

/// Encodes a document of these parts.
pub(super) fn encode(
    info: &Value,
    paths: impl Iterator<Item = (String, Value)>,
    definitions: impl Iterator<Item = (String, Value)>,
) -> Vec<u8> {
    let mut out = Message::default();
    out.string(1, "2.0");
    out.message(2, |message| {
        message.text(1, &info["title"]);
        message.text(2, &info["version"]);
    });
    out.message(8, |message| {
        for (path, item) in paths {
            message.message(2, |named| {
                named.string(1, &path);
                named.message(2, |message| path_item(message, &item));
            });
        }
    });
    out.message(9, |message| {
        for (name, made) in definitions {
            named_schema(message, &name, &made);
        }
    });
    out.0
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn path_item(out: &mut Message, item: &Value) {
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(made) = item.get(method) {
            out.message(number, |message| operation(message, made));
        }
    }
    for each in items(&item["parameters"]) {
        out.message(9, |message| message.message(1, |message| parameter(message, each)));
    }
}

fn operation(out: &mut Message, operation: &Value) {
    for tag in items(&operation["tags"]) {
        out.text(1, tag);
    }
    out.text(5, &operation["operationId"]);
    for (number, list) in [(6, "produces"), (7, "consumes"), (10, "schemes")] {
        for item in items(&operation[list]) {
            out.text(number, item);
        }
    }
    for each in items(&operation["parameters"]) {
        out.message(8, |message| message.message(1, |message| parameter(message, each)));
    }
    out.message(9, |responses| {
        for (code, response) in entries(&operation["responses"]) {
            responses.message(1, |named| {
                named.string(1, code);
                named.message(2, |value| {
                    value.message(1, |message| {
                        message.text(1, &response["description"]);
                        if let Some(of) = response.get("schema") {
                            message.message(2, |item| item.message(1, |message| schema(message, of)));
                        }
                    });
                });
            });
        }
    });
    extensions(out, 13, operation);
}

fn parameter(out: &mut Message, parameter: &Value) {
    let required = parameter["required"] == true;
    match parameter["in"].as_str() {
        Some("body") => out.message(1, |body| {
            body.text(2, &parameter["name"]);
            body.text(3, &parameter["in"]);
            body.flag(4, required);
            body.message(5, |message| schema(message, &parameter["schema"]));
        }),
        at => out.message(2, |other| {
            let path = at == Some("path");
            other.message(if path { 4 } else { 3 }, |message| {
                message.flag(1, required);
                message.text(2, &parameter["in"]);
                message.text(3, &parameter["description"]);
                message.text(4, &parameter["name"]);
                message.text(if path { 5 } else { 6 }, &parameter["type"]);
            });
        }),
    }
}

fn named_schema(out: &mut Message, name: &str, made: &Value) {
    out.message(1, |named| {
        named.string(1, name);
        named.message(2, |message| schema(message, made));
    });
}

fn schema(out: &mut Message, value: &Value) {
    out.text(1, &value["$ref"]);
    out.text(2, &value["format"]);
    out.text(4, &value["description"]);
    if let Some(default) = value.get("default") {
        out.message(5, |any| any.string(2, &default.to_string()));
    }
    for name in items(&value["required"]) {
        out.text(19, name);
    }
    for allowed in items(&value["enum"]) {
        out.message(20, |any| any.string(2, &allowed.to_string()));
    }
    if let Some(more) = value.get("additionalProperties") {
        out.message(21, |item| item.message(1, |message| schema(message, more)));
    }
    if let Some(ty) = value.get("type") {
        out.message(22, |item| item.text(1, ty));
    }
    if let Some(of) = value.get("items") {
        out.message(23, |item| item.message(1, |message| schema(message, of)));
    }
    if let Some(properties) = value.get("properties") {
        out.message(25, |message| {
            for (name, made) in entries(properties) {
                named_schema(message, name, made);
            }
        });
    }
    extensions(out, 31, value);
}

/// The fields that start with `x-`. Their values are YAML, which JSON is.
fn extensions(out: &mut Message, number: u32, value: &Value) {
    for (name, value) in entries(value).filter(|(name, _)| name.starts_with("x-")) {
        out.message(number, |named| {
            named.string(1, name);
            named.message(2, |any| any.string(2, &value.to_string()));
        });
    }
}

/// A protobuf message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn string(&mut self, number: u32, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    /// A JSON string; anything else is left out.
    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str() {
            self.string(number, text);
        }
    }

    fn flag(&mut self, number: u32, value: bool) {
        if value {
            self.varint(u64::from(number) << 3);
            self.varint(1);
        }
    }

    fn message(&mut self, number: u32, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.bytes(number, &inner.0);
    }
}
