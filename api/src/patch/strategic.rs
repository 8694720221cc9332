//! Strategic merge patch: a merge patch that knows which lists are merged, and by which key.
//!
//! What a patch may say besides values: `$patch: replace|delete|merge`, `$retainKeys`, `$setElementOrder/LIST`,
//! `$deleteFromPrimitiveList/LIST`. [`apply`] applies a patch; [`diff`] and [`three_way`] (in `strategic/diff.rs`) make
//! the ones that kubectl makes.

mod diff;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

pub use self::diff::{diff, three_way};
use super::PatchError;
use crate::schema::{Extra, Id, Shape, TypeRef, Types};

type Object = Map<String, Value>;
type Result<T> = std::result::Result<T, PatchError>;

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE: &str = "$deleteFromPrimitiveList";
const ORDER: &str = "$setElementOrder";

fn bad_delete_list() -> PatchError {
    PatchError::Malformed("invalid patch format of primitive list".to_owned())
}
fn bad_retain_keys() -> PatchError {
    PatchError::Malformed("invalid patch format of retainKeys".to_owned())
}
fn bad_order() -> PatchError {
    PatchError::Malformed("invalid patch format of setElementOrder list".to_owned())
}
fn lists_of_lists() -> PatchError {
    PatchError::Unfit("lists of lists are not supported".to_owned())
}
fn no_merge_key(item: &Object, key: &str) -> PatchError {
    PatchError::Type(format!(
        "map: {} does not contain declared merge key: {key}",
        Value::Object(item.clone())
    ))
}
fn bad_type(expected: &str, actual: &Value) -> PatchError {
    let actual = match actual {
        Value::Object(_) => "map[string]interface {}",
        Value::Array(_) => "[]interface {}",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Null => "%!s(<nil>)",
    };
    PatchError::Type(format!("expected a {expected}, but received a {actual}"))
}
fn map_of(value: &Value) -> Result<&Object> {
    value.as_object().ok_or_else(|| bad_type("map[string]interface {}", value))
}
fn list_of(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(bad_type("[]interface {}", &other)),
    }
}

/// Applies a patch to an object of a type.
pub fn apply(ty: &TypeRef, object: Value, patch: Object) -> Result<Value> {
    let object = match object {
        Value::Object(map) => map,
        _ => Object::new(),
    };
    let at = At { types: ty.types(), id: ty.id() };
    merge_map(object, patch, at, Mode::Apply).map(Value::Object)
}

/// Whether a patch is applied to an object, or to another patch to make one of both.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Apply,
    Combine,
}

/// The type of the value being merged.
#[derive(Clone, Copy)]
struct At<'a> {
    types: &'a Types,
    id: Id,
}

impl<'a> At<'a> {
    /// A field that holds a struct or map: what is known of it, and the type of its value.
    fn field(self, name: &str) -> Result<(Self, &'a Extra)> {
        let ty = self.types.get(self.id);
        let go = ty.go.rsplit('.').next().unwrap_or(&ty.go);
        match &ty.shape {
            Shape::Struct(fields) => match fields.field(name) {
                Some(field) => Ok((Self { types: self.types, id: field.ty }, field.extra())),
                None => Err(PatchError::Type(format!(
                    "unable to find api field in struct {go} for the json field \"{name}\""
                ))),
            },
            Shape::Raw | Shape::Any => Err(PatchError::Type(format!(
                "unable to find api field in struct {go} for the json field \"{name}\""
            ))),
            Shape::Map(_) => Err(PatchError::Type(
                "merging an object in json but data type is not struct, instead is: map".to_owned(),
            )),
            _ => Err(PatchError::Type(format!(
                "merging an object in json but data type is not struct, instead is: {go}"
            ))),
        }
    }

    /// A field that holds a list: what is known of it, and the type of its items.
    fn list(self, name: &str) -> Result<(Self, &'a Extra)> {
        let (at, extra) = self.field(name)?;
        match at.types.get(at.id).shape {
            Shape::List(item) => Ok((Self { types: at.types, id: item }, extra)),
            _ => Ok((at, extra)),
        }
    }
}

/// The kind of the items of lists, which must be the same in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Items {
    Objects,
    Scalars,
}

fn items_of(lists: &[&[Value]]) -> Result<Items> {
    let kind = |value: &Value| match value {
        Value::Object(_) => 0,
        Value::Array(_) => 1,
        Value::String(_) => 2,
        Value::Bool(_) => 3,
        Value::Number(n) if n.is_f64() => 4,
        Value::Number(_) => 5,
        Value::Null => 6,
    };
    let mut all = lists.iter().flat_map(|list| list.iter().map(kind));
    let Some(first) = all.next() else {
        return Err(PatchError::Type("no elements in any of the given slices".to_owned()));
    };
    match first {
        1 => Err(lists_of_lists()),
        _ if all.any(|other| other != first) => {
            let shown: Vec<Value> = lists.iter().map(|l| Value::Array(l.to_vec())).collect();
            Err(PatchError::Type(format!("list element types are not identical: {}", Value::Array(shown))))
        }
        0 => Ok(Items::Objects),
        _ => Ok(Items::Scalars),
    }
}

/// What tells an item apart: its merge key, or the item itself. None for an object without the key.
fn identity<'v>(item: &'v Value, key: Option<&str>) -> Option<&'v Value> {
    match key {
        Some(key) => item.as_object()?.get(key),
        None => Some(item),
    }
}

/// Where in a list the items are, found by what tells them apart: lists may be as long as a request.
struct Places<'v> {
    key: Option<&'v str>,
    first: HashMap<&'v Value, usize>,
}

impl<'v> Places<'v> {
    fn of(list: &'v [Value], key: Option<&'v str>) -> Self {
        let mut first = HashMap::with_capacity(list.len());
        for (i, item) in list.iter().enumerate() {
            if let Some(id) = identity(item, key) {
                first.entry(id).or_insert(i);
            }
        }
        Self { key, first }
    }

    /// The first place of what is told apart as this item is.
    fn find(&self, item: &Value) -> Option<usize> {
        self.first.get(identity(item, self.key)?).copied()
    }
}

fn directive(item: &Value) -> Option<&Value> {
    item.as_object()?.get(DIRECTIVE)
}

/// Drops what only a merge understands from a value that is taken as it is. None: the value itself goes.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => return None,
        Value::Object(map) => Value::Object(
            map.into_iter().filter_map(|(k, v)| without_directives(v).map(|v| (k, v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().filter_map(without_directives).collect()),
        other => other,
    })
}

/// Drops nulls, which say "remove" where there is nothing to remove.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn same_kind(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.is_f64() == b.is_f64(),
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

fn merge_map(mut object: Object, mut patch: Object, at: At<'_>, mode: Mode) -> Result<Object> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(directive, &patch)),
        };
    }
    retain_keys(&mut object, &mut patch, mode)?;
    ordered_lists(&mut object, &mut patch, at, mode)?;
    for (key, change) in patch {
        let mut key = key;
        let mut deletes_items = false;
        if key.starts_with(DELETE) {
            if mode == Mode::Combine {
                object.insert(key, change);
                continue;
            }
            key = key
                .strip_prefix(DELETE)
                .and_then(|k| k.strip_prefix('/'))
                .ok_or_else(bad_delete_list)?
                .to_owned();
            deletes_items = true;
        }
        if change.is_null() {
            object.remove(&key);
            if mode == Mode::Apply {
                continue;
            }
        }
        let before = match object.get_mut(&key) {
            Some(before) if same_kind(before, &change) => before.take(),
            _ if deletes_items => continue,
            _ => {
                let change = if mode == Mode::Apply { without_nulls(change) } else { change };
                match without_directives(change) {
                    Some(value) => object.insert(key, value),
                    None => object.remove(&key),
                };
                continue;
            }
        };
        let after = match (before, change) {
            (Value::Object(before), Value::Object(change)) => {
                let (at, extra) = at.field(&key)?;
                Value::Object(match extra.patch.replace {
                    true => change,
                    false => merge_map(before, change, at, mode)?,
                })
            }
            (Value::Array(before), Value::Array(change)) => {
                let (at, extra) = at.list(&key)?;
                Value::Array(merge_list(before, change, at, extra, deletes_items, mode)?)
            }
            (_, change) => change,
        };
        object.insert(key, after);
    }
    Ok(object)
}

fn unknown_directive(directive: &Value, patch: &Object) -> PatchError {
    let directive = directive.as_str().map_or_else(|| directive.to_string(), str::to_owned);
    PatchError::Type(format!("unknown patch type: {directive} in map: {}", Value::Object(patch.clone())))
}

/// `$retainKeys` lists all fields that are left when the patch is applied; a union changes its member so.
fn retain_keys(object: &mut Object, patch: &mut Object, mode: Mode) -> Result<()> {
    let Some(retained) = patch.remove(RETAIN) else { return Ok(()) };
    if mode == Mode::Combine {
        return match object.get(RETAIN) {
            Some(other) if *other != retained => Err(PatchError::Type(format!(
                "{other} and {retained} are not deep equal: this may happen when calculating the 3-way diff patch"
            ))),
            Some(_) => Ok(()),
            None => {
                object.insert(RETAIN.to_owned(), retained);
                Ok(())
            }
        };
    }
    let Value::Array(retained) = retained else { return Err(bad_retain_keys()) };
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let listed = |key: &str| retained.contains(key);
    for (key, value) in patch.iter() {
        let about_list = key.starts_with(DELETE) || key.starts_with(ORDER);
        if !value.is_null() && !about_list && !listed(key) {
            return Err(bad_retain_keys());
        }
    }
    object.retain(|key, _| listed(key));
    Ok(())
}

/// Merges the lists whose order the patch gives.
fn ordered_lists(object: &mut Object, patch: &mut Object, at: At<'_>, mode: Mode) -> Result<()> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(ORDER)).cloned().collect();
    for directive in directives {
        let Some(order) = patch.remove(&directive) else { continue };
        if mode == Mode::Combine {
            match object.get(&directive) {
                Some(other) if *other != order => return Err(bad_order()),
                Some(_) => {}
                None => {
                    object.insert(directive.clone(), order.clone());
                }
            }
        }
        let order = list_of(order)?;
        let key = directive.strip_prefix(ORDER).and_then(|k| k.strip_prefix('/')).ok_or_else(bad_order)?;
        let before = object.get(key).cloned().map(list_of).transpose()?;
        let change = patch.get(key).cloned().map(list_of).transpose()?;
        let (item, extra) = at.list(key)?;
        let merge_key = extra.merge_key.as_deref();
        check_order(change.as_deref().unwrap_or_default(), &order, merge_key)?;
        let merged = match (&before, change.clone()) {
            (None, None) => continue,
            (Some(before), None) => before.clone(),
            (None, Some(change)) => match without_directives(without_nulls_if(mode, Value::Array(change))) {
                Some(Value::Array(items)) => items,
                _ => continue,
            },
            (Some(before), Some(change)) => merge_list(before.clone(), change, item, extra, false, mode)?,
        };
        let mut from_patch = Vec::new();
        let mut from_server = Vec::new();
        let places = Places::of(&order, merge_key);
        for value in merged {
            if let (Some(key), true) = (merge_key, identity(&value, merge_key).is_none()) {
                return Err(no_merge_key(map_of(&value)?, key));
            }
            match places.find(&value) {
                Some(_) => from_patch.push(value),
                None => from_server.push(value),
            }
        }
        let before = before.unwrap_or_default();
        items_of(&[&before, change.as_deref().unwrap_or_default()])?;
        let all = in_order(from_patch, from_server, &order, &before, merge_key)?;
        object.insert(key.to_owned(), Value::Array(all));
        patch.remove(key);
    }
    Ok(())
}

fn without_nulls_if(mode: Mode, value: Value) -> Value {
    if mode == Mode::Apply { without_nulls(value) } else { value }
}

/// The items that a patch sets must come in the order that it gives.
fn check_order(change: &[Value], order: &[Value], merge_key: Option<&str>) -> Result<()> {
    if change.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut at = 0;
    for item in change {
        if let Some(key) = merge_key {
            let map = map_of(item)?;
            if map.contains_key(DIRECTIVE) {
                continue;
            }
            if !map.contains_key(key) {
                return Err(no_merge_key(map, key));
            }
        }
        match order[at..].iter().position(|o| identity(o, merge_key) == identity(item, merge_key)) {
            Some(found) => at += found + 1,
            None => {
                return Err(PatchError::Type(format!(
                    "The order in patch list:\n{}\n doesn't match {ORDER} list:\n{}\n",
                    Value::Array(change.to_vec()),
                    Value::Array(order.to_vec())
                )));
            }
        }
    }
    Ok(())
}

/// The items of a merged list: those of the patch in its order, those that only the server has where they were.
fn in_order(
    mut from_patch: Vec<Value>,
    mut from_server: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    merge_key: Option<&str>,
) -> Result<Vec<Value>> {
    sort_by(&mut from_patch, patch_order, merge_key)?;
    sort_by(&mut from_server, server_order, merge_key)?;
    let places = Places::of(server_order, merge_key);
    let mut out = Vec::with_capacity(from_patch.len() + from_server.len());
    let (mut patch, mut server) = (from_patch.into_iter().peekable(), from_server.into_iter().peekable());
    loop {
        let server_first = match (server.peek(), patch.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(s), Some(p)) => {
                matches!((places.find(s), places.find(p)), (Some(s), Some(p)) if s < p)
            }
        };
        out.extend(if server_first { server.next() } else { patch.next() });
    }
}

/// Sorts items as in a list; items to delete come last.
fn sort_by(items: &mut [Value], order: &[Value], merge_key: Option<&str>) -> Result<()> {
    if let Some(key) = merge_key {
        for item in items.iter().chain(order) {
            let map = map_of(item)?;
            if !map.contains_key(key) {
                return Err(no_merge_key(map, key));
            }
        }
    }
    let places = Places::of(order, merge_key);
    items.sort_by_cached_key(|item| {
        let deleted = merge_key.is_some() && directive(item).and_then(Value::as_str) == Some("delete");
        (deleted, if deleted { usize::MAX } else { places.find(item).unwrap_or(usize::MAX) })
    });
    Ok(())
}

/// Each scalar once.
fn deduplicated(items: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let mut seen = HashSet::new();
    items.into_iter().filter(|item| seen.insert(item.clone())).collect()
}

fn merge_list(
    before: Vec<Value>,
    change: Vec<Value>,
    item: At<'_>,
    extra: &Extra,
    deletes_items: bool,
    mode: Mode,
) -> Result<Vec<Value>> {
    if !extra.patch.merge && !deletes_items {
        return Ok(change);
    }
    if before.is_empty() && change.is_empty() {
        return Ok(before);
    }
    let merge_key = extra.merge_key.as_deref();
    if items_of(&[&before, &change])? == Items::Scalars {
        let changed: HashSet<&Value> = change.iter().collect();
        if deletes_items && mode == Mode::Apply {
            return Ok(before.into_iter().filter(|value| !changed.contains(value)).collect());
        }
        let merged = deduplicated(before.iter().chain(&change).cloned());
        let (from_patch, from_server) = merged.into_iter().partition(|value| changed.contains(value));
        return in_order(from_patch, from_server, &change, &before, None);
    }
    let Some(key) = merge_key else {
        let name = &item.types.get(item.id).go;
        return Err(PatchError::Type(format!("cannot merge lists without merge key for {name}")));
    };
    let (mut merged, change) = special_items(before.clone(), change, key)?;
    let mut places: HashMap<Value, usize> =
        Places::of(&merged, merge_key).first.into_iter().map(|(id, at)| (id.clone(), at)).collect();
    for value in &change {
        let map = map_of(value)?;
        let Some(id) = map.get(key) else { return Err(no_merge_key(map, key)) };
        match places.get(id) {
            Some(at) => {
                if let Value::Object(original) = merged[*at].take() {
                    merged[*at] = Value::Object(merge_map(original, map.clone(), item, mode)?);
                }
            }
            None => {
                places.insert(id.clone(), merged.len());
                merged.push(without_nulls_if(mode, value.clone()));
            }
        }
    }
    let mut from_patch = Vec::new();
    let mut from_server = Vec::new();
    let places = Places::of(&change, merge_key);
    for value in merged {
        if identity(&value, merge_key).is_none() {
            return Err(no_merge_key(map_of(&value)?, key));
        }
        match places.find(&value) {
            Some(_) => from_patch.push(value),
            None => from_server.push(value),
        }
    }
    in_order(from_patch, from_server, &change, &before, merge_key)
}

/// Carries out the items of a patch that delete an item or replace the list; the list, and the items that are left.
fn special_items(mut before: Vec<Value>, change: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut rest = Vec::new();
    let mut deleted = HashSet::new();
    let mut replace = false;
    for item in change {
        let map = map_of(&item)?;
        let Some(directive) = map.get(DIRECTIVE) else {
            rest.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let Some(id) = map.get(key) else { return Err(no_merge_key(map, key)) };
                deleted.insert(id.clone());
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(PatchError::Type(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            _ => return Err(unknown_directive(directive, map)),
        }
    }
    before.retain(|other| other.get(key).is_none_or(|id| !deleted.contains(id)));
    // The replaced list is merged with nothing, so its items come as they are.
    if replace { Ok((rest, Vec::new())) } else { Ok((before, rest)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    pub(super) fn object(value: Value) -> Object {
        value.as_object().cloned().unwrap_or_default()
    }

    pub(super) fn pod() -> TypeRef {
        TypeRef::builtin("", "v1", "Pod").expect("pods have a type")
    }

    fn deployment() -> TypeRef {
        TypeRef::builtin("apps", "v1", "Deployment").expect("deployments have a type")
    }

    fn check(ty: &TypeRef, before: Value, patch: Value, after: Value) {
        let result = apply(ty, before.clone(), object(patch.clone()));
        assert_eq!(result, Ok(after), "{before} patched with {patch}");
    }

    #[test]
    fn lists_are_merged_by_their_key() {
        check(
            &pod(),
            json!({"spec": {"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b"}]}}),
            json!({"spec": {"containers": [{"name": "a", "image": "2"}, {"name": "c"}]}}),
            json!({"spec": {"containers": [{"name": "a", "image": "2", "args": ["x"]}, {"name": "c"}, {"name": "b"}]}}),
        );
    }

    #[test]
    fn lists_without_a_strategy_are_replaced() {
        check(
            &pod(),
            json!({"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["x"]}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["y"]}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["y"]}]}}),
        );
    }

    #[test]
    fn directives_delete_and_replace() {
        let before =
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "nodeSelector": {"x": "1"}}});
        check(
            &pod(),
            before.clone(),
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
            json!({"spec": {"containers": [{"name": "b"}], "nodeSelector": {"x": "1"}}}),
        );
        check(
            &pod(),
            before.clone(),
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}}),
            json!({"spec": {"containers": [{"name": "c"}], "nodeSelector": {"x": "1"}}}),
        );
        check(
            &pod(),
            before.clone(),
            json!({"spec": {"$patch": "replace", "nodeName": "n"}}),
            json!({"spec": {"nodeName": "n"}}),
        );
        check(&pod(), before, json!({"spec": {"$patch": "delete"}}), json!({"spec": {}}));
    }

    #[test]
    fn the_order_of_items_is_given_by_the_patch() {
        // An item that only the server has stays before what it was before.
        let before = json!({"spec": {"containers": [{"name": "a"}, {"name": "x"}, {"name": "b"}]}});
        check(
            &pod(),
            before,
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                "containers": [{"name": "b", "image": "2"}]}}),
            json!({"spec": {"containers": [{"name": "x"}, {"name": "b", "image": "2"}, {"name": "a"}]}}),
        );
    }

    #[test]
    fn scalars_are_merged_and_deleted() {
        let before = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
        check(
            &pod(),
            before.clone(),
            json!({"metadata": {"finalizers": ["d"], "$deleteFromPrimitiveList/finalizers": ["b"]}}),
            json!({"metadata": {"finalizers": ["d", "a", "c"]}}),
        );
        check(
            &pod(),
            before,
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "c"],
                "$setElementOrder/finalizers": ["b"]}}),
            json!({"metadata": {"finalizers": ["b"]}}),
        );
    }

    #[test]
    fn retained_keys_drop_the_others() {
        check(
            &deployment(),
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        );
    }

    #[test]
    fn nulls_remove_and_leave_nothing_behind() {
        check(
            &pod(),
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"a": null, "b": null}, "annotations": {"x": null, "y": "1"}}, "spec": null}),
            json!({"metadata": {"labels": {}, "annotations": {"y": "1"}}}),
        );
    }

    #[test]
    fn mistakes_are_told_apart() {
        let before = json!({"spec": {"containers": [{"name": "a"}], "strategy": {}}, "metadata": {"finalizers": ["a"]}});
        for (patch, code) in [
            (json!({"$patch": "bogus"}), 500),
            (json!({"spec": {"containers": [{"image": "x"}]}}), 500),
            (json!({"spec": {"containers": ["x"]}}), 500),
            (json!({"spec": {"$setElementOrder/containers": "x"}}), 500),
            (json!({"spec": {"$retainKeys": "x"}}), 400),
            (json!({"spec": {"$retainKeys": ["a"], "nodeName": "b"}}), 400),
            (json!({"metadata": {"$deleteFromPrimitiveList": ["a"]}}), 400),
            (json!({"spec": {"strategy": {}}}), 500),
            (json!({"metadata": {"finalizers": [["a"]]}}), 500),
        ] {
            let error = apply(&pod(), before.clone(), object(patch.clone())).expect_err(&patch.to_string());
            assert_eq!(crate::status::Status::from(error).code, code, "{patch}");
        }
        let patch = object(json!({"spec": {"strategy": {}}}));
        assert_eq!(
            apply(&pod(), before, patch).expect_err("unknown").to_string(),
            "unable to find api field in struct PodSpec for the json field \"strategy\""
        );
    }

    fn patches() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            Just("name"),
            Just("spec"),
            Just("containers"),
            Just("$patch"),
            Just("$retainKeys"),
            Just("metadata"),
            Just("finalizers"),
            Just("$setElementOrder/containers"),
            Just("$deleteFromPrimitiveList/finalizers"),
            Just("$setElementOrder/finalizers"),
            Just("ports"),
            Just("replace"),
            Just("delete"),
            Just("volumes"),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            (0..3i64).prop_map(Value::from),
            word.clone().prop_map(Value::from),
            Just(json!(1.5))
        ];
        leaf.prop_recursive(5, 40, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map(word.clone().prop_map(str::to_owned), inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_patch_panics(before in patches(), patch in patches()) {
            let _ = apply(&pod(), before.clone(), object(patch.clone()));
            let _ = diff(&pod(), &object(before.clone()), &object(patch.clone()));
            let _ = three_way(&pod(), &object(before.clone()), &object(patch), &object(before), false);
        }
    }
}
