//! The names of the cluster, by the Kubernetes DNS specification 1.1: pure.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::config::Protocol;

/// What one service answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    pub ports: Vec<Port>,
    /// Ready endpoints.
    pub hosts: Vec<Host>,
}

/// How a service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Cluster(Vec<Ipv4Addr>),
    Headless,
    External(String),
}

/// A named port; unnamed ones have no records of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    pub protocol: Protocol,
    pub number: u16,
}

/// An endpoint with the label under which it is found: its hostname, or its address with dashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    pub label: String,
    pub address: Ipv4Addr,
    pub ports: Vec<Port>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Addresses(Vec<Ipv4Addr>),
    /// Another name, outside the cluster.
    Alias(String),
    /// Ports of names relative to the cluster's domain, with the addresses of those.
    Services(Vec<(u16, Vec<String>, Ipv4Addr)>),
    /// Names relative to the cluster's domain.
    Names(Vec<Vec<String>>),
    Text(String),
    /// The cluster's domain itself.
    Apex,
    /// The name exists, but not with this type.
    NoData,
    NoName,
    /// Not the cluster's: ask elsewhere.
    Foreign,
}

/// The types of records that the cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Address,
    Service,
    Pointer,
    Text,
    Other,
}

/// All names of a cluster.
#[derive(Debug)]
pub struct Index {
    /// The labels of the cluster's domain.
    domain: Vec<String>,
    networks: Vec<crate::Cidr>,
    services: HashMap<Key, Entry>,
    namespaces: HashMap<String, usize>,
    /// Names by address, for reverse lookups.
    reverse: HashMap<Ipv4Addr, BTreeSet<(Key, Option<String>)>>,
}

impl Entry {
    /// What a service and its slices say; none if the service has no address and no endpoints to find.
    pub fn of(service: &Service, slices: &[Arc<EndpointSlice>]) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            let name = spec.external_name.as_deref()?.trim_end_matches('.').to_owned();
            return Some(Self { kind: Kind::External(name), ports: Vec::new(), hosts: Vec::new() });
        }
        let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let addresses: BTreeSet<Ipv4Addr> = all.filter_map(|text| text.parse().ok()).collect();
        let headless = spec.cluster_ip.as_deref() == Some("None");
        if !headless && spec.cluster_ip.as_deref().unwrap_or("").is_empty() {
            return None;
        }
        let ports = spec.ports.iter().flatten();
        let ports =
            ports.filter_map(|port| self::port(port.name.as_deref(), port.protocol.as_deref(), port.port));
        let ports = ports.collect();
        let mut hosts: Vec<Host> = slices.iter().flat_map(|slice| hosts(slice)).collect();
        hosts.sort();
        hosts.dedup();
        let kind = if headless { Kind::Headless } else { Kind::Cluster(addresses.into_iter().collect()) };
        Some(Self { kind, ports, hosts })
    }

    fn addresses(&self) -> Vec<Ipv4Addr> {
        match &self.kind {
            Kind::Cluster(addresses) => addresses.clone(),
            _ => {
                let unique: BTreeSet<_> = self.hosts.iter().map(|host| host.address).collect();
                unique.into_iter().collect()
            }
        }
    }
}

fn hosts(slice: &EndpointSlice) -> Vec<Host> {
    if slice.address_type != "IPv4" {
        return Vec::new();
    }
    let ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| self::port(port.name.as_deref(), port.protocol.as_deref(), port.port?))
        .collect();
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    ready
        .filter_map(|endpoint| {
            let address: Ipv4Addr = endpoint.addresses.first()?.parse().ok()?;
            let hostname = endpoint.hostname.as_deref().filter(|name| !name.is_empty());
            let label = hostname.map_or_else(|| dashed(address), str::to_lowercase);
            Some(Host { label, address, ports: ports.clone() })
        })
        .collect()
}

fn port(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Port> {
    let number = u16::try_from(number).ok()?;
    Some(Port { name: name.unwrap_or("").to_owned(), protocol: Protocol::parse(protocol)?, number })
}

fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

impl Index {
    /// An index without services. Reverse lookups in `networks` are answered here alone.
    pub fn new(domain: &str, networks: Vec<crate::Cidr>) -> Self {
        let labels = domain.trim_end_matches('.').split('.').map(str::to_lowercase);
        Self {
            domain: labels.collect(),
            networks,
            services: HashMap::new(),
            namespaces: HashMap::new(),
            reverse: HashMap::new(),
        }
    }

    /// Replaces what a service answers with.
    pub fn set(&mut self, key: &Key, entry: Option<Entry>) {
        if let Some(old) = self.services.remove(key) {
            for (address, host) in reversed(&old) {
                if let Some(names) = self.reverse.get_mut(&address) {
                    names.remove(&(key.clone(), host));
                    if names.is_empty() {
                        self.reverse.remove(&address);
                    }
                }
            }
            if let Some(count) = self.namespaces.get_mut(&key.namespace) {
                *count -= 1;
                if *count == 0 {
                    self.namespaces.remove(&key.namespace);
                }
            }
        }
        let Some(entry) = entry else { return };
        for (address, host) in reversed(&entry) {
            self.reverse.entry(address).or_default().insert((key.clone(), host));
        }
        *self.namespaces.entry(key.namespace.clone()).or_default() += 1;
        self.services.insert(key.clone(), entry);
    }

    /// What this name (its labels, in lower case) has of the wanted type.
    pub fn find(&self, labels: &[String], wanted: Wanted) -> Found {
        if let Some(address) = reverse_address(labels) {
            return self.find_pointer(address, wanted);
        }
        let Some(own) = labels.strip_suffix(self.domain.as_slice()) else { return Found::Foreign };
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        match own.as_slice() {
            [] => Found::Apex,
            ["dns-version"] if wanted == Wanted::Text => Found::Text("1.1.0".to_owned()),
            ["dns-version"] | ["svc" | "pod"] => Found::NoData,
            [namespace, "svc" | "pod"] if self.namespaces.contains_key(*namespace) => Found::NoData,
            [pod, _namespace, "pod"] => match pod.replace('-', ".").parse() {
                Ok(address) if *pod == dashed(address) => addresses(vec![address], wanted),
                _ => Found::NoName,
            },
            [rest @ .., service, namespace, "svc"] => {
                match self.services.get(&Key::new(*namespace, *service)) {
                    Some(entry) => find_in(entry, rest, &[service, namespace, "svc"], wanted),
                    None => Found::NoName,
                }
            }
            _ => Found::NoName,
        }
    }

    fn find_pointer(&self, address: Ipv4Addr, wanted: Wanted) -> Found {
        let Some(names) = self.reverse.get(&address) else {
            let own = self.networks.iter().any(|network| network.contains(address));
            return if own { Found::NoName } else { Found::Foreign };
        };
        if wanted != Wanted::Pointer {
            return Found::NoData;
        }
        let name = |(key, host): &(Key, Option<String>)| {
            host.iter().cloned().chain([key.name.clone(), key.namespace.clone(), "svc".to_owned()]).collect()
        };
        Found::Names(names.iter().map(name).collect())
    }
}

/// Finds what is asked of a service: itself (`rest` is empty), a port or a host of it.
fn find_in(entry: &Entry, rest: &[&str], service: &[&str], wanted: Wanted) -> Found {
    let own = || service.iter().map(|label| (*label).to_owned());
    match (rest, &entry.kind) {
        ([], Kind::External(name)) => Found::Alias(name.clone()),
        (_, Kind::External(_)) => Found::NoName,
        // Without ready endpoints there is no name, says the specification.
        ([], Kind::Headless) if entry.hosts.is_empty() => Found::NoName,
        ([], _) if wanted == Wanted::Service => services(entry, own, |_| true),
        ([], _) => addresses(entry.addresses(), wanted),
        ([port, protocol], _) => {
            let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
                return Found::NoName;
            };
            let matches =
                |candidate: &Port| candidate.name == port && candidate.protocol.to_string() == protocol;
            match services(entry, own, matches) {
                Found::NoData => Found::NoName,
                found if wanted == Wanted::Service => found,
                _ => addresses(entry.addresses(), wanted),
            }
        }
        ([label], _) => {
            let hosts = entry.hosts.iter().filter(|host| host.label == *label);
            let found: BTreeSet<Ipv4Addr> = hosts.map(|host| host.address).collect();
            if found.is_empty() { Found::NoName } else { addresses(found.into_iter().collect(), wanted) }
        }
        _ => Found::NoName,
    }
}

fn services<I: Iterator<Item = String>>(
    entry: &Entry,
    own: impl Fn() -> I,
    matches: impl Fn(&Port) -> bool,
) -> Found {
    let mut found = Vec::new();
    match &entry.kind {
        Kind::Cluster(addresses) => {
            for port in entry.ports.iter().filter(|port| matches(port)) {
                found.extend(addresses.iter().map(|address| (port.number, own().collect(), *address)));
            }
        }
        _ => {
            for host in &entry.hosts {
                for port in host.ports.iter().filter(|port| matches(port)) {
                    let name = std::iter::once(host.label.clone()).chain(own()).collect();
                    found.push((port.number, name, host.address));
                }
            }
        }
    }
    if found.is_empty() { Found::NoData } else { Found::Services(found) }
}

fn addresses(addresses: Vec<Ipv4Addr>, wanted: Wanted) -> Found {
    if wanted == Wanted::Address && !addresses.is_empty() {
        Found::Addresses(addresses)
    } else {
        Found::NoData
    }
}

/// The addresses that lead back to a service, with the host if it is one's.
fn reversed(entry: &Entry) -> Vec<(Ipv4Addr, Option<String>)> {
    match &entry.kind {
        Kind::Cluster(addresses) => addresses.iter().map(|address| (*address, None)).collect(),
        Kind::Headless => entry.hosts.iter().map(|host| (host.address, Some(host.label.clone()))).collect(),
        Kind::External(_) => Vec::new(),
    }
}

/// The address that a name below in-addr.arpa stands for.
fn reverse_address(labels: &[String]) -> Option<Ipv4Addr> {
    let [a, b, c, d, zone, root] = labels else { return None };
    if zone != "in-addr" || root != "arpa" {
        return None;
    }
    format!("{d}.{c}.{b}.{a}").parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(spec: Value, endpoints: Value) -> Option<Entry> {
        let service: Service = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let slice: EndpointSlice = serde_json::from_value(json!({"metadata": {}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints}))
        .unwrap();
        Entry::of(&service, &[Arc::new(slice)])
    }

    fn index() -> Index {
        let mut index = Index::new("cluster.local", vec!["10.96.0.0/16".parse().unwrap()]);
        let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
        let pods = json!([
            {"addresses": ["10.244.0.2"], "hostname": "db-0"},
            {"addresses": ["10.244.0.3"]},
            {"addresses": ["10.244.0.4"], "conditions": {"ready": false}},
        ]);
        let services = [
            ("web", json!({"clusterIP": "10.96.0.7", "ports": ports}), pods.clone()),
            ("db", json!({"clusterIP": "None", "ports": ports}), pods),
            ("empty", json!({"clusterIP": "None"}), json!([])),
            ("away", json!({"type": "ExternalName", "externalName": "example.com."}), json!([])),
        ];
        for (name, spec, endpoints) in services {
            index.set(&Key::new("shop", name), entry(spec, endpoints));
        }
        index
    }

    fn find(index: &Index, name: &str, wanted: Wanted) -> String {
        let labels: Vec<String> = name.split('.').map(str::to_owned).collect();
        match index.find(&labels, wanted) {
            Found::Addresses(addresses) => {
                addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            }
            Found::Alias(name) => format!("-> {name}"),
            Found::Services(services) => services
                .iter()
                .map(|(port, name, ip)| format!("{port} {} {ip}", name.join(".")))
                .collect::<Vec<_>>()
                .join(", "),
            Found::Names(names) => names.iter().map(|name| name.join(".")).collect::<Vec<_>>().join(" "),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn names_are_found_as_the_specification_says() {
        use Wanted::{Address, Other, Pointer, Service, Text};
        let index = index();
        let cases = [
            ("web.shop.svc.cluster.local", Address, "10.96.0.7"),
            ("web.shop.svc.cluster.local", Other, "NoData"),
            ("web.shop.svc.cluster.local", Service, "80 web.shop.svc 10.96.0.7"),
            ("_http._tcp.web.shop.svc.cluster.local", Service, "80 web.shop.svc 10.96.0.7"),
            ("_http._udp.web.shop.svc.cluster.local", Service, "NoName"),
            (
                "_http._tcp.db.shop.svc.cluster.local",
                Service,
                "8080 10-244-0-3.db.shop.svc 10.244.0.3, 8080 db-0.db.shop.svc 10.244.0.2",
            ),
            ("db.shop.svc.cluster.local", Address, "10.244.0.2 10.244.0.3"),
            ("db-0.db.shop.svc.cluster.local", Address, "10.244.0.2"),
            ("10-244-0-3.db.shop.svc.cluster.local", Address, "10.244.0.3"),
            ("10-244-0-4.db.shop.svc.cluster.local", Address, "NoName"),
            ("empty.shop.svc.cluster.local", Address, "NoName"),
            ("away.shop.svc.cluster.local", Address, "-> example.com"),
            ("nobody.shop.svc.cluster.local", Address, "NoName"),
            ("a.b.c.web.shop.svc.cluster.local", Address, "NoName"),
            ("shop.svc.cluster.local", Address, "NoData"),
            ("other.svc.cluster.local", Address, "NoName"),
            ("svc.cluster.local", Address, "NoData"),
            ("cluster.local", Address, "Apex"),
            ("dns-version.cluster.local", Text, "Text(\"1.1.0\")"),
            ("10-244-9-9.shop.pod.cluster.local", Address, "10.244.9.9"),
            ("10-244-9-999.shop.pod.cluster.local", Address, "NoName"),
            ("example.com.shop.svc.cluster.local", Address, "NoName"),
            ("example.com", Address, "Foreign"),
            ("7.0.96.10.in-addr.arpa", Pointer, "web.shop.svc"),
            ("2.0.244.10.in-addr.arpa", Pointer, "db-0.db.shop.svc"),
            ("3.0.244.10.in-addr.arpa", Pointer, "10-244-0-3.db.shop.svc"),
            ("8.0.96.10.in-addr.arpa", Pointer, "NoName"),
            ("8.8.8.8.in-addr.arpa", Pointer, "Foreign"),
        ];
        for (name, wanted, expected) in cases {
            assert_eq!(find(&index, name, wanted), expected, "{name} {wanted:?}");
        }
    }

    #[test]
    fn a_changed_service_leaves_nothing_behind() {
        let mut index = index();
        let key = Key::new("shop", "web");
        index.set(&key, entry(json!({"clusterIP": "10.96.0.8"}), json!([])));
        assert_eq!(find(&index, "web.shop.svc.cluster.local", Wanted::Address), "10.96.0.8");
        assert_eq!(find(&index, "7.0.96.10.in-addr.arpa", Wanted::Pointer), "NoName");
        for name in ["web", "db", "empty", "away"] {
            index.set(&Key::new("shop", name), None);
        }
        assert!(index.services.is_empty() && index.reverse.is_empty() && index.namespaces.is_empty());
    }
}
