//! From JSON to messages, byte for byte as Go writes them: fields in the order of their numbers, maps by their keys.

use std::convert::Infallible;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::super::{Field, Id, Shape, Struct, TypeRef, Types, time};
use super::plan::{Plan, What};
use super::wire::{put_bytes, put_fixed64, put_message, put_number};
use super::{Error, MAX_DEPTH, Special, duration, is_wrapped, schema};

/// Writes a value of a type as its message. What the type doesn't know is left out, as are `apiVersion` and `kind`.
pub fn encode(ty: &TypeRef, value: &Value) -> Result<Vec<u8>, Error> {
    let mut encoder = Encoder { types: ty.types(), out: Vec::new(), depth: 0 };
    match (&ty.ty().shape, value) {
        (Shape::Struct(fields), Value::Object(map)) => encoder.message(fields, fields.plan(), map)?,
        (Shape::Struct(_), value) => return Err(mismatch("", value, &ty.ty().go)),
        _ => return Err(Error::NotMarshalable(ty.ty().go.to_string())),
    }
    Ok(encoder.out)
}

struct Encoder<'a> {
    types: &'a Types,
    out: Vec<u8>,
    depth: usize,
}

impl<'a> Encoder<'a> {
    /// Writes what `write` writes as a message in a field.
    fn nested(
        &mut self,
        number: u32,
        write: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.depth == MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        self.depth += 1;
        let mut out = std::mem::take(&mut self.out);
        let result = put_message(&mut out, number, |out| {
            std::mem::swap(&mut self.out, out);
            let result = write(self);
            std::mem::swap(&mut self.out, out);
            result
        });
        self.out = out;
        self.depth -= 1;
        result
    }

    fn message(&mut self, fields: &'a Struct, plan: &'a Plan, map: &Map<String, Value>) -> Result<(), Error> {
        if !plan.complete() {
            return Err(Error::NotMarshalable("type without numbers".to_owned()));
        }
        for slot in plan.slots() {
            match &slot.what {
                What::Inner(inner) => self.nested(slot.number, |this| this.message(fields, inner, map))?,
                What::Field(place) => {
                    let field = &fields.fields[usize::from(*place)];
                    let value = map.get(field.name.as_ref()).filter(|value| !value.is_null());
                    self.field(field, value)?;
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, value: Option<&Value>) -> Result<(), Error> {
        let (number, name) = (field.number, field.name.as_ref());
        let ty = self.types.get(field.ty);
        match (&ty.shape, value) {
            (Shape::List(item), Some(Value::Array(list))) if !is_wrapped(self.types, field.ty) => {
                list.iter().try_for_each(|value| self.value(*item, number, name, value))
            }
            (Shape::Map(item), Some(Value::Object(entries))) => {
                entries.iter().try_for_each(|(key, value)| {
                    self.nested(number, |this| {
                        put_bytes(&mut this.out, 1, key.as_bytes());
                        this.value(*item, 2, name, value)
                    })
                })
            }
            (Shape::Map(_), Some(value)) => Err(mismatch(name, value, &ty.go)),
            (_, Some(value)) => self.value(field.ty, number, name, value),
            // Nothing says that a slice, a map or a pointer is nil.
            (Shape::List(_) | Shape::Map(_) | Shape::Bytes, None) => Ok(()),
            (_, None) if field.pointer => Ok(()),
            (_, None) => self.value(field.ty, number, name, &Value::Null),
        }
    }

    /// One value as a field; `Null` is Go's zero.
    fn value(&mut self, id: Id, number: u32, name: &str, value: &Value) -> Result<(), Error> {
        let ty = self.types.get(id);
        match (&ty.shape, value) {
            (Shape::String { .. } | Shape::Bytes, Value::Null) => put_bytes(&mut self.out, number, b""),
            (Shape::String { .. }, Value::String(text)) => put_bytes(&mut self.out, number, text.as_bytes()),
            (Shape::Bytes, Value::String(text)) => {
                let bytes = STANDARD.decode(text).map_err(|_| mismatch(name, value, &ty.go))?;
                put_bytes(&mut self.out, number, &bytes);
            }
            (Shape::Boolean, Value::Bool(true)) => put_number(&mut self.out, number, 1),
            (Shape::Boolean, Value::Bool(false) | Value::Null) => put_number(&mut self.out, number, 0),
            (Shape::Integer(_), Value::Null) => put_number(&mut self.out, number, 0),
            (Shape::Integer(_), value) => {
                let whole = value.as_i64().ok_or_else(|| mismatch(name, value, &ty.go))?;
                put_number(&mut self.out, number, whole as u64);
            }
            (Shape::Float, Value::Null) => put_fixed64(&mut self.out, number, 0),
            (Shape::Float, value) => {
                let float = value.as_f64().ok_or_else(|| mismatch(name, value, &ty.go))?;
                put_fixed64(&mut self.out, number, float.to_bits());
            }
            (Shape::Struct(fields), Value::Object(map)) => {
                self.nested(number, |this| this.message(fields, fields.plan(), map))?;
            }
            (Shape::Struct(fields), Value::Null) => {
                self.nested(number, |this| this.message(fields, fields.plan(), &Map::new()))?;
            }
            (Shape::List(item), Value::Array(list)) => self
                .nested(number, |this| list.iter().try_for_each(|value| this.value(*item, 1, name, value)))?,
            (Shape::Quantity, Value::Null) => self.holding(number, "0"),
            (Shape::Quantity, Value::String(text)) => self.holding(number, text),
            // JSON may have it as a number.
            (Shape::Quantity, Value::Number(given)) => self.holding(number, &given.to_string()),
            (Shape::IntOrString, value) => self.int_or_string(number, name, value)?,
            (Shape::Time | Shape::MicroTime, value) => {
                let micro = matches!(ty.shape, Shape::MicroTime);
                self.timestamp(number, name, value, micro)?;
            }
            (Shape::Duration, value) => {
                let nanos = match value {
                    Value::Null => Some(0),
                    value => value.as_str().and_then(duration::nanos),
                };
                let nanos = nanos.ok_or_else(|| mismatch(name, value, &ty.go))?;
                self.nested(number, |this| {
                    put_number(&mut this.out, 1, nanos as u64);
                    Ok(())
                })?;
            }
            (Shape::Any, value) if Special::of(self.types, id) != Special::Raw => {
                self.schema_or(Special::of(self.types, id), number, name, value)?;
            }
            (Shape::Raw | Shape::Any, Value::Null) => self.nested(number, |_| Ok(()))?,
            (Shape::Raw | Shape::Any, value) => self.holding(number, &value.to_string()),
            (_, value) => return Err(mismatch(name, value, &ty.go)),
        }
        Ok(())
    }

    /// A message of which the only field is a text.
    fn holding(&mut self, number: u32, text: &str) {
        let Ok(()) = put_message(&mut self.out, number, |out| {
            put_bytes(out, 1, text.as_bytes());
            Ok::<(), Infallible>(())
        });
    }

    fn int_or_string(&mut self, number: u32, name: &str, value: &Value) -> Result<(), Error> {
        let (kind, whole, text) = match value {
            Value::Null => (0, 0, ""),
            Value::String(text) => (1, 0, text.as_str()),
            value => (0, value.as_i64().ok_or_else(|| mismatch(name, value, "intstr.IntOrString"))?, ""),
        };
        self.nested(number, |this| {
            put_number(&mut this.out, 1, kind);
            put_number(&mut this.out, 2, whole as u64);
            put_bytes(&mut this.out, 3, text.as_bytes());
            Ok(())
        })
    }

    fn timestamp(&mut self, number: u32, name: &str, value: &Value, micro: bool) -> Result<(), Error> {
        if value.is_null() {
            return self.nested(number, |_| Ok(()));
        }
        let text = value.as_str().ok_or_else(|| mismatch(name, value, "v1.Time"))?;
        let time = time::parse(text).map_err(Error::Special)?.as_nanosecond();
        // Before 1970, too, the nanoseconds are counted from the second before.
        let seconds = i64::try_from(time.div_euclid(1_000_000_000)).unwrap_or(0);
        let nanos = u64::try_from(time.rem_euclid(1_000_000_000)).unwrap_or(0);
        self.nested(number, |this| {
            put_number(&mut this.out, 1, seconds as u64);
            put_number(&mut this.out, 2, if micro { nanos / 1000 * 1000 } else { 0 });
            Ok(())
        })
    }

    fn schema_or(&mut self, special: Special, number: u32, name: &str, value: &Value) -> Result<(), Error> {
        let id = schema(self.types)?;
        self.nested(number, |this| match (special, value) {
            (Special::SchemaOrBool, Value::Bool(allows)) => {
                put_number(&mut this.out, 1, u64::from(*allows));
                Ok(())
            }
            (Special::SchemaOrBool, Value::Object(_)) => {
                put_number(&mut this.out, 1, 1);
                this.value(id, 2, name, value)
            }
            (Special::SchemaOrList | Special::SchemaOrNames, Value::Object(_)) => {
                this.value(id, 1, name, value)
            }
            (Special::SchemaOrList, Value::Array(list)) => {
                list.iter().try_for_each(|value| this.value(id, 2, name, value))
            }
            (Special::SchemaOrNames, Value::Array(list)) => list.iter().try_for_each(|value| {
                let text = value.as_str().ok_or_else(|| mismatch(name, value, "string"))?;
                put_bytes(&mut this.out, 2, text.as_bytes());
                Ok(())
            }),
            _ => Err(mismatch(name, value, "v1.JSONSchemaProps")),
        })
    }
}

fn mismatch(name: &str, value: &Value, go: &str) -> Error {
    let word = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "this number",
        Value::String(_) => "this string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Error::Mismatch(name.to_owned(), word, go.to_owned())
}
