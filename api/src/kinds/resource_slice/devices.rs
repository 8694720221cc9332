//! The devices of a slice.

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceTaint, ResourceSliceSpec};
use serde_json::Value;

use super::{capacity, counter_set};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::{
        amount::canonical,
        check::{dns_label, dns_subdomain, list, problems, qualified_name, required_one_of, same, text},
        device::{EFFECTS, binding, each, each_once, identifier},
        pod::affinity::node_selector,
    },
    name,
};

/// Attributes and capacities of a device together.
const MOST_FACTS: usize = 32;
const MOST_TAINTS: usize = 16;
const MOST_CONSUMED: usize = 2;
const MOST_COUNTERS: usize = 32;
const MOST_VALUE: usize = 64;
const ONE_PLACE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                         `perDeviceNodeSelection` is set to true in the ResourceSlice spec";

/// Amounts in their canonical form.
pub(super) fn set_defaults(spec: &mut ResourceSliceSpec) {
    for set in spec.shared_counters.iter_mut().flatten() {
        set.counters.values_mut().for_each(|counter| canonical(&mut counter.value));
    }
    for device in spec.devices.iter_mut().flatten() {
        for capacity in device.capacity.iter_mut().flat_map(|capacity| capacity.values_mut()) {
            canonical(&mut capacity.value);
        }
        for consumed in device.consumes_counters.iter_mut().flatten() {
            consumed.counters.values_mut().for_each(|counter| canonical(&mut counter.value));
        }
    }
}

/// One device; `per_device` says whether each says for itself where it is.
pub(super) fn validate(
    errors: &mut Errors,
    device: &Device,
    old: Option<&Device>,
    per_device: bool,
    path: &Path,
) {
    dns_label(errors, &path.child("name"), &device.name);
    let facts = device.attributes.as_ref().map_or(0, |attributes| attributes.len())
        + device.capacity.as_ref().map_or(0, |capacity| capacity.len());
    if facts > MOST_FACTS {
        let detail = format!("the total number of attributes and capacities must not exceed {MOST_FACTS}");
        errors.push(FieldError::invalid(path, facts, detail));
    }
    let at = path.child("attributes");
    for (key, value) in device.attributes.iter().flatten() {
        identifier(errors, key, &at);
        attribute(errors, value, &at.key(&shortened(key)));
    }
    let at = path.child("capacity");
    if old.is_none_or(|old| !same(&old.capacity, &device.capacity)) {
        let shared = device.allow_multiple_allocations == Some(true);
        for (key, value) in device.capacity.iter().flatten() {
            identifier(errors, key, &at);
            capacity::validate(errors, value, shared, &at.key(&shortened(key)));
        }
    }
    if old.is_none_or(|old| !same(&old.taints, &device.taints)) {
        each(errors, list(&device.taints), MOST_TAINTS, &path.child("taints"), taint);
    }
    let (consumed, at) = (list(&device.consumes_counters), path.child("consumesCounters"));
    let set = |consumed: &k8s_openapi::api::resource::v1::DeviceCounterConsumption| {
        BadValue::from(&consumed.counter_set)
    };
    each_once(errors, consumed, MOST_CONSUMED, &at, set, |errors, consumed, at| {
        counter_set(errors, &consumed.counter_set, &at.child("counterSet"));
        counters(errors, consumed.counters.keys(), &at.child("counters"));
    });
    place(errors, device, per_device, path);
    let (conditions, failures) = (&device.binding_conditions, &device.binding_failure_conditions);
    binding(errors, list(conditions), list(failures), path);
}

/// The names of counters.
pub(super) fn counters<'a>(
    errors: &mut Errors,
    names: impl ExactSizeIterator<Item = &'a String>,
    path: &Path,
) {
    match names.len() {
        0 => errors.push(FieldError::required(path, "")),
        count if count > MOST_COUNTERS => errors.push(FieldError::too_many(path, count, MOST_COUNTERS)),
        _ => names.for_each(|name| dns_label(errors, path, name)),
    }
}

/// A key as a path shows it: what is too long is cut in the middle.
fn shortened(key: &str) -> String {
    const MOST: usize = 63 + 1 + 32;
    if key.len() <= MOST {
        return key.to_owned();
    }
    let rest = MOST - 3;
    let head = key.get(..rest.div_ceil(2)).unwrap_or_default();
    let tail = key.get(key.len() - rest / 2..).unwrap_or_default();
    format!("{head}...{tail}")
}

fn attribute(errors: &mut Errors, attribute: &DeviceAttribute, path: &Path) {
    let value = |errors: &mut Errors, value: &str, at: &Path| {
        if value.len() > MOST_VALUE {
            errors.push(FieldError::too_long(at, MOST_VALUE));
        }
    };
    let version = |errors: &mut Errors, given: &str, at: &Path| {
        if !is_semantic_version(given) {
            let detail = "must be a string compatible with semver.org spec 2.0.0";
            errors.push(FieldError::invalid(at, given, detail));
        }
        value(errors, given, at);
    };
    if let Some(text) = &attribute.string {
        value(errors, text, &path.child("string"));
    }
    if let Some(text) = &attribute.version {
        version(errors, text, &path.child("version"));
    }
    for (field, empty) in [
        ("bools", attribute.bools.as_ref().is_some_and(Vec::is_empty)),
        ("ints", attribute.ints.as_ref().is_some_and(Vec::is_empty)),
        ("strings", attribute.strings.as_ref().is_some_and(Vec::is_empty)),
        ("versions", attribute.versions.as_ref().is_some_and(Vec::is_empty)),
    ] {
        if empty {
            let none = BadValue::Json(Value::Array(Vec::new()));
            errors.push(FieldError::invalid(&path.child(field), none, "must not be empty if specified"));
        }
    }
    for (i, text) in list(&attribute.strings).iter().enumerate() {
        value(errors, text, &path.child("strings").index(i));
    }
    for (i, text) in list(&attribute.versions).iter().enumerate() {
        version(errors, text, &path.child("versions").index(i));
    }
    let given = [
        attribute.bool.is_some(),
        attribute.int.is_some(),
        attribute.string.is_some(),
        attribute.version.is_some(),
        attribute.bools.is_some(),
        attribute.ints.is_some(),
        attribute.strings.is_some(),
        attribute.versions.is_some(),
    ];
    match given.iter().filter(|given| **given).count() {
        0 => errors.push(FieldError::invalid(path, "", "exactly one value must be specified")),
        1 => {}
        _ => {
            let all = BadValue::of(attribute);
            errors.push(FieldError::invalid(path, all, "exactly one value must be specified"));
        }
    }
}

/// `1.2.3`, with what may follow: `-rc.1`, `+build.7`.
fn is_semantic_version(version: &str) -> bool {
    let (version, build) = version.split_once('+').map_or((version, None), |(v, b)| (v, Some(b)));
    let (core, pre) = version.split_once('-').map_or((version, None), |(v, p)| (v, Some(p)));
    let number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part.len() == 1 || !part.starts_with('0'))
    };
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let core: Vec<&str> = core.split('.').collect();
    core.len() == 3
        && core.iter().all(|part| number(part))
        && pre.is_none_or(|pre| {
            pre.split('.')
                .all(|part| word(part) && (!part.bytes().all(|b| b.is_ascii_digit()) || number(part)))
        })
        && build.is_none_or(|build| build.split('.').all(word))
}

fn taint(errors: &mut Errors, taint: &DeviceTaint, path: &Path) {
    qualified_name(errors, &path.child("key"), &taint.key);
    let value = text(&taint.value);
    problems(errors, &path.child("value"), value, name::label_value(value));
    required_one_of(errors, &path.child("effect"), &taint.effect, EFFECTS);
}

fn place(errors: &mut Errors, device: &Device, per_device: bool, path: &Path) {
    if !per_device {
        if device.node_name.is_some() || device.node_selector.is_some() || device.all_nodes.is_some() {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                          true in the ResourceSlice spec";
            errors.push(FieldError::invalid(path, Value::Null, detail));
        }
        return;
    }
    let mut given = Vec::new();
    if let Some(node) = &device.node_name {
        let at = path.child("nodeName");
        if node.is_empty() {
            errors.push(FieldError::invalid(&at, "", "must not be empty"));
        } else {
            given.push("`nodeName`");
            dns_subdomain(errors, &at, node);
        }
    }
    if let Some(selector) = &device.node_selector {
        given.push("`nodeSelector`");
        node_selector(errors, selector, &path.child("nodeSelector"));
    }
    match device.all_nodes {
        Some(true) => given.push("`allNodes`"),
        Some(false) => {
            let detail = "must be either unset or set to true";
            errors.push(FieldError::invalid(&path.child("allNodes"), false, detail));
        }
        None => {}
    }
    match given.len() {
        0 => errors.push(FieldError::required(path, ONE_PLACE)),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", given.join(", "));
            errors.push(FieldError::invalid(path, shown, ONE_PLACE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_semver_standard() {
        for (version, is) in [
            ("1.2.3", true),
            ("0.0.0-alpha.1+build.5", true),
            ("1.0.0-0a", true),
            ("1.0.0--", true),
            ("01.2.3", false),
            ("1.2", false),
            ("1.2.3-01", false),
            ("1.2.3-", false),
            ("1.2.3+", false),
            ("v1.2.3", false),
        ] {
            assert_eq!(is_semantic_version(version), is, "{version}");
        }
    }
}
