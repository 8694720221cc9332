//! What Endpoints look like as EndpointSlices.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort as SubsetPort, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::CONTROLLER;
use crate::endpoint_slice::{MANAGED_BY, Ports, SERVICE, ports_key};
use crate::serving::{TRIGGER_TIME, protocol};

/// Addresses that are mirrored of each set of ports.
pub(super) const MOST: usize = 1000;
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Addresses that are not shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    pub(super) invalid: usize,
    pub(super) too_many: usize,
}

#[derive(Default)]
struct Group {
    ports: Vec<EndpointPort>,
    /// By address: the same address counts once, and as ready if one subset says so.
    endpoints: BTreeMap<IpAddr, Endpoint>,
}

/// The slices that show these Endpoints, one for each address family and set of ports.
pub(super) fn slices(endpoints: &Endpoints) -> (Vec<EndpointSlice>, Skipped) {
    let mut skipped = Skipped::default();
    let mut groups: BTreeMap<(&'static str, Ports), Group> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let waiting = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(waiting) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                skipped.invalid += 1;
                continue;
            };
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let group = groups.entry((family, ports_key(&ports))).or_default();
            group.ports.clone_from(&ports);
            if group.endpoints.len() >= MOST && !group.endpoints.contains_key(&ip) {
                skipped.too_many += 1;
            } else if ready || !group.endpoints.contains_key(&ip) {
                group.endpoints.insert(ip, endpoint(address, ready));
            }
        }
    }
    let slices = groups.into_iter().map(|((family, _), group)| EndpointSlice {
        address_type: family.to_owned(),
        metadata: metadata(endpoints),
        endpoints: group.endpoints.into_values().collect::<Vec<_>>().into(),
        ports: Some(group.ports),
    });
    (slices.collect(), skipped)
}

fn port(port: &SubsetPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn metadata(endpoints: &Endpoints) -> ObjectMeta {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| key != TRIGGER_TIME && key != LAST_APPLIED);
    ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: endpoints.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        owner_references: Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Endpoints".to_owned(),
            name,
            uid: endpoints.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}
