//! Two answers side by side: where they agree, and how they differ.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::masks;
use crate::questions::Answered;

/// A difference.
#[derive(Debug, PartialEq)]
pub(crate) enum Difference {
    /// Of the whole answer: code, reason and message on each side.
    Answer { was: String, is: String },
    /// Of one field of an object; [`NOTHING`] where it is not there.
    Field { at: String, was: String, is: String },
}

pub(crate) const NOTHING: &str = "nothing";

/// The levels on which answers can be equal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Level {
    Code,
    Why,
    Text,
    Body,
}

/// What the recorder compares, and whether it is equal, before anything that is of one run is masked.
pub(crate) fn levels(expected: &Answered, got: &Answered) -> Vec<(Level, bool)> {
    let same_code = expected.code == got.code;
    let mut levels = vec![(Level::Code, same_code)];
    if expected.code >= 400 {
        levels.push((Level::Why, why(expected) == why(got)));
        levels.push((Level::Text, message(expected) == message(got)));
    } else if expected.code < 300 {
        levels.push((Level::Body, same_code && expected.response == got.response));
    }
    levels
}

/// The reason and what it blames.
fn why(answer: &Answered) -> (&str, BTreeSet<(&str, &str)>) {
    let causes = answer.response["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let causes = causes.iter().map(|cause| {
        (cause["field"].as_str().unwrap_or_default(), cause["reason"].as_str().unwrap_or_default())
    });
    (answer.response["reason"].as_str().unwrap_or_default(), causes.collect())
}

fn message(answer: &Answered) -> &str {
    answer.response["message"].as_str().unwrap_or_default()
}

/// All that differs, except what is of one run.
pub(crate) fn differences(expected: &Answered, got: &Answered) -> Vec<Difference> {
    let mut found = Vec::new();
    if expected.code >= 300 || got.code >= 300 {
        if brief(expected) != brief(got) || why(expected) != why(got) {
            found.push(Difference::Answer { was: brief(expected), is: brief(got) });
        }
    } else {
        if expected.code != got.code {
            found.push(Difference::Answer { was: expected.code.to_string(), is: got.code.to_string() });
        }
        fields("", Some(&masks::run(&expected.response)), Some(&masks::run(&got.response)), &mut found);
    }
    found
}

/// An answer in one line: `422 Invalid: Pod "a" is invalid: ...`.
fn brief(answer: &Answered) -> String {
    let (reason, message) = (why(answer).0, masks::text_of_run(message(answer)));
    if answer.code < 300 { answer.code.to_string() } else { format!("{} {reason}: {message}", answer.code) }
}

fn fields(at: &str, was: Option<&Value>, is: Option<&Value>, found: &mut Vec<Difference>) {
    match (was, is) {
        (Some(Value::Object(was)), Some(Value::Object(is))) => {
            let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
            for name in names {
                fields(&format!("{at}.{name}"), was.get(name), is.get(name), found);
            }
        }
        (Some(Value::Array(was)), Some(Value::Array(is))) if was.len() == is.len() => {
            for (number, (was, is)) in was.iter().zip(is).enumerate() {
                fields(&format!("{at}[{number}]"), Some(was), Some(is), found);
            }
        }
        (was, is) if was == is => {}
        (was, is) => {
            let shown = |value: Option<&Value>| value.map_or_else(|| NOTHING.to_owned(), Value::to_string);
            found.push(Difference::Field { at: at.to_owned(), was: shown(was), is: shown(is) });
        }
    }
}
