//! Addresses and ports of pods as subsets: ports that the same addresses serve stand together.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, ObjectReference, Pod, Service, ServiceSpec,
};

use crate::pods::node;
use crate::serving::{addresses, can_serve, counts_as_ready, hostname, port_number, protocol};

/// Endpoints that are shown.
pub(super) const MOST: usize = 1000;

type PortKey = (Option<String>, i32, Option<String>, Option<String>);
/// By address in order; ready or not.
type Addresses = BTreeMap<AddressKey, (EndpointAddress, bool)>;
type AddressKey = (Option<IpAddr>, String, Option<String>);

/// The subsets of a service, and whether some were left out.
pub(super) fn of(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let Some(spec) = &service.spec else { return (Vec::new(), false) };
    let mut by_port: BTreeMap<Option<PortKey>, Addresses> = BTreeMap::new();
    let published = spec.publish_not_ready_addresses == Some(true);
    for pod in pods.iter().filter(|pod| can_serve(pod, published)) {
        let Some(address) = address(service, spec, pod) else { continue };
        let ready = counts_as_ready(spec, pod);
        let ports = spec.ports.as_deref().unwrap_or_default();
        let mut add = |port: Option<PortKey>| {
            by_port.entry(port).or_default().insert(address_key(&address), (address.clone(), ready));
        };
        if ports.is_empty() && spec.cluster_ip.as_deref() == Some("None") {
            add(None);
        }
        for port in ports {
            let Some(number) = port_number(pod, port) else { continue };
            let protocol = protocol(port.protocol.as_deref()).to_owned();
            add(Some((port.name.clone(), number, Some(protocol), port.app_protocol.clone())));
        }
    }
    let mut subsets = pack(by_port);
    let truncated = truncate(&mut subsets);
    (subsets, truncated)
}

/// The same subsets in the form in which [`of`] gives them.
pub(super) fn canonical(subsets: Vec<EndpointSubset>) -> Vec<EndpointSubset> {
    let mut by_port: BTreeMap<Option<PortKey>, Addresses> = BTreeMap::new();
    for subset in subsets {
        let ports: Vec<Option<PortKey>> = match subset.ports.as_deref().unwrap_or_default() {
            [] => vec![None],
            ports => ports.iter().map(port_key).map(Some).collect(),
        };
        let ready = subset.addresses.unwrap_or_default().into_iter().map(|address| (address, true));
        let waiting =
            subset.not_ready_addresses.unwrap_or_default().into_iter().map(|address| (address, false));
        for (address, ready) in waiting.chain(ready) {
            for port in &ports {
                let known = by_port.entry(port.clone()).or_default();
                known.insert(address_key(&address), (address.clone(), ready));
            }
        }
    }
    pack(by_port)
}

fn pack(by_port: BTreeMap<Option<PortKey>, Addresses>) -> Vec<EndpointSubset> {
    let mut subsets: Vec<(Addresses, Vec<PortKey>)> = Vec::new();
    // The same addresses, by what sorts fast: who they are and whether they are ready.
    let mut known: BTreeMap<Vec<(AddressKey, bool)>, usize> = BTreeMap::new();
    for (port, addresses) in by_port {
        let shape = addresses.iter().map(|(key, (_, ready))| (key.clone(), *ready)).collect();
        let place = *known.entry(shape).or_insert_with(|| {
            subsets.push((addresses, Vec::new()));
            subsets.len() - 1
        });
        subsets[place].1.extend(port);
    }
    let whole = |(addresses, ports): (Addresses, Vec<PortKey>)| {
        let (ready, waiting): (Vec<_>, Vec<_>) = addresses.into_values().partition(|(_, ready)| *ready);
        let list = |some: Vec<(EndpointAddress, bool)>| {
            (!some.is_empty()).then(|| some.into_iter().map(|(address, _)| address).collect())
        };
        EndpointSubset {
            addresses: list(ready),
            not_ready_addresses: list(waiting),
            ports: (!ports.is_empty()).then(|| ports.into_iter().map(port).collect()),
        }
    };
    subsets.into_iter().map(whole).collect()
}

/// Leaves out what is too much: first those that are not ready, from each subset by its share.
fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|subset| count(&subset.addresses)).sum();
    let waiting: usize = subsets.iter().map(|subset| count(&subset.not_ready_addresses)).sum();
    if ready + waiting <= MOST {
        return false;
    }
    let cut_ready = ready > MOST;
    let (most, total) = if cut_ready { (MOST, ready) } else { (MOST - ready, waiting) };
    let mut left = most;
    for subset in subsets.iter_mut() {
        if cut_ready {
            subset.not_ready_addresses = None;
        }
        let list = if cut_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        let share = (count(list) * most).div_ceil(total).min(left);
        if let Some(addresses) = list {
            addresses.truncate(share);
            left -= addresses.len();
        }
        if count(list) == 0 {
            *list = None;
        }
    }
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    true
}

fn address(service: &Service, spec: &ServiceSpec, pod: &Pod) -> Option<EndpointAddress> {
    let v6 = match spec.ip_families.as_deref().unwrap_or_default() {
        [first, ..] => first == "IPv6",
        [] => spec.cluster_ip.as_ref().is_some_and(|ip| ip.contains(':')),
    };
    Some(EndpointAddress {
        hostname: hostname(service, pod),
        ip: addresses(pod, v6).into_iter().next()?,
        node_name: node(pod).map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    })
}

fn address_key(address: &EndpointAddress) -> AddressKey {
    let uid = address.target_ref.as_ref().and_then(|target| target.uid.clone());
    (address.ip.parse().ok(), address.ip.clone(), uid)
}

fn port_key(port: &EndpointPort) -> PortKey {
    (port.name.clone(), port.port, port.protocol.clone(), port.app_protocol.clone())
}

fn port((name, port, protocol, app_protocol): PortKey) -> EndpointPort {
    EndpointPort { name: name.filter(|name| !name.is_empty()), port, protocol, app_protocol }
}
