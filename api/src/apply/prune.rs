//! Takes away what a manager applied last time, does not apply now, and nobody else owns.

use serde_json::{Map, Value};

use super::extract;
use super::set::{Set, Tree, add, below, is_member, join, steps};
use super::step;
use super::view::{At, Form};
use crate::schema::TypeRef;

/// `merged` without what was in `last` and is owned by no one now. `owned` are the fields that anybody owns after the
/// apply, in the version of `ty`; so is `last`.
pub(super) fn prune(ty: &TypeRef, merged: &Value, last: &Set, owned: &Set) -> Value {
    let at = At::root(ty);
    let (last, owned) = (named(at, &last.0), named(at, &owned.0));
    let whole = named(at, &extract::fields_of(ty, merged).0);
    // What others own comes back, and with it what is needed to hold it.
    let without = without(at, merged, &last);
    let left = named(at, &extract::fields_of(ty, &without).0);
    let mut gone = Set(whole.clone());
    let mut kept = Set(left);
    kept.add(&Set(owned));
    gone.remove(&kept);
    let pruned = self::without(at, merged, &gone.0);
    // So does what this manager never owned.
    let mut gone = Set(whole);
    gone.remove(&Set(named(at, &extract::fields_of(ty, &pruned).0)));
    self::without(at, merged, &gone.shared(&Set(last)).0)
}

/// An object without the members of a set.
pub(super) fn leave_out(ty: &TypeRef, object: &Value, fields: &Set) -> Value {
    without(At::root(ty), object, &fields.0)
}

/// The set with every field of a struct that leads to a member.
fn named(at: At<'_>, tree: &Tree) -> Tree {
    let form = at.form(None);
    let mut out = Tree::new();
    for (step, node) in steps(tree) {
        let name = step.strip_prefix("f:");
        let (child, declared) = match (form, name) {
            (Form::Struct(fields), Some(name)) => match at.field(fields, name) {
                Some(child) => (Some(child), true),
                None => (None, false),
            },
            (Form::Map(item), Some(_)) => (Some(item), false),
            (Form::List(items), None) => (Some(items.item), false),
            _ => (None, false),
        };
        let inner = match (below(node), child) {
            (Some(tree), Some(child)) => named(child, tree),
            (Some(tree), None) => {
                let mut same = Tree::new();
                add(&mut same, tree);
                same
            }
            (None, _) => Tree::new(),
        };
        let member = is_member(node) || (declared && !inner.is_empty());
        if let Some(node) = join(member, inner) {
            out.insert(step.clone(), node);
        }
    }
    out
}

/// A value without the members of a set. What loses all its entries becomes null.
fn without(at: At<'_>, value: &Value, gone: &Tree) -> Value {
    if gone.is_empty() {
        return value.clone();
    }
    let form = at.form(Some(value));
    match (form, value) {
        (Form::Struct(_) | Form::Map(_), Value::Object(map)) => {
            let mut out = Map::new();
            for (name, value) in map {
                let node = gone.get(&step::field(name));
                if node.is_some_and(is_member) {
                    continue;
                }
                let child = match form {
                    Form::Struct(fields) => at.field(fields, name),
                    Form::Map(item) => Some(item),
                    _ => None,
                };
                let value = match (node.and_then(below), child) {
                    (Some(gone), Some(child)) => without(child, value, gone),
                    _ => value.clone(),
                };
                out.insert(name.clone(), value);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        (Form::List(items), Value::Array(list)) => {
            let mut out = Vec::with_capacity(list.len());
            for item in list {
                let node = items.step(item).ok().and_then(|step| gone.get(&step));
                match node {
                    Some(node) if is_member(node) => {}
                    Some(node) => out.push(match below(node) {
                        Some(gone) => without(items.item, item, gone),
                        None => item.clone(),
                    }),
                    None => out.push(item.clone()),
                }
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        (_, value) => value.clone(),
    }
}
