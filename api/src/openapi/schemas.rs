//! The definitions: one per named type that the rows reach.
//!
//! First it is found out which they are, then they are made one after the other, as they are written: with all that
//! upstream says of its fields, a document is of megabytes as text and of many more as values.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value, json};

use super::{Version, gvk, object, reference};
use crate::resource::Resource;
use crate::schema::descriptions::{About, Descriptions};
use crate::schema::{Field, Id, ListType, Shape, Struct, Type, Types};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// What definitions are made from, by their names.
pub(super) struct Definitions<'a> {
    version: Version,
    found: BTreeMap<String, Source<'a>>,
    /// `x-kubernetes-group-version-kind`, on the types of kinds.
    kinds: BTreeMap<String, Vec<Value>>,
}

enum Source<'a> {
    Struct(&'a Types, &'a Struct),
    Made(Value),
}

/// Finds the definitions that the rows need.
pub(super) fn of<'a>(rows: impl Iterator<Item = &'a Resource>, version: Version) -> Definitions<'a> {
    let mut definitions = Definitions { version, found: BTreeMap::new(), kinds: BTreeMap::new() };
    for row in rows {
        let types = row.schema.types();
        let mut add = |group: &str, version: &str, kind: &str| {
            let Some(id) = types.kind(group, version, kind) else { return };
            let entry = definitions.kinds.entry(name(&types.get(id).name)).or_default();
            let this = gvk(group, version, kind);
            if !entry.contains(&this) {
                entry.push(this);
            }
            definitions.find(types, id);
        };
        add(&row.group, &row.version, &row.kind);
        add(&row.group, &row.version, &row.list_kind);
        add("", "v1", "Status");
        add(&row.group, &row.version, "DeleteOptions");
        // The options of connections are parameters, never a body.
        for part in row.subresources.iter().filter(|part| !part.kind.kind.ends_with("Options")) {
            add(&part.kind.group, &part.kind.version, &part.kind.kind);
        }
    }
    let patch = Source::Made(json!({"type": "object"}));
    definitions.found.insert(format!("{META}.Patch"), patch);
    definitions
}

/// `api/core/v1.Pod` as OpenAPI names it.
pub(super) fn name(ty: &str) -> String {
    format!("io.k8s.{}", ty.replace('/', "."))
}

impl<'a> Definitions<'a> {
    /// Notes the definitions that a type needs: its own, and those of all that it reaches.
    fn find(&mut self, types: &'a Types, id: Id) {
        let ty = types.get(id);
        match &ty.shape {
            Shape::Struct(fields) => {
                let name = name(&ty.name);
                if let Entry::Vacant(place) = self.found.entry(name) {
                    place.insert(Source::Struct(types, fields));
                    for field in &fields.fields {
                        self.find(types, field.ty);
                    }
                }
            }
            Shape::List(item) | Shape::Map(item) => self.find(types, *item),
            _ => {
                if let Some((name, made)) = special(ty, self.version) {
                    self.found.entry(name).or_insert(Source::Made(made));
                }
            }
        }
    }

    /// Makes the definitions, in the order of their names.
    pub(super) fn make(self, texts: &Descriptions) -> impl Iterator<Item = (String, Value)> {
        let Self { version, found, mut kinds } = self;
        found.into_iter().map(move |(name, source)| {
            let about = texts.of(&name);
            let mut made = match source {
                Source::Struct(types, fields) => Maker { version, types, about }.structure(fields),
                Source::Made(Value::Object(made)) => made,
                Source::Made(_) => Map::new(),
            };
            let text = about.text();
            if !text.is_empty() {
                made.insert("description".to_owned(), text.into());
            }
            if let Some(kinds) = kinds.remove(&name) {
                made.insert("x-kubernetes-group-version-kind".to_owned(), kinds.into());
            }
            (name, made.into())
        })
    }
}

/// The definition, with its name, of a type that is written as something else than it is.
fn special(ty: &Type, version: Version) -> Option<(String, Value)> {
    let meta = |name: &str| format!("{META}.{name}");
    let time = || json!({"type": "string", "format": "date-time"});
    Some(match ty.shape {
        Shape::Time => (meta("Time"), time()),
        Shape::MicroTime => (meta("MicroTime"), time()),
        Shape::Duration => (meta("Duration"), json!({"type": "string"})),
        Shape::Quantity => {
            let made = match version {
                Version::V2 => json!({"type": "string"}),
                Version::V3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            };
            ("io.k8s.apimachinery.pkg.api.resource.Quantity".to_owned(), made)
        }
        Shape::IntOrString => {
            let made = match version {
                Version::V2 => json!({"type": "string", "format": "int-or-string"}),
                Version::V3 => {
                    json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
                }
            };
            ("io.k8s.apimachinery.pkg.util.intstr.IntOrString".to_owned(), made)
        }
        Shape::Raw if ty.go == "v1.FieldsV1" => (meta("FieldsV1"), json!({"type": "object"})),
        Shape::Raw => ("io.k8s.apimachinery.pkg.runtime.RawExtension".to_owned(), json!({"type": "object"})),
        _ => return None,
    })
}

/// Makes the definition of one struct.
struct Maker<'a> {
    version: Version,
    types: &'a Types,
    about: About<'a>,
}

impl Maker<'_> {
    fn structure(&self, fields: &Struct) -> Map<String, Value> {
        let mut properties = Map::new();
        if fields.type_meta {
            for field in ["apiVersion", "kind"] {
                let mut made = object([("type", "string".into())]);
                let text = self.about.field(field).text();
                if !text.is_empty() {
                    made.insert("description".to_owned(), text.into());
                }
                properties.insert(field.to_owned(), made.into());
            }
        }
        let mut required: Vec<&str> = Vec::new();
        for field in &fields.fields {
            let about = self.about.field(&field.name);
            if field.required() || about.required {
                required.push(&field.name);
            }
            properties.insert(field.name.to_string(), self.field(field, about.text()));
        }
        let mut made = object([("type", "object".into()), ("properties", properties.into())]);
        if !required.is_empty() {
            made.insert("required".to_owned(), json!(required));
        }
        if fields.atomic {
            made.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        made
    }

    fn field(&self, field: &Field, mut description: String) -> Value {
        if let Shape::String { values, closed: true } = &self.types.get(field.ty).shape {
            let values = sorted(values);
            description.push_str("\n\nPossible enum values:");
            values.iter().for_each(|value| description.push_str(&format!("\n - `\"{value}\"`")));
        }
        let extra = field.extra();
        let mut beside = Map::new();
        if !description.is_empty() {
            beside.insert("description".to_owned(), description.into());
        }
        // Documents of version 2 have none.
        if self.version == Version::V3 {
            let default = match &extra.default {
                Some(text) => serde_json::from_str(text).ok(),
                None if field.pointer => None,
                None => zero(&self.types.get(field.ty).shape, field.omit_empty),
            };
            beside.extend(default.map(|value| ("default".to_owned(), value)));
        }
        let mut put = |key: &str, value: Value| {
            beside.insert(format!("x-kubernetes-{key}"), value);
        };
        match &extra.list {
            ListType::None => {}
            ListType::Atomic => put("list-type", "atomic".into()),
            ListType::Set => put("list-type", "set".into()),
            ListType::Map(keys) => {
                put("list-type", "map".into());
                put("list-map-keys", json!(keys));
            }
        }
        if extra.atomic == Some(true) {
            put("map-type", "atomic".into());
        }
        if let Some(key) = &extra.merge_key {
            put("patch-merge-key", key.as_ref().into());
        }
        let strategy = extra.patch;
        let words: Vec<&str> =
            [(strategy.merge, "merge"), (strategy.replace, "replace"), (strategy.retain_keys, "retainKeys")]
                .into_iter()
                .filter_map(|(is, word)| is.then_some(word))
                .collect();
        if !words.is_empty() {
            put("patch-strategy", words.join(",").into());
        }
        self.with(self.value(field.ty), beside)
    }

    /// A schema with more facts in it. In version 3 nothing beside a reference counts, so it is wrapped.
    fn with(&self, made: Value, beside: Map<String, Value>) -> Value {
        let wrapped = self.version == Version::V3 && made.get("$ref").is_some() && !beside.is_empty();
        let mut made = match made {
            made if wrapped => object([("allOf", json!([made]))]),
            Value::Object(made) => made,
            other => return other,
        };
        made.extend(beside);
        made.into()
    }

    /// The schema of a value of a type.
    fn value(&self, id: Id) -> Value {
        let ty = self.types.get(id);
        match &ty.shape {
            Shape::Struct(_) => reference(self.version, &name(&ty.name)),
            Shape::List(item) => json!({"type": "array", "items": self.item(*item)}),
            Shape::Map(item) => json!({"type": "object", "additionalProperties": self.item(*item)}),
            Shape::String { values, closed: true } => json!({"type": "string", "enum": sorted(values)}),
            Shape::String { .. } => json!({"type": "string"}),
            Shape::Integer(bits) => json!({"type": "integer", "format": format!("int{bits}")}),
            Shape::Float => json!({"type": "number", "format": "double"}),
            Shape::Boolean => json!({"type": "boolean"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            _ => match special(ty, self.version) {
                Some((name, _)) => reference(self.version, &name),
                None => json!({}),
            },
        }
    }

    /// The schema of the items of a list or map.
    fn item(&self, id: Id) -> Value {
        let default = zero(&self.types.get(id).shape, false).filter(|_| self.version == Version::V3);
        self.with(self.value(id), default.map(|value| ("default".to_owned(), value)).into_iter().collect())
    }
}

fn sorted<T: AsRef<str>>(values: &[T]) -> Vec<&str> {
    let mut values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
    values.sort_unstable();
    values
}

/// The value that a field has without a pointer, when nobody sets it. Scalars that are left out then have none, nor
/// have types with a notation of their own.
fn zero(shape: &Shape, omitted: bool) -> Option<Value> {
    match shape {
        Shape::Struct(_) => Some(json!({})),
        _ if omitted => None,
        Shape::String { .. } => Some("".into()),
        Shape::Integer(_) | Shape::Float => Some(0.into()),
        Shape::Boolean => Some(false.into()),
        _ => None,
    }
}
