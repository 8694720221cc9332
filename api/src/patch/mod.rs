//! Changes to objects: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7396) and strategic merge patch.
//!
//! All work on untyped values; the caller decodes the result against its type
//! ([`decode_value`](crate::schema::decode::decode_value)), which prunes it and finds what is wrong with it.

mod operations;
pub mod strategic;

use serde_json::{Map, Value};

pub use operations::json;

use crate::{
    schema::decode,
    status::{Reason, Status},
};

/// The patch can't be applied. [`Status`] says what clients see, which for some of these is less than is known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is malformed.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well formed but doesn't fit the object.
    #[error("{0}")]
    Unfit(String),
    /// Too big.
    #[error("{0}")]
    TooLarge(String),
    /// The patch would undo changes that others made (only when a patch is made, never when it is applied).
    #[error("{0}")]
    Conflict(String),
    /// The patch treats a field as something that it is not.
    #[error("{0}")]
    Type(String),
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Malformed(message) => Self::bad_request(message),
            // Upstream keeps the reason to itself.
            PatchError::Unfit(_) => Self::rejected(),
            PatchError::TooLarge(message) => Self::request_entity_too_large(message),
            PatchError::Conflict(message) => Self::failure(409, Reason::Conflict, message),
            // Upstream has no answer of its own for it.
            PatchError::Type(message) => Self::failure(500, Reason::Unknown, message),
        }
    }
}

/// Reads the body of a merge or strategic merge patch.
pub fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, PatchError> {
    let word = match decode::parse(bytes) {
        Ok(Value::Object(map)) => return Ok(map),
        Ok(Value::Null) => return Ok(Map::new()),
        Ok(Value::Bool(_)) => "bool",
        Ok(Value::Number(_)) => "number",
        Ok(Value::String(_)) => "string",
        Ok(Value::Array(_)) => "array",
        Err(error) => return Err(PatchError::Malformed(format!("error decoding patch: {error}"))),
    };
    Err(PatchError::Malformed(format!(
        "error decoding patch: json: cannot unmarshal {word} into Go value of type map[string]interface {{}}"
    )))
}

/// Applies a JSON Merge Patch.
pub fn merge(object: Value, patch: Map<String, Value>) -> Value {
    let mut object = match object {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    for (key, change) in patch {
        match change {
            Value::Null => {
                object.remove(&key);
            }
            Value::Object(change) => {
                let before = object.remove(&key).unwrap_or_default();
                object.insert(key, merge(before, change));
            }
            change => {
                object.insert(key, change);
            }
        }
    }
    Value::Object(object)
}

/// Makes the JSON Merge Patch that turns one object into another.
pub fn merge_diff(from: &Map<String, Value>, to: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, value) in to {
        match (from.get(key), value) {
            (Some(before), value) if before == value => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                patch.insert(key.clone(), merge_diff(before, after).into());
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    patch
}

/// Makes the JSON Merge Patch by which a client's apply changes `current` from what it applied last (`original`) to
/// what it applies now (`modified`), keeping what others set. For kinds without a strategic merge.
pub fn merge_three_way(
    original: &Map<String, Value>,
    modified: &Map<String, Value>,
    current: &Map<String, Value>,
) -> Map<String, Value> {
    let changes = keep_nulls(merge_diff(current, modified), false);
    let deletions = keep_nulls(merge_diff(original, modified), true);
    combine(deletions, changes)
}

/// Only the deletions of a patch, or all but them.
fn keep_nulls(patch: Map<String, Value>, nulls: bool) -> Map<String, Value> {
    let keep = |(key, value): (String, Value)| match value {
        Value::Object(inner) => {
            let was_empty = inner.is_empty();
            let inner = keep_nulls(inner, nulls);
            (!inner.is_empty() || (was_empty && !nulls)).then_some((key, Value::Object(inner)))
        }
        value => (value.is_null() == nulls).then_some((key, value)),
    };
    patch.into_iter().filter_map(keep).collect()
}

/// Two patches as one; the second wins.
fn combine(mut first: Map<String, Value>, second: Map<String, Value>) -> Map<String, Value> {
    for (key, value) in second {
        match (first.remove(&key), value) {
            (Some(Value::Object(a)), Value::Object(b)) => {
                first.insert(key, combine(a, b).into());
            }
            (_, value) => {
                first.insert(key, value);
            }
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn merge_patches_set_and_remove() {
        let before = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        let patch = json!({"a": {"b": null, "c": [3], "e": {"x": null, "y": 1}}, "d": {"z": 1}});
        assert_eq!(merge(before, object(patch)), json!({"a": {"c": [3], "e": {"y": 1}}, "d": {"z": 1}}));
    }

    #[test]
    fn a_merge_patch_is_an_object() {
        assert_eq!(
            parse_object(b"[]").expect_err("a list").to_string(),
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
        assert!(parse_object(b"{").is_err());
    }

    #[test]
    fn a_clients_apply_keeps_what_others_set() {
        let original = object(json!({"a": 1, "gone": {"x": 1}}));
        let modified = object(json!({"a": 2}));
        let current = object(json!({"a": 1, "gone": {"x": 1, "others": 1}, "others": 1}));
        let patch = merge_three_way(&original, &modified, &current);
        assert_eq!(Value::Object(patch), json!({"a": 2, "gone": null}));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..3i64).prop_map(Value::from)];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[abc]", inner, 0..3)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    fn objects() -> impl Strategy<Value = Map<String, Value>> {
        proptest::collection::btree_map("[abc]", values(), 0..4).prop_map(|m| m.into_iter().collect())
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_the_target(from in objects(), to in objects()) {
            let patch = merge_diff(&from, &to);
            prop_assert_eq!(merge(Value::Object(from), patch), Value::Object(to));
        }
    }
}
