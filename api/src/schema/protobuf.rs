//! Kubernetes' protobuf form of the built-in kinds, driven by the same table as their JSON.
//!
//! An object on the wire is the magic `k8s\0` and a `runtime.Unknown` around the message of its kind ([`open`],
//! [`seal`]). The message itself has the fields by number; what JSON shows as one struct may be several messages, as an
//! embedded Go struct is one of its own ([`plan`]).
//!
//! Go writes every field that is no pointer, zero or not, so that a zero says nothing on the wire. [`decode`] leaves such
//! a zero out where Go's JSON would (but not an empty struct), and [`encode`] puts it where JSON has nothing. The bytes are those that Go makes.

use serde_json::{Map, Value};

use super::{Shape, TypeRef, Types};

mod decode;
mod duration;
mod encode;
mod envelope;
mod plan;
#[cfg(test)]
mod tests;
mod wire;

pub use decode::decode;
pub(super) use duration::nanos;
pub use encode::encode;
pub use envelope::{Envelope, MAGIC, open, put_frame, seal};
pub(super) use plan::Plan;

/// Messages may be nested this deep. JSON and the stack allow more.
const MAX_DEPTH: usize = 100;
/// How much one message may unfold into. A struct counts for several values: a few bytes make one.
const MAX_VALUES: usize = 1_000_000;
const STRUCT: usize = 8;

/// A message that can't be read, or a value that can't be written. The messages are those of Go's generated code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("empty data")]
    NoData,
    #[error("empty body")]
    NoBody,
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: negative length found during unmarshaling")]
    NegativeLength,
    #[error("proto: unexpected end of group")]
    EndOfGroup,
    #[error("proto: illegal wireType {0}")]
    IllegalType(u8),
    #[error("proto: {0}: wiretype end group for non-group")]
    StrayEnd(String),
    #[error("proto: {0}: illegal tag {1} (wire type {2})")]
    IllegalTag(String, i32, u64),
    #[error("proto: wrong wireType = {0} for field {1}")]
    WrongType(u8, String),
    #[error("the message is nested too deeply")]
    TooDeep,
    #[error("the message has too many values")]
    TooMany,
    /// A part with a form of its own: a time, a quantity, embedded JSON.
    #[error("{0}")]
    Special(String),
    #[error("{0}: {1} is not a {2}")]
    Mismatch(String, &'static str, String),
    #[error(
        "object *{0} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    NotMarshalable(String),
}

/// The built-in type of a kind, if there is one that protobuf can carry.
pub fn kind(api_version: &str, kind: &str) -> Option<TypeRef> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let ty = TypeRef::builtin(group, version, kind)?;
    match &ty.ty().shape {
        Shape::Struct(fields) if fields.type_meta && fields.plan().complete() => Some(ty),
        _ => None,
    }
}

/// An object as clients read it, magic and all. Its own `apiVersion` and `kind` say what it is.
pub fn object(value: &Value) -> Result<Vec<u8>, Error> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let ty = self::kind(api_version, kind).ok_or_else(|| Error::NotMarshalable(kind.to_owned()))?;
    Ok(seal(api_version, kind, &encode(&ty, value)?))
}

/// A list as clients read it, made item by item.
#[derive(Debug)]
pub struct List {
    api_version: String,
    kind: String,
    item: TypeRef,
    raw: Vec<u8>,
}

impl List {
    /// A list of this kind without items.
    pub fn new(api_version: &str, kind: &str, metadata: &Value) -> Result<Self, Error> {
        let not = || Error::NotMarshalable(kind.to_owned());
        let ty = self::kind(api_version, kind).ok_or_else(not)?;
        let (field, items) = ty.at(&["items"]).ok_or_else(not)?;
        // What is written next must not belong before what is written already: no list has fields behind its items.
        let (Shape::List(item), 2) = (&items.ty().shape, field.number) else { return Err(not()) };
        let raw = encode(&ty, &serde_json::json!({"metadata": metadata}))?;
        let item = TypeRef::new(items.types().clone(), *item);
        Ok(Self { api_version: api_version.to_owned(), kind: kind.to_owned(), item, raw })
    }

    pub fn push(&mut self, item: &Value) -> Result<(), Error> {
        wire::put_bytes(&mut self.raw, 2, &encode(&self.item, item)?);
        Ok(())
    }

    /// The list, magic and all.
    pub fn finish(self) -> Vec<u8> {
        seal(&self.api_version, &self.kind, &self.raw)
    }
}

/// The object within an envelope, with its `apiVersion` and `kind`.
pub fn unseal(envelope: &Envelope<'_>, ty: &TypeRef) -> Result<Value, Error> {
    let mut value = decode(ty, envelope.raw)?;
    if let Value::Object(map) = &mut value {
        name(map, &envelope.api_version, &envelope.kind);
    }
    Ok(value)
}

fn name(map: &mut Map<String, Value>, api_version: &str, kind: &str) {
    map.insert("apiVersion".to_owned(), api_version.into());
    map.insert("kind".to_owned(), kind.into());
}

/// What the types that JSON shows without a struct are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// `{raw = 1}`, JSON or an object in an envelope.
    Raw,
    /// `{schema = 1, jSONSchemas = 2}`: a schema, or a list of them.
    SchemaOrList,
    /// `{allows = 1, schema = 2}`: a boolean, or a schema.
    SchemaOrBool,
    /// `{schema = 1, property = 2}`: a schema, or a list of names.
    SchemaOrNames,
}

impl Special {
    /// What a type of any JSON is.
    pub(super) fn of(types: &Types, id: super::Id) -> Self {
        let is = |name| types.find(name) == Some(id);
        match () {
            () if is("$schemaorarray") => Self::SchemaOrList,
            () if is("$schemaorbool") => Self::SchemaOrBool,
            () if is("$schemaorstrings") => Self::SchemaOrNames,
            () => Self::Raw,
        }
    }
}

/// The type that the special ones of a JSON schema hold.
pub(super) fn schema(types: &Types) -> Result<super::Id, Error> {
    let name = "apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaProps";
    types.find(name).ok_or_else(|| Error::NotMarshalable("JSONSchemaProps".to_owned()))
}

/// True for a list that is a message of its own, `{items = 1}`, as Go's named slices of these names are.
fn is_wrapped(types: &Types, id: super::Id) -> bool {
    let name = &types.named(id).name;
    name.ends_with(".ExtraValue") || name.ends_with(".Verbs")
}
