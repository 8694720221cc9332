//! Makes the patches that kubectl makes: the difference of two objects, and the three-way patch of `apply`.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{
    At, DELETE, DIRECTIVE, Items, Mode, ORDER, Object, PatchError, Places, RETAIN, Result, deduplicated,
    identity, items_of, map_of, merge_map, no_merge_key, same_kind, sort_by,
};
use crate::schema::{Extra, TypeRef};

/// Which differences count.
#[derive(Clone, Copy)]
struct Options {
    deletions: bool,
    changes: bool,
    order: bool,
    retain_keys: bool,
}

/// Makes the patch that turns `from` into `to`.
pub fn diff(ty: &TypeRef, from: &Object, to: &Object) -> Result<Object> {
    let options = Options { deletions: true, changes: true, order: true, retain_keys: false };
    diff_maps(from, to, At { types: ty.types(), id: ty.id() }, options)
}

/// Makes the patch by which a client's apply changes `current` from what it applied last (`original`) to what it
/// applies now (`modified`), keeping what others set. Without `overwrite`, a change that others made since to the same
/// fields is a conflict.
pub fn three_way(
    ty: &TypeRef,
    original: &Object,
    modified: &Object,
    current: &Object,
    overwrite: bool,
) -> Result<Object> {
    let at = At { types: ty.types(), id: ty.id() };
    let all = Options { deletions: true, changes: true, order: true, retain_keys: false };
    let changes = diff_maps(current, modified, at, Options { deletions: false, ..all })?;
    let deletions = diff_maps(original, modified, at, Options { changes: false, ..all })?;
    let patch = merge_map(deletions, changes, at, Mode::Combine)?;
    if !overwrite {
        let others = diff_maps(original, current, at, Options { order: false, ..all })?;
        if conflict(&Value::Object(patch.clone()), &Value::Object(others.clone()), Some(at), None)? {
            return Err(PatchError::Conflict(format!(
                "patch:\n{}\nconflicts with changes made from original to current:\n{}\n",
                Value::Object(patch),
                Value::Object(others)
            )));
        }
    }
    Ok(patch)
}

fn diff_maps(from: &Object, to: &Object, at: At<'_>, options: Options) -> Result<Object> {
    let mut patch = Object::new();
    for (key, after) in to {
        let Some(before) = from.get(key) else {
            if options.changes {
                patch.insert(key.clone(), after.clone());
            }
            continue;
        };
        if key == DIRECTIVE {
            if !before.is_string() || !after.is_string() {
                return Err(PatchError::Type(format!("invalid value for special key: {DIRECTIVE}")));
            }
            if before != after {
                patch.insert(key.clone(), after.clone());
            }
            continue;
        }
        match (before, after) {
            (Value::Object(before), Value::Object(after)) => {
                // A field that the type doesn't know is no matter as long as it doesn't change.
                let (at, extra) = match at.field(key) {
                    Ok(found) => found,
                    Err(_) if before == after => continue,
                    Err(error) => return Err(error),
                };
                if extra.patch.replace {
                    if options.changes && before != after {
                        patch.insert(key.clone(), after.clone().into());
                    }
                    continue;
                }
                let options = Options { retain_keys: extra.patch.retain_keys, ..options };
                let inner = diff_maps(before, after, at, options)?;
                if !inner.is_empty() {
                    patch.insert(key.clone(), inner.into());
                }
            }
            (Value::Array(before), Value::Array(after)) => {
                let (at, extra) = match at.list(key) {
                    Ok(found) => found,
                    Err(_) if before == after => continue,
                    Err(error) => return Err(error),
                };
                if extra.patch.merge {
                    diff_merged_lists(key, before, after, at, extra, options, &mut patch)?;
                } else if options.changes && before != after {
                    patch.insert(key.clone(), after.clone().into());
                }
            }
            (before, after) => {
                if options.changes && (before != after || !same_kind(before, after)) {
                    patch.insert(key.clone(), after.clone());
                }
            }
        }
    }
    if options.deletions {
        for key in from.keys().filter(|key| !to.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    if options.retain_keys {
        let added = to.keys().any(|key| !from.contains_key(key));
        let mut kept: Vec<&String> = to.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
        if !kept.is_empty() && (!patch.is_empty() || added) {
            kept.sort();
            patch.insert(RETAIN.to_owned(), json!(kept));
        }
    }
    Ok(patch)
}

fn diff_merged_lists(
    key: &str,
    before: &[Value],
    after: &[Value],
    item: At<'_>,
    extra: &Extra,
    options: Options,
    patch: &mut Object,
) -> Result<()> {
    if before.is_empty() {
        if !after.is_empty() && options.changes {
            patch.insert(key.to_owned(), after.to_vec().into());
        }
        return Ok(());
    }
    let merge_key = extra.merge_key.as_deref();
    let order_directive = format!("{ORDER}/{key}");
    if items_of(&[before, after])? == Items::Scalars {
        let missing = |from: &[Value], of: &[Value]| -> Vec<Value> {
            let of: HashSet<&Value> = of.iter().collect();
            deduplicated(from.iter().filter(|v| !of.contains(v)).cloned())
        };
        let mut added = if options.changes { missing(after, before) } else { Vec::new() };
        let mut deleted = if options.deletions { missing(before, after) } else { Vec::new() };
        sort_by(&mut added, after, None)?;
        deleted.sort_by_cached_key(Value::to_string);
        let reorder = (options.deletions && !deleted.is_empty()) || (options.changes && before != after);
        if !added.is_empty() {
            patch.insert(key.to_owned(), added.into());
        }
        if !deleted.is_empty() {
            patch.insert(format!("{DELETE}/{key}"), deleted.into());
        }
        if options.order && reorder && !after.is_empty() {
            patch.insert(order_directive, after.to_vec().into());
        }
        return Ok(());
    }
    let Some(name) = merge_key else {
        let name = &item.types.get(item.id).go;
        return Err(PatchError::Type(format!("cannot merge lists without merge key for {name}")));
    };
    for value in before.iter().chain(after) {
        let map = map_of(value)?;
        if !map.contains_key(name) {
            return Err(no_merge_key(map, name));
        }
    }
    let (in_before, in_after) = (Places::of(before, merge_key), Places::of(after, merge_key));
    let mut changed = Vec::new();
    for value in after {
        match in_before.find(value).and_then(|at| before[at].as_object()) {
            Some(original) => {
                let options = Options { retain_keys: extra.patch.retain_keys, ..options };
                let mut inner = diff_maps(original, map_of(value)?, item, options)?;
                if !inner.is_empty() {
                    inner.insert(name.to_owned(), value[name].clone());
                    changed.push(Value::Object(inner));
                }
            }
            None if options.changes => changed.push(value.clone()),
            None => {}
        }
    }
    if options.deletions {
        let mut deleted: Vec<Value> = before
            .iter()
            .filter(|value| in_after.find(value).is_none())
            .map(|value| json!({name: value[name], DIRECTIVE: "delete"}))
            .collect();
        deleted.sort_by_cached_key(|value| value[name].to_string());
        changed.extend(deleted);
    }
    let same_order = before.len() == after.len()
        && before.iter().zip(after).all(|(a, b)| identity(a, merge_key) == identity(b, merge_key));
    let reorder = (options.changes && (!changed.is_empty() || !same_order))
        || (options.deletions && !changed.is_empty());
    if !changed.is_empty() {
        patch.insert(key.to_owned(), changed.into());
    }
    if options.order && reorder && !after.is_empty() {
        let order: Vec<Value> = after.iter().map(|value| json!({name: value[name]})).collect();
        patch.insert(order_directive, order.into());
    }
    Ok(())
}

/// Whether two patches set the same thing to different values.
fn conflict(left: &Value, right: &Value, at: Option<At<'_>>, extra: Option<&Extra>) -> Result<bool> {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            if left.get(DIRECTIVE) != right.get(DIRECTIVE) {
                return Ok(true);
            }
            if extra.is_some_and(|e| e.patch.replace) {
                return Ok(false);
            }
            for (key, value) in left.iter().filter(|(key, _)| *key != DIRECTIVE && *key != RETAIN) {
                let Some(other) = right.get(key) else { continue };
                let plain = !key.starts_with('$');
                let (at, extra) = match (value, at) {
                    (Value::Object(_), Some(at)) if plain => {
                        at.field(key).map(|(a, e)| (Some(a), Some(e)))?
                    }
                    (Value::Array(_), Some(at)) if plain => at.list(key).map(|(a, e)| (Some(a), Some(e)))?,
                    _ => (at, None),
                };
                if conflict(value, other, at, extra)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Value::Array(left), Value::Array(right)) => {
            if left.is_empty() && right.is_empty() {
                return Ok(false);
            }
            let kind = items_of(&[left, right])?;
            let merge_key = extra.and_then(|e| e.merge_key.as_deref());
            if extra.is_some_and(|e| e.patch.merge) {
                if kind == Items::Scalars {
                    return Ok(false);
                }
                let places = Places::of(right, merge_key);
                let without = right.iter().position(|other| identity(other, merge_key).is_none());
                for item in left {
                    let same = if identity(item, merge_key).is_none() { without } else { places.find(item) };
                    if let Some(other) = same
                        && conflict(item, &right[other], at, None)?
                    {
                        return Ok(true);
                    }
                }
                return Ok(false);
            }
            if left.len() != right.len() {
                return Ok(true);
            }
            for (left, right) in left.iter().zip(right) {
                if conflict(left, right, at, None)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (left, right) => Ok(left != right),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{
            apply,
            tests::{object, pod},
        },
        *,
    };

    fn patch(original: Value, modified: Value, current: Value, overwrite: bool) -> Result<Value> {
        three_way(&pod(), &object(original), &object(modified), &object(current), overwrite)
            .map(Value::Object)
    }

    #[test]
    fn apply_keeps_what_others_set_and_removes_what_was_applied_before() {
        let original = json!({"metadata": {"labels": {"a": "1", "b": "1"}},
            "spec": {"containers": [{"name": "a", "image": "1"}, {"name": "gone"}]}});
        let modified = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "a", "image": "2"}]}});
        let current = json!({"metadata": {"labels": {"a": "1", "b": "1", "others": "1"}},
            "spec": {"containers": [{"name": "a", "image": "1", "args": ["kept"]}, {"name": "gone"}, {"name": "others"}]}});
        let made = patch(original, modified, current.clone(), true).expect("a patch");
        assert_eq!(
            made,
            json!({"metadata": {"labels": {"b": null}},
                "spec": {"$setElementOrder/containers": [{"name": "a"}],
                    "containers": [{"name": "a", "image": "2"}, {"name": "gone", "$patch": "delete"}]}})
        );
        let after = apply(&pod(), current, object(made)).expect("it applies");
        assert_eq!(
            after,
            json!({"metadata": {"labels": {"a": "1", "others": "1"}},
                "spec": {"containers": [{"name": "a", "image": "2", "args": ["kept"]}, {"name": "others"}]}})
        );
    }

    #[test]
    fn changes_by_others_to_the_same_field_conflict_unless_overwritten() {
        let original = json!({"spec": {"containers": [{"name": "a", "image": "1"}]}});
        let modified = json!({"spec": {"containers": [{"name": "a", "image": "2"}]}});
        let current = json!({"spec": {"containers": [{"name": "a", "image": "3"}]}});
        assert!(matches!(
            patch(original.clone(), modified.clone(), current.clone(), false),
            Err(PatchError::Conflict(_))
        ));
        assert!(patch(original, modified, current, true).is_ok());
    }

    #[test]
    fn what_is_equal_needs_no_patch() {
        let same = json!({"metadata": {"finalizers": ["a"]}, "spec": {"containers": [{"name": "a"}], "bogus": {"x": [1]}}});
        assert_eq!(diff(&pod(), &object(same.clone()), &object(same)), Ok(Object::new()));
    }

    fn containers() -> impl Strategy<Value = Value> {
        let container = (
            proptest::option::of("[xy]"),
            proptest::option::of(proptest::collection::vec("[pq]", 1..3)),
            proptest::option::of(proptest::collection::btree_map("[mn]", "[xy]", 1..2)),
        );
        proptest::collection::btree_map("[abcd]", container, 1..4).prop_shuffle_values()
    }

    trait Shuffle: Strategy + Sized {
        fn prop_shuffle_values(self) -> BoxedStrategy<Value>;
    }

    type Container =
        (Option<String>, Option<Vec<String>>, Option<std::collections::BTreeMap<String, String>>);

    impl<S: Strategy<Value = std::collections::BTreeMap<String, Container>> + 'static> Shuffle for S {
        fn prop_shuffle_values(self) -> BoxedStrategy<Value> {
            self.prop_map(|m| m.into_iter().collect::<Vec<_>>())
                .prop_shuffle()
                .prop_map(|list| {
                    list.into_iter()
                        .map(|(name, (image, args, limits))| {
                            let mut c = json!({"name": name});
                            if let Some(image) = image {
                                c["image"] = image.into();
                            }
                            if let Some(args) = args {
                                c["args"] = args.into();
                            }
                            if let Some(limits) = limits {
                                c["resources"] = json!({"limits": limits});
                            }
                            c
                        })
                        .collect()
                })
                .boxed()
        }
    }

    prop_compose! {
        fn pods()(
            containers in containers(),
            finalizers in proptest::sample::subsequence(vec!["a", "b", "c"], 1..3).prop_shuffle(),
            labels in proptest::collection::btree_map("[ab]", "[xy]", 1..3),
            node in proptest::option::of("[xy]"),
        ) -> Value {
            let mut pod = json!({"metadata": {"finalizers": finalizers, "labels": labels}, "spec": {"containers": containers}});
            if let Some(node) = node {
                pod["spec"]["nodeName"] = node.into();
            }
            pod
        }
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_the_target(from in pods(), to in pods()) {
            let patch = diff(&pod(), &object(from.clone()), &object(to.clone())).expect("a patch");
            prop_assert_eq!(apply(&pod(), from, patch), Ok(to));
        }

        #[test]
        fn applying_twice_changes_nothing_more(original in pods(), modified in pods(), current in pods()) {
            let make = |current: &Value| three_way(
                &pod(), &object(original.clone()), &object(modified.clone()), &object(current.clone()), true);
            let after = apply(&pod(), current.clone(), make(&current).expect("a patch")).expect("it applies");
            let again = three_way(
                &pod(), &object(modified.clone()), &object(modified.clone()), &object(after.clone()), true);
            prop_assert_eq!(apply(&pod(), after.clone(), again.expect("a patch")), Ok(after));
        }
    }
}
