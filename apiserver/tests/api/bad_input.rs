//! What is wrong with an object is said in upstream's words, and nothing of it is stored.
//!
//! The tables are by kind. A row is a change of a sound object, and the whole answer that it gets.

mod core;
mod empties;
mod others;
mod pods;
mod requests;

use crate::common::{Answer, Api, api};
use serde_json::{Value, json};

/// Removes the field.
const GONE: Value = Value::Null;

/// A change of one field, and the causes that the answer must name, each as `field: message`. An answer without causes
/// is a 400, of which this is the message.
type Row<'a> = (&'a str, Value, &'a [&'a str]);

/// Sets or removes the field at a JSON pointer; a last segment `-` appends to a list.
fn changed(object: &Value, at: &str, value: &Value) -> Value {
    let mut object = object.clone();
    let (parent, last) = at.rsplit_once('/').expect("a JSON pointer");
    let last = last.replace("~1", "/");
    match object.pointer_mut(parent).expect("the field's parent") {
        Value::Array(items) if last == "-" => items.push(value.clone()),
        Value::Array(items) => items[last.parse::<usize>().expect("an index")] = value.clone(),
        Value::Object(fields) if value.is_null() => drop(fields.remove(&last)),
        Value::Object(fields) => drop(fields.insert(last, value.clone())),
        other => panic!("{at}: {other} has no fields"),
    }
    object
}

/// What an answer says is wrong.
fn causes(answer: &Answer) -> Vec<String> {
    match answer.value["details"]["causes"].as_array() {
        Some(causes) => causes
            .iter()
            .map(|cause| {
                let text = |key: &str| cause[key].as_str().unwrap_or_default();
                format!("{}: {}", text("field"), text("message"))
            })
            .collect(),
        None => vec![answer.message().to_owned()],
    }
}

#[track_caller]
fn check(answer: &Answer, at: &str, value: &Value, expected: &[&str]) {
    assert_eq!(causes(answer), expected, "{at} = {value}: {}", answer.text);
    let is_invalid = answer.value["details"]["causes"].is_array();
    let expected = if is_invalid { (422, "Invalid") } else { (400, "BadRequest") };
    assert_eq!((answer.code, answer.reason()), expected, "{at} = {value}");
}

/// A server with the service account that pods run as.
async fn with_account() -> Api {
    let api = api().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    api.post("/api/v1/namespaces/default/serviceaccounts", &account).await.ok();
    api
}

async fn names(api: &Api, collection: &str) -> Vec<String> {
    api.get(collection).await.names()
}

/// Creates the object with each change: refused as the row says, and not stored.
async fn creates(collection: &str, object: Value, rows: &[Row<'_>]) {
    let api = with_account().await;
    let sound = api.post(&format!("{collection}?dryRun=All"), &object).await;
    assert_eq!(sound.code, 201, "{}", sound.text);
    let before = names(&api, collection).await;
    for (at, value, expected) in rows {
        let answer = api.post(collection, &changed(&object, at, value)).await;
        check(&answer, at, value, expected);
    }
    assert_eq!(names(&api, collection).await, before);
}

/// Updates the stored object with each change: refused as the row says, and not stored.
async fn updates(collection: &str, object: Value, rows: &[Row<'_>]) {
    let api = with_account().await;
    let stored = api.post(collection, &object).await.ok();
    let target = format!("{collection}/{}", stored["metadata"]["name"].as_str().unwrap());
    for (at, value, expected) in rows {
        let answer = api.put(&target, &changed(&stored, at, value)).await;
        check(&answer, at, value, expected);
    }
    assert_eq!(api.get(&target).await.value, stored);
}
