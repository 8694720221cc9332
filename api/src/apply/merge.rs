//! Merges an applied configuration into the live object. Nothing is removed here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::view::{At, Form, Items, is_empty};
use crate::schema::TypeRef;

/// The live object with everything that is applied, which fits its type and has no item twice.
pub(super) fn merge(ty: &TypeRef, live: &Value, applied: &Value) -> Value {
    merged(At::root(ty), Some(live), Some(applied)).unwrap_or_default()
}

fn merged(at: At<'_>, live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
    let form = at.form(applied.filter(|applied| !applied.is_null()).or(live));
    let keep = || applied.or(live).cloned();
    // What is empty on both sides stays as it was written last.
    if is_empty(live) && is_empty(applied) {
        return keep();
    }
    match form {
        Form::Leaf(_) => keep(),
        Form::List(items) => match (list(live), list(applied)) {
            (Some(live), Some(applied)) => merge_lists(items, live, applied).or_else(keep),
            _ => keep(),
        },
        Form::Struct(_) | Form::Map(_) => {
            let (Some(live), Some(applied)) = (object(live), object(applied)) else { return keep() };
            let child = |name: &str| match form {
                Form::Struct(fields) => at.field(fields, name),
                Form::Map(item) => Some(item),
                _ => None,
            };
            let names = live.keys().chain(applied.keys().filter(|name| !live.contains_key(*name)));
            let mut out = Map::new();
            for name in names {
                let (live, applied) = (live.get(name), applied.get(name));
                let value = match child(name) {
                    Some(at) => merged(at, live, applied),
                    None => applied.or(live).cloned(),
                };
                if let Some(value) = value {
                    out.insert(name.clone(), value);
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
    }
}

static NO_FIELDS: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

fn object(value: Option<&Value>) -> Option<&Map<String, Value>> {
    match value {
        None | Some(Value::Null) => Some(&NO_FIELDS),
        Some(Value::Object(fields)) => Some(fields),
        Some(_) => None,
    }
}

fn list(value: Option<&Value>) -> Option<&[Value]> {
    match value {
        None | Some(Value::Null) => Some(&[]),
        Some(Value::Array(items)) => Some(items),
        Some(_) => None,
    }
}

/// Merges lists item by item. The order is that of the applied list for the items in it; what only the live list has
/// keeps its place between the items that both have. None if items can't be told apart.
fn merge_lists(items: Items<'_>, live: &[Value], applied: &[Value]) -> Option<Value> {
    let steps = |list: &[Value]| -> Option<Vec<String>> { list.iter().map(|i| items.step(i).ok()).collect() };
    let (left, right) = (steps(live)?, steps(applied)?);
    // Several live items under one step have nothing in them that could be merged.
    let mut in_live: BTreeMap<&str, Option<&Value>> = BTreeMap::new();
    for (step, item) in left.iter().zip(live) {
        in_live.entry(step).and_modify(|known| *known = None).or_insert(Some(item));
    }
    let in_applied: BTreeSet<&str> = right.iter().map(String::as_str).collect();
    let mut shared = right.iter().map(String::as_str).filter(|step| in_live.contains_key(step));
    let mut next = shared.next();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut out = Vec::with_capacity(live.len().max(applied.len()));
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            let step = left[l].as_str();
            if step == right[r] {
                done.insert(step);
                let was = in_live.get(step).copied().flatten();
                out.extend(merged(items.item, was, Some(&applied[r])));
                l += 1;
                r += 1;
                next = shared.next();
                continue;
            }
            if in_applied.contains(step) && next.is_some_and(|next| next != step) {
                // In both, but it is not its turn yet.
                l += 1;
                continue;
            }
        }
        if l < left.len() {
            let step = left[l].as_str();
            if !in_applied.contains(step) {
                out.push(live[l].clone());
                l += 1;
                continue;
            }
            if done.contains(step) {
                l += 1;
            }
        }
        if r < right.len() {
            let step = right[r].as_str();
            done.insert(step);
            let was = in_live.get(step).copied().flatten();
            out.extend(merged(items.item, was, Some(&applied[r])));
            r += 1;
            if next == Some(step) {
                next = shared.next();
            }
        }
    }
    (!out.is_empty()).then_some(Value::Array(out))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn finalizers(names: &[&str]) -> Value {
        json!({"metadata": {"finalizers": names}})
    }

    #[test]
    fn the_order_of_a_list_is_that_of_upstream() {
        let pod = TypeRef::builtin("", "v1", "Pod").expect("known");
        for (live, applied, expect) in [
            (&["a", "b"][..], &["a", "b"][..], &["a", "b"][..]),
            (&["a", "b"], &["b", "a"], &["b", "a"]),
            (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
            (&["a", "b", "c"], &["a", "c"], &["a", "b", "c"]),
            (&["a", "b"], &["c"], &["a", "b", "c"]),
            (&["a", "b"], &["c", "a"], &["c", "a", "b"]),
            (&["a", "b", "c", "d"], &["d", "c", "b", "a"], &["d", "c", "b", "a"]),
            (&["a", "b", "c"], &["x", "b", "y"], &["a", "x", "b", "c", "y"]),
            (&[], &["a"], &["a"]),
            (&["a"], &[], &["a"]),
        ] {
            assert_eq!(
                merge(&pod, &finalizers(live), &finalizers(applied)),
                finalizers(expect),
                "{live:?} {applied:?}"
            );
        }
    }

    #[test]
    fn structs_maps_and_items_are_merged_and_wholes_replaced() {
        let pod = TypeRef::builtin("", "v1", "Pod").expect("known");
        let live = json!({
            "metadata": {"labels": {"a": "1", "b": "2"}},
            "spec": {
                "nodeSelector": {"x": "1"},
                "tolerations": [{"key": "a"}],
                "containers": [
                    {"name": "a", "image": "1", "args": ["x"], "ports": [{"containerPort": 80, "protocol": "TCP"}]},
                    {"name": "b", "image": "1"}
                ]
            }
        });
        let applied = json!({
            "metadata": {"labels": {"b": "3", "c": "4"}},
            "spec": {
                "nodeSelector": {"y": "1"},
                "tolerations": [{"key": "b"}],
                "containers": [{
                    "name": "a", "args": ["y"],
                    "ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 80, "protocol": "UDP"}]
                }]
            }
        });
        assert_eq!(
            merge(&pod, &live, &applied),
            json!({
                "metadata": {"labels": {"a": "1", "b": "3", "c": "4"}},
                "spec": {
                    "nodeSelector": {"y": "1"},
                    "tolerations": [{"key": "b"}],
                    "containers": [
                        {
                            "name": "a", "image": "1", "args": ["y"],
                            "ports": [
                                {"containerPort": 80, "protocol": "TCP", "name": "web"},
                                {"containerPort": 80, "protocol": "UDP"}
                            ]
                        },
                        {"name": "b", "image": "1"}
                    ]
                }
            })
        );
    }
}
