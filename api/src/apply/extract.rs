//! The set of all fields that an object has, and what is wrong with an object that is applied.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::set::{Set, Tree, join};
use super::step;
use super::view::{At, Form, Items, Leaf};
use crate::{field::quote, schema::TypeRef};

/// So many problems are told at most: nobody reads more, and an answer need not be larger than its question.
const MOST_PROBLEMS: usize = 1000;

/// The fields that an object has: its leaves, the items of its lists, the entries of its maps.
pub fn fields_of(ty: &TypeRef, object: &Value) -> Set {
    let mut tree = Tree::new();
    collect(At::root(ty), object, &mut tree);
    Set(tree)
}

/// Puts what is below a value into the tree; true if the value is a member itself.
pub(super) fn collect(at: At<'_>, value: &Value, tree: &mut Tree) -> bool {
    match (at.form(Some(value)), value) {
        (Form::Leaf(_), _) => return true,
        (Form::Struct(fields), Value::Object(map)) => {
            for (name, value) in map {
                if let Some(at) = at.field(fields, name) {
                    entry(at, name, value, false, tree);
                }
            }
        }
        (Form::Map(item), Value::Object(map)) => {
            map.iter().for_each(|(name, value)| entry(item, name, value, true, tree));
        }
        (Form::List(items), Value::Array(list)) => collect_items(items, list, tree),
        _ => {}
    }
    false
}

fn entry(at: At<'_>, name: &str, value: &Value, of_map: bool, tree: &mut Tree) {
    let mut below = Tree::new();
    let leaf = collect(at, value, &mut below);
    let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    if let Some(node) = join(leaf || empty || of_map, below) {
        tree.insert(step::field(name), node);
    }
}

fn collect_items(items: Items<'_>, list: &[Value], tree: &mut Tree) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let steps: Vec<Option<String>> = list.iter().map(|item| items.step(item).ok()).collect();
    steps.iter().flatten().for_each(|step| *seen.entry(step.clone()).or_default() += 1);
    for (item, step) in list.iter().zip(steps) {
        let Some(step) = step else { continue };
        let mut below = Tree::new();
        // Several items under one step are owned together, as one value.
        if seen.get(&step) == Some(&1) {
            collect(items.item, item, &mut below);
        }
        if let Some(node) = join(true, below) {
            tree.insert(step, node);
        }
    }
}

/// What is wrong with an object that is applied, as upstream tells it: `.spec.foo: field not declared in schema`. Empty
/// if it fits its type.
pub(super) fn problems(ty: &TypeRef, object: &Value) -> String {
    let mut all = Vec::new();
    check(At::root(ty), object, "", &mut all);
    match all.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        several => format!("errors:\n  {}", several.join("\n  ")),
    }
}

fn check(at: At<'_>, value: &Value, path: &str, all: &mut Vec<String>) {
    if value.is_null() || all.len() >= MOST_PROBLEMS {
        return;
    }
    let mut wrong = |why: String| {
        all.push(if path.is_empty() { why } else { format!("{path}: {why}") });
    };
    match (at.form(Some(value)), value) {
        (Form::Leaf(Leaf::Opaque), _) => {}
        (Form::Leaf(Leaf::Whole), _) => check_inside(at, value, path, all),
        (Form::Leaf(leaf), value) => {
            if let Some(why) = check_scalar(leaf, value) {
                wrong(why);
            }
        }
        (Form::Struct(_) | Form::Map(_), Value::Object(_)) => {
            check_fields(at, at.form(Some(value)), value, path, all)
        }
        (Form::Struct(_) | Form::Map(_), other) => {
            wrong(format!("expected map, got &{{{}}}", go_text(other)))
        }
        (Form::List(items), Value::Array(list)) => check_items(items, list, path, all),
        (Form::List(_), other) => wrong(format!("expected list, got &{{{}}}", go_text(other))),
    }
}

fn check_fields(at: At<'_>, form: Form<'_>, value: &Value, path: &str, all: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let at = match form {
            Form::Struct(fields) => at.field(fields, name),
            Form::Map(item) => Some(item),
            _ => None,
        };
        match at {
            Some(at) => check(at, value, &path, all),
            None => {
                all.push(format!("{path}: field not declared in schema"));
                // The rest of this object is not looked at.
                return;
            }
        }
    }
}

fn check_items(items: Items<'_>, list: &[Value], path: &str, all: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (i, item) in list.iter().enumerate() {
        let step = match items.step(item) {
            Ok(step) => step,
            Err(why) => {
                all.push(format!("{path}: element {i}: {why}"));
                return;
            }
        };
        let shown = step::show(&step);
        if !seen.insert(step) {
            all.push(format!("{path}: duplicate entries for key {shown}"));
        }
        check(items.item, item, &format!("{path}{shown}"), all);
    }
}

/// What is taken as a whole must fit its type all the same.
fn check_inside(at: At<'_>, value: &Value, path: &str, all: &mut Vec<String>) {
    match (at.inside(value), value) {
        (Some(form), Value::Object(_)) => check_fields(at, form, value, path, all),
        (Some(_), other) => all.push(format!("{path}: expected map, got &{{{}}}", go_text(other))),
        (None, Value::Array(list)) => {
            let Some(item) = at.items_inside() else { return };
            for (i, value) in list.iter().enumerate() {
                check(item, value, &format!("{path}[{i}]"), all);
            }
        }
        (None, other) => all.push(format!("{path}: expected list, got &{{{}}}", go_text(other))),
    }
}

fn check_scalar(leaf: Leaf, value: &Value) -> Option<String> {
    let go_type = |value: &Value| match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    let scalar = !matches!(value, Value::Array(_) | Value::Object(_));
    match leaf {
        Leaf::Number if !value.is_number() => {
            Some(format!("expected numeric (int or float), got {}", go_type(value)))
        }
        Leaf::Text if !value.is_string() => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)))
        }
        Leaf::Boolean if !value.is_boolean() => {
            Some(format!("expected boolean, got &{{{}}}", go_text(value)))
        }
        Leaf::Scalar if !scalar => Some(format!("expected any scalar, got &{{{}}}", go_text(value))),
        _ => None,
    }
}

/// A value as Go's `%v` shows it.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}:{}", go_text(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

/// A value as Go's `%#v` shows it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => quote(text),
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{}:{}", quote(name), go_syntax(value))).collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment() -> TypeRef {
        TypeRef::builtin("apps", "v1", "Deployment").expect("known")
    }

    #[test]
    fn a_set_has_leaves_items_and_entries() {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a", "labels": {"x": "1"}, "annotations": {}, "finalizers": ["b/c", "d/e"]},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"x": "1"}},
                "template": {"spec": {
                    "containers": [{
                        "name": "c", "image": "i", "args": ["x"], "resources": {},
                        "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
                        "env": [{"name": "A", "value": "1"}]
                    }],
                    "tolerations": [{"key": "k"}],
                    "volumes": []
                }}
            }
        });
        assert_eq!(
            fields_of(&deployment(), &object).into_value(),
            json!({
                "f:apiVersion": {}, "f:kind": {},
                "f:metadata": {
                    "f:name": {}, "f:labels": {"f:x": {}}, "f:annotations": {},
                    "f:finalizers": {"v:\"b/c\"": {}, "v:\"d/e\"": {}}
                },
                "f:spec": {
                    "f:replicas": {},
                    "f:selector": {},
                    "f:template": {"f:spec": {
                        "f:containers": {r#"k:{"name":"c"}"#: {
                            ".": {}, "f:name": {}, "f:image": {}, "f:args": {}, "f:resources": {},
                            "f:ports": {
                                r#"k:{"containerPort":80,"protocol":"TCP"}"#: {".": {}, "f:containerPort": {}},
                                r#"k:{"containerPort":53,"protocol":"UDP"}"#: {
                                    ".": {}, "f:containerPort": {}, "f:protocol": {}
                                }
                            },
                            "f:env": {r#"k:{"name":"A"}"#: {".": {}, "f:name": {}, "f:value": {}}}
                        }},
                        "f:tolerations": {}
                    }}
                }
            })
        );
    }

    #[test]
    fn problems_are_told_in_upstreams_words() {
        let spec = |spec: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec});
        let containers = |items: Value| spec(json!({"template": {"spec": {"containers": items}}}));
        let at = ".spec.template.spec.containers";
        for (object, expect) in [
            (spec(json!({"replicas": 1})), String::new()),
            (spec(json!({"foo": 1})), ".spec.foo: field not declared in schema".to_owned()),
            (
                spec(json!({"replicas": "1"})),
                ".spec.replicas: expected numeric (int or float), got string".to_owned(),
            ),
            (
                containers(json!([{"name": "a", "image": 5}])),
                format!("{at}[name=\"a\"].image: expected string, got &value.valueUnstructured{{Value:5}}"),
            ),
            (
                containers(json!([{"name": "a"}, {"name": "a"}])),
                format!("{at}: duplicate entries for key [name=\"a\"]"),
            ),
            (
                containers(json!([{"image": "a"}])),
                format!(
                    "{at}: element 0: associative list with keys has an element that omits all key fields \
                     [\"name\"] (and doesn't have default values for any key fields)"
                ),
            ),
            (containers(json!("x")), format!("{at}: expected list, got &{{x}}")),
            (spec(json!([1])), ".spec: expected map, got &{[1]}".to_owned()),
            (
                spec(json!({"paused": "x", "replicas": true})),
                "errors:\n  .spec.paused: expected boolean, got &{x}\n  .spec.replicas: expected numeric (int or \
                 float), got bool"
                    .to_owned(),
            ),
            (
                spec(json!({"selector": {"matchLabels": {"a": "b"}, "x": 1}})),
                ".spec.selector.x: field not declared in schema".to_owned(),
            ),
        ] {
            assert_eq!(problems(&deployment(), &object), expect, "{object}");
        }
    }
}
