//! What a pod looks like as an endpoint of a service.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};

use super::{CONTROLLER, MANAGED_BY, SERVICE, ZONE};
use crate::pods::{is_ready, node};
use crate::serving::{HEADLESS, addresses, counts_as_ready, has_cluster_ip, hostname, port_number, protocol};

/// Which endpoint it is: its addresses, node and pod.
pub(super) type Identity = (Vec<String>, Option<String>, Option<String>);

/// A set of ports in an order of its own, so that equal sets compare equal.
pub(crate) type Ports = Vec<(Option<String>, Option<String>, Option<i32>, Option<String>)>;

/// IPv4, IPv6 or both, as the service wants.
pub(super) fn address_types(spec: &ServiceSpec) -> Vec<&'static str> {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let named = |family: &str| families.iter().any(|wanted| wanted == family);
    match (named("IPv4"), named("IPv6")) {
        (true, true) => vec!["IPv4", "IPv6"],
        (true, false) => vec!["IPv4"],
        (false, true) => vec!["IPv6"],
        (false, false) => match spec.cluster_ip.as_deref() {
            None | Some("" | "None") => vec!["IPv4", "IPv6"],
            Some(ip) if ip.contains(':') => vec!["IPv6"],
            Some(_) => vec!["IPv4"],
        },
    }
}

/// The labels of a service's slices: its own, and those that say whose they are.
pub(super) fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if !service.spec.as_ref().is_some_and(has_cluster_ip) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    labels
}

/// The service's ports on this pod. Ports that the pod does not name are left out.
pub(super) fn ports(spec: &ServiceSpec, pod: &Pod) -> Vec<EndpointPort> {
    let ports = spec.ports.iter().flatten();
    let found = ports.filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port_number(pod, port)?),
            protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    });
    found.collect()
}

/// The pod as an endpoint; `None` if it has no address of this family.
pub(super) fn endpoint(
    service: &Service,
    spec: &ServiceSpec,
    pod: &Pod,
    on: Option<&Node>,
    address_type: &str,
) -> Option<Endpoint> {
    let addresses = addresses(pod, address_type == "IPv6");
    if addresses.is_empty() {
        return None;
    }
    let serving = is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    // Clients that know nothing of `terminating` must not send new work to a pod that goes.
    let ready =
        counts_as_ready(spec, pod) && (!terminating || spec.publish_not_ready_addresses == Some(true));
    let node_name = node(pod).map(str::to_owned);
    let zone = on.and_then(zone).map(str::to_owned);
    Some(Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        deprecated_topology: None,
        hints: ready.then(|| hints(service, spec, node_name.as_deref(), zone.as_deref())).flatten(),
        hostname: hostname(service, pod),
        node_name,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone,
    })
}

/// Which clients should prefer the endpoint, by the service's `trafficDistribution`.
fn hints(
    service: &Service,
    spec: &ServiceSpec,
    node: Option<&str>,
    zone: Option<&str>,
) -> Option<EndpointHints> {
    let annotations = service.metadata.annotations.as_ref();
    let by_topology = ["service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"]
        .iter()
        .find_map(|name| annotations?.get(*name))
        .is_some_and(|mode| matches!(mode.as_str(), "Auto" | "auto"));
    if by_topology {
        return None;
    }
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    match spec.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => {
            for_zones.map(|zones| EndpointHints { for_zones: Some(zones), for_nodes: None })
        }
        "PreferSameNode" => node.map(|node| EndpointHints {
            for_nodes: Some(vec![ForNode { name: node.to_owned() }]),
            for_zones,
        }),
        _ => None,
    }
}

pub(super) fn zone(node: &Node) -> Option<&str> {
    let zone = node.metadata.labels.as_ref()?.get(ZONE)?;
    Some(zone.as_str()).filter(|zone| !zone.is_empty())
}

pub(super) fn identity(endpoint: &Endpoint) -> Identity {
    let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.clone());
    (endpoint.addresses.clone(), endpoint.node_name.clone(), pod)
}

/// The ports as a [`Ports`] to compare by.
pub(crate) fn ports_key(ports: &[EndpointPort]) -> Ports {
    let mut key: Ports = ports
        .iter()
        .map(|port| (port.name.clone(), port.protocol.clone(), port.port, port.app_protocol.clone()))
        .collect();
    key.sort();
    key
}
