//! From messages to JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::super::{Field, Id, Shape, Struct, TypeRef, Types, decode::empty, time};
use super::plan::{Plan, What};
use super::wire::{Payload, Reader};
use super::{Error, MAX_DEPTH, MAX_VALUES, STRUCT, Special, duration, is_wrapped, kind, open, schema};
use crate::quantity::Quantity;

/// Reads the message of a type as JSON, without `apiVersion` and `kind`, which are not in it. Fields that the type
/// doesn't have are passed over.
pub fn decode(ty: &TypeRef, bytes: &[u8]) -> Result<Value, Error> {
    let mut decoder = Decoder { types: ty.types(), left: MAX_VALUES, depth: 0 };
    match &ty.ty().shape {
        Shape::Struct(fields) if fields.plan().complete() => decoder.object(&ty.ty().go, fields, bytes),
        _ => Err(Error::NotMarshalable(ty.ty().go.to_string())),
    }
}

struct Decoder<'a> {
    types: &'a Types,
    /// How many values may still come.
    left: usize,
    depth: usize,
}

impl<'a> Decoder<'a> {
    fn spend(&mut self, values: usize) -> Result<(), Error> {
        self.left = self.left.checked_sub(values).ok_or(Error::TooMany)?;
        Ok(())
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn object(&mut self, go: &str, fields: &'a Struct, bytes: &[u8]) -> Result<Value, Error> {
        let mut map = Map::new();
        self.message(go, fields, fields.plan(), bytes, &mut map)?;
        Ok(Value::Object(map))
    }

    /// Reads a message into the struct that it is (a part of). What is there already is added to, as protobuf has it.
    fn message(
        &mut self,
        go: &str,
        fields: &'a Struct,
        plan: &'a Plan,
        bytes: &[u8],
        map: &mut Map<String, Value>,
    ) -> Result<(), Error> {
        self.spend(STRUCT)?;
        self.deeper(|this| {
            let mut reader = Reader::new(bytes);
            while let Some((number, payload)) = reader.field(short(go))? {
                match plan.find(number) {
                    Some(What::Field(place)) => {
                        this.field(&fields.fields[usize::from(*place)], payload, map)?;
                    }
                    Some(What::Inner(inner)) => {
                        this.message(go, fields, inner, payload.bytes(short(go))?, map)?;
                    }
                    None => {}
                }
            }
            Ok(())
        })
    }

    fn field(
        &mut self,
        field: &Field,
        payload: Payload<'_>,
        map: &mut Map<String, Value>,
    ) -> Result<(), Error> {
        let name = field.name.as_ref();
        let ty = self.types.get(field.ty);
        match &ty.shape {
            Shape::List(item) if !is_wrapped(self.types, field.ty) => {
                let list = map.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    self.items(*item, name, payload, list)?;
                }
                return Ok(());
            }
            Shape::Map(item) => {
                let entries = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(entries) = entries {
                    self.entry(*item, name, payload, entries)?;
                }
                return Ok(());
            }
            Shape::Struct(fields) => {
                let bytes = payload.bytes(name)?;
                let inner = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(inner) = inner {
                    self.message(&ty.go, fields, fields.plan(), bytes, inner)?;
                }
                return Ok(());
            }
            _ => {}
        }
        let value = self.value(field.ty, name, payload)?;
        let zero = |value: &Value| match ty.shape {
            Shape::Quantity => value == "0" && !field.pointer,
            Shape::IntOrString => value == 0 && !field.pointer,
            _ => empty(&ty.shape, value, field.pointer),
        };
        match value.filter(|value| !(field.omit_empty && zero(value))) {
            Some(value) => drop(map.insert(name.to_owned(), value)),
            None => drop(map.remove(name)),
        }
        Ok(())
    }

    /// One item of a list, or, of numbers, all of them.
    fn items(
        &mut self,
        item: Id,
        name: &str,
        payload: Payload<'_>,
        list: &mut Vec<Value>,
    ) -> Result<(), Error> {
        let packed = matches!(self.types.get(item).shape, Shape::Integer(_) | Shape::Boolean);
        if let (true, Payload::Bytes(bytes)) = (packed, payload) {
            let mut numbers = Reader::new(bytes);
            while let Some(number) = numbers.packed()? {
                let value = self.value(item, name, Payload::Varint(number))?;
                list.push(value.unwrap_or(Value::Null));
            }
            return Ok(());
        }
        let value = self.value(item, name, payload)?;
        list.push(value.unwrap_or(Value::Null));
        Ok(())
    }

    /// One entry of a map: `{key = 1, value = 2}`.
    fn entry(
        &mut self,
        item: Id,
        name: &str,
        payload: Payload<'_>,
        entries: &mut Map<String, Value>,
    ) -> Result<(), Error> {
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader::new(payload.bytes(name)?);
        while let Some((number, payload)) = reader.field(name)? {
            match number {
                1 => key = payload.text(name)?,
                2 => value = Some(payload),
                _ => {}
            }
        }
        let value = match value {
            Some(value) => self.value(item, name, value)?,
            None => Some(self.zero(item)),
        };
        entries.insert(key, value.unwrap_or(Value::Null));
        Ok(())
    }

    /// What an entry without a value has.
    fn zero(&self, id: Id) -> Value {
        match &self.types.get(id).shape {
            Shape::Struct(_) | Shape::Map(_) => Value::Object(Map::new()),
            Shape::List(_) => Value::Array(Vec::new()),
            Shape::String { .. } | Shape::Bytes => "".into(),
            Shape::Integer(_) | Shape::IntOrString => 0.into(),
            Shape::Float => 0.0.into(),
            Shape::Boolean => false.into(),
            Shape::Quantity => "0".into(),
            Shape::Duration => "0s".into(),
            _ => Value::Null,
        }
    }

    /// One value; `None` for what JSON has as null.
    fn value(&mut self, id: Id, name: &str, payload: Payload<'_>) -> Result<Option<Value>, Error> {
        self.spend(1)?;
        let ty = self.types.get(id);
        Ok(Some(match &ty.shape {
            Shape::String { .. } => payload.text(name)?.into(),
            Shape::Bytes => STANDARD.encode(payload.bytes(name)?).into(),
            Shape::Boolean => (payload.varint(name)? != 0).into(),
            // Go cuts what is too long.
            Shape::Integer(64) => (payload.varint(name)? as i64).into(),
            Shape::Integer(_) => (payload.varint(name)? as i32).into(),
            Shape::Float => match serde_json::Number::from_f64(f64::from_bits(payload.fixed64(name)?)) {
                Some(number) => number.into(),
                None => return Err(Error::Special("json: unsupported value: NaN or infinite".to_owned())),
            },
            Shape::Struct(fields) => self.object(&ty.go, fields, payload.bytes(name)?)?,
            Shape::List(item) => {
                let mut list = Vec::new();
                let mut reader = Reader::new(payload.bytes(name)?);
                while let Some((number, payload)) = reader.field(name)? {
                    if number == 1 {
                        self.items(*item, name, payload, &mut list)?;
                    }
                }
                list.into()
            }
            Shape::Time | Shape::MicroTime => {
                return timestamp(payload.bytes(name)?, matches!(ty.shape, Shape::MicroTime));
            }
            Shape::Duration => {
                let (mut nanos, mut reader) = (0, Reader::new(payload.bytes(name)?));
                while let Some((number, payload)) = reader.field("Duration")? {
                    if number == 1 {
                        nanos = payload.varint("duration")? as i64;
                    }
                }
                duration::text(nanos).into()
            }
            Shape::Quantity => quantity(payload.bytes(name)?)?.into(),
            Shape::IntOrString => int_or_string(payload.bytes(name)?)?,
            Shape::Raw => return self.raw(payload.bytes(name)?),
            Shape::Any => match Special::of(self.types, id) {
                Special::Raw => return self.raw(payload.bytes(name)?),
                special => return self.schema_or(special, payload.bytes(name)?),
            },
            // No map is a value by itself, and aliases were followed.
            Shape::Map(_) | Shape::Alias(_) => return Err(Error::NotMarshalable(ty.go.to_string())),
        }))
    }

    /// `{raw = 1}`: JSON text, or an object in an envelope.
    fn raw(&mut self, bytes: &[u8]) -> Result<Option<Value>, Error> {
        let (mut raw, mut reader): (&[u8], _) = (b"", Reader::new(bytes));
        while let Some((number, payload)) = reader.field("RawExtension")? {
            if number == 1 {
                raw = payload.bytes("raw")?;
            }
        }
        if raw.is_empty() {
            return Ok(None);
        }
        if !raw.starts_with(super::MAGIC) {
            let value =
                super::super::decode::parse(raw).map_err(|error| Error::Special(error.to_string()))?;
            self.spend(raw.len() / 4)?;
            return Ok(Some(value).filter(|value| !value.is_null()));
        }
        let envelope = open(raw)?;
        let ty = kind(&envelope.api_version, &envelope.kind);
        let ty = ty.ok_or_else(|| {
            let (kind, version) =
                (crate::field::quote(&envelope.kind), crate::field::quote(&envelope.api_version));
            Error::Special(format!("no kind {kind} is registered for version {version}"))
        })?;
        let (left, depth) = (self.left, self.depth);
        let mut inner = Decoder { types: ty.types(), left, depth };
        let mut value = match &ty.ty().shape {
            Shape::Struct(fields) => inner.deeper(|inner| inner.object(&ty.ty().go, fields, envelope.raw))?,
            _ => return Err(Error::NotMarshalable(envelope.kind)),
        };
        self.left = inner.left;
        if let Value::Object(map) = &mut value {
            super::name(map, &envelope.api_version, &envelope.kind);
        }
        Ok(Some(value))
    }

    /// The unions within the schemas of custom resources.
    fn schema_or(&mut self, special: Special, bytes: &[u8]) -> Result<Option<Value>, Error> {
        let id = schema(self.types)?;
        let (mut value, mut list, mut allows) = (None, Vec::new(), false);
        let mut reader = Reader::new(bytes);
        self.deeper(|this| {
            while let Some((number, payload)) = reader.field("JSONSchemaProps")? {
                match (special, number) {
                    (Special::SchemaOrBool, 1) => allows = payload.varint("allows")? != 0,
                    (Special::SchemaOrBool, 2) | (_, 1) => value = this.value(id, "schema", payload)?,
                    (Special::SchemaOrList, 2) => list.extend(this.value(id, "JSONSchemas", payload)?),
                    (Special::SchemaOrNames, 2) => {
                        this.spend(1)?;
                        list.push(payload.text("property")?.into());
                    }
                    _ => {}
                }
            }
            Ok(())
        })?;
        Ok(match special {
            Special::SchemaOrBool => Some(value.unwrap_or(Value::Bool(allows))),
            // Go prefers the names to the schema, and the schema to the list when there is no list.
            _ if list.is_empty() => value,
            _ => Some(Value::Array(list)),
        })
    }
}

/// The name of a type without its package.
fn short(go: &str) -> &str {
    go.rsplit('.').next().unwrap_or(go)
}

/// `{seconds = 1, nanos = 2}`; no message at all is Go's zero time.
fn timestamp(bytes: &[u8], micro: bool) -> Result<Option<Value>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos, mut reader) = (0, 0, Reader::new(bytes));
    while let Some((number, payload)) = reader.field("Timestamp")? {
        match number {
            1 => seconds = payload.varint("seconds")? as i64,
            2 => nanos = payload.varint("nanos")? as i32,
            _ => {}
        }
    }
    // A Time has no parts of a second, a MicroTime none of a microsecond.
    let nanos = if micro { nanos / 1000 * 1000 } else { 0 };
    let nanos_of_all = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let time = Timestamp::from_nanosecond(nanos_of_all).ok();
    let time = time.filter(|time| (0..10_000).contains(&time.to_zoned(jiff::tz::TimeZone::UTC).year()));
    let time =
        time.ok_or_else(|| Error::Special("Time.MarshalJSON: year outside of range [0,9999]".to_owned()))?;
    Ok(match () {
        () if time::is_zero(time) => None,
        () if micro => Some(time::micros(time).into()),
        () => Some(time::seconds(time).into()),
    })
}

/// `{string = 1}`.
fn quantity(bytes: &[u8]) -> Result<String, Error> {
    let (mut text, mut reader) = (None, Reader::new(bytes));
    while let Some((number, payload)) = reader.field("Quantity")? {
        if number == 1 {
            text = Some(payload.text("string")?);
        }
    }
    let Some(text) = text else { return Ok("0".to_owned()) };
    Quantity::parse(&text).map(|quantity| quantity.to_string()).map_err(|e| Error::Special(e.to_string()))
}

/// `{type = 1, intVal = 2, strVal = 3}`.
fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    let (mut kind, mut number, mut text) = (0, 0, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((field, payload)) = reader.field("IntOrString")? {
        match field {
            1 => kind = payload.varint("type")?,
            2 => number = payload.varint("intVal")? as i32,
            3 => text = payload.text("strVal")?,
            _ => {}
        }
    }
    match kind {
        0 => Ok(number.into()),
        1 => Ok(text.into()),
        _ => Err(Error::Special("impossible IntOrString.Type".to_owned())),
    }
}
