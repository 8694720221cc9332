//! Conditions as most kinds have them, with reason and time.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::check::{nonnegative, one_of, qualified_name, required};
use crate::{
    field::{Errors, FieldError, Path},
    name,
};

const MOST_REASON: usize = 1024;
const MOST_MESSAGE: usize = 32 * 1024;

/// Conditions, each type once.
pub(crate) fn validate(errors: &mut Errors, conditions: &[Condition], path: &Path) {
    let mut types = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        if !types.insert(&condition.type_) {
            errors.push(FieldError::duplicate(&path.index(i).child("type"), &condition.type_));
        }
        validate_one(errors, condition, &path.index(i));
    }
}

fn validate_one(errors: &mut Errors, condition: &Condition, path: &Path) {
    let at = path.child("type");
    required(errors, &at, &condition.type_);
    if !condition.type_.is_empty() {
        qualified_name(errors, &at, &condition.type_);
    }
    one_of(errors, &path.child("status"), &condition.status, &["False", "True", "Unknown"]);
    nonnegative(errors, &path.child("observedGeneration"), condition.observed_generation);
    if condition.last_transition_time.0 == jiff::Timestamp::default() {
        errors.push(FieldError::required(&path.child("lastTransitionTime"), ""));
    }
    let (at, reason) = (path.child("reason"), condition.reason.as_str());
    required(errors, &at, reason);
    if !reason.is_empty() && !is_reason(reason) {
        let regex = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";
        let message = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
             characters or '_,:', and must end with an alphanumeric character or '_'";
        let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
        errors.push(FieldError::invalid(&at, reason, name::regex_message(message, regex, &examples)));
    }
    if reason.len() > MOST_REASON {
        errors.push(FieldError::too_long(&at, MOST_REASON));
    }
    if condition.message.len() > MOST_MESSAGE {
        errors.push(FieldError::too_long(&path.child("message"), MOST_MESSAGE));
    }
}

fn is_reason(reason: &str) -> bool {
    let b = reason.as_bytes();
    let word = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
    b.first().is_some_and(u8::is_ascii_alphabetic)
        && b.last().is_some_and(word)
        && b.iter().all(|c| word(c) || matches!(c, b',' | b':'))
}
