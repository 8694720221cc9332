//! Every list and map that the types of the kinds have, and objects in which one of them is long.
//!
//! An object begins as the sample of its kind. What leads to the list is made where the sample lacks it: a struct has
//! what it must have, and what tells it apart from others.

use std::collections::HashSet;

use api::resource::Resource;
use api::schema::{Field, Id, ListType, Shape, Types};
use serde_json::{Map, Value, json};

use crate::sample::Sample;

/// One step from a value to what is in it.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// The first item of a list.
    Item,
    /// One entry of a map.
    Entry,
}

/// A list or a map in the objects of a kind.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    way: Vec<Step>,
    /// The fields that tell the items apart.
    keys: Vec<String>,
    item: Id,
    is_map: bool,
    is_set: bool,
}

/// What the items of a long list are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Items {
    /// Sound, each with a key of its own.
    Distinct,
    /// All the same.
    Same,
    /// Each with a key of its own that is no good.
    Bad,
}

impl Place {
    /// As messages show it: `spec.containers[0].ports`.
    pub(crate) fn name(&self) -> String {
        let mut name = String::new();
        for step in &self.way {
            match step {
                Step::Field(field) if name.is_empty() => name.push_str(field),
                Step::Field(field) => name.push_str(&format!(".{field}")),
                Step::Item => name.push_str("[0]"),
                Step::Entry => name.push_str("[x]"),
            }
        }
        name
    }

    /// Whether the items are owned and changed one by one.
    pub(crate) fn is_keyed(&self) -> bool {
        self.is_map || !self.keys.is_empty() || self.is_set
    }

    /// Whether both are fields of the same value.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        self.way.len() == other.way.len()
            && self.way.split_last().map(|(_, way)| way) == other.way.split_last().map(|(_, way)| way)
    }
}

/// The places of a kind. `seen` are the fields that other kinds had already: a template has what pods have.
pub(crate) fn places(row: &Resource, seen: &mut HashSet<(String, String)>) -> Vec<Place> {
    let mut finder =
        Finder { types: row.schema.types(), seen, within: Vec::new(), way: Vec::new(), found: Vec::new() };
    finder.look(row.schema.id());
    finder.found
}

struct Finder<'a> {
    types: &'a Types,
    seen: &'a mut HashSet<(String, String)>,
    within: Vec<Id>,
    way: Vec<Step>,
    found: Vec<Place>,
}

impl Finder<'_> {
    fn look(&mut self, id: Id) {
        let ty = self.types.get(id);
        let Shape::Struct(fields) = &ty.shape else { return };
        // Schemas are within schemas.
        if self.within.contains(&id) {
            return;
        }
        self.within.push(id);
        for field in &fields.fields {
            self.way.push(Step::Field(field.name.to_string()));
            match self.types.get(field.ty).shape {
                Shape::Struct(_) => self.look(field.ty),
                Shape::List(item) | Shape::Map(item) => {
                    let is_map = matches!(self.types.get(field.ty).shape, Shape::Map(_));
                    if self.seen.insert((ty.name.to_string(), field.name.to_string())) {
                        let keys = keys_of(field);
                        self.found.push(Place {
                            way: self.way.clone(),
                            keys,
                            item,
                            is_map,
                            is_set: is_set(field),
                        });
                    }
                    self.way.push(if is_map { Step::Entry } else { Step::Item });
                    self.look(item);
                    self.way.pop();
                }
                _ => {}
            }
            self.way.pop();
        }
        self.within.pop();
    }
}

fn is_set(field: &Field) -> bool {
    field.extra().list == ListType::Set || field.extra().patch.merge
}

fn keys_of(field: &Field) -> Vec<String> {
    let extra = field.extra();
    let mut keys: Vec<String> = extra.merge_key.iter().map(ToString::to_string).collect();
    if let ListType::Map(names) = &extra.list {
        keys.extend(names.iter().map(ToString::to_string));
    }
    keys
}

/// The sample of a kind in which these places have so many items.
pub(crate) fn fill(row: &Resource, sample: &Sample, places: &[&Place], count: usize, items: Items) -> Value {
    let mut object = sample.object(1);
    let maker = Maker { types: row.schema.types() };
    if let Some(status) = &sample.status {
        object = crate::walk::merged(&object, status);
    }
    for place in places {
        maker.fill(&mut object, row.schema.id(), place, count, items);
    }
    object
}

/// The fields that tell items apart where the type does not say so.
const TELLING: &[&str] = &[
    "name",
    "key",
    "type",
    "ip",
    "uid",
    "topologyKey",
    "conditionType",
    "port",
    "containerPort",
    "kind",
    "resource",
    "resourceName",
    "scopeName",
    "driver",
    "cidr",
    "zone",
    "counterSet",
    "expression",
    "reason",
    "mountPath",
    "devicePath",
];

struct Maker<'a> {
    types: &'a Types,
}

impl Maker<'_> {
    fn fill(&self, object: &mut Value, root: Id, place: &Place, count: usize, items: Items) {
        let (mut value, mut id) = (object, root);
        let mut name = "";
        for step in &place.way {
            match step {
                Step::Field(field) => {
                    let Shape::Struct(fields) = &self.types.get(id).shape else { return };
                    let Some(found) = fields.field(field) else { return };
                    id = found.ty;
                    name = field;
                    let Some(fields) = value.as_object_mut() else { return };
                    let made = || match self.types.get(id).shape {
                        Shape::List(_) => json!([]),
                        Shape::Map(_) => json!({}),
                        _ => self.value(id, field, 0),
                    };
                    value = fields.entry(field.clone()).or_insert_with(made);
                    if value.is_null() {
                        *value = made();
                    }
                }
                Step::Item => {
                    let (Shape::List(item), Some(list)) = (&self.types.get(id).shape, value.as_array_mut())
                    else {
                        return;
                    };
                    id = *item;
                    if list.is_empty() {
                        list.push(self.value(id, name, 0));
                    }
                    value = &mut list[0];
                }
                Step::Entry => {
                    let (Shape::Map(item), Some(map)) = (&self.types.get(id).shape, value.as_object_mut())
                    else {
                        return;
                    };
                    id = *item;
                    let key = map.keys().next().cloned().unwrap_or_else(|| "x".to_owned());
                    value = map.entry(key).or_insert_with(|| self.value(id, name, 0));
                }
            }
        }
        *value = if place.is_map {
            self.map(place, name, count, items)
        } else {
            self.list(value, place, name, count, items)
        };
    }

    fn map(&self, place: &Place, name: &str, count: usize, items: Items) -> Value {
        let quantities = matches!(self.types.get(place.item).shape, Shape::Quantity);
        let key = |i: usize| match items {
            Items::Bad => format!("n {i}"),
            _ if quantities => format!("example.com/n{i}"),
            _ => format!("n{i}"),
        };
        // Equal keys make no map.
        let entries = (0..count).map(|i| (key(i), self.value(place.item, name, i)));
        Value::Object(entries.collect())
    }

    fn list(&self, before: &Value, place: &Place, name: &str, count: usize, items: Items) -> Value {
        let first = before.get(0).cloned().unwrap_or_else(|| self.value(place.item, name, 0));
        let at = |i: usize| if items == Items::Same { 1 } else { i };
        (0..count).map(|i| self.varied(&first, place, name, at(i), items)).collect()
    }

    /// The item with a key of its own.
    fn varied(&self, first: &Value, place: &Place, name: &str, number: usize, items: Items) -> Value {
        let Shape::Struct(fields) = &self.types.get(place.item).shape else {
            return self.told(place.item, name, number, items);
        };
        let mut item = first.clone();
        let Some(map) = item.as_object_mut() else { return item };
        for field in &fields.fields {
            let field_name = field.name.as_ref();
            let is_key = place.keys.iter().any(|key| key == field_name);
            if is_key || map.contains_key(field_name) && TELLING.contains(&field_name) {
                map.insert(field_name.to_owned(), self.told(field.ty, field_name, number, items));
            }
        }
        item
    }

    fn told(&self, id: Id, name: &str, number: usize, items: Items) -> Value {
        match self.value(id, name, number) {
            Value::String(text) if items == Items::Bad => format!("{text} ").into(),
            value => value,
        }
    }

    /// A value of a type, which depends on a number and on the name of its field.
    fn value(&self, id: Id, name: &str, number: usize) -> Value {
        match &self.types.get(id).shape {
            Shape::Struct(fields) => {
                let is_wanted =
                    |field: &&Field| field.required() || TELLING[..7].contains(&field.name.as_ref());
                let fields = fields.fields.iter().filter(is_wanted);
                Value::Object(
                    fields.map(|f| (f.name.to_string(), self.value(f.ty, &f.name, number))).collect(),
                )
            }
            Shape::List(item) => json!([self.value(*item, name, number)]),
            Shape::Map(_) => Value::Object(Map::new()),
            Shape::String { values, closed: true } if !values.is_empty() => {
                values[number % values.len()].as_ref().into()
            }
            Shape::String { .. } => text(name, number).into(),
            Shape::Integer(_) => (number % 60_000 + 1).into(),
            Shape::Float => 1.0.into(),
            Shape::Boolean => false.into(),
            Shape::Bytes => "AP8=".into(),
            Shape::Time => "2026-01-01T00:00:00Z".into(),
            Shape::MicroTime => "2026-01-01T00:00:00.000000Z".into(),
            Shape::Duration => "1s".into(),
            Shape::Quantity => "1".into(),
            Shape::IntOrString => (number % 60_000 + 1).into(),
            Shape::Raw | Shape::Any | Shape::Alias(_) => json!({"type": "object"}),
        }
    }
}

/// A sound text for a field of this name.
fn text(name: &str, number: usize) -> String {
    let address = format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255);
    match name {
        "operator" => "Exists".to_owned(),
        "status" => "True".to_owned(),
        "apiVersion" => "v1".to_owned(),
        "cidr" | "cidrs" | "podCIDRs" | "except" | "loadBalancerSourceRanges" => format!("{address}/32"),
        "ip" | "ips" | "podIPs" | "addresses" | "nameservers" | "externalIPs" | "clusterIPs" | "address" => {
            address
        }
        "path" | "mountPath" | "devicePath" => format!("/n{number}"),
        "driver" | "signerName" => format!("n{number}.example.com"),
        _ => format!("n{number}"),
    }
}
