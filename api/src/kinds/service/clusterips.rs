//! The addresses of a service: `clusterIP` for old clients, `clusterIPs` and families for newer ones, kept in step.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ServiceSpec;
use serde_json::Value;

use super::{EXTERNAL, is_headless, needs_health_check};
use crate::{
    field::{BadValue, Errors, FieldError, Path, Whole},
    kinds::check::{ip, is_dual_stack, is_empty, list, one_of, parse_ip, text},
};

/// A new service of an old client has `clusterIP` alone.
pub(super) fn normalize_new(spec: &mut ServiceSpec) {
    if let Some(address) =
        spec.cluster_ip.clone().filter(|a| !a.is_empty() && list(&spec.cluster_ips).is_empty())
    {
        spec.cluster_ips = Some(vec![address]);
    }
}

/// What an update meant by changing one of the two.
pub(super) fn normalize(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if !list(&old.cluster_ips).is_empty()
        && list(&spec.cluster_ips).is_empty()
        && text(&spec.cluster_ip) == text(&old.cluster_ip)
    {
        spec.cluster_ips.clone_from(&old.cluster_ips);
    }
    if text(&spec.cluster_ip) == text(&old.cluster_ip) || list(&spec.cluster_ips) != list(&old.cluster_ips) {
        return;
    }
    spec.cluster_ips = match text(&spec.cluster_ip) {
        "" => None,
        address => Some(vec![address.to_owned()]),
    };
}

/// What the API server gave to a service, and an update left out, stays.
pub(super) fn keep_allocated(spec: &mut ServiceSpec, old: &ServiceSpec) {
    let both = |of: fn(&str) -> bool| of(text(&old.type_)) && of(text(&spec.type_));
    let address = both(|kind| kind != EXTERNAL);
    let ports = both(|kind| matches!(kind, "NodePort" | "LoadBalancer"));
    if address {
        if text(&spec.cluster_ip).is_empty() {
            spec.cluster_ip.clone_from(&old.cluster_ip);
        }
        if list(&spec.cluster_ips).is_empty() && spec.cluster_ip == old.cluster_ip {
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if ports {
        let used = |spec: &ServiceSpec| -> BTreeSet<i32> {
            list(&spec.ports).iter().filter_map(|p| p.node_port).filter(|p| *p != 0).collect()
        };
        let mut taken: BTreeSet<i32> = used(spec).intersection(&used(old)).copied().collect();
        let by_name: BTreeMap<&str, i32> =
            list(&old.ports).iter().map(|p| (text(&p.name), p.node_port.unwrap_or_default())).collect();
        for port in spec.ports.iter_mut().flatten().filter(|p| p.node_port.unwrap_or_default() == 0) {
            let before = by_name.get(text(&port.name)).copied().filter(|p| *p != 0 && taken.insert(*p));
            if before.is_some() {
                port.node_port = before;
            }
        }
    }
    if needs_health_check(old)
        && needs_health_check(spec)
        && spec.health_check_node_port.unwrap_or_default() == 0
    {
        spec.health_check_node_port = old.health_check_node_port;
    }
}

/// The families of a service in a cluster of IPv4. A headless service without a selector may have both: its endpoints
/// are none of the cluster's.
pub(super) fn default_families(spec: &mut ServiceSpec) {
    if text(&spec.type_) == "ExternalName" {
        return;
    }
    let free = is_headless(spec) && is_empty(&spec.selector);
    let both = list(&spec.ip_families).len() == 2 || list(&spec.cluster_ips).len() == 2;
    let policy = spec.ip_family_policy.get_or_insert_with(|| {
        if free || both { "RequireDualStack".to_owned() } else { "SingleStack".to_owned() }
    });
    let wants_both = policy.as_str() != "SingleStack";
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() {
        let first = spec.cluster_ips.iter().flatten().find_map(|a| parse_ip(a));
        families.push(if first.is_some_and(|ip| ip.is_ipv6()) { "IPv6" } else { "IPv4" }.to_owned());
    }
    if free && wants_both && families.len() < 2 {
        let other = if families.first().is_some_and(|f| f == "IPv6") { "IPv4" } else { "IPv6" };
        families.push(other.to_owned());
    }
}

/// The addresses, families and policy of a service, alone and together.
pub(super) fn validate(errors: &mut Errors, spec: &ServiceSpec) {
    if text(&spec.type_) == "ExternalName" {
        return;
    }
    let path = Path::new("spec");
    let (ips_at, families_at) = (path.child("clusterIPs"), path.child("ipFamilies"));
    let (address, addresses) = (text(&spec.cluster_ip), list(&spec.cluster_ips));
    let shown = || BadValue::of(&addresses);
    match addresses.first() {
        None if !address.is_empty() => errors.push(FieldError::required(&ips_at, "")),
        Some(_) if address.is_empty() => {
            errors.push(FieldError::invalid(
                &ips_at,
                shown(),
                "must be empty when `clusterIP` is not specified",
            ));
        }
        Some(first) if first != address => {
            errors.push(FieldError::invalid(&ips_at, shown(), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    let families = list(&spec.ip_families);
    let mut seen = BTreeSet::new();
    for (i, family) in families.iter().enumerate() {
        one_of(errors, &families_at.index(i), family, &["IPv4", "IPv6"]);
        if !seen.insert(family) {
            errors.push(FieldError::duplicate(&families_at.index(i), family));
        }
    }
    if let Some(policy) = &spec.ip_family_policy {
        let allowed = &["PreferDualStack", "RequireDualStack", "SingleStack"];
        one_of(errors, &path.child("ipFamilyPolicy"), policy, allowed);
    }
    let mut sound = true;
    for (i, value) in addresses.iter().enumerate() {
        if i == 0 && value == "None" {
            if addresses.len() > 1 {
                sound = false;
                errors.push(FieldError::invalid(&ips_at, shown(), "'None' must be the first and only value"));
            }
            continue;
        }
        sound &= ip(errors, &ips_at.index(i), value);
    }
    if addresses.len() > 2 {
        errors.push(FieldError::invalid(&ips_at, shown(), "may only hold up to 2 values"));
    }
    if !sound {
        return;
    }
    if addresses.len() > 1 && !is_dual_stack(addresses.iter().map(String::as_str)) {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(&ips_at, shown(), detail));
    }
    if is_headless(spec) {
        return;
    }
    for (i, (value, family)) in addresses.iter().zip(families).enumerate() {
        let is_ipv6 = parse_ip(value).is_some_and(|ip| ip.is_ipv6());
        if matches!(family.as_str(), "IPv4" | "IPv6") && (family == "IPv6") != is_ipv6 {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.push(FieldError::invalid(&ips_at.index(i), value, detail));
        }
    }
}

/// Addresses and families may be added and released, but the first ones stay.
pub(super) fn validate_update(errors: &mut Errors, spec: &ServiceSpec, old: &ServiceSpec) {
    if [spec, old].iter().any(|s| text(&s.type_) == "ExternalName") {
        return;
    }
    let (headless, was_headless) = (is_headless(spec), is_headless(old));
    let path = Path::new("spec");
    if !(headless && was_headless) {
        let (new, had) = (list(&spec.cluster_ips), list(&old.cluster_ips));
        let names = ("clusterIPs", "clusterIP");
        changes(errors, new, had, (new, new), spec, names, &path);
    }
    if headless == was_headless && !headless {
        let (new, had) = (list(&spec.ip_families), list(&old.ip_families));
        // Upstream shows the addresses here.
        let shown = (new, list(&spec.cluster_ips));
        changes(errors, new, had, shown, spec, ("ipFamilies", "ipFamily"), &path);
    }
}

fn changes(
    errors: &mut Errors,
    new: &[String],
    old: &[String],
    shown: (&[String], &[String]),
    spec: &ServiceSpec,
    names: (&str, &str),
    path: &Path,
) {
    let at = |i: usize| path.child(names.0).index(i);
    let changed = "may not change once set";
    if new.len() == old.len() {
        let mut whole = Whole::new(BadValue::of(&shown.0));
        for (i, _) in old.iter().enumerate().filter(|(i, value)| new.get(*i) != Some(value)) {
            let i = if names.0 == "ipFamilies" { 0 } else { i };
            whole.invalid(errors, &at(i), changed);
        }
        return;
    }
    if old.len() > new.len() && list(&spec.cluster_ips).is_empty() {
        let detail = format!("primary {} can not be unset", names.1);
        errors.push(FieldError::invalid(&at(0), BadValue::of(&shown.0), detail));
    }
    if let (Some(first), Some(before)) = (new.first(), old.first())
        && first != before
    {
        errors.push(FieldError::invalid(&at(0), BadValue::of(&shown.1), changed));
    }
    let policy = spec.ip_family_policy.as_deref();
    if old.len() > new.len() && new.len() == 1 && policy != Some("SingleStack") {
        let shown = policy.map_or(BadValue::Json(Value::Null), BadValue::from);
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {}", names.1);
        errors.push(FieldError::invalid(&path.child("ipFamilyPolicy"), shown, detail));
    }
}
