//! Where the pod, service or node of a request is.

use std::net::{IpAddr, SocketAddr};

use api::field::quote;
use api::resource::Resource;
use api::status::{GroupResource, Status};
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Pod, Service};
use serde::de::DeserializeOwned;

use crate::agents;
use crate::context::Context;
use crate::server::Server;

/// How a backend is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Http,
    /// Whatever its certificate.
    Https,
    /// The node agent, with the API server's own certificate.
    Agent,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) way: Way,
    pub(super) address: SocketAddr,
}

impl Target {
    /// Host and port, as in a URL.
    pub(super) fn host(&self) -> String {
        self.address.to_string()
    }
}

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Id<'a> {
    fn read(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https");
        (known && !name.is_empty()).then_some(Self { scheme, name, port })
    }

    fn way(self) -> Way {
        if self.scheme == "https" { Way::Https } else { Way::Http }
    }
}

/// The backend that a request names.
pub(super) fn find(server: &Server, context: &Context<'_>, row: &Resource) -> Result<Target, Status> {
    let (id, namespace) = (context.info.name.as_str(), context.info.namespace.as_str());
    let invalid = || Status::bad_request(format!("invalid {} request {}", row.singular, quote(id)));
    let read = Id::read(id).ok_or_else(invalid)?;
    match &*row.plural {
        "pods" => pod(server, namespace, read),
        "services" => service(server, namespace, id, read),
        _ => node(server, read),
    }
}

fn get<T: DeserializeOwned>(server: &Server, plural: &str, namespace: &str, name: &str) -> Result<T, Status> {
    let cache = server.registry.cache_of("", plural).ok_or_else(Status::unknown_path)?;
    let not_found = || Status::not_found(GroupResource::new("", plural), name);
    cache.get(namespace, name).ok_or_else(not_found)?.decode().map_err(Status::internal)
}

fn pod(server: &Server, namespace: &str, id: Id<'_>) -> Result<Target, Status> {
    let pod: Pod = get(server, "pods", namespace, id.name)?;
    let first = pod.spec.iter().flat_map(|spec| &spec.containers).find_map(|container| {
        container.ports.iter().flatten().next().map(|port| port.container_port.to_string())
    });
    let port = if id.port.is_empty() { first.unwrap_or_default() } else { id.port.to_owned() };
    let address = addresses(&pod).next().and_then(proxyable);
    let address = address.ok_or_else(|| Status::bad_request("address not allowed"))?;
    let way = id.way();
    let usual = if way == Way::Https { 443 } else { 80 };
    let port = if port.is_empty() { usual } else { number(&port)? };
    Ok(Target { way, address: SocketAddr::new(address, port) })
}

/// A pod's addresses, its first one first.
fn addresses(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.iter();
    status.flat_map(|status| status.pod_ips.iter().flatten()).map(|ip| ip.ip.as_str())
}

/// An address that a client may be led to: not the API server's own machine, nor a group of many.
fn proxyable(address: &str) -> Option<IpAddr> {
    let address: IpAddr = address.parse().ok()?;
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let is_other = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    (!is_link_local && !is_other).then_some(address)
}

/// A port that can only be a number; Go's dialer says so of others.
fn number(port: &str) -> Result<u16, Status> {
    port.parse().map_err(|_| {
        let why =
            if port.bytes().all(|byte| byte.is_ascii_digit()) { "invalid port" } else { "unknown port" };
        let text = format!("error trying to reach service: dial tcp: address tcp/{port}: {why}");
        Status::service_unavailable(text)
    })
}

fn service(server: &Server, namespace: &str, whole: &str, id: Id<'_>) -> Result<Target, Status> {
    let name = id.name;
    let none =
        |id: &str| Status::service_unavailable(format!("no endpoints available for service {}", quote(id)));
    let mut port = id.port.to_owned();
    if let Ok(wanted) = port.parse::<i64>() {
        let service: Service = get(server, "services", namespace, name)?;
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let declared = ports.into_iter().find(|port| i64::from(port.port) == wanted);
        let declared = declared.ok_or_else(|| {
            Status::service_unavailable(format!("no service port {wanted} found for service {}", quote(name)))
        })?;
        port = declared.name.clone().unwrap_or_default();
    }
    let endpoints: Endpoints = get(server, "endpoints", namespace, name)?;
    let subsets = endpoints.subsets.unwrap_or_default();
    if subsets.is_empty() {
        return Err(none(name));
    }
    let random = |length: usize| server.config.random.below(length.max(1) as u64) as usize;
    let first = random(subsets.len());
    for subset in subsets.iter().cycle().skip(first).take(subsets.len()) {
        let addresses = subset.addresses.as_deref().unwrap_or_default();
        let ports = subset.ports.as_deref().unwrap_or_default();
        let named = ports.iter().find(|known| known.name.as_deref().unwrap_or_default() == port);
        let Some(number) = named.and_then(|port| u16::try_from(port.port).ok()) else { continue };
        let first = random(addresses.len());
        let mut in_turn = addresses.iter().cycle().skip(first).take(addresses.len());
        if let Some(address) = in_turn.find_map(|address| of_pod(server, namespace, address)) {
            return Ok(Target { way: id.way(), address: SocketAddr::new(address, number) });
        }
    }
    Err(none(whole))
}

/// The address of an endpoint, if it is that of a pod of the namespace: whoever writes endpoints can't send the API
/// server elsewhere.
fn of_pod(server: &Server, namespace: &str, address: &EndpointAddress) -> Option<IpAddr> {
    let target = address.target_ref.as_ref()?;
    if target.namespace.as_deref() != Some(namespace) {
        return None;
    }
    let pod: Pod = get(server, "pods", namespace, target.name.as_deref()?).ok()?;
    let is_its = addresses(&pod).any(|own| own == address.ip);
    if is_its { proxyable(&address.ip) } else { None }
}

fn node(server: &Server, id: Id<'_>) -> Result<Target, Status> {
    let place = agents::node(server, id.name)?;
    if id.port.is_empty() || id.port == place.address.port().to_string() {
        return Ok(Target { way: Way::Agent, address: place.address });
    }
    let address = proxyable(&place.address.ip().to_string());
    let address = address.ok_or_else(|| Status::bad_request("address not allowed"))?;
    Ok(Target { way: id.way(), address: SocketAddr::new(address, number(id.port)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_up_to_three_parts() {
        let id = |scheme, name, port| Some(Id { scheme, name, port });
        for (text, expected) in [
            ("a", id("", "a", "")),
            ("a:80", id("", "a", "80")),
            ("https:a:", id("https", "a", "")),
            (":a:web", id("", "a", "web")),
            ("ftp:a:1", None),
            ("http::1", None),
            ("", None),
            ("a:b:c:d", None),
        ] {
            assert_eq!(Id::read(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_of_this_machine_are_not_led_to() {
        for (address, allowed) in [
            ("10.1.2.3", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("fe80::1", false),
            ("x", false),
        ] {
            assert_eq!(proxyable(address).is_some(), allowed, "{address}");
        }
    }
}
