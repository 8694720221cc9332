//! The definitions: one per named type that the rows reach.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Version, gvk, object, reference};
use crate::resource::Resource;
use crate::schema::{Field, Id, ListType, Shape, Struct, Types};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The definitions that the rows need. `x-kubernetes-group-version-kind` is on the types of kinds.
pub(super) fn of(rows: &[&Resource], version: Version) -> Value {
    let mut kinds: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut definitions = Definitions { version, made: BTreeMap::new() };
    for row in rows {
        let types = row.schema.types();
        let mut add = |group: &str, version: &str, kind: &str| {
            let Some(id) = types.kind(group, version, kind) else { return };
            let name = name(&types.get(id).name);
            let entry = kinds.entry(name).or_default();
            let this = gvk(group, version, kind);
            if !entry.contains(&this) {
                entry.push(this);
            }
            definitions.named(types, id);
        };
        add(&row.group, &row.version, &row.kind);
        add(&row.group, &row.version, &row.list_kind);
        add("", "v1", "Status");
        add(&row.group, &row.version, "DeleteOptions");
        for part in &row.subresources {
            add(&part.kind.group, &part.kind.version, &part.kind.kind);
        }
    }
    let mut made = definitions.made;
    made.insert(format!("{META}.Patch"), json!({"type": "object"}));
    for (name, kinds) in kinds {
        if let Some(Value::Object(definition)) = made.get_mut(&name) {
            definition.insert("x-kubernetes-group-version-kind".to_owned(), kinds.into());
        }
    }
    Value::Object(made.into_iter().collect())
}

/// `api/core/v1.Pod` as OpenAPI names it.
pub(super) fn name(ty: &str) -> String {
    format!("io.k8s.{}", ty.replace('/', "."))
}

struct Definitions {
    version: Version,
    made: BTreeMap<String, Value>,
}

impl Definitions {
    /// Makes the definition of a named struct, and of all that it reaches.
    fn named(&mut self, types: &Types, id: Id) -> String {
        let ty = types.get(id);
        let name = name(&ty.name);
        if self.made.contains_key(&name) {
            return name;
        }
        // In place before its fields are looked at: types may contain themselves.
        self.made.insert(name.clone(), json!({"type": "object"}));
        if let Shape::Struct(fields) = &ty.shape {
            let made = self.structure(types, fields);
            self.made.insert(name.clone(), made);
        }
        name
    }

    fn structure(&mut self, types: &Types, fields: &Struct) -> Value {
        let mut properties = Map::new();
        if fields.type_meta {
            for field in ["apiVersion", "kind"] {
                properties.insert(field.to_owned(), json!({"type": "string"}));
            }
        }
        for field in &fields.fields {
            properties.insert(field.name.to_string(), self.field(types, field));
        }
        let required: Vec<&str> =
            fields.fields.iter().filter(|f| f.required()).map(|f| f.name.as_ref()).collect();
        let mut made = object([("type", "object".into()), ("properties", properties.into())]);
        if !required.is_empty() {
            made.insert("required".to_owned(), json!(required));
        }
        if fields.atomic {
            made.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        made.into()
    }

    fn field(&mut self, types: &Types, field: &Field) -> Value {
        let extra = field.extra();
        let mut made = match self.value(types, field.ty) {
            Value::Object(made) => made,
            other => return other,
        };
        let default = extra.default.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let plain = made.contains_key("$ref");
        if plain && self.version == Version::V3 {
            // Beside a reference nothing else counts.
            made = object([("allOf", json!([made]))]);
        }
        if let Some(default) = default {
            if !plain || self.version == Version::V3 {
                made.insert("default".to_owned(), default);
            }
        } else if plain && self.version == Version::V3 && !field.pointer && !field.omit_empty {
            made.insert("default".to_owned(), json!({}));
        }
        let mut put = |key: &str, value: Value| {
            made.insert(format!("x-kubernetes-{key}"), value);
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
        made.into()
    }

    /// The schema of a value of a type.
    fn value(&mut self, types: &Types, id: Id) -> Value {
        let ty = types.get(id);
        match &ty.shape {
            Shape::Struct(_) => {
                let name = self.named(types, id);
                reference(self.version, &name)
            }
            Shape::List(item) => json!({"type": "array", "items": self.item(types, *item)}),
            Shape::Map(item) => json!({"type": "object", "additionalProperties": self.item(types, *item)}),
            Shape::String { values, closed: true } => {
                let mut values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
                values.sort_unstable();
                json!({"type": "string", "enum": values})
            }
            Shape::String { .. } => json!({"type": "string"}),
            Shape::Integer(bits) => json!({"type": "integer", "format": format!("int{bits}")}),
            Shape::Float => json!({"type": "number", "format": "double"}),
            Shape::Boolean => json!({"type": "boolean"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Time => self.special("Time", json!({"type": "string", "format": "date-time"})),
            Shape::MicroTime => self.special("MicroTime", json!({"type": "string", "format": "date-time"})),
            Shape::Duration => self.special("Duration", json!({"type": "string"})),
            Shape::Quantity => {
                let made = match self.version {
                    Version::V2 => json!({"type": "string"}),
                    Version::V3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
                };
                self.shared("io.k8s.apimachinery.pkg.api.resource.Quantity", made)
            }
            Shape::IntOrString => {
                let made = match self.version {
                    Version::V2 => json!({"type": "string", "format": "int-or-string"}),
                    Version::V3 => {
                        json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
                    }
                };
                self.shared("io.k8s.apimachinery.pkg.util.intstr.IntOrString", made)
            }
            Shape::Raw if ty.go == "v1.FieldsV1" => self.special("FieldsV1", json!({"type": "object"})),
            Shape::Raw => {
                self.shared("io.k8s.apimachinery.pkg.runtime.RawExtension", json!({"type": "object"}))
            }
            // `get` has followed the aliases.
            Shape::Any | Shape::Alias(_) => json!({}),
        }
    }

    /// The schema of the items of a list or map.
    fn item(&mut self, types: &Types, id: Id) -> Value {
        let item = self.value(types, id);
        if self.version == Version::V3 && item.get("$ref").is_some() {
            return json!({"allOf": [item], "default": {}});
        }
        item
    }

    fn special(&mut self, name: &str, made: Value) -> Value {
        self.shared(&format!("{META}.{name}"), made)
    }

    fn shared(&mut self, name: &str, made: Value) -> Value {
        self.made.entry(name.to_owned()).or_insert(made);
        reference(self.version, name)
    }
}
