//! What a write changed: two states of an object are walked together, and nothing is done where they are equal.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::set::{self, Set, Tree};
use super::step;
use super::text;
use super::view::{At, Form, Items, is_empty};
use crate::schema::{Struct, TypeRef};

/// The fields in which two states of an object differ. No field is in more than one of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

impl Changes {
    /// What turns `old` into `new`, which are objects of one type.
    pub fn between(ty: &TypeRef, old: &Value, new: &Value) -> Self {
        let mut below = Below::default();
        compare(At::root(ty), Some(old), Some(new), &mut below);
        Self { added: Set(below.added), modified: Set(below.modified), removed: Set(below.removed) }
    }

    /// The same for two texts of JSON. Parts that are equal as texts are not even parsed.
    pub fn between_texts(ty: &TypeRef, old: &[u8], new: &[u8]) -> Result<Self, serde_json::Error> {
        match differing(old, new) {
            Some((old, new)) => Ok(Self::between(ty, &Value::Object(old), &Value::Object(new))),
            // Parsed as a whole they say what is wrong with them.
            None => Ok(Self::between(ty, &serde_json::from_slice(old)?, &serde_json::from_slice(new)?)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Forgets some fields, and all that is below them.
    pub fn without(mut self, fields: &Set) -> Self {
        if !fields.is_empty() {
            for set in [&mut self.added, &mut self.modified, &mut self.removed] {
                set.remove_below(fields);
            }
        }
        self
    }

    /// What has a new value.
    pub fn written(self) -> Set {
        let mut written = self.added;
        if written.is_empty() {
            return self.modified;
        }
        written.add(&self.modified);
        written
    }
}

/// What happened to a field itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Same,
    Added,
    Modified,
    Removed,
}

/// What happened below a field.
#[derive(Default)]
struct Below {
    added: Tree,
    modified: Tree,
    removed: Tree,
}

impl Below {
    /// Takes in what happened to a child and below it.
    fn take(&mut self, step: impl FnOnce() -> String, mark: Mark, below: Self) {
        let nodes = [
            (&mut self.added, set::join(mark == Mark::Added, below.added)),
            (&mut self.modified, set::join(mark == Mark::Modified, below.modified)),
            (&mut self.removed, set::join(mark == Mark::Removed, below.removed)),
        ];
        if nodes.iter().all(|(_, node)| node.is_none()) {
            return;
        }
        let step = step();
        for (tree, node) in nodes {
            match (node, tree.get(&step)) {
                (None, _) => {}
                (Some(node), None) => drop(tree.insert(step.clone(), node)),
                // A list may show a step twice: once with its old items, once with its new ones.
                (Some(node), Some(_)) => set::add(tree, &Tree::from_iter([(step.clone(), node)])),
            }
        }
    }
}

/// Compares two values of a type, of which one may be absent.
fn compare(at: At<'_>, old: Option<&Value>, new: Option<&Value>, below: &mut Below) -> Mark {
    let form = at.form(new.filter(|new| !new.is_null()).or(old));
    match form {
        Form::Leaf(_) => {}
        Form::Struct(fields) if objects(old, new) => structs(at, fields, old, new, below),
        Form::Map(item) if objects(old, new) => maps(item, old, new, below),
        Form::List(items) => match lists(items, old, new) {
            Some((old, new)) => compare_lists(items, &old, &new, below),
            None => return whole(old, new),
        },
        // An object took the place of something else, or the other way round.
        _ => {
            if old.is_some() && new.is_some() {
                compare(at, old, None, below);
                compare(at, None, new, below);
            }
            return whole(old, new);
        }
    }
    match (form, old, new) {
        (Form::Leaf(_), ..) | (_, None, _) | (_, _, None) => whole(old, new),
        _ => Mark::Same,
    }
}

/// Compares two values as wholes. Null and an empty list or object are the same: our types don't tell them apart.
fn whole(old: Option<&Value>, new: Option<&Value>) -> Mark {
    match (old, new) {
        (None, None) => Mark::Same,
        (None, Some(_)) => Mark::Added,
        (Some(_), None) => Mark::Removed,
        (Some(old), Some(new)) if same(old, new) => Mark::Same,
        _ => Mark::Modified,
    }
}

fn same(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => old == new || (is_empty(Some(old)) && is_empty(Some(new))),
    }
}

fn objects(old: Option<&Value>, new: Option<&Value>) -> bool {
    let fits = |value: Option<&Value>| matches!(value, None | Some(Value::Null | Value::Object(_)));
    fits(old) && fits(new)
}

fn fields(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn structs(at: At<'_>, of: &Struct, old: Option<&Value>, new: Option<&Value>, below: &mut Below) {
    let (old_fields, new_fields) = (fields(old), fields(new));
    // Go's fields without a value in JSON count where the struct itself is there. They matter only on one side.
    let one_sided = old_fields.is_none() != new_fields.is_none();
    if one_sided {
        for field in &of.fields {
            let name = field.name.as_ref();
            let absent = |fields: Option<&Map<String, Value>>| fields.is_none_or(|f| !f.contains_key(name));
            if let Some(zero) = at.zero(field).filter(|_| absent(old_fields) && absent(new_fields)) {
                let (old, new) = (old_fields.map(|_| zero), new_fields.map(|_| zero));
                child(at.of_field(field), || step::field(name), old, new, below);
            }
        }
    }
    each(old_fields, new_fields, |name, mut old, mut new| {
        let Some(type_of) = at.field(of, name) else { return };
        if let Some(field) = of.field(name).filter(|_| old.is_none() || new.is_none()) {
            if old.is_none() && old_fields.is_some() {
                old = at.zero(field);
            }
            if new.is_none() && new_fields.is_some() {
                new = at.zero(field);
            }
        }
        child(type_of, || step::field(name), old, new, below);
    });
}

fn maps(item: At<'_>, old: Option<&Value>, new: Option<&Value>, below: &mut Below) {
    each(fields(old), fields(new), |name, old, new| child(item, || step::field(name), old, new, below));
}

fn child(
    at: At<'_>,
    step: impl FnOnce() -> String,
    old: Option<&Value>,
    new: Option<&Value>,
    below: &mut Below,
) {
    let mut inner = Below::default();
    let mark = compare(at, old, new, &mut inner);
    below.take(step, mark, inner);
}

/// Calls `visit` for every name of either object, with both values.
fn each<'v>(
    old: Option<&'v Map<String, Value>>,
    new: Option<&'v Map<String, Value>>,
    mut visit: impl FnMut(&'v str, Option<&'v Value>, Option<&'v Value>),
) {
    for (name, old) in old.into_iter().flatten() {
        visit(name, Some(old), new.and_then(|new| new.get(name)));
    }
    for (name, new) in new.into_iter().flatten() {
        if old.is_none_or(|old| !old.contains_key(name)) {
            visit(name, None, Some(new));
        }
    }
}

/// The items of a list under their steps, in order; equal steps together.
type Grouped<'v> = Vec<(String, Vec<&'v Value>)>;

/// Both lists by their steps; None if one of them is no list whose items can be told apart.
fn lists<'v>(
    items: Items<'_>,
    old: Option<&'v Value>,
    new: Option<&'v Value>,
) -> Option<(Grouped<'v>, Grouped<'v>)> {
    // Equal lists need no look at their items.
    if old.is_some() && old == new {
        return Some((Vec::new(), Vec::new()));
    }
    Some((grouped(items, old)?, grouped(items, new)?))
}

/// How many items a short list has.
const SHORT: usize = 16;

fn grouped<'v>(items: Items<'_>, list: Option<&'v Value>) -> Option<Grouped<'v>> {
    let list = match list {
        None | Some(Value::Null) => return Some(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return None,
    };
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut groups: Grouped<'v> = Vec::with_capacity(list.len());
    for item in list {
        let step = items.step(item).ok()?;
        // A short list is searched sooner than an index is made.
        let place = if list.len() <= SHORT {
            groups.iter().position(|(other, _)| *other == step)
        } else {
            let next = groups.len();
            Some(*places.entry(step.clone()).or_insert(next)).filter(|place| *place < next)
        };
        match place {
            Some(place) => groups[place].1.push(item),
            None => groups.push((step, vec![item])),
        }
    }
    Some(groups)
}

fn compare_lists(items: Items<'_>, old: &Grouped<'_>, new: &Grouped<'_>, below: &mut Below) {
    // Most often the same items are there, in the same order.
    if old.len() == new.len() && old.iter().zip(new).all(|((a, _), (b, _))| a == b) {
        for ((step, was), (_, is)) in old.iter().zip(new) {
            compare_items(items, step, was, is, below);
        }
        return;
    }
    let by_step = |groups: &Grouped<'_>| -> BTreeMap<String, usize> {
        groups.iter().enumerate().map(|(i, (step, _))| (step.clone(), i)).collect()
    };
    let (in_old, in_new) = (by_step(old), by_step(new));
    let none: Vec<&Value> = Vec::new();
    for (step, was) in old {
        let is = in_new.get(step).map_or(&none, |i| &new[*i].1);
        compare_items(items, step, was, is, below);
    }
    for (step, is) in new.iter().filter(|(step, _)| !in_old.contains_key(step)) {
        compare_items(items, step, &none, is, below);
    }
}

/// Compares what is under one step. Several items under one step are owned together, as one value.
fn compare_items(items: Items<'_>, step: &str, old: &[&Value], new: &[&Value], below: &mut Below) {
    let name = || step.to_owned();
    match (old, new) {
        (old, new) if old.len() <= 1 && new.len() <= 1 => {
            child(items.item, name, old.first().copied(), new.first().copied(), below);
        }
        (old, new) if old.len() >= 2 && new.len() >= 2 => {
            let mark = if old == new { Mark::Same } else { Mark::Modified };
            below.take(name, mark, Below::default());
        }
        (old, new) if old.len() >= 2 => {
            child(items.item, name, None, new.first().copied(), below);
            below.take(name, Mark::Removed, Below::default());
        }
        (old, _) => {
            child(items.item, name, old.first().copied(), None, below);
            below.take(name, Mark::Added, Below::default());
        }
    }
}

/// Two objects without what is equal in them as text, and without what no set holds. None: they are not objects.
fn differing(old: &[u8], new: &[u8]) -> Option<(Tree, Tree)> {
    let (old, new) = (text::entries(old)?, text::entries(new)?);
    let (mut old_rest, mut new_rest) = (Tree::new(), Tree::new());
    let names = old.iter().chain(new.iter().filter(|(name, _)| text::find(&old, name).is_none()));
    for (name, _) in names {
        let (was, is) = (text::find(&old, name), text::find(&new, name));
        if was == is {
            continue;
        }
        let key = text::name(name)?;
        if let (b"\"metadata\"", Some(was), Some(is)) = (*name, was, is) {
            let (was, is) = metadata(was, is)?;
            old_rest.insert(key.clone(), Value::Object(was));
            new_rest.insert(key, Value::Object(is));
            continue;
        }
        for (rest, text) in [(&mut old_rest, was), (&mut new_rest, is)] {
            if let Some(text) = text {
                rest.insert(key.clone(), serde_json::from_slice(text).ok()?);
            }
        }
    }
    Some((old_rest, new_rest))
}

fn metadata(old: &[u8], new: &[u8]) -> Option<(Tree, Tree)> {
    let (old, new) = (text::entries(old)?, text::entries(new)?);
    let rest = |of: &text::Entries<'_>, other: &text::Entries<'_>| -> Option<Tree> {
        let mut rest = Tree::new();
        for (name, value) in of {
            let untracked = name
                .get(1..name.len() - 1)
                .is_some_and(|name| super::UNTRACKED.iter().any(|untracked| untracked.as_bytes() == name));
            if !untracked && text::find(other, name) != Some(value) {
                rest.insert(text::name(name)?, serde_json::from_slice(value).ok()?);
            }
        }
        Some(rest)
    };
    Some((rest(&old, &new)?, rest(&new, &old)?))
}
