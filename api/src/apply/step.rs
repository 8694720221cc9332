//! One step of a path, written as `fieldsV1` writes it.
//!
//! - `f:NAME` a field of an object
//! - `k:{"KEY":VALUE,…}` the item of a list whose key fields have these values
//! - `v:VALUE` the item of a set of scalars
//! - `i:NUMBER` the item at a place
//!
//! Within the program a step is this text in one canonical form (keys sorted, no spaces, whole numbers without a
//! fraction), so that equal steps are equal texts.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use crate::field::quote;

/// The mark that a field which has members below it is a member itself.
pub(super) const SELF: &str = ".";

/// The step to a field.
pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The step to an item of a set; None if it is no scalar.
pub(super) fn value(item: &Value) -> Option<String> {
    match item {
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        Value::Number(number) => Some(format!("v:{}", whole(number))),
        scalar => Some(format!("v:{scalar}")),
    }
}

/// The step to an item of a list with keys, by the key fields that it has.
pub(super) fn key<'a>(fields: impl Iterator<Item = (&'a str, &'a Value)>) -> String {
    let mut fields = fields.peekable();
    // Most lists have one key.
    if let Some((name, value @ (Value::String(_) | Value::Bool(_)))) = fields.peek().copied() {
        let first = fields.next();
        if fields.peek().is_none() {
            return format!("k:{{{}:{value}}}", Value::from(name));
        }
        return keys(first.into_iter().chain(fields));
    }
    keys(fields)
}

fn keys<'a>(fields: impl Iterator<Item = (&'a str, &'a Value)>) -> String {
    let fields: Map<String, Value> = fields.map(|(name, value)| (name.to_owned(), plain(value))).collect();
    format!("k:{}", Value::Object(fields))
}

/// A number that is whole, as such.
fn whole(number: &Number) -> Number {
    match number.as_f64() {
        // Beyond 2^53 not every whole number is a float.
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 =>
        {
            #[allow(clippy::cast_possible_truncation)]
            Number::from(float as i64)
        }
        _ => number.clone(),
    }
}

fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(whole(number)),
        other => other.clone(),
    }
}

/// A step as somebody wrote it in its canonical form; None for a sort of step that is not known, which is passed over.
/// The error says what is wrong with it.
pub(super) fn canonical(text: &str) -> Result<Option<String>, String> {
    if text.len() < 2 {
        return Err("key must be 2 characters long:".to_owned());
    }
    let Some((sort, rest)) = text.split_once(':').filter(|(sort, _)| sort.len() == 1) else {
        return Err(format!("missing colon: {text}"));
    };
    let json = || serde_json::from_str::<Value>(rest).map_err(|error| error.to_string());
    Ok(match sort {
        "f" => Some(text.to_owned()),
        "v" => {
            let given = json()?;
            Some(value(&given).unwrap_or_else(|| format!("v:{given}")))
        }
        "k" => match json()? {
            Value::Object(fields) => Some(key(fields.iter().map(|(name, value)| (name.as_str(), value)))),
            other => return Err(format!("expected an object, got {other}")),
        },
        "i" => match rest.parse::<i64>() {
            Ok(place) => Some(format!("i:{place}")),
            Err(_) => return Err(format!("strconv.Atoi: parsing {}: invalid syntax", quote(rest))),
        },
        _ => None,
    })
}

/// A step as messages show it: `.spec`, `[name="a"]`, `[="x"]`, `[0]`.
pub(super) fn show(step: &str) -> String {
    let (sort, rest) = step.split_once(':').unwrap_or_default();
    match sort {
        "f" => format!(".{rest}"),
        "v" => format!("[={}]", shown(rest)),
        "k" => {
            let fields: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
            format!("[{}]", fields.join(","))
        }
        _ => format!("[{rest}]"),
    }
}

fn shown(json: &str) -> String {
    serde_json::from_str::<Value>(json).map(|value| text(&value)).unwrap_or_default()
}

/// A value as messages show it within a path.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}

/// The order of steps: fields, items by key, items by value, items by place; numbers by their size.
pub(super) fn order(a: &str, b: &str) -> Ordering {
    let rank = |step: &str| match step.as_bytes().first() {
        Some(b'f') => 0,
        Some(b'k') => 1,
        Some(b'v') => 2,
        _ => 3,
    };
    let by_rank = rank(a).cmp(&rank(b));
    if by_rank != Ordering::Equal || rank(a) == 0 {
        return by_rank.then_with(|| a.cmp(b));
    }
    let parsed = |step: &str| serde_json::from_str::<Value>(step.get(2..).unwrap_or_default()).ok();
    match (parsed(a), parsed(b)) {
        (Some(a), Some(b)) => order_values(&a, &b),
        _ => a.cmp(b),
    }
}

fn order_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let mut pairs = a.iter().zip(b);
            let first = pairs.find_map(|((k, v), (l, w))| match k.cmp(l).then_with(|| order_values(v, w)) {
                Ordering::Equal => None,
                different => Some(different),
            });
            first.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (a, b) => sort(a).cmp(&sort(b)),
    }
}

fn sort(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_one_canonical_form() {
        for (given, expect) in [
            ("f:spec", Some("f:spec")),
            ("f:a:b", Some("f:a:b")),
            (r#"k:{ "b": 1.0, "a":"x" }"#, Some(r#"k:{"a":"x","b":1}"#)),
            ("v: \"a\"", Some("v:\"a\"")),
            ("v:1.5", Some("v:1.5")),
            ("i:03", Some("i:3")),
            ("x:unknown", None),
        ] {
            assert_eq!(canonical(given), Ok(expect.map(str::to_owned)), "{given}");
        }
        for bad in ["", "f", "spec", "i:x", "k:[]", "k:{", "v:"] {
            assert!(canonical(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_are_shown_as_upstream_shows_them() {
        for (step, expect) in [
            ("f:spec", ".spec"),
            (r#"k:{"containerPort":80,"protocol":"TCP"}"#, r#"[containerPort=80,protocol="TCP"]"#),
            (r#"v:"a""#, r#"[="a"]"#),
            ("v:1", "[=1]"),
            ("i:2", "[2]"),
        ] {
            assert_eq!(show(step), expect);
        }
    }

    #[test]
    fn steps_are_ordered_by_sort_and_by_number() {
        let mut steps = ["i:1", "v:10", "v:9", r#"k:{"p":443}"#, r#"k:{"p":80}"#, "f:b", "f:a"];
        steps.sort_by(|a, b| order(a, b));
        assert_eq!(steps, ["f:a", "f:b", r#"k:{"p":80}"#, r#"k:{"p":443}"#, "v:9", "v:10", "i:1"]);
    }
}
