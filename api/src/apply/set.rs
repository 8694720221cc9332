//! Sets of fields.
//!
//! A set is kept in the very form in which it is stored (`fieldsV1`), so that reading and writing one costs nothing, and
//! a change of one costs what is changed: a tree of [steps](super::step). A field is a member if nothing is below it
//! (`{}`), or if it says so itself (`".": {}`).

use serde_json::{Map, Value};

use super::step::{self, SELF};

/// What is below one field: steps, and what is below them.
pub(super) type Tree = Map<String, Value>;

/// A set of fields of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(pub(super) Tree);

/// A set that somebody wrote is none; what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error decoding set: {0}")]
pub struct BadSet(String);

impl Set {
    /// The set of these fields, each given by the names of the fields that lead to it.
    pub fn of(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let mut node = Value::Object(Tree::new());
            for name in path.iter().rev() {
                node = Value::Object(Tree::from_iter([(step::field(name), node)]));
            }
            if let Value::Object(tree) = node {
                set.add(&Self(tree));
            }
        }
        set
    }

    /// Reads a set that somebody else wrote.
    pub fn read(value: &Value) -> Result<Self, BadSet> {
        match read(value)? {
            Some((_, tree)) => Ok(Self(tree)),
            None => Ok(Self::default()),
        }
    }

    /// A set that this module wrote before.
    pub(super) fn trusted(value: Value) -> Self {
        match value {
            Value::Object(tree) => Self(tree),
            _ => Self::default(),
        }
    }

    /// The form in which it is stored.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds all members of another set.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.0, &other.0);
    }

    /// Takes the members of another set out; what is below them stays.
    pub fn remove(&mut self, other: &Self) {
        remove(&mut self.0, &other.0);
    }

    /// Takes the members of another set out, and all that is below them.
    pub fn remove_below(&mut self, other: &Self) {
        remove_below(&mut self.0, &other.0);
    }

    /// What both sets have.
    pub fn shared(&self, other: &Self) -> Self {
        Self(shared(&self.0, &other.0))
    }

    /// Whether the field to which these names lead is a member.
    pub fn has(&self, path: &[&str]) -> bool {
        let mut tree = &self.0;
        for (i, name) in path.iter().enumerate() {
            match tree.get(&step::field(name)) {
                Some(node) if i + 1 == path.len() => return is_member(node),
                Some(Value::Object(below)) => tree = below,
                _ => return false,
            }
        }
        false
    }

    /// Every member as messages show it (`.spec.containers[name="a"].image`): the members of one level before what is
    /// below them.
    pub fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        paths(&self.0, "", &mut all);
        all
    }
}

/// Reads a node: whether it is a member itself, and what is below it. None: it is nothing but a member.
fn read(value: &Value) -> Result<Option<(bool, Tree)>, BadSet> {
    let fields = match value {
        Value::Object(fields) => fields,
        Value::Null => return Ok(None),
        other => return Err(BadSet(format!("expected an object, got {other}"))),
    };
    let mut member = false;
    let mut tree = Tree::new();
    for (name, below) in fields {
        if name == SELF {
            member = true;
            continue;
        }
        let Some(step) = step::canonical(name).map_err(BadSet)? else { continue };
        let (is_member, children) = read(below)?.unwrap_or((true, Tree::new()));
        // Two ways to write one step are one step.
        add(&mut tree, &Tree::from_iter(join(is_member, children).map(|node| (step, node))));
    }
    Ok(if tree.is_empty() { None } else { Some((member, tree)) })
}

/// Whether a node is a member itself.
pub(super) fn is_member(node: &Value) -> bool {
    node.as_object().is_none_or(|tree| tree.is_empty() || tree.contains_key(SELF))
}

/// What is below a node.
pub(super) fn below(node: &Value) -> Option<&Tree> {
    node.as_object().filter(|tree| !tree.is_empty())
}

/// Takes a node apart.
fn split(node: &mut Value) -> (bool, Tree) {
    match node.take() {
        Value::Object(mut tree) => {
            let member = tree.is_empty() || tree.remove(SELF).is_some();
            (member, tree)
        }
        _ => (true, Tree::new()),
    }
}

/// Puts a node together; None if it says nothing.
pub(super) fn join(member: bool, mut below: Tree) -> Option<Value> {
    if below.is_empty() {
        return member.then_some(Value::Object(below));
    }
    if member {
        below.insert(SELF.to_owned(), Value::Object(Tree::new()));
    }
    Some(Value::Object(below))
}

/// The steps of a tree and their nodes.
pub(super) fn steps(tree: &Tree) -> impl Iterator<Item = (&String, &Value)> {
    tree.iter().filter(|(step, _)| *step != SELF)
}

/// Puts a node into a tree, or takes out the one that is there.
fn put(tree: &mut Tree, step: &str, node: Option<Value>) {
    match (node, tree.get_mut(step)) {
        (Some(node), Some(place)) => *place = node,
        (Some(node), None) => drop(tree.insert(step.to_owned(), node)),
        (None, _) => drop(tree.remove(step)),
    }
}

pub(super) fn add(tree: &mut Tree, other: &Tree) {
    for (step, theirs) in steps(other) {
        let Some(ours) = tree.get_mut(step) else {
            tree.insert(step.clone(), theirs.clone());
            continue;
        };
        // Most often it is there already, and nothing is to do.
        let member = is_member(ours);
        let becomes_member = !member && is_member(theirs);
        let more = below(theirs);
        if let Some(ours) = ours.as_object_mut().filter(|_| becomes_member || more.is_some()) {
            if becomes_member || ours.is_empty() {
                ours.insert(SELF.to_owned(), Value::Object(Tree::new()));
            }
            if let Some(more) = more {
                add(ours, more);
            }
        }
    }
}

fn remove(tree: &mut Tree, other: &Tree) {
    for (step, theirs) in steps(other) {
        let Some(ours) = tree.get_mut(step) else { continue };
        let (member, mut tree_below) = split(ours);
        if let Some(less) = below(theirs) {
            remove(&mut tree_below, less);
        }
        put(tree, step, join(member && !is_member(theirs), tree_below));
    }
}

fn remove_below(tree: &mut Tree, other: &Tree) {
    for (step, theirs) in steps(other) {
        if is_member(theirs) {
            tree.remove(step);
            continue;
        }
        let (Some(ours), Some(less)) = (tree.get_mut(step), below(theirs)) else { continue };
        let (member, mut tree_below) = split(ours);
        remove_below(&mut tree_below, less);
        put(tree, step, join(member, tree_below));
    }
}

fn shared(a: &Tree, b: &Tree) -> Tree {
    let both = |(step, ours): (&String, &Value)| {
        let theirs = b.get(step)?;
        let tree = match (below(ours), below(theirs)) {
            (Some(ours), Some(theirs)) => shared(ours, theirs),
            _ => Tree::new(),
        };
        Some((step.clone(), join(is_member(ours) && is_member(theirs), tree)?))
    };
    steps(a).filter_map(both).collect()
}

fn paths(tree: &Tree, prefix: &str, all: &mut Vec<String>) {
    let mut nodes: Vec<(&String, &Value)> = steps(tree).collect();
    nodes.sort_by(|(a, _), (b, _)| step::order(a, b));
    let path = |step: &str| format!("{prefix}{}", step::show(step));
    all.extend(nodes.iter().filter(|(_, node)| is_member(node)).map(|(step, _)| path(step)));
    for (step, node) in nodes {
        if let Some(tree) = below(node) {
            paths(tree, &path(step), all);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn set(value: Value) -> Set {
        Set::read(&value).expect("a set")
    }

    #[test]
    fn sets_are_added_taken_away_and_compared() {
        let a = set(json!({"f:a": {}, "f:b": {"f:c": {}, "f:d": {}}, "f:e": {".": {}, "f:x": {}}}));
        let b = set(json!({"f:a": {"f:y": {}}, "f:b": {".": {}, "f:c": {}}, "f:e": {}}));
        let mut sum = a.clone();
        sum.add(&b);
        assert_eq!(
            sum.clone().into_value(),
            json!({"f:a": {".": {}, "f:y": {}}, "f:b": {".": {}, "f:c": {}, "f:d": {}}, "f:e": {".": {}, "f:x": {}}})
        );
        let mut rest = a.clone();
        rest.remove(&b);
        assert_eq!(rest.into_value(), json!({"f:a": {}, "f:b": {"f:d": {}}, "f:e": {"f:x": {}}}));
        let mut rest = a.clone();
        rest.remove_below(&b);
        assert_eq!(rest.into_value(), json!({"f:a": {}}));
        assert_eq!(a.shared(&b).into_value(), json!({"f:b": {"f:c": {}}, "f:e": {}}));
        assert!(a.has(&["b", "c"]) && a.has(&["e"]) && !a.has(&["b"]) && !a.has(&["b", "z"]));
    }

    #[test]
    fn what_others_wrote_is_read_in_one_form() {
        assert_eq!(
            set(json!({"f:a": {".": {}}, "x:y": {}, "f:l": {r#"k:{"b":1, "a":2}"#: {".": {}, "f:c": null}}})),
            set(json!({"f:a": {}, "f:l": {r#"k:{"a":2,"b":1}"#: {"f:c": {}, ".": {}}}}))
        );
        for bad in [json!([]), json!({"f:a": 1}), json!({"a": {}}), json!({"k:x": {}})] {
            assert!(Set::read(&bad).is_err(), "{bad}");
        }
        assert!(set(json!({})).is_empty());
    }

    #[test]
    fn paths_are_shown_members_first() {
        let set = set(json!({
            "f:spec": {".": {}, "f:replicas": {}, "f:containers": {r#"k:{"name":"a"}"#: {".": {}, "f:image": {}}}},
            "f:data": {}
        }));
        assert_eq!(
            set.paths(),
            [
                ".data",
                ".spec",
                ".spec.replicas",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image"
            ]
        );
    }

    fn sets() -> impl Strategy<Value = Set> {
        let leaf = Just(json!({}));
        let node = leaf.prop_recursive(3, 12, 3, |inner| {
            proptest::collection::btree_map("f:[abc]|[.]", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect()))
        });
        node.prop_map(|value| Set::read(&value).unwrap_or_default())
    }

    proptest! {
        #[test]
        fn sets_obey_the_laws_of_sets(a in sets(), b in sets()) {
            let (mut ab, mut ba, mut rest) = (a.clone(), b.clone(), a.clone());
            ab.add(&b);
            ba.add(&a);
            prop_assert_eq!(&ab, &ba);
            prop_assert_eq!(a.shared(&ab), a.clone());
            rest.remove(&b);
            prop_assert!(rest.shared(&b).is_empty());
            rest.add(&a.shared(&b));
            prop_assert_eq!(&rest, &a);
            prop_assert_eq!(Set::read(&ab.clone().into_value()), Ok(ab));
        }
    }
}
