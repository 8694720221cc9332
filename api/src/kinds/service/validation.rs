//! What a service must be like.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{LoadBalancerIngress, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use serde_json::json;

use super::{is_external, is_headless, needs_health_check};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::check::{
        cidr, dns_label, dns_subdomain, ip, list, non_special_ip, one_of, parse_ip, port_number,
        port_or_name, qualified_name, required_one_of, text,
    },
    meta,
};

const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";

pub(super) fn validate(errors: &mut Errors, metadata: &ObjectMeta, spec: &ServiceSpec) {
    let path = Path::new("spec");
    let annotation = |key: &str| metadata.annotations.as_ref().and_then(|a| a.get(key));
    let annotation_at = |key: &str| Path::new("metadata").child("annotations").key(key);
    if let (Some(hints), Some(mode)) = (annotation(HINTS), annotation(MODE))
        && hints != mode
    {
        let detail = format!("must match annotations[{HINTS}] when both are specified");
        errors.push(FieldError::invalid(&annotation_at(MODE), mode, detail));
    }
    let (kind, headless) = (text(&spec.type_), is_headless(spec));
    if list(&spec.ports).is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(&path.child("ports"), ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid(&path.child("clusterIPs").index(0), "None", detail));
        }
        "ExternalName" => external_name(errors, spec, &path),
        _ => {}
    }
    let mut names = BTreeSet::new();
    let ports = list(&spec.ports);
    for (i, port) in ports.iter().enumerate() {
        service_port(errors, port, ports.len() > 1, &mut names, &path.child("ports").index(i));
    }
    if let Some(selector) = &spec.selector {
        errors.extend(meta::validate_labels(selector, &path.child("selector")));
    }
    required_one_of(
        errors,
        &path.child("sessionAffinity"),
        text(&spec.session_affinity),
        &["ClientIP", "None"],
    );
    affinity_config(errors, spec, &path.child("sessionAffinityConfig"));
    for (i, address) in list(&spec.external_ips).iter().enumerate() {
        let at = path.child("externalIPs").index(i);
        if ip(errors, &at, address) {
            non_special_ip(errors, &at, address);
        }
    }
    let kinds = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    required_one_of(errors, &path.child("type"), kind, kinds);
    port_numbers(errors, ports, kind, &path.child("ports"));
    source_ranges(errors, spec, annotation(RANGES), &annotation_at(RANGES), &path);
    if spec.allocate_load_balancer_node_ports.is_some() && kind != "LoadBalancer" {
        errors.push(FieldError::forbidden(&path.child("allocateLoadBalancerNodePorts"), ONLY_BALANCED));
    }
    if spec.allocate_load_balancer_node_ports.is_none() && kind == "LoadBalancer" {
        errors.push(FieldError::required(&Path::new("allocateLoadBalancerNodePorts"), ""));
    }
    load_balancer_class(errors, spec, &path);
    policies(errors, spec, &path);
}

fn external_name(errors: &mut Errors, spec: &ServiceSpec, path: &Path) {
    let detail = "may not be set for ExternalName services";
    for (field, set) in [
        ("clusterIPs", !list(&spec.cluster_ips).is_empty()),
        ("ipFamilies", !list(&spec.ip_families).is_empty()),
        ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
    ] {
        if set {
            errors.push(FieldError::forbidden(&path.child(field), detail));
        }
    }
    let name = text(&spec.external_name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let at = path.child("externalName");
    if name.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else {
        dns_subdomain(errors, &at, name);
    }
}

fn service_port<'a>(
    errors: &mut Errors,
    port: &'a ServicePort,
    name_required: bool,
    names: &mut BTreeSet<&'a str>,
    path: &Path,
) {
    let name = text(&port.name);
    if !name.is_empty() {
        dns_label(errors, &path.child("name"), name);
        if !names.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
    } else if name_required {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    port_number(errors, &path.child("port"), port.port);
    required_one_of(errors, &path.child("protocol"), text(&port.protocol), &["SCTP", "TCP", "UDP"]);
    let target = port.target_port.as_ref().unwrap_or(&IntOrString::Int(0));
    port_or_name(errors, &path.child("targetPort"), target);
    if let Some(protocol) = &port.app_protocol {
        qualified_name(errors, &path.child("appProtocol"), protocol);
    }
}

fn port_numbers(errors: &mut Errors, ports: &[ServicePort], kind: &str, path: &Path) {
    let node_port = |port: &ServicePort| port.node_port.filter(|p| *p != 0);
    if kind == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, p)| node_port(p).is_some()) {
            let at = path.index(i).child("nodePort");
            errors.push(FieldError::forbidden(&at, "may not be used when `type` is 'ClusterIP'"));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if let Some(number) = node_port(port)
            && !seen.insert((text(&port.protocol), number))
        {
            errors.push(FieldError::duplicate(&path.index(i).child("nodePort"), number));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if !seen.insert((text(&port.protocol), port.port)) {
            // Upstream shows its own struct.
            let shown = json!({
                "Name": "", "Protocol": text(&port.protocol), "AppProtocol": null, "Port": port.port, "TargetPort": 0,
                "NodePort": 0,
            });
            errors.push(FieldError::duplicate(&path.index(i), shown));
        }
    }
}

fn affinity_config(errors: &mut Errors, spec: &ServiceSpec, path: &Path) {
    let config = spec.session_affinity_config.as_ref();
    match text(&spec.session_affinity) {
        "ClientIP" => {
            let client = config.and_then(|c| c.client_ip.as_ref());
            let timeout = client.and_then(|c| c.timeout_seconds);
            let at = path.child("clientIP");
            let missing = "when session affinity type is ClientIP";
            match timeout {
                _ if config.is_none() => errors.push(FieldError::required(path, missing)),
                _ if client.is_none() => errors.push(FieldError::required(&at, missing)),
                None => errors.push(FieldError::required(&at.child("timeoutSeconds"), missing)),
                Some(seconds) if !(1..=86400).contains(&seconds) => {
                    let detail = "must be greater than 0 and less than 86400";
                    errors.push(FieldError::invalid(&at.child("timeoutSeconds"), seconds, detail));
                }
                Some(_) => {}
            }
        }
        "None" if config.is_some() => {
            errors.push(FieldError::forbidden(path, "must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn source_ranges(errors: &mut Errors, spec: &ServiceSpec, old: Option<&String>, old_at: &Path, path: &Path) {
    let balanced = text(&spec.type_) == "LoadBalancer";
    let ranges = list(&spec.load_balancer_source_ranges);
    if !ranges.is_empty() {
        let at = path.child("LoadBalancerSourceRanges");
        if !balanced {
            errors.push(FieldError::forbidden(&at, ONLY_BALANCED));
        }
        for (i, range) in ranges.iter().enumerate() {
            cidr(errors, &at.index(i), range.trim());
        }
    } else if let Some(ranges) = old {
        if !balanced {
            errors.push(FieldError::forbidden(old_at, ONLY_BALANCED));
        }
        if !ranges.trim().is_empty() {
            for range in ranges.trim().split(',') {
                cidr(errors, old_at, range.trim());
            }
        }
    }
}

fn load_balancer_class(errors: &mut Errors, spec: &ServiceSpec, path: &Path) {
    let Some(class) = &spec.load_balancer_class else { return };
    let at = path.child("loadBalancerClass");
    if text(&spec.type_) == "LoadBalancer" {
        qualified_name(errors, &at, class);
    } else {
        errors.push(FieldError::forbidden(&at, ONLY_BALANCED));
    }
}

fn policies(errors: &mut Errors, spec: &ServiceSpec, path: &Path) {
    let (policy, at) = (text(&spec.external_traffic_policy), path.child("externalTrafficPolicy"));
    if is_external(spec) {
        required_one_of(errors, &at, policy, &["Cluster", "Local"]);
    } else if !policy.is_empty() {
        errors.push(FieldError::invalid(&at, policy, "may only be set for externally-accessible services"));
    }
    let (number, at) = (spec.health_check_node_port.unwrap_or_default(), path.child("healthCheckNodePort"));
    match (needs_health_check(spec), number) {
        (false, 0) => {}
        (false, _) => {
            let detail =
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(&at, number, detail));
        }
        (true, 0) => errors.push(FieldError::required(&at, "")),
        (true, _) => port_number(errors, &at, number),
    }
    let at = path.child("internalTrafficPolicy");
    match &spec.internal_traffic_policy {
        None if matches!(text(&spec.type_), "NodePort" | "LoadBalancer" | "ClusterIP") => {
            errors.push(FieldError::required(&at, ""));
        }
        None => {}
        Some(policy) => one_of(errors, &at, policy, &["Cluster", "Local"]),
    }
    if let Some(distribution) = &spec.traffic_distribution {
        let allowed = &["PreferClose", "PreferSameNode", "PreferSameZone"];
        one_of(errors, &path.child("trafficDistribution"), distribution, allowed);
    }
}

pub(super) fn validate_update(errors: &mut Errors, spec: &ServiceSpec, old: &ServiceSpec) {
    let path = Path::new("spec");
    let balanced = |spec: &ServiceSpec| text(&spec.type_) == "LoadBalancer";
    if balanced(spec) && balanced(old) && spec.load_balancer_class != old.load_balancer_class {
        let shown = spec.load_balancer_class.as_ref().map_or(BadValue::Json(json!(null)), BadValue::from);
        errors.push(FieldError::invalid(&path.child("loadBalancerClass"), shown, "may not change once set"));
    }
    if needs_health_check(spec)
        && needs_health_check(old)
        && spec.health_check_node_port != old.health_check_node_port
    {
        errors.push(FieldError::forbidden(&path.child("healthCheckNodePort"), "field is immutable"));
    }
}

/// What a load balancer reports.
pub(super) fn ingress(errors: &mut Errors, ingress: &[LoadBalancerIngress], spec: &ServiceSpec, path: &Path) {
    if text(&spec.type_) != "LoadBalancer" && !ingress.is_empty() {
        errors.push(FieldError::forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'"));
        return;
    }
    for (i, entry) in ingress.iter().enumerate() {
        let at = path.index(i);
        let address = text(&entry.ip);
        if !address.is_empty() {
            ip(errors, &at.child("ip"), address);
        }
        match &entry.ip_mode {
            None if !address.is_empty() => {
                errors.push(FieldError::required(&at.child("ipMode"), "must be specified when `ip` is set"));
            }
            None => {}
            Some(_) if address.is_empty() => {
                let detail = "may not be specified when `ip` is not set";
                errors.push(FieldError::forbidden(&at.child("ipMode"), detail));
            }
            Some(mode) => one_of(errors, &at.child("ipMode"), mode, &["Proxy", "VIP"]),
        }
        let host = text(&entry.hostname);
        if !host.is_empty() {
            dns_subdomain(errors, &at.child("hostname"), host);
            if parse_ip(host).is_some() {
                let detail = "must be a DNS name, not an IP address";
                errors.push(FieldError::invalid(&at.child("hostname"), host, detail));
            }
        }
    }
}
