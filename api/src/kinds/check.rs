//! Small checks that the rules of several kinds share, each with upstream's words.
//!
//! A check adds what it finds to a list of errors, so that a rule reads as a list of checks.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
    util::intstr::IntOrString,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    field::{BadValue, Errors, FieldError, Path},
    name,
    schema::{TypeRef, Types, go_text},
};

/// The text of an optional field; upstream makes no difference between absent and empty.
pub(crate) fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// The items of an optional list.
pub(crate) fn list<T>(value: &Option<Vec<T>>) -> &[T] {
    value.as_deref().unwrap_or_default()
}

/// Whether an optional map has no entries.
pub(crate) fn is_empty<K, V>(value: &Option<BTreeMap<K, V>>) -> bool {
    value.as_ref().is_none_or(BTreeMap::is_empty)
}

/// One error per problem of one value.
pub(crate) fn problems(errors: &mut Errors, path: &Path, value: &str, problems: Vec<String>) {
    errors.extend(problems.into_iter().map(|p| FieldError::invalid(path, value, p)));
}

/// A text may not be empty.
pub(crate) fn required(errors: &mut Errors, path: &Path, value: &str) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
}

/// A text is one of several.
pub(crate) fn one_of(errors: &mut Errors, path: &Path, value: &str, allowed: &[&str]) {
    if !allowed.contains(&value) {
        errors.push(FieldError::not_supported(path, value, allowed));
    }
}

/// A text is given, and one of several.
pub(crate) fn required_one_of(errors: &mut Errors, path: &Path, value: &str, allowed: &[&str]) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        one_of(errors, path, value, allowed);
    }
}

/// A number is not negative.
pub(crate) fn nonnegative(errors: &mut Errors, path: &Path, value: Option<impl Into<i64>>) {
    let value = value.map(Into::into).unwrap_or_default();
    if value < 0 {
        errors.push(FieldError::invalid(path, value, "must be greater than or equal to 0"));
    }
}

/// The key of a label, or anything else of that form.
pub(crate) fn qualified_name(errors: &mut Errors, path: &Path, value: &str) {
    problems(errors, path, value, name::qualified_name(value));
}

/// A DNS label.
pub(crate) fn dns_label(errors: &mut Errors, path: &Path, value: &str) {
    problems(errors, path, value, name::dns1123_label(value));
}

/// A DNS subdomain.
pub(crate) fn dns_subdomain(errors: &mut Errors, path: &Path, value: &str) {
    problems(errors, path, value, name::dns1123_subdomain(value));
}

/// The name of a finalizer without a domain is one that Kubernetes itself knows.
pub(crate) fn kube_finalizer(errors: &mut Errors, path: &Path, value: &str) {
    if !value.contains('/') && !matches!(value, "kubernetes" | "orphan" | "foregroundDeletion") {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, value, detail));
    }
}

/// The number of a port.
pub(crate) fn port_number(errors: &mut Errors, path: &Path, value: i32) {
    for problem in name::port_number(value.into()) {
        errors.push(FieldError::invalid(path, value, problem));
    }
}

/// The number or the name of a port.
pub(crate) fn port_or_name(errors: &mut Errors, path: &Path, value: &IntOrString) {
    match value {
        IntOrString::Int(number) => port_number(errors, path, *number),
        IntOrString::String(text) => problems(errors, path, text, name::port_name(text)),
    }
}

/// Reads an address as upstream does for stored objects: numbers of an IPv4 address may have leading zeros.
pub(crate) fn parse_ip(value: &str) -> Option<IpAddr> {
    if let Ok(ip) = value.parse::<IpAddr>() {
        return Some(ip);
    }
    let mut octets = [0u8; 4];
    let mut parts = value.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets).into())
}

/// Any IP address.
pub(crate) fn ip(errors: &mut Errors, path: &Path, value: &str) -> bool {
    let valid = parse_ip(value).is_some();
    if !valid {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(path, value, detail));
    }
    valid
}

/// An IPv4 address.
pub(crate) fn ipv4(errors: &mut Errors, path: &Path, value: &str) {
    if !matches!(parse_ip(value), Some(IpAddr::V4(_))) {
        errors.push(FieldError::invalid(path, value, "must be a valid IPv4 address"));
    }
}

/// An IPv6 address.
pub(crate) fn ipv6(errors: &mut Errors, path: &Path, value: &str) {
    if !matches!(parse_ip(value), Some(IpAddr::V6(_))) {
        errors.push(FieldError::invalid(path, value, "must be a valid IPv6 address"));
    }
}

/// The address and the length of a network prefix.
pub(crate) fn parse_cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = value.split_once('/')?;
    let address = parse_ip(address)?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    (length <= max).then_some((address, length))
}

/// A network prefix.
pub(crate) fn cidr(errors: &mut Errors, path: &Path, value: &str) {
    if parse_cidr(value).is_none() {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(FieldError::invalid(path, value, detail));
    }
}

/// An address that can be the end of a connection: not unspecified, loopback or link-local.
pub(crate) fn non_special_ip(errors: &mut Errors, path: &Path, value: &str) {
    let Some(ip) = parse_ip(value) else {
        errors.push(FieldError::invalid(path, value, "must be a valid IP address"));
        return;
    };
    let link_local6 = |ip: Ipv6Addr, first: u16, mask: u16| ip.segments()[0] & mask == first;
    let mut refuse = |detail: String| errors.push(FieldError::invalid(path, value, detail));
    if ip.is_unspecified() {
        refuse(format!("may not be unspecified ({value})"));
    }
    if ip.is_loopback() {
        refuse("may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned());
    }
    let (unicast, multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), matches!(ip.octets(), [224, 0, 0, _])),
        IpAddr::V6(ip) => (link_local6(ip, 0xfe80, 0xffc0), link_local6(ip, 0xff02, 0xff0f)),
    };
    if unicast {
        refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned());
    }
    if multicast {
        refuse("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned());
    }
}

/// Whether the addresses are of both families.
pub(crate) fn is_dual_stack<'a>(mut addresses: impl Iterator<Item = &'a str> + Clone) -> bool {
    let family = |value: &str| parse_ip(value.split('/').next().unwrap_or_default()).map(|ip| ip.is_ipv4());
    addresses.clone().any(|a| family(a) == Some(true)) && addresses.any(|a| family(a) == Some(false))
}

/// A label selector.
pub(crate) fn selector(errors: &mut Errors, path: &Path, selector: Option<&LabelSelector>) {
    let Some(selector) = selector else { return };
    if let Some(labels) = &selector.match_labels {
        errors.extend(crate::meta::validate_labels(labels, &path.child("matchLabels")));
    }
    for (i, expression) in list(&selector.match_expressions).iter().enumerate() {
        selector_requirement(errors, &path.child("matchExpressions").index(i), expression);
    }
}

fn selector_requirement(errors: &mut Errors, path: &Path, requirement: &LabelSelectorRequirement) {
    let values = list(&requirement.values);
    let at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(FieldError::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&at, detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator"));
        }
    }
    qualified_name(errors, &path.child("key"), &requirement.key);
    for (i, value) in values.iter().enumerate() {
        problems(errors, &at.index(i), value, name::label_value(value));
    }
}

/// Whether a selector says nothing, and so matches everything.
pub(crate) fn selector_is_empty(selector: &LabelSelector) -> bool {
    is_empty(&selector.match_labels) && list(&selector.match_expressions).is_empty()
}

/// Whether labels match a selector. None: the selector makes no sense, as upstream's LabelSelectorAsSelector would say.
pub(crate) fn selector_matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Option<bool> {
    let mut matches = true;
    for (key, value) in selector.match_labels.iter().flatten() {
        if !(name::qualified_name(key).is_empty() && name::label_value(value).is_empty()) {
            return None;
        }
        matches &= labels.get(key) == Some(value);
    }
    for requirement in list(&selector.match_expressions) {
        let values = list(&requirement.values);
        let sound = name::qualified_name(&requirement.key).is_empty()
            && values.iter().all(|v| name::label_value(v).is_empty());
        if !sound {
            return None;
        }
        let value = labels.get(&requirement.key);
        matches &= match requirement.operator.as_str() {
            "In" if !values.is_empty() => value.is_some_and(|v| values.contains(v)),
            "NotIn" if !values.is_empty() => value.is_none_or(|v| !values.contains(v)),
            "Exists" if values.is_empty() => value.is_some(),
            "DoesNotExist" if values.is_empty() => value.is_none(),
            _ => return None,
        };
    }
    Some(matches)
}

/// A selector as text, as Table cells and the scale subresource show it.
pub(crate) fn selector_text(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return String::new() };
    let mut parts: Vec<(String, String)> = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        parts.push((key.clone(), format!("{key}={value}")));
    }
    for requirement in list(&selector.match_expressions) {
        let key = &requirement.key;
        let mut values = list(&requirement.values).to_vec();
        values.sort();
        let values = values.join(",");
        let text = match requirement.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        };
        parts.push((key.clone(), text));
    }
    parts.sort();
    let parts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
    parts.join(",")
}

/// The number before the `%` of a percentage.
pub(crate) fn percent(value: &IntOrString) -> Option<i64> {
    match value {
        IntOrString::String(text) if name::percent(text).is_empty() => {
            text.strip_suffix('%').and_then(|digits| digits.parse().ok())
        }
        _ => None,
    }
}

/// A number that is not negative, or a percentage.
pub(crate) fn int_or_percent(errors: &mut Errors, path: &Path, value: &IntOrString) {
    match value {
        IntOrString::Int(number) => nonnegative(errors, path, Some(*number)),
        IntOrString::String(text) => problems(errors, path, text, name::percent(text)),
    }
}

/// The number, or that before the `%`; 0 for what is neither.
pub(crate) fn int_or_percent_value(value: &IntOrString) -> i64 {
    match value {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(text) => percent(value).unwrap_or_else(|| text.parse().unwrap_or_default()),
    }
}

/// A percentage is at most 100.
pub(crate) fn at_most_100_percent(errors: &mut Errors, path: &Path, value: &IntOrString) {
    if percent(value).is_some_and(|p| p > 100) {
        errors.push(FieldError::invalid(path, BadValue::of(value), "must not be greater than 100%"));
    }
}

/// Whether two values mean the same: absent, null and empty are one, as upstream's semantic comparison has it.
pub(crate) fn same<T: Serialize>(a: &T, b: &T) -> bool {
    meaning(a) == meaning(b)
}

/// The JSON of a value without what says nothing.
pub(crate) fn meaning<T: Serialize>(value: &T) -> Value {
    let mut value = serde_json::to_value(value).unwrap_or_default();
    strip(&mut value);
    value
}

/// Fields that are plain booleans in upstream's structs: false is the same as absent.
const PLAIN_BOOLEANS: &[&str] =
    &["hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty", "readOnly", "paused"];

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(strip);
            map.retain(|key, value| match value {
                Value::Null => false,
                Value::String(text) => !text.is_empty(),
                Value::Array(items) => !items.is_empty(),
                Value::Object(fields) => !fields.is_empty(),
                Value::Bool(false) => !PLAIN_BOOLEANS.contains(&key.as_str()),
                _ => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// A field that may not change.
pub(crate) fn immutable<T: Serialize>(errors: &mut Errors, path: &Path, new: &T, old: &T) {
    if !same(new, old) {
        errors.push(FieldError::invalid(path, BadValue::of(new), "field is immutable"));
    }
}

/// A struct does not change. It is shown as upstream has it inside of the server; `name` is that of its type.
pub(crate) fn immutable_struct<T: Serialize>(errors: &mut Errors, path: &Path, new: &T, old: &T, name: &str) {
    if !same(new, old) {
        errors.push(FieldError::invalid(path, inside(new, name), "field is immutable"));
    }
}

/// A struct of this type as upstream has it inside of the server.
pub(crate) fn inside<T: Serialize>(value: &T, name: &str) -> BadValue {
    let types = Types::builtin();
    let found = types.find(name).zip(serde_json::to_value(value).ok());
    found.map_or_else(
        || BadValue::of(value),
        |(id, value)| BadValue::Plain(go_text::internal(&TypeRef::new(types, id), &value)),
    )
}

/// What an update of one part of an object leaves alone.
pub(crate) fn keep_metadata(meta: &mut ObjectMeta, old: &ObjectMeta) {
    meta.deletion_timestamp.clone_from(&old.deletion_timestamp);
    meta.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    meta.generation = old.generation;
    meta.labels.clone_from(&old.labels);
    meta.annotations.clone_from(&old.annotations);
    meta.finalizers.clone_from(&old.finalizers);
    meta.owner_references.clone_from(&old.owner_references);
    meta.managed_fields.clone_from(&old.managed_fields);
}

/// The same, but for who manages which fields: that is noted on a write of the status, too.
pub(crate) fn keep_metadata_of_status(meta: &mut ObjectMeta, old: &ObjectMeta) {
    let managed = meta.managed_fields.take();
    keep_metadata(meta, old);
    meta.managed_fields = managed;
}

/// Carries the generation over, and counts it up on a change.
pub(crate) fn generation(meta: &mut ObjectMeta, old: &ObjectMeta, changed: bool) {
    meta.generation = if changed { Some(old.generation.unwrap_or_default() + 1) } else { old.generation };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_upstream_does() {
        for (text, ok) in [
            ("10.0.0.1", true),
            ("010.0.0.001", true),
            ("::1", true),
            ("10.0.0", false),
            ("10.0.0.256", false),
            ("10.0.0.1.1", false),
            ("", false),
            ("+1.2.3.4", false),
        ] {
            assert_eq!(parse_ip(text).is_some(), ok, "{text:?}");
        }
        assert!(parse_cidr("10.0.0.0/24").is_some());
        assert!(parse_cidr("10.0.0.0/33").is_none());
        assert!(parse_cidr("10.0.0.0").is_none());
    }

    #[test]
    fn a_selector_reads_as_kubectl_shows_it() {
        let selector = LabelSelector {
            match_labels: Some(BTreeMap::from([("b".into(), "x".into())])),
            match_expressions: Some(vec![
                LabelSelectorRequirement {
                    key: "a".into(),
                    operator: "In".into(),
                    values: Some(vec!["z".into(), "y".into()]),
                },
                LabelSelectorRequirement { key: "c".into(), operator: "DoesNotExist".into(), values: None },
            ]),
        };
        assert_eq!(selector_text(Some(&selector)), "a in (y,z),b=x,!c");
        let labels = BTreeMap::from([("a".to_owned(), "y".to_owned()), ("b".to_owned(), "x".to_owned())]);
        assert_eq!(selector_matches(&selector, &labels), Some(true));
    }

    #[test]
    fn absent_and_empty_mean_the_same() {
        let a = LabelSelector { match_labels: Some(BTreeMap::new()), match_expressions: None };
        assert!(same(&a, &LabelSelector::default()));
    }
}
