//! What the kinds of resource.k8s.io share: names, sizes of lists, selectors, configuration, tolerations.

pub(super) mod allocation;
pub(super) mod claim;

use std::collections::BTreeSet;

use k8s_openapi::{
    api::resource::v1::{DeviceSelector, DeviceToleration, OpaqueDeviceConfiguration},
    apimachinery::pkg::runtime::RawExtension,
};
use serde_json::Value;

use super::{
    check::{one_of, problems, qualified_name, required, required_one_of, text},
    volume,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    name,
};

/// So many requests, constraints, selectors or configurations there may be.
pub(super) const MOST: usize = 32;
const MOST_TOLERATIONS: usize = 16;
const MOST_EXPRESSION: usize = 10 * 1024;
/// A driver's own data may have this many bytes.
pub(super) const MOST_OPAQUE: usize = 10 * 1024;
const MOST_ID: usize = 32;
/// What a device's taint does.
pub(super) const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// Checks each item of a list that is not too long.
pub(super) fn each<T>(
    errors: &mut Errors,
    items: &[T],
    most: usize,
    path: &Path,
    mut check: impl FnMut(&mut Errors, &T, &Path),
) -> bool {
    if items.len() > most {
        errors.push(FieldError::too_many(path, items.len(), most));
        return false;
    }
    for (i, item) in items.iter().enumerate() {
        check(errors, item, &path.index(i));
    }
    true
}

/// The same for a list in which each key is there once.
pub(super) fn each_once<T>(
    errors: &mut Errors,
    items: &[T],
    most: usize,
    path: &Path,
    key: impl Fn(&T) -> BadValue,
    check: impl FnMut(&mut Errors, &T, &Path),
) {
    if !each(errors, items, most, path, check) {
        return;
    }
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        let key = key(item);
        if !seen.insert(format!("{key:?}")) {
            errors.push(FieldError::duplicate(&path.index(i), key));
        }
    }
}

/// The name of a driver.
pub(super) fn driver(errors: &mut Errors, value: &str, path: &Path) {
    volume::driver_name(errors, value, path);
}

/// The name of a pool: subdomains, separated by slashes.
pub(super) fn pool(errors: &mut Errors, value: &str, path: &Path) {
    const MOST: usize = 253;
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if value.len() > MOST {
        errors.push(FieldError::too_long(path, MOST));
    }
    for part in value.split('/') {
        problems(errors, path, part, name::dns1123_subdomain(part));
    }
}

/// The name of a class, which must be given.
pub(super) fn class(errors: &mut Errors, value: &str, path: &Path) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        problems(errors, path, value, name::dns1123_subdomain(value));
    }
}

/// An identifier, with or without the domain that it belongs to.
pub(super) fn identifier(errors: &mut Errors, value: &str, path: &Path) {
    match value.split('/').collect::<Vec<_>>().as_slice() {
        [id] => c_identifier(errors, id, path),
        [domain, id] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, "", "the domain must not be empty"));
            } else {
                driver(errors, domain, path);
            }
            if id.is_empty() {
                errors.push(FieldError::invalid(path, "", "the name must not be empty"));
            } else {
                c_identifier(errors, id, path);
            }
        }
        _ => errors.push(FieldError::invalid(path, value, "must not contain more than one slash")),
    }
}

/// An identifier with its domain.
pub(super) fn full_identifier(errors: &mut Errors, value: &str, path: &Path) {
    identifier(errors, value, path);
    if !value.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(FieldError::invalid(path, value, detail));
    }
}

fn c_identifier(errors: &mut Errors, value: &str, path: &Path) {
    if value.len() > MOST_ID {
        errors.push(FieldError::too_long(path, MOST_ID));
    }
    problems(errors, path, value, name::c_identifier(value));
}

/// What selects devices. Expressions are checked as far as that needs no evaluator.
pub(super) fn selectors(errors: &mut Errors, selectors: &[DeviceSelector], path: &Path) {
    each(errors, selectors, MOST, path, |errors, selector, at| {
        let at = at.child("cel");
        let Some(cel) = &selector.cel else {
            errors.push(FieldError::required(&at, ""));
            return;
        };
        let at = at.child("expression");
        required(errors, &at, &cel.expression);
        if cel.expression.len() > MOST_EXPRESSION {
            errors.push(FieldError::too_long(&at, MOST_EXPRESSION));
        }
    });
}

/// Configuration for a driver, which only the driver understands.
pub(super) fn opaque(errors: &mut Errors, config: Option<&OpaqueDeviceConfiguration>, path: &Path) {
    let path = path.child("opaque");
    match config {
        None => errors.push(FieldError::required(&path, "")),
        Some(config) => {
            driver(errors, &config.driver, &path.child("driver"));
            raw(errors, &config.parameters, &path.child("parameters"));
        }
    }
}

/// Data of a driver: an object that is not too large.
pub(super) fn raw(errors: &mut Errors, data: &RawExtension, path: &Path) {
    match &data.0 {
        Value::Null => errors.push(FieldError::required(path, "")),
        data if data.to_string().len() > MOST_OPAQUE => errors.push(FieldError::too_long(path, MOST_OPAQUE)),
        Value::Object(_) => {}
        _ => errors.push(FieldError::invalid(path, "<value omitted>", "must be a valid JSON object")),
    }
}

/// Which taints of devices are tolerated.
pub(super) fn tolerations(errors: &mut Errors, tolerations: &[DeviceToleration], path: &Path) {
    each(errors, tolerations, MOST_TOLERATIONS, path, |errors, toleration, at| {
        let (key, value) = (text(&toleration.key), text(&toleration.value));
        if !key.is_empty() {
            qualified_name(errors, &at.child("key"), key);
        }
        let operator = text(&toleration.operator);
        match operator {
            "Exists" => {
                if !value.is_empty() {
                    let detail = "must be empty for operator `Exists`";
                    errors.push(FieldError::invalid(&at.child("value"), value, detail));
                }
            }
            "Equal" => problems(errors, &at.child("value"), value, name::label_value(value)),
            _ => required_one_of(errors, &at.child("operator"), operator, &["Equal", "Exists"]),
        }
        let effect = text(&toleration.effect);
        if !effect.is_empty() {
            one_of(errors, &at.child("effect"), effect, EFFECTS);
        }
    });
}

/// Conditions that a device waits for before a pod is bound, and those that say that it failed.
pub(super) fn binding(errors: &mut Errors, conditions: &[String], failures: &[String], path: &Path) {
    const MOST: usize = 4;
    let (at, failures_at) = (path.child("bindingConditions"), path.child("bindingFailureConditions"));
    for (items, at) in [(conditions, &at), (failures, &failures_at)] {
        each(errors, items, MOST, at, |errors, item, at| qualified_name(errors, at, item));
    }
    let waited_for: BTreeSet<&String> = conditions.iter().collect();
    for (items, at) in [(conditions, &at), (failures, &failures_at)] {
        let mut seen = BTreeSet::new();
        for (i, item) in items.iter().enumerate() {
            if !seen.insert(item) {
                errors.push(FieldError::duplicate(&at.index(i), item));
            }
            if at == &failures_at && waited_for.contains(item) {
                let detail = "bindingFailureConditions must not overlap with bindingConditions";
                errors.push(FieldError::invalid(&at.index(i), item, detail));
            }
        }
    }
    if conditions.is_empty() && !failures.is_empty() {
        let detail = "bindingConditions are required to use bindingFailureConditions";
        errors.push(FieldError::invalid(&at, BadValue::of(&conditions), detail));
    }
    if failures.is_empty() && !conditions.is_empty() {
        let detail = "bindingFailureConditions are required to use bindingConditions";
        errors.push(FieldError::invalid(&failures_at, BadValue::of(&failures), detail));
    }
}

/// An ID in its usual form.
pub(super) fn uid(errors: &mut Errors, value: &str, path: &Path) {
    let bytes = value.as_bytes();
    let dashes = [8, 13, 18, 23];
    let is_form = bytes.len() == 36
        && bytes.iter().enumerate().all(|(i, byte)| match dashes.contains(&i) {
            true => *byte == b'-',
            false => byte.is_ascii_hexdigit(),
        });
    if !is_form {
        let why = match bytes.len() {
            36 => "invalid UUID format".to_owned(),
            length => format!("invalid UUID length: {length}"),
        };
        errors.push(FieldError::invalid(path, value, format!("error validating uid: {why}")));
    } else if bytes.iter().any(u8::is_ascii_uppercase) {
        let detail = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase \
                      hexadecimal characters";
        errors.push(FieldError::invalid(path, value, detail));
    }
}
