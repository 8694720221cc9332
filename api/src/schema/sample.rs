//! Values of any type, made from a seed: what tests of every kind, in every crate, are fed with.
//!
//! They have the form in which decoding leaves values: nothing that the type does not have, nothing that is not written
//! when it is empty, canonical quantities and times, lists without two items of one key. Texts are those that other
//! forms than JSON stumble over.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::protobuf::{Special, schema};
use super::{Extra, Field, Id, ListType, Shape, TypeRef, Types};

/// Structs are nested no deeper than this.
const DEEP: usize = 5;

/// Texts that YAML could take for something else, and others that are seldom thought of.
const TEXTS: &[&str] = &[
    "",
    "a",
    "ümlaut",
    "yes",
    "off",
    "null",
    "~",
    "1",
    "0644",
    "0x1f",
    "1e3",
    ".inf",
    "2024-02-29",
    "- a",
    "a: b",
    "#",
    "a #b",
    " a ",
    "a\nb",
    "a\n",
    "\na\n\n",
    "\tx",
    "'",
    "\"",
    "\\",
    "{",
    "[",
    "&a",
    "*a",
    "!x",
    "%",
    "@",
    "`",
    "|",
    ">",
    "---",
    "...",
    "?",
    "<<",
    "=",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "\u{1}",
    "\u{1f600}",
    "\r\n",
];

/// A value of a struct, without `apiVersion` and `kind`.
pub fn sample(ty: &TypeRef, seed: u64) -> Value {
    Maker { types: ty.types(), state: seed, depth: 0 }.fields(ty.id())
}

struct Maker<'a> {
    types: &'a Types,
    state: u64,
    depth: usize,
}

impl<'a> Maker<'a> {
    fn below(&mut self, limit: usize) -> usize {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % limit
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn fields(&mut self, id: Id) -> Value {
        let Shape::Struct(fields) = &self.types.get(id).shape else { return Value::Object(Map::new()) };
        let mut map = Map::new();
        for field in &fields.fields {
            if let Some(value) = self.field(field) {
                map.insert(field.name.to_string(), value);
            }
        }
        Value::Object(map)
    }

    fn field(&mut self, field: &Field) -> Option<Value> {
        let shape = &self.types.get(field.ty).shape;
        let deep = self.depth > DEEP;
        if let (Shape::Struct(_), false) = (shape, field.pointer) {
            return Some(self.fields(field.ty));
        }
        let may_lack = field.omit_empty
            || field.pointer
            || matches!(
                shape,
                Shape::List(_)
                    | Shape::Map(_)
                    | Shape::Bytes
                    | Shape::Time
                    | Shape::MicroTime
                    | Shape::Raw
                    | Shape::Any
            );
        let nests = matches!(shape, Shape::Struct(_) | Shape::List(_) | Shape::Map(_) | Shape::Any);
        if may_lack && (deep && nests || self.below(5) < 2) {
            return None;
        }
        let mut value = self.value(field.ty);
        unique(field.extra(), &mut value);
        if value == json!([]) {
            return None;
        }
        let zero = [json!(""), json!(0), json!(0.0), json!(false), json!("0")].contains(&value);
        (!zero || !field.omit_empty || field.pointer).then_some(value)
    }

    fn value(&mut self, id: Id) -> Value {
        self.depth += 1;
        let value = match &self.types.get(id).shape {
            Shape::Struct(_) => self.fields(id),
            Shape::List(item) => (0..=self.below(2)).map(|_| self.value(*item)).collect(),
            Shape::Map(item) => {
                (0..=self.below(2)).map(|_| (self.pick(TEXTS).to_owned(), self.value(*item))).collect()
            }
            Shape::String { .. } if self.below(9) == 0 => "long".repeat(50).into(),
            Shape::String { .. } => self.pick(TEXTS).into(),
            Shape::Integer(64) => self.pick(&[0, 1, -1, 300, i64::MAX, i64::MIN]).into(),
            Shape::Integer(_) => self.pick(&[0, 1, -1, 300, i32::MAX, i32::MIN]).into(),
            Shape::Float => self.pick(&[0.0, 1.5, -2e300]).into(),
            Shape::Boolean => self.pick(&[true, false]).into(),
            Shape::Bytes => self.pick(&["", "AP8=", "aGVsbG8="]).into(),
            Shape::Time => self.pick(&["2024-02-29T12:00:00Z", "1969-12-31T23:59:59Z"]).into(),
            Shape::MicroTime => {
                self.pick(&["2024-02-29T12:00:00.000001Z", "1969-12-31T23:59:59.900000Z"]).into()
            }
            Shape::Duration => self.pick(&["1m30s", "0s", "1.5µs"]).into(),
            Shape::Quantity => self.pick(&["0", "500m", "1Gi", "12"]).into(),
            Shape::IntOrString => self.pick(&[json!(0), json!(80), json!("25%")]),
            Shape::Raw => self.raw(),
            Shape::Any => match Special::of(self.types, id) {
                Special::Raw => self.raw(),
                special => self.schema_or(special),
            },
            // Aliases were followed.
            Shape::Alias(_) => Value::Null,
        };
        self.depth -= 1;
        value
    }

    fn raw(&mut self) -> Value {
        self.pick(&[json!({"a": [1, null, "x"]}), json!([]), json!(false), json!("text")])
    }

    fn schema_or(&mut self, special: Special) -> Value {
        let Ok(id) = schema(self.types) else { return json!({}) };
        match (special, self.below(2)) {
            (Special::SchemaOrBool, 0) => self.pick(&[true, false]).into(),
            (Special::SchemaOrList, 0) => json!([self.fields(id)]),
            (Special::SchemaOrNames, 0) => json!(["a", ""]),
            _ => self.fields(id),
        }
    }
}

/// Takes away the items that have no key, or that of an earlier one.
fn unique(extra: &Extra, value: &mut Value) {
    let Value::Array(items) = value else { return };
    let mut keys: Vec<&str> = extra.merge_key.iter().map(AsRef::as_ref).collect();
    if let ListType::Map(names) = &extra.list {
        keys.extend(names.iter().map(AsRef::as_ref));
    }
    for key in &keys {
        let mut seen = HashSet::new();
        items.retain(|item| item.get(key).is_some_and(|value| seen.insert(value.to_string())));
    }
    if keys.is_empty() && (extra.list == ListType::Set || extra.patch.merge) {
        let mut seen = HashSet::new();
        items.retain(|item| seen.insert(item.to_string()));
    }
}
