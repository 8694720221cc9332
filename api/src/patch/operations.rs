//! JSON Patch: a list of operations, each within bounds.
//!
//! A short patch can ask for much: `copy` doubles what is there, and `copy`, `move` and `add` put deep values into deep
//! places. So what is copied is counted, and no operation may make the object deeper than a reader would take it.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use super::PatchError;
use crate::schema::decode;

/// More operations than this are refused in one patch.
const MAX_OPERATIONS: usize = 10_000;
/// More bytes than this are not copied by one patch.
const MAX_COPIED: usize = 3 * 1024 * 1024;
/// Values may be nested this deep.
const MAX_DEPTH: usize = 300;
/// So many values are looked at while the depth of what moves is measured.
const MAX_VISITED: usize = 10_000_000;

/// Applies the body of a JSON Patch.
pub fn json(object: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let operations = decode::parse(patch).map_err(|error| PatchError::Malformed(error.to_string()))?;
    let Value::Array(list) = &operations else {
        let word = if operations.is_object() { "object" } else { "value" };
        return Err(PatchError::Malformed(format!(
            "json: cannot unmarshal {word} into Go value of type jsonpatch.Patch"
        )));
    };
    if list.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            list.len()
        )));
    }
    let patch: Patch =
        serde_json::from_value(operations).map_err(|error| PatchError::Unfit(error.to_string()))?;
    let mut result = object.clone();
    let mut spent = Spent::default();
    for operation in &patch.0 {
        spent.on(&result, operation)?;
        // Nothing has to be undone: what fails is thrown away.
        json_patch::patch_unsafe(&mut result, std::slice::from_ref(operation))
            .map_err(|error| PatchError::Unfit(error.to_string()))?;
    }
    Ok(result)
}

/// What the operations of a patch have asked for so far.
#[derive(Default)]
struct Spent {
    copied: usize,
    visited: usize,
}

impl Spent {
    /// Refuses an operation that would go too far.
    fn on(&mut self, object: &Value, operation: &PatchOperation) -> Result<(), PatchError> {
        let place = operation.path().count();
        match operation {
            PatchOperation::Add(add) => self.deep(&add.value, place),
            PatchOperation::Replace(replace) => self.deep(&replace.value, place),
            PatchOperation::Move(moved) => match object.pointer(moved.from.as_str()) {
                Some(value) => self.deep(value, place),
                // The operation itself says what is missing.
                None => Ok(()),
            },
            PatchOperation::Copy(copy) => {
                let Some(value) = object.pointer(copy.from.as_str()) else { return Ok(()) };
                self.deep(value, place)?;
                self.copied += value.to_string().len();
                if self.copied > MAX_COPIED {
                    return Err(PatchError::Unfit(format!(
                        "unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit \
                         {MAX_COPIED}",
                        self.copied
                    )));
                }
                Ok(())
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => Ok(()),
        }
    }

    /// Refuses a value that would be too deep at a place of this depth.
    fn deep(&mut self, value: &Value, place: usize) -> Result<(), PatchError> {
        let mut waiting = vec![(value, place)];
        while let Some((value, depth)) = waiting.pop() {
            self.visited += 1;
            if depth > MAX_DEPTH || self.visited > MAX_VISITED {
                return Err(PatchError::Unfit("exceeded max depth".to_owned()));
            }
            match value {
                Value::Array(items) => waiting.extend(items.iter().map(|item| (item, depth + 1))),
                Value::Object(fields) => waiting.extend(fields.values().map(|field| (field, depth + 1))),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::status::Status;

    fn code(object: &Value, patch: &Value) -> u16 {
        Status::from(json(object, patch.to_string().as_bytes()).expect_err("it is refused")).code
    }

    #[test]
    fn patches_change_or_fail_as_a_whole() {
        let before = json!({"a": [1, 2]});
        let ok =
            json(&before, br#"[{"op":"test","path":"/a/0","value":1},{"op":"add","path":"/a/-","value":3}]"#);
        assert_eq!(ok, Ok(json!({"a": [1, 2, 3]})));
        let unfit = json(&before, br#"[{"op":"remove","path":"/a/0"},{"op":"remove","path":"/b"}]"#);
        let status = Status::from(unfit.expect_err("no such path"));
        assert_eq!(status.code, 422);
        assert_eq!(status.message, "the server rejected our request due to an error in our request");
        assert_eq!(code(&before, &json!({})), 400);
        let many = vec![json!({"op": "test", "path": "/a/0", "value": 1}); 10_001];
        assert_eq!(code(&before, &Value::from(many)), 413);
    }

    #[test]
    fn a_patch_that_replaced_the_whole_object_fails_like_any_other() {
        let patch =
            json!([{"op": "move", "path": "", "from": "/a"}, {"op": "add", "path": "/b/c", "value": 1}]);
        assert_eq!(code(&json!({"a": "x"}), &patch), 422);
    }

    #[test]
    fn copies_of_copies_are_refused_before_they_fill_the_memory() {
        let double = json!({"op": "copy", "from": "/a", "path": "/a/-"});
        assert_eq!(code(&json!({"a": ["x".repeat(1000)]}), &Value::from(vec![double; 64])), 422);
    }

    #[test]
    fn an_object_is_not_made_too_deep_by_many_shallow_steps() {
        let nest = |inner: Value| (0..250).fold(inner, |value, _| json!({"a": value}));
        let place = "/a".repeat(250);
        let copies = vec![json!({"op": "copy", "from": "", "path": place}); 2];
        assert_eq!(code(&nest(json!({})), &Value::from(copies)), 422);
        let adds = json!([{"op": "add", "path": format!("{place}/a"), "value": nest(json!(1))}]);
        assert_eq!(code(&nest(json!({})), &adds), 422);
        let moves = json!([
            {"op": "add", "path": "/b", "value": nest(json!({}))},
            {"op": "move", "from": "/b", "path": format!("{place}/a")},
        ]);
        assert_eq!(code(&nest(json!({})), &moves), 422);
    }
}
