//! Decoding of JSON against a type, in one pass: the result holds only what the type knows, in the form that upstream
//! would store, and the complaints are in upstream's words.
//!
//! What happens to values, as in Go: `null` is as if absent; zero values of fields that upstream doesn't write when
//! empty are dropped; quantities and times take their canonical form; field names match case-sensitively.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{
    Field, Id, Shape, Struct, TypeRef, Types,
    given::{EMPTY, Given, Way},
    json::{Reader, Syntax, Token},
    time,
};
use crate::{
    field::quote,
    quantity::Quantity,
    resource::{GroupVersionKind, Table},
    status::Status,
};

/// What to do about unknown and duplicate fields (`fieldValidation` of a request).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and warn; upstream's default.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// The value of the query parameter; empty is the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// A decoded value and what strict validation has to say about the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Holds only what the type knows.
    pub value: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.replicas"`, at most 100.
    pub strict: Vec<String>,
}

/// The text doesn't decode into the type; the message is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not JSON.
    #[error("{0}")]
    Syntax(String),
    /// It is JSON of another type.
    #[error("{0}")]
    Type(String),
}

/// Decodes JSON text as a value of a type.
pub fn decode(ty: &TypeRef, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    decode_with(ty, bytes, &[])
}

fn decode_with(ty: &TypeRef, bytes: &[u8], given: &[Given]) -> Result<Decoded, DecodeError> {
    let mut decoder = Decoder {
        reader: Reader::new(bytes),
        types: ty.types(),
        given,
        path: Vec::new(),
        saved: None,
        fatal: None,
        strict: Vec::new(),
    };
    let value = decoder.read(ty.id()).map_err(|Syntax(message)| DecodeError::Syntax(message))?;
    if let Some(message) = decoder.fatal.or(decoder.saved) {
        return Err(DecodeError::Type(message));
    }
    Ok(Decoded { value: value.unwrap_or(Value::Null), strict: decoder.strict })
}

/// Decodes a value, such as the result of a patch, as a value of a type.
pub fn decode_value(ty: &TypeRef, value: &Value) -> Result<Decoded, DecodeError> {
    // Writing a value to memory cannot fail.
    decode(ty, &serde_json::to_vec(value).unwrap_or_default())
}

/// Reads JSON text without a type, as Go reads it into an untyped value, with Go's messages.
pub fn parse(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut reader = Reader::new(bytes);
    let value = reader.any().and_then(|value| reader.end().map(|()| value));
    value.map_err(|Syntax(message)| DecodeError::Syntax(message))
}

/// The decoded body of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    pub value: Value,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
}

/// Decodes the body of a request that must be an object of the kind `expect`; `apiVersion` and `kind` may be absent and
/// are filled in. `given` are the fields of which an empty content is not the same as none.
pub fn body(
    table: &Table,
    expect: &GroupVersionKind,
    ty: &TypeRef,
    bytes: &[u8],
    validation: FieldValidation,
    given: &[Given],
) -> Result<Body, Status> {
    let decoded = decode_with(ty, bytes, given);
    let found = match &decoded {
        Ok(decoded) => Header::of(&decoded.value),
        Err(_) => Header::interpret(bytes).map_err(|e| unrecognized(expect, bytes, &e))?,
    };
    let found = found.or(expect);
    let handled = |found: &GroupVersionKind, error: &dyn std::fmt::Display| {
        let (version, kind) = (quote(&found.version), &found.kind);
        Status::bad_request(format!(
            "{kind} in version {version} cannot be handled as a {}: {error}",
            expect.kind
        ))
    };
    if found != *expect {
        return Err(mismatch(table, expect, &found, &handled));
    }
    let decoded = decoded.map_err(|error| handled(&found, &error))?;
    let mut value = decoded.value;
    if let Value::Object(map) = &mut value {
        map.insert("apiVersion".to_owned(), expect.api_version().into());
        map.insert("kind".to_owned(), expect.kind.as_ref().into());
    } else {
        // `null`: Go makes an empty object of it, but finds no kind in it first.
        return Err(unrecognized(expect, bytes, &format_args!("Object 'Kind' is missing in 'null'")));
    }
    match validation {
        FieldValidation::Ignore => Ok(Body { value, warnings: Vec::new() }),
        FieldValidation::Warn => Ok(Body { value, warnings: decoded.strict }),
        FieldValidation::Strict if decoded.strict.is_empty() => Ok(Body { value, warnings: Vec::new() }),
        FieldValidation::Strict => Err(handled(&found, &strict_error(&decoded.strict))),
    }
}

/// Strict complaints as one error: `strict decoding error: unknown field "spec.foo", …`
pub fn strict_error(complaints: &[String]) -> String {
    format!("strict decoding error: {}", complaints.join(", "))
}

fn mismatch(
    table: &Table,
    expect: &GroupVersionKind,
    found: &GroupVersionKind,
    handled: &dyn Fn(&GroupVersionKind, &dyn std::fmt::Display) -> Status,
) -> Status {
    let api_version = quote(&found.api_version());
    let known = table.kind(&found.group, &found.version, &found.kind).is_some()
        || Types::builtin()
            .kind(&found.group, &found.version, &found.kind)
            .is_some_and(|id| matches!(&Types::builtin().get(id).shape, Shape::Struct(s) if s.type_meta));
    if !known {
        // Upstream names the file in which its scheme is made; clients show it as it comes.
        return handled(
            found,
            &format_args!(
                "no kind {} is registered for version {api_version} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
                quote(&found.kind)
            ),
        );
    }
    if (&found.group, &found.version) != (&expect.group, &expect.version) && found.kind == expect.kind {
        return Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            found.api_version(),
            expect.api_version()
        ));
    }
    let internal = match expect.group.split('.').next() {
        Some("") | None => "core",
        Some(folder) => folder,
    };
    handled(
        found,
        &format_args!(
            "converting ({}.{}) to ({internal}.{}): unknown conversion",
            found.version, found.kind, expect.kind
        ),
    )
}

/// The error for a body of which not even the kind can be read.
pub fn unrecognized(expect: &GroupVersionKind, bytes: &[u8], error: &dyn std::fmt::Display) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {error} ({})",
        expect.kind,
        summary(bytes)
    ))
}

/// The beginning of a body, for a message: as it is if it looks like JSON, else in hexadecimal.
fn summary(bytes: &[u8]) -> String {
    let (shown, dots) = match bytes.get(..30) {
        Some(shown) if bytes.len() > 30 => (shown, " ..."),
        _ => (bytes, ""),
    };
    match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{dots}", String::from_utf8_lossy(shown)),
        Some(_) => {
            let hex: String = shown.iter().map(|b| format!("{b:02x}")).collect();
            format!("{hex}{dots}")
        }
    }
}

/// What an object says that it is.
#[derive(Default)]
struct Header {
    api_version: String,
    kind: String,
}

impl Header {
    fn of(value: &Value) -> Self {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { api_version: text("apiVersion"), kind: text("kind") }
    }

    /// Reads it from text that didn't decode.
    fn interpret(bytes: &[u8]) -> Result<Self, String> {
        let prefix = |error: &str| format!("couldn't get version/kind; json parse error: {error}");
        let value = parse(bytes).map_err(|error| prefix(&error.to_string()))?;
        let word = |value: &Value| match value {
            Value::Null => Token::Null,
            Value::Bool(_) => Token::Boolean,
            Value::Number(_) => Token::Number,
            Value::String(_) => Token::String,
            Value::Array(_) => Token::List,
            Value::Object(_) => Token::Object,
        };
        let Value::Object(map) = &value else {
            return Err(prefix(&format!(
                "json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \
                 \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
                word(&value).word()
            )));
        };
        for key in ["apiVersion", "kind"] {
            if let Some(value) = map.get(key).filter(|v| !v.is_string() && !v.is_null()) {
                let word = word(value).word();
                return Err(prefix(&format!(
                    "json: cannot unmarshal {word} into Go struct field .{key} of type string"
                )));
            }
        }
        Ok(Self::of(&value))
    }

    /// What is absent is what was expected.
    fn or(self, expect: &GroupVersionKind) -> GroupVersionKind {
        let (group, version) = match self.api_version.split_once('/') {
            Some((group, version)) => (group.to_owned(), version.to_owned()),
            None => (String::new(), self.api_version),
        };
        let kind = if self.kind.is_empty() { expect.kind.clone() } else { self.kind.into() };
        if group.is_empty() && version.is_empty() {
            return GroupVersionKind { kind, ..expect.clone() };
        }
        GroupVersionKind { group: group.into(), version: version.into(), kind }
    }
}

/// The type of schemas.
const SCHEMA: &str = "apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaProps";

/// One step of the way to the value being read.
enum Step<'a> {
    /// The field of a struct, by the name of the struct in messages.
    Field(&'a str, &'a str),
    Key(Cow<'a, str>),
    Index(usize),
}

struct Decoder<'a> {
    reader: Reader<'a>,
    types: &'a Types,
    /// The fields of which an empty content is not the same as none.
    given: &'a [Given],
    path: Vec<Step<'a>>,
    /// The first value of a wrong type. Go reads on, and reports it at the end.
    saved: Option<String>,
    /// The first complaint of a type that reads itself. Go stops there, and forgets what it saved.
    fatal: Option<String>,
    strict: Vec<String>,
}

type Step1<T> = Result<T, Syntax>;

impl<'a> Decoder<'a> {
    fn read(&mut self, id: Id) -> Step1<Option<Value>> {
        let value = self.value(id)?;
        self.reader.end()?;
        Ok(value)
    }

    /// Reads a value; None if it is as if absent.
    fn value(&mut self, id: Id) -> Step1<Option<Value>> {
        let ty = self.types.get(id);
        let token = self.reader.peek()?;
        if token == Token::Null {
            self.reader.literal()?;
            return Ok(None);
        }
        match (&ty.shape, token) {
            (Shape::Struct(fields), Token::Object) => self.fields(&ty.go, fields).map(Some),
            (Shape::Map(item), Token::Object) => self.map(*item).map(Some),
            (Shape::List(item), Token::List) => self.list(*item).map(Some),
            (Shape::String { .. }, Token::String) => {
                Ok(Some(Value::String(self.reader.string()?.into_owned())))
            }
            (Shape::Boolean, Token::Boolean) => Ok(Some(Value::Bool(self.reader.literal()?))),
            (Shape::Integer(bits), Token::Number) => {
                let text = self.reader.number()?;
                self.integer(text, *bits, &ty.go)
            }
            (Shape::Float, Token::Number) => {
                let text = self.reader.number()?;
                match text.parse::<f64>().ok().filter(|f| f.is_finite()) {
                    Some(number) => Ok(Some(number.into())),
                    None => self.mismatch(&format!("number {text}"), &ty.go),
                }
            }
            (Shape::Bytes, Token::String) => {
                let text = self.reader.string()?;
                match base64(&text) {
                    Ok(()) => Ok(Some(text.replace(['\r', '\n'], "").into())),
                    Err(at) => {
                        self.saved.get_or_insert_with(|| format!("illegal base64 data at input byte {at}"));
                        Ok(None)
                    }
                }
            }
            // Go reads what is neither a schema nor a list of schemas as neither.
            (Shape::Any, token)
                if !matches!(token, Token::Object | Token::List)
                    && self.types.find("$schemaorarray") == Some(id) =>
            {
                self.reader.skip()?;
                Ok(Some(Value::Array(Vec::new())))
            }
            (Shape::Any, Token::Object) if self.is_schema(id) => self.schema(),
            (Shape::Raw | Shape::Any, _) => self.reader.any().map(Some),
            (Shape::Time | Shape::MicroTime | Shape::Duration, token) => self.time(&ty.shape, token),
            (Shape::Quantity, _) => {
                let start = self.reader.position();
                self.reader.skip()?;
                let raw = String::from_utf8_lossy(self.reader.slice(start));
                let text = raw.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(&raw);
                match Quantity::parse(text.trim()) {
                    Ok(quantity) => Ok(Some(quantity.to_string().into())),
                    Err(error) => self.fail(error.to_string()),
                }
            }
            (Shape::IntOrString, Token::String) => {
                Ok(Some(Value::String(self.reader.string()?.into_owned())))
            }
            (Shape::IntOrString, Token::Number) => {
                let text = self.reader.number()?;
                match text.parse::<i32>() {
                    Ok(number) => Ok(Some(number.into())),
                    Err(_) => self.fatal_mismatch(&format!("number {text}"), "int32"),
                }
            }
            (Shape::IntOrString, token) => {
                self.reader.skip()?;
                self.fatal_mismatch(token.word(), "int32")
            }
            (_, token) => {
                self.reader.skip()?;
                self.mismatch(token.word(), &ty.go)
            }
        }
    }

    /// Whether a value of this type is a schema, or else something that is no object.
    fn is_schema(&self, id: Id) -> bool {
        ["$schemaorarray", "$schemaorbool"].iter().any(|name| self.types.find(name) == Some(id))
    }

    /// A schema that Go reads apart: complaints name their place from here on, and nobody hears of unknown fields.
    fn schema(&mut self) -> Step1<Option<Value>> {
        let Some(id) = self.types.find(SCHEMA) else { return self.reader.any().map(Some) };
        let (path, saved) = (std::mem::take(&mut self.path), self.saved.take());
        let strict = std::mem::take(&mut self.strict);
        let value = self.value(id);
        (self.path, self.strict) = (path, strict);
        match std::mem::replace(&mut self.saved, saved) {
            Some(complaint) => value.and_then(|_| self.fail(complaint)),
            None => value,
        }
    }

    fn integer(&mut self, text: &str, bits: u8, go: &str) -> Step1<Option<Value>> {
        match text.parse::<i64>() {
            Ok(number) if bits == 64 || i32::try_from(number).is_ok() => Ok(Some(number.into())),
            _ => self.mismatch(&format!("number {text}"), go),
        }
    }

    fn time(&mut self, shape: &Shape, token: Token) -> Step1<Option<Value>> {
        if token != Token::String {
            self.reader.skip()?;
            return self.fatal_mismatch(token.word(), "string");
        }
        let text = self.reader.string()?;
        if let Shape::Duration = shape {
            return match time::check_duration(&text) {
                Ok(()) => Ok(Some(text.into_owned().into())),
                Err(error) => self.fail(error),
            };
        }
        let parsed = if matches!(shape, Shape::MicroTime) { time::parse_micro } else { time::parse };
        match parsed(&text) {
            Ok(time) if time::is_zero(time) => Ok(None),
            Ok(time) if matches!(shape, Shape::Time) => Ok(Some(time::seconds(time).into())),
            Ok(time) => Ok(Some(time::micros(time).into())),
            Err(error) => self.fail(error),
        }
    }

    fn list(&mut self, item: Id) -> Step1<Value> {
        let mut items = Vec::new();
        let mut more = self.reader.list()?;
        while more {
            self.path.push(Step::Index(items.len()));
            let value = self.value(item)?;
            self.path.pop();
            items.push(value.unwrap_or_else(|| self.zero(item)));
            more = self.reader.next_item()?;
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, item: Id) -> Step1<Value> {
        let mut map = Map::new();
        let mut key = self.reader.object()?;
        while let Some(name) = key {
            if map.contains_key(name.as_ref()) {
                self.complain("duplicate field", &name);
            }
            self.path.push(Step::Key(name.clone()));
            let value = self.value(item)?;
            self.path.pop();
            let value = value.unwrap_or_else(|| self.zero(item));
            map.insert(name.into_owned(), value);
            key = self.reader.next_key()?;
        }
        Ok(Value::Object(map))
    }

    fn fields(&mut self, go: &'a str, fields: &'a Struct) -> Step1<Value> {
        let mut map = Map::new();
        // The fields seen, by number; the last two bits are `apiVersion` and `kind`. No struct has so many fields.
        let mut seen: u128 = 0;
        let mut key = self.reader.object()?;
        while let Some(name) = key {
            let known = match fields.position(&name) {
                Some(at) => Some((at, fields.fields[at].name.as_ref(), Some(&fields.fields[at]))),
                None if fields.type_meta && name == "apiVersion" => Some((126, "apiVersion", None)),
                None if fields.type_meta && name == "kind" => Some((127, "kind", None)),
                None => None,
            };
            let Some((at, known, field)) = known else {
                self.complain("unknown field", &name);
                self.reader.skip()?;
                key = self.reader.next_key()?;
                continue;
            };
            if seen & (1 << at.min(127)) != 0 {
                self.complain("duplicate field", known);
            }
            seen |= 1 << at.min(127);
            self.path.push(Step::Field(go.rsplit('.').next().unwrap_or(go), known));
            let value = match field {
                Some(field) => {
                    let value = self.value(field.ty)?;
                    value.and_then(|value| self.kept(field, value))
                }
                None => match self.reader.peek()? {
                    Token::String => Some(Value::String(self.reader.string()?.into_owned())),
                    Token::Null => {
                        self.reader.literal()?;
                        None
                    }
                    token => {
                        self.reader.skip()?;
                        self.mismatch(token.word(), "string")?
                    }
                },
            };
            self.path.pop();
            match value {
                Some(value) => {
                    map.insert(known.to_owned(), value);
                }
                None => {
                    map.remove(known);
                }
            }
            key = self.reader.next_key()?;
        }
        Ok(Value::Object(map))
    }

    /// The value of the field where the path is; `None` if Go's `omitempty` would leave it out.
    fn kept(&self, field: &Field, value: Value) -> Option<Value> {
        let here = self.given.iter().find(|(path, _)| self.is_at(path));
        match (here, &value) {
            (Some((_, Way::Kept)), Value::Array(_) | Value::Object(_)) => Some(value),
            (Some((_, Way::Marked)), Value::String(text)) if text.is_empty() => Some(EMPTY.into()),
            (Some((_, Way::Holds(name))), Value::Object(map)) if map.is_empty() => {
                Some(serde_json::json!({(*name): {}}))
            }
            _ if field.omit_empty && empty(&self.types.get(field.ty).shape, &value, field.pointer) => None,
            _ => Some(value),
        }
    }

    /// Whether these names lead to where the path is.
    fn is_at(&self, names: &str) -> bool {
        let fields = self.path.iter().filter_map(|step| match step {
            Step::Field(_, name) => Some(*name),
            _ => None,
        });
        fields.eq(names.split('.'))
    }

    /// What Go has where nothing was set.
    fn zero(&self, id: Id) -> Value {
        match &self.types.get(id).shape {
            Shape::Struct(_) | Shape::Map(_) => Value::Object(Map::new()),
            Shape::List(_) => Value::Array(Vec::new()),
            Shape::String { .. } | Shape::Bytes => "".into(),
            Shape::Integer(_) | Shape::IntOrString => 0.into(),
            Shape::Float => 0.0.into(),
            Shape::Boolean => false.into(),
            Shape::Quantity | Shape::Duration => "0".into(),
            _ => Value::Null,
        }
    }

    fn describe(&self, value: &str, go: &str) -> String {
        let fields: Vec<&str> = self
            .path
            .iter()
            .filter_map(|step| match step {
                Step::Field(_, name) => Some(*name),
                _ => None,
            })
            .collect();
        let of = self.path.iter().rev().find_map(|step| match step {
            Step::Field(of, _) => Some(*of),
            _ => None,
        });
        match of {
            Some(of) => format!(
                "json: cannot unmarshal {value} into Go struct field {of}.{} of type {go}",
                fields.join(".")
            ),
            None => format!("json: cannot unmarshal {value} into Go value of type {go}"),
        }
    }

    fn mismatch(&mut self, value: &str, go: &str) -> Step1<Option<Value>> {
        if self.saved.is_none() {
            self.saved = Some(self.describe(value, go));
        }
        Ok(None)
    }

    fn fatal_mismatch(&mut self, value: &str, go: &str) -> Step1<Option<Value>> {
        let message = self.describe(value, go);
        self.fail(message)
    }

    fn fail(&mut self, message: String) -> Step1<Option<Value>> {
        self.fatal.get_or_insert(message);
        Ok(None)
    }

    fn complain(&mut self, what: &str, name: &str) {
        if self.strict.len() >= 100 {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Index(i) => path.push_str(&format!("[{i}]")),
                Step::Field(_, name) => push(&mut path, name),
                Step::Key(name) => push(&mut path, name),
            }
        }
        push(&mut path, name);
        let complaint = format!("{what} {}", quote(&path));
        if !self.strict.contains(&complaint) {
            self.strict.push(complaint);
        }
    }
}

fn push(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// Whether Go's `omitempty` would leave the value out.
pub(super) fn empty(shape: &Shape, value: &Value, pointer: bool) -> bool {
    match (shape, value) {
        (Shape::List(_), Value::Array(items)) => items.is_empty(),
        (Shape::Map(_), Value::Object(map)) => map.is_empty(),
        (Shape::String { .. } | Shape::Bytes, Value::String(text)) => text.is_empty() && !pointer,
        (Shape::Boolean, Value::Bool(set)) => !set && !pointer,
        (Shape::Integer(_) | Shape::Float, Value::Number(number)) => number.as_f64() == Some(0.0) && !pointer,
        _ => false,
    }
}

/// Checks base64 as Go's standard decoder does; the error is the place of the first bad byte.
fn base64(text: &str) -> Result<(), usize> {
    let bytes = text.as_bytes();
    let digit = |c: u8| c.is_ascii_alphanumeric() || c == b'+' || c == b'/';
    let newline = |c: &u8| *c == b'\r' || *c == b'\n';
    let mut at = 0;
    loop {
        // A group of four.
        let mut got = 0;
        while got < 4 {
            let Some(&c) = bytes.get(at) else {
                return if got == 0 { Ok(()) } else { Err(at - got) };
            };
            at += 1;
            if newline(&c) {
                continue;
            }
            if digit(c) {
                got += 1;
                continue;
            }
            if c != b'=' || got < 2 {
                return Err(at - 1);
            }
            if got == 2 {
                while bytes.get(at).is_some_and(newline) {
                    at += 1;
                }
                match bytes.get(at) {
                    None => return Err(bytes.len()),
                    Some(b'=') => at += 1,
                    Some(_) => return Err(at - 1),
                }
            }
            while bytes.get(at).is_some_and(newline) {
                at += 1;
            }
            return if at == bytes.len() { Ok(()) } else { Err(at) };
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod_type() -> TypeRef {
        TypeRef::builtin("", "v1", "Pod").expect("pods have a type")
    }

    fn error(text: &str) -> String {
        decode(&pod_type(), text.as_bytes()).map(|d| d.value.to_string()).expect_err(text).to_string()
    }

    #[test]
    fn what_the_type_does_not_know_is_dropped_and_reported() {
        let text = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","labels":{"x":"1","x":"2"},"foo":1},
            "spec":{"containers":[{"name":"c","imge":"x","name":"d"}],"nodeName":"","replicas":{"deep":[{}]}},"Spec":1}"#;
        let decoded = decode(&pod_type(), text.as_bytes()).expect("it decodes");
        assert_eq!(
            decoded.value,
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "labels": {"x": "2"}},
                "spec": {"containers": [{"name": "d"}]}})
        );
        assert_eq!(
            decoded.strict,
            [
                r#"duplicate field "metadata.labels.x""#,
                r#"unknown field "metadata.foo""#,
                r#"unknown field "spec.containers[0].imge""#,
                r#"duplicate field "spec.containers[0].name""#,
                r#"unknown field "spec.replicas""#,
                r#"unknown field "Spec""#,
            ]
        );
    }

    #[test]
    fn values_take_the_form_that_upstream_stores() {
        let text = r#"{"metadata":{"creationTimestamp":null,"labels":{"a":null},"finalizers":[],"generation":0},
            "spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}},"tty":false,
              "livenessProbe":{"httpGet":{"port":"http"}},"env":[null]}],"terminationGracePeriodSeconds":0},
            "status":{"startTime":"2024-01-01T01:00:00.5+01:00"}}"#;
        let decoded = decode(&pod_type(), text.as_bytes()).expect("it decodes");
        assert_eq!(
            decoded.value,
            json!({"metadata": {"labels": {"a": ""}},
                "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"port": "http"}}, "env": [{}]}], "terminationGracePeriodSeconds": 0},
                "status": {"startTime": "2024-01-01T00:00:00Z"}})
        );
        assert_eq!(decoded.strict, [""; 0]);
    }

    #[test]
    fn schemas_inside_of_schemas_are_read_apart() {
        let ty = TypeRef::builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition").expect("a type");
        let root = |schema: &str| {
            let text = format!(
                r#"{{"spec":{{"versions":[{{"name":"v1","schema":{{"openAPIV3Schema":{schema}}}}}]}}}}"#
            );
            decode(&ty, text.as_bytes()).map_err(|error| error.to_string())
        };
        let wrong = "json: cannot unmarshal number into Go struct field JSONSchemaProps.type of type string";
        for schema in [r#"{"items":{"type":7}}"#, r#"{"additionalProperties":{"type":7}}"#] {
            assert_eq!(root(schema).map(|decoded| decoded.value), Err(wrong.to_owned()), "{schema}");
        }
        let decoded = root(r#"{"items":{"type":"string","bogus":1},"additionalProperties":false,"bogus":1}"#);
        let decoded = decoded.expect("it decodes");
        let version = &decoded.value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(*version, json!({"items": {"type": "string"}, "additionalProperties": false}));
        assert_eq!(decoded.strict, [r#"unknown field "spec.versions[0].schema.openAPIV3Schema.bogus""#]);
    }

    #[test]
    fn wrong_types_read_as_from_go() {
        for (text, message) in [
            (
                r#"{"spec":{"containers":"x"}}"#,
                "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                r#"{"spec":{"containers":[{"env":[{"value":5}]}]}}"#,
                "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
            ),
            (
                r#"{"spec":{"terminationGracePeriodSeconds":1.0}}"#,
                "json: cannot unmarshal number 1.0 into Go struct field PodSpec.spec.terminationGracePeriodSeconds of type int64",
            ),
            (
                r#"{"spec":{"priority":2147483648}}"#,
                "json: cannot unmarshal number 2147483648 into Go struct field PodSpec.spec.priority of type int32",
            ),
            (
                r#"{"spec":{"hostNetwork":"true"}}"#,
                "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
            ),
            (
                r#"{"spec":{"restartPolicy":[]}}"#,
                "json: cannot unmarshal array into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
            ),
            (
                r#"{"metadata":{"labels":{"a":1}}}"#,
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                r#"{"metadata":[],"spec":{"hostNetwork":1}}"#,
                "json: cannot unmarshal array into Go struct field Pod.metadata of type v1.ObjectMeta",
            ),
            (
                r#"{"metadata":[],"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}"#,
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            (
                r#"{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":1.5}}}]}}"#,
                "json: cannot unmarshal number 1.5 into Go struct field HTTPGetAction.spec.containers.livenessProbe.httpGet.port of type int32",
            ),
            (
                r#"{"metadata":{"creationTimestamp":"now"}}"#,
                r#"parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006""#,
            ),
            (r#"[]"#, "json: cannot unmarshal array into Go value of type v1.Pod"),
        ] {
            assert_eq!(error(text), message, "{text}");
        }
    }

    #[test]
    fn malformed_text_reads_as_from_go() {
        for (text, message) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("x", "invalid character 'x' looking for beginning of value"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            (r#"{"a":[1 2]}"#, "invalid character '2' after array element"),
            (r#"{"a":nul}"#, "invalid character '}' in literal null (expecting 'l')"),
            (r#"{"a":nul"#, "invalid character ' ' in literal null (expecting 'l')"),
            (r#"{"a":1e"#, "invalid character ' ' in exponent of numeric literal"),
            (r#"{"a":01}"#, "invalid character '1' after object key:value pair"),
            (r#"{"a":-}"#, "invalid character '}' in numeric literal"),
            (r#"{} {}"#, "invalid character '{' after top-level value"),
            ("{\"a\":\"\n\"}", "invalid character '\\n' in string literal"),
            (r#"{"a":"\x"}"#, "invalid character 'x' in string escape code"),
        ] {
            assert_eq!(error(text), message, "{text}");
        }
        assert_eq!(error(&"[".repeat(100_000)), "exceeded max depth");
        assert_eq!(error(&r#"{"a":"#.repeat(100_000)), "exceeded max depth");
    }

    #[test]
    fn strings_are_unescaped_as_in_go() {
        let text = br#"{"metadata":{"name":"\u00e9\ud83d\ude00\ud83dx\/\n"}}"#;
        let decoded = decode(&pod_type(), text).expect("it decodes");
        assert_eq!(decoded.value["metadata"]["name"], "\u{e9}\u{1f600}\u{fffd}x/\n");
        let decoded = decode(&pod_type(), b"{\"metadata\":{\"name\":\"\xff\"}}").expect("it decodes");
        assert_eq!(decoded.value["metadata"]["name"], "\u{fffd}");
    }

    #[test]
    fn base64_is_checked_as_in_go() {
        for (text, expect) in [
            ("", Ok(())),
            ("YQ==", Ok(())),
            ("YWI=", Ok(())),
            ("YWJj\nYQ==", Ok(())),
            ("Y", Err(0)),
            ("YWJjYQ", Err(4)),
            ("Y!==", Err(1)),
            ("YQ=x", Err(2)),
            ("YQ==YQ==", Err(4)),
        ] {
            assert_eq!(base64(text), expect, "{text:?}");
        }
    }

    fn request(text: &str, validation: FieldValidation) -> Result<Body, String> {
        let expect = GroupVersionKind::fixed("", "v1", "Pod");
        body(&Table::builtin(), &expect, &pod_type(), text.as_bytes(), validation, &[]).map_err(|status| {
            assert_eq!(status.code, 400);
            status.message
        })
    }

    #[test]
    fn bodies_are_refused_in_upstreams_words() {
        let refused = |text: &str| request(text, FieldValidation::Strict).expect_err(text);
        for (text, message) in [
            (
                r#"{"apiVersion":"v1","kind":"Pod","spec":{"foo":1,"foo":2,"nodeName":"a","nodeName":"b"}}"#,
                "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.foo\", \
                 duplicate field \"spec.nodeName\"",
            ),
            (
                r#"{"apiVersion":"v1","kind":"Pod","spec":{"containers":"x"}}"#,
                "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field \
                 PodSpec.spec.containers of type []v1.Container",
            ),
            (
                "{x",
                "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse \
                 error: invalid character 'x' looking for beginning of object key string ({x)",
            ),
            (
                r#"{"apiVersion":"v1","kind":"Service"}"#,
                "Service in version \"v1\" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown \
                 conversion",
            ),
            (
                r#"{"apiVersion":"v1","kind":"Foo"}"#,
                "Foo in version \"v1\" cannot be handled as a Pod: no kind \"Foo\" is registered for version \"v1\" in \
                 scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            ),
        ] {
            assert_eq!(refused(text), message);
        }
    }

    #[test]
    fn bodies_are_taken_with_warnings_or_without() {
        let text = r#"{"metadata":{"name":"x"},"foo":1}"#;
        let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}});
        let warnings = vec![r#"unknown field "foo""#.to_owned()];
        assert_eq!(request(text, FieldValidation::Warn), Ok(Body { value: value.clone(), warnings }));
        assert_eq!(request(text, FieldValidation::Ignore), Ok(Body { value, warnings: Vec::new() }));
    }
}
