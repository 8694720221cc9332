//! What differs between two runs of the same questions: names that are made up, times, addresses, revisions.

use std::net::Ipv4Addr;

use serde_json::{Map, Value};

/// An answer as the recorder writes it: fields whose values are of this run are masked, managed fields left out.
pub(crate) fn recorded(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(fields(map)),
        Value::Array(items) => Value::Array(items.iter().map(recorded).collect()),
        other => other.clone(),
    }
}

fn fields(map: &Map<String, Value>) -> Map<String, Value> {
    let kept = map.iter().filter(|(name, _)| *name != "managedFields");
    kept.map(|(name, value)| (name.clone(), field(name, value))).collect()
}

fn field(name: &str, value: &Value) -> Value {
    match name {
        "uid" | "resourceVersion" | "creationTimestamp" | "selfLink" | "deletionTimestamp" => {
            format!("<{name}>").into()
        }
        "clusterIP" if *value != "" && *value != "None" => "<clusterIP>".into(),
        "clusterIPs" if *value != serde_json::json!(["None"]) => serde_json::json!(["<ip>"]),
        "nodePort" | "healthCheckNodePort" => "<port>".into(),
        _ => recorded(value),
    }
}

/// The same for texts, which the recorder leaves as they are: identifiers, times, ages, addresses of services.
pub(crate) fn run(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), run(value))).collect(),
        Value::Array(items) => items.iter().map(run).collect(),
        Value::String(text) => text_of_run(text).into(),
        other => other.clone(),
    }
}

/// A text without what is of one run only.
pub(crate) fn text_of_run(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        masked.push_str(mask(&masked, word));
        let next = behind.find(is_word).unwrap_or(behind.len());
        masked.push_str(&behind[..next]);
        rest = &behind[next..];
    }
    masked
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.')
}

fn mask<'a>(before: &str, word: &'a str) -> &'a str {
    let is_number = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    let follows = |marks: &[&str]| marks.iter().any(|mark| before.ends_with(mark));
    if is_uid(word) {
        "<uid>"
    } else if word.starts_with("20") && word.ends_with('Z') && word.parse::<jiff::Timestamp>().is_ok() {
        "<time>"
    } else if word.starts_with("10.96.") && word.parse::<Ipv4Addr>().is_ok() {
        "<ip>"
    } else if is_number && follows(&["current: ", r#"resourceVersion\":\""#]) {
        "<revision>"
    } else if before.is_empty() && word.strip_suffix('s').is_some_and(|n| n.parse::<u32>().is_ok()) {
        "<age>"
    } else {
        word
    }
}

fn is_uid(word: &str) -> bool {
    let lengths: Vec<usize> = word.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[test]
fn what_is_of_one_run_is_masked_in_texts() {
    let uid = "226220b9-6e7b-4ffb-80c1-430922ee8b16";
    for (text, expected) in [
        ("", ""),
        ("a text", "a text"),
        ("3s", "<age>"),
        ("in 3s", "in 3s"),
        (
            "Too large resource version: 99999999, current: 225",
            "Too large resource version: 99999999, current: <revision>",
        ),
        (
            r#"{\"time\":\"2026-11-20T18:21:46Z\",\"resourceVersion\":\"225\"}"#,
            r#"{\"time\":\"<time>\",\"resourceVersion\":\"<revision>\"}"#,
        ),
        ("10.96.250.39", "<ip>"),
        ("10.1.0.0/24", "10.1.0.0/24"),
    ] {
        assert_eq!(text_of_run(text), expected);
    }
    assert_eq!(text_of_run(&format!("record ({uid}) and \"{uid}\"")), "record (<uid>) and \"<uid>\"");
}
