//! From a service and its endpoint slices to frontends: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{EndpointHints, EndpointSlice};

use super::model::{Backends, Endpoint, Frontend, Masquerade, Refusal, View};
use crate::addr::Cidr;
use crate::config::{HostPort, Protocol};

/// Services with this label are another proxy's.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;

/// Where this proxy is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    pub node: String,
    pub zone: Option<String>,
}

/// The frontends of a service as seen from here.
pub fn service(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    here: &Location,
) -> BTreeMap<Frontend, Backends> {
    let mut frontends = BTreeMap::new();
    let Some(spec) = &service.spec else { return frontends };
    let foreign = service.metadata.labels.iter().flatten().any(|(label, _)| label == PROXY_NAME_LABEL);
    if foreign || spec.type_.as_deref() == Some("ExternalName") {
        return frontends;
    }
    let cluster_ips = cluster_ips(spec);
    if cluster_ips.is_empty() {
        return frontends;
    }
    let balanced = balanced_ips(service);
    let external_ips = external_ips(spec, &balanced);
    let sources = sources(spec);
    let affinity = affinity(spec);
    for port in spec.ports.iter().flatten() {
        let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else { continue };
        let Some(number) = port_number(port.port) else { continue };
        let choice = Choice::of(port, protocol, slices, here);
        let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
        for address in &cluster_ips {
            let frontend = Frontend { view: View::All, address: Some(*address), protocol, port: number };
            frontends.insert(frontend, choice.backends(internal_local, Masquerade::Outsiders, affinity));
        }
        let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
        let node_port = port.node_port.and_then(port_number).map(|port| (None, port));
        for (address, port) in external_ips.iter().map(|address| (Some(*address), number)).chain(node_port) {
            let frontend = Frontend { view: View::All, address, protocol, port };
            if external_local {
                let inside = Frontend { view: View::Inside, ..frontend };
                frontends.insert(inside, choice.backends(false, Masquerade::Outsiders, affinity));
                frontends.insert(frontend, choice.backends(true, Masquerade::Never, affinity));
            } else {
                frontends.insert(frontend, choice.backends(false, Masquerade::Always, affinity));
            }
        }
    }
    for (frontend, backends) in &mut frontends {
        if frontend.view == View::All && frontend.address.is_some_and(|address| balanced.contains(&address)) {
            backends.sources.clone_from(&sources);
        }
    }
    frontends
}

/// The frontends of a sandbox's host ports.
pub fn host_ports(pod: Ipv4Addr, ports: &[HostPort]) -> BTreeMap<Frontend, Backends> {
    let frontend = |port: &HostPort| {
        let address = port.host_ip.filter(|address| !address.is_unspecified());
        let frontend = Frontend { view: View::All, address, protocol: port.protocol, port: port.host_port };
        (frontend, single(Endpoint { address: pod, port: port.container_port }))
    };
    ports.iter().map(frontend).collect()
}

/// Cluster DNS: the service address leads to this node's own server.
pub fn dns(cluster_dns: Ipv4Addr, server: Ipv4Addr) -> BTreeMap<Frontend, Backends> {
    let frontend = |protocol| {
        let frontend = Frontend { view: View::All, address: Some(cluster_dns), protocol, port: 53 };
        (frontend, single(Endpoint { address: server, port: 53 }))
    };
    [Protocol::Udp, Protocol::Tcp].map(frontend).into()
}

fn single(endpoint: Endpoint) -> Backends {
    Backends {
        endpoints: vec![endpoint],
        masquerade: Masquerade::Never,
        affinity: None,
        when_empty: Refusal::Reject,
        sources: Vec::new(),
    }
}

/// The endpoints of one service port that may be used: from the whole cluster, and of this node.
struct Choice {
    cluster: BTreeSet<Endpoint>,
    local: BTreeSet<Endpoint>,
}

impl Choice {
    fn of(port: &ServicePort, protocol: Protocol, slices: &[Arc<EndpointSlice>], here: &Location) -> Self {
        let mut ready = Self { cluster: BTreeSet::new(), local: BTreeSet::new() };
        let mut hinted = Vec::new();
        let mut leaving = Self { cluster: BTreeSet::new(), local: BTreeSet::new() };
        for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
            let number = slice.ports.iter().flatten().find_map(|candidate| {
                let same_name = candidate.name.as_deref().unwrap_or("") == port.name.as_deref().unwrap_or("");
                let same_protocol = Protocol::parse(candidate.protocol.as_deref()) == Some(protocol);
                if same_name && same_protocol { candidate.port.and_then(port_number) } else { None }
            });
            let Some(number) = number else { continue };
            for endpoint in slice.endpoints.iter().flatten() {
                let conditions = endpoint.conditions.as_ref();
                let is_ready = conditions.and_then(|c| c.ready).unwrap_or(true);
                let serving = conditions.and_then(|c| c.serving).unwrap_or(is_ready);
                let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
                let choice = if is_ready {
                    &mut ready
                } else if serving && terminating {
                    &mut leaving
                } else {
                    continue;
                };
                // Consumers use the first address only.
                let Some(address) = endpoint.addresses.first().and_then(|text| text.parse().ok()) else {
                    continue;
                };
                let backend = Endpoint { address, port: number };
                if is_ready {
                    hinted.push((backend, endpoint.hints.as_ref()));
                }
                choice.cluster.insert(backend);
                if endpoint.node_name.as_deref() == Some(here.node.as_str()) {
                    choice.local.insert(backend);
                }
            }
        }
        // Pods that are leaving but still answer are better than nothing.
        Self {
            cluster: if ready.cluster.is_empty() {
                leaving.cluster
            } else {
                near(&hinted, here).unwrap_or(ready.cluster)
            },
            local: if ready.local.is_empty() { leaving.local } else { ready.local },
        }
    }

    fn backends(&self, local: bool, masquerade: Masquerade, affinity: Option<u32>) -> Backends {
        let endpoints = if local { &self.local } else { &self.cluster };
        let when_empty = if local && !self.cluster.is_empty() { Refusal::Drop } else { Refusal::Reject };
        Backends {
            endpoints: endpoints.iter().copied().collect(),
            masquerade,
            affinity,
            when_empty,
            sources: Vec::new(),
        }
    }
}

/// The endpoints that are meant for this node, or else for its zone; none if some endpoint doesn't say, or nothing
/// is meant for here.
fn near(hinted: &[(Endpoint, Option<&EndpointHints>)], here: &Location) -> Option<BTreeSet<Endpoint>> {
    let by_node = |hints: &EndpointHints| {
        let nodes = hints.for_nodes.as_ref().filter(|nodes| !nodes.is_empty())?;
        Some(nodes.iter().any(|node| node.name == here.node))
    };
    let by_zone = |hints: &EndpointHints| {
        let zone = here.zone.as_ref()?;
        let zones = hints.for_zones.as_ref().filter(|zones| !zones.is_empty())?;
        Some(zones.iter().any(|candidate| candidate.name == *zone))
    };
    meant(hinted, by_node).or_else(|| meant(hinted, by_zone))
}

fn meant(
    hinted: &[(Endpoint, Option<&EndpointHints>)],
    for_here: impl Fn(&EndpointHints) -> Option<bool>,
) -> Option<BTreeSet<Endpoint>> {
    let mut meant = BTreeSet::new();
    for (endpoint, hints) in hinted {
        if for_here((*hints)?)? {
            meant.insert(*endpoint);
        }
    }
    (!meant.is_empty()).then_some(meant)
}

fn cluster_ips(spec: &ServiceSpec) -> BTreeSet<Ipv4Addr> {
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    all.filter_map(|text| text.parse().ok()).collect()
}

fn balanced_ips(service: &Service) -> BTreeSet<Ipv4Addr> {
    let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref());
    let ingress = ingress.flat_map(|balancer| balancer.ingress.iter().flatten());
    // Traffic to a proxying balancer's address must pass the balancer.
    let ours = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    ours.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

fn external_ips(spec: &ServiceSpec, balanced: &BTreeSet<Ipv4Addr>) -> BTreeSet<Ipv4Addr> {
    let external = spec.external_ips.iter().flatten().filter_map(|text| text.parse().ok());
    external.chain(balanced.iter().copied()).collect()
}

/// The source ranges of a load balancer, without those inside of others. Only ranges of another address family
/// still keep everybody out.
fn sources(spec: &ServiceSpec) -> Vec<Cidr> {
    let texts = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let mut networks: Vec<Cidr> = texts.iter().filter_map(|text| text.trim().parse().ok()).collect();
    if networks.is_empty() && !texts.is_empty() {
        networks.push(Cidr::new(Ipv4Addr::UNSPECIFIED, 32));
    }
    networks.sort_by_key(|network| (network.prefix(), *network));
    let mut disjoint: Vec<Cidr> = Vec::new();
    for network in networks {
        if !disjoint.iter().any(|wider| wider.contains(network.network())) {
            disjoint.push(network);
        }
    }
    // No ranges are the same as a range of everything.
    disjoint.retain(|network| network.prefix() > 0);
    disjoint
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(DEFAULT_AFFINITY_SECONDS);
    u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
}

fn port_number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn compiled(spec: Value, endpoints: Value) -> Vec<String> {
        let service_object: Service = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec,
            "status": {"loadBalancer": {"ingress": [{"ip": "9.9.9.9"}, {"ip": "8.8.8.8", "ipMode": "Proxy"}]}}}))
        .unwrap();
        let slice: EndpointSlice = serde_json::from_value(json!({"metadata": {}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints}))
        .unwrap();
        let here = Location { node: "here".into(), zone: Some("z1".into()) };
        service(&service_object, &[Arc::new(slice)], &here).iter().map(show).collect()
    }

    fn show((frontend, backends): (&Frontend, &Backends)) -> String {
        let endpoints: Vec<_> =
            backends.endpoints.iter().map(|e| format!("{}:{}", e.address, e.port)).collect();
        let address = frontend.address.map_or("*".to_owned(), |address| address.to_string());
        let mut text = format!(
            "{:?} {address}:{} {:?} [{}]",
            frontend.view,
            frontend.port,
            backends.masquerade,
            endpoints.join(" ")
        );
        if backends.endpoints.is_empty() {
            text.push_str(&format!(" {:?}", backends.when_empty));
        }
        if let Some(seconds) = backends.affinity {
            text.push_str(&format!(" sticky {seconds}"));
        }
        text
    }

    fn spec(extra: Value) -> Value {
        let mut spec = json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    }

    fn endpoint(address: &str, node: &str, conditions: Value) -> Value {
        json!({"addresses": [address], "nodeName": node, "conditions": conditions})
    }

    fn two() -> Value {
        json!([
            endpoint("10.244.1.2", "here", json!({})),
            endpoint("10.244.2.2", "there", json!({"ready": true}))
        ])
    }

    fn node_port() -> Value {
        json!([{"name": "http", "port": 80, "nodePort": 30080}])
    }

    #[test]
    fn a_service_leads_to_its_endpoints_by_policy() {
        let all = "[10.244.1.2:8080 10.244.2.2:8080]";
        let cases = [
            (
                json!({}),
                vec![format!("All 10.96.0.7:80 Outsiders {all}"), format!("All 9.9.9.9:80 Always {all}")],
            ),
            (
                json!({"ports": node_port()}),
                vec![
                    format!("All *:30080 Always {all}"),
                    format!("All 9.9.9.9:80 Always {all}"),
                    format!("All 10.96.0.7:80 Outsiders {all}"),
                ],
            ),
            (
                json!({"internalTrafficPolicy": "Local", "externalIPs": ["7.7.7.7"]}),
                vec![
                    format!("All 7.7.7.7:80 Always {all}"),
                    format!("All 9.9.9.9:80 Always {all}"),
                    "All 10.96.0.7:80 Outsiders [10.244.1.2:8080]".to_owned(),
                ],
            ),
            (
                json!({"externalTrafficPolicy": "Local", "ports": node_port()}),
                vec![
                    "All *:30080 Never [10.244.1.2:8080]".to_owned(),
                    "All 9.9.9.9:80 Never [10.244.1.2:8080]".to_owned(),
                    format!("All 10.96.0.7:80 Outsiders {all}"),
                    format!("Inside *:30080 Outsiders {all}"),
                    format!("Inside 9.9.9.9:80 Outsiders {all}"),
                ],
            ),
            (
                json!({"sessionAffinity": "ClientIP"}),
                vec![
                    format!("All 9.9.9.9:80 Always {all} sticky 10800"),
                    format!("All 10.96.0.7:80 Outsiders {all} sticky 10800"),
                ],
            ),
            (json!({"clusterIP": "None", "clusterIPs": ["None"]}), vec![]),
            (json!({"type": "ExternalName"}), vec![]),
            (
                json!({"ports": [{"name": "other", "port": 81}]}),
                vec!["All 9.9.9.9:81 Always [] Reject".into(), "All 10.96.0.7:81 Outsiders [] Reject".into()],
            ),
        ];
        for (extra, mut expected) in cases {
            let mut found = compiled(spec(extra.clone()), two());
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{extra}");
        }
    }

    #[test]
    fn hints_keep_traffic_near_if_all_endpoints_have_them() {
        let hinted =
            |last: u8, hints: Value| json!({"addresses": [format!("10.1.0.{last}")], "hints": hints});
        let node = |name: &str| json!({"forNodes": [{"name": name}], "forZones": [{"name": "z1"}]});
        let zone = |name: &str| json!({"forZones": [{"name": name}]});
        let cases = [
            (json!([hinted(1, zone("z1")), hinted(2, zone("z2"))]), "[10.1.0.1:8080]"),
            (json!([hinted(1, zone("z1")), hinted(2, json!(null))]), "[10.1.0.1:8080 10.1.0.2:8080]"),
            (json!([hinted(1, zone("z2")), hinted(2, zone("z2"))]), "[10.1.0.1:8080 10.1.0.2:8080]"),
            (json!([hinted(1, node("there")), hinted(2, node("here"))]), "[10.1.0.2:8080]"),
            (json!([hinted(1, node("there")), hinted(2, zone("z2"))]), "[10.1.0.1:8080]"),
        ];
        for (endpoints, expected) in cases {
            let found = compiled(spec(json!({})), endpoints.clone());
            assert!(found[1].ends_with(&format!("Outsiders {expected}")), "{endpoints}: {found:?}");
        }
    }

    #[test]
    fn source_ranges_are_disjoint() {
        let cases = [
            (json!([]), vec![]),
            (json!(["10.1.0.0/16", "10.0.0.0/8", " 9.0.0.0/8 "]), vec!["9.0.0.0/8", "10.0.0.0/8"]),
            (json!(["0.0.0.0/0", "10.0.0.0/8"]), vec![]),
            (json!(["fd00::/8"]), vec!["0.0.0.0/32"]),
        ];
        for (ranges, expected) in cases {
            let spec: ServiceSpec =
                serde_json::from_value(json!({"loadBalancerSourceRanges": ranges})).unwrap();
            let found: Vec<_> = sources(&spec).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{ranges}");
        }
    }

    #[test]
    fn terminating_endpoints_serve_only_when_none_is_ready() {
        let leaving = json!({"ready": false, "serving": true, "terminating": true});
        let dead = json!({"ready": false, "serving": false, "terminating": true});
        let starting = json!({"ready": false, "serving": false});
        let cases = [
            (
                json!([endpoint("10.1.0.1", "a", json!({})), endpoint("10.1.0.2", "a", leaving.clone())]),
                "[10.1.0.1:8080]",
            ),
            (
                json!([endpoint("10.1.0.2", "a", leaving.clone()), endpoint("10.1.0.3", "a", dead)]),
                "[10.1.0.2:8080]",
            ),
            (json!([endpoint("10.1.0.4", "a", starting)]), "[] Reject"),
        ];
        for (endpoints, expected) in cases {
            let found = compiled(spec(json!({})), endpoints.clone());
            assert!(
                found[1].ends_with(&format!("10.96.0.7:80 Outsiders {expected}")),
                "{endpoints}: {found:?}"
            );
        }
    }

    #[test]
    fn a_local_policy_without_local_endpoints_drops() {
        let elsewhere = json!([endpoint("10.244.2.2", "there", json!({}))]);
        let found = compiled(
            spec(json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"})),
            elsewhere,
        );
        assert_eq!(found[0], "All 9.9.9.9:80 Never [] Drop");
        assert_eq!(found[1], "All 10.96.0.7:80 Outsiders [] Drop");
        let found = compiled(spec(json!({"internalTrafficPolicy": "Local"})), json!([]));
        assert_eq!(found[1], "All 10.96.0.7:80 Outsiders [] Reject");
    }
}
