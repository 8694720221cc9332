//! What an object holds beside itself: the addresses and ports of services.
//!
//! Each address and port is a key of its own, written in the transaction that writes its holder. So none is given
//! out twice, by however many servers, and none is lost when its holder goes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use api::field::{FieldError, Path};
use api::object::Object;
use api::resource::Resource;
use api::status::Status;
use base::Random;
use bytes::Bytes;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use serde_json::{Value, json};
use store::Range;

use crate::Config;
use crate::registry::quota::{Change, Charge};
use crate::registry::store_failure;
use crate::server::{Server, StartError};

const ADDRESSES: &str = "/registry/ranges/serviceips/";
const PORTS: &str = "/registry/ranges/servicenodeports/";
/// After so many unlucky guesses the free ones are looked up.
const GUESSES: usize = 4;
/// After so many lookups somebody else takes what is free every time.
const LOOKUPS: usize = 16;

/// The addresses and ports that may be given out.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    cidr: String,
    network: u32,
    size: u32,
    ports: (u16, u16),
}

impl Ranges {
    pub(crate) fn new(config: &Config) -> Result<Self, StartError> {
        let wrong =
            |why: &str| StartError::ServiceCidr { cidr: config.service_cidr.clone(), why: why.to_owned() };
        let (address, prefix) =
            config.service_cidr.split_once('/').ok_or_else(|| wrong("no prefix length"))?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong("not an address"))?;
        let prefix: u32 = prefix.parse().map_err(|_| wrong("the prefix length is no number"))?;
        if !(8..=30).contains(&prefix) {
            return Err(wrong("the prefix length must be 8 to 30"));
        }
        let size = 1u32 << (32 - prefix);
        Ok(Self {
            cidr: config.service_cidr.clone(),
            network: u32::from(address) & !(size - 1),
            size,
            ports: config.node_ports,
        })
    }

    /// The address number `index` of the range.
    pub(crate) fn address(&self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network + index)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        // The first and the last address stay unused, as upstream leaves them.
        (self.network + 1..self.network + self.size - 1).contains(&u32::from(address))
    }

    /// An address of the upper band; the lower one is for those who choose theirs.
    fn guess_address(&self, random: &Random) -> Ipv4Addr {
        let low = (self.size / 16).clamp(16, 256).min(self.size / 2);
        let span = self.size - 1 - low;
        self.address(low + u32::try_from(random.below(u64::from(span))).unwrap_or(0))
    }

    fn guess_port(&self, random: &Random) -> u16 {
        let (first, last) = self.ports;
        let size = u32::from(last.saturating_sub(first)) + 1;
        let low = (size / 32).clamp(16, 128).min(size / 2);
        let offset = low + u32::try_from(random.below(u64::from(size - low))).unwrap_or(0);
        first.saturating_add(u16::try_from(offset).unwrap_or(0))
    }
}

/// The keys that a write takes and releases.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    pub take: Vec<String>,
    pub release: Vec<String>,
    /// What is written into the taken keys: who holds them.
    pub holder: Bytes,
    /// What quotas are charged in the same transaction.
    pub charges: Vec<Change>,
}

/// What one reserved key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Address(Ipv4Addr),
    Port(u16),
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    thing: Thing,
    /// The server chose it, and may choose another.
    chosen: bool,
}

/// A reservation in the making.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    wanted: Vec<Wanted>,
    reservation: Reservation,
    misses: usize,
}

/// No reservation.
pub(crate) fn none() -> Reserve {
    Reserve::default()
}

/// What the object needs before it is validated: what it takes over from its former self, what its type rules out.
pub(crate) fn prepare(object: &mut dyn Object, old: Option<&dyn Object>) {
    let Some(service) = object.downcast_mut::<Service>() else { return };
    let old = old.and_then(|old| old.downcast_ref::<Service>()).and_then(|old| old.spec.as_ref());
    if let Some(spec) = service.spec.as_mut() {
        take_over(spec, old);
    }
}

/// What a new or changed object takes and releases. Fills in what the server chooses.
pub(crate) fn begin(
    server: &Server,
    row: &Resource,
    old: Option<&dyn Object>,
    new: Option<&mut dyn Object>,
) -> Result<Reserve, Status> {
    let Some(service) = new.and_then(|new| new.downcast_mut::<Service>()) else { return Ok(none()) };
    let held = old.and_then(|old| old.downcast_ref::<Service>()).and_then(|old| old.spec.as_ref()).map(held);
    let held = held.unwrap_or_default();
    let name = service.metadata.name.clone().unwrap_or_default();
    let holder = holder(service);
    let Some(spec) = service.spec.as_mut() else { return Ok(none()) };
    let (ranges, random) = (&server.registry.reservations, &server.registry.random);
    let chosen = fill(ranges, random, spec)
        .map_err(|error| Status::invalid(&row.group, &row.kind, &name, &[error]))?;
    let needed = self::held(spec);
    let wanted: Vec<Wanted> = needed
        .iter()
        .filter(|thing| !held.contains(thing))
        .map(|thing| Wanted { thing: *thing, chosen: chosen.contains(thing) })
        .collect();
    for wanted in &wanted {
        check(ranges, wanted.thing, spec)
            .map_err(|error| Status::invalid(&row.group, &row.kind, &name, &[error]))?;
    }
    let reservation = Reservation {
        take: wanted.iter().map(|wanted| key(wanted.thing)).collect(),
        release: held.iter().filter(|thing| !needed.contains(thing)).map(|thing| key(*thing)).collect(),
        holder,
        charges: Vec::new(),
    };
    Ok(Reserve { wanted, reservation, misses: 0 })
}

/// What a deleted object releases.
pub(crate) fn end(_server: &Server, _row: &Resource, old: &dyn Object) -> Reserve {
    let spec = old.downcast_ref::<Service>().and_then(|service| service.spec.as_ref());
    let release = spec.map(held).unwrap_or_default().into_iter().map(key).collect();
    Reserve { reservation: Reservation { release, ..Reservation::default() }, ..Reserve::default() }
}

impl Reserve {
    pub(crate) fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// Lets the write pay what it uses.
    pub(crate) fn pay(&mut self, charge: &Charge) {
        self.reservation.charges.clone_from(&charge.changes);
    }

    /// Number `index` turned out to be taken: chooses another one if the server chose it, else the user is told.
    pub(crate) async fn taken(
        &mut self,
        server: &Server,
        index: usize,
        object: Option<&mut dyn Object>,
    ) -> Result<(), Status> {
        let (Some(wanted), Some(object)) = (self.wanted.get(index).copied(), object) else {
            return Err(Status::internal("a reservation is taken that nobody asked for"));
        };
        let Some(service) = object.downcast_mut::<Service>() else {
            return Err(Status::internal("only services reserve"));
        };
        let name = service.metadata.name.clone().unwrap_or_default();
        let Some(spec) = service.spec.as_mut() else {
            return Err(Status::internal("a service without a spec"));
        };
        if !wanted.chosen {
            let error = refused(
                spec,
                wanted.thing,
                "provided IP is already allocated",
                "provided port is already allocated",
            );
            return Err(Status::invalid("", "Service", &name, &[error]));
        }
        self.misses += 1;
        let (ranges, random) = (&server.registry.reservations, &server.registry.random);
        let other = match wanted.thing {
            Thing::Address(_) if self.misses <= GUESSES => Thing::Address(ranges.guess_address(random)),
            Thing::Port(_) if self.misses <= GUESSES => Thing::Port(ranges.guess_port(random)),
            _ if self.misses > GUESSES + LOOKUPS => return Err(Status::internal("range is full")),
            Thing::Address(_) => {
                let used = used(server, ADDRESSES).await?;
                let free: Vec<Ipv4Addr> = (1..ranges.size - 1)
                    .map(|index| ranges.address(index))
                    .filter(|address| !used.contains(&address.to_string()))
                    .collect();
                Thing::Address(
                    *pick(random, &free)
                        .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?,
                )
            }
            Thing::Port(_) => {
                let used = used(server, PORTS).await?;
                let free: Vec<u16> = (ranges.ports.0..=ranges.ports.1)
                    .filter(|port| !used.contains(&port.to_string()))
                    .collect();
                Thing::Port(
                    *pick(random, &free)
                        .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?,
                )
            }
        };
        replace(spec, wanted.thing, other);
        self.wanted[index].thing = other;
        self.reservation.take[index] = key(other);
        Ok(())
    }
}

fn pick<'a, T>(random: &Random, from: &'a [T]) -> Option<&'a T> {
    from.get(usize::try_from(random.below(from.len() as u64)).unwrap_or(0))
}

async fn used(server: &Server, prefix: &str) -> Result<BTreeSet<String>, Status> {
    let answer =
        server.registry.store.range(Range::prefix(prefix).keys_only()).await.map_err(store_failure)?;
    Ok(answer.kvs.iter().filter_map(|kv| kv.key.strip_prefix(prefix)).map(str::to_owned).collect())
}

fn key(thing: Thing) -> String {
    match thing {
        Thing::Address(address) => format!("{ADDRESSES}{address}"),
        Thing::Port(port) => format!("{PORTS}{port}"),
    }
}

fn holder(service: &Service) -> Bytes {
    let metadata = &service.metadata;
    json!({"namespace": metadata.namespace, "name": metadata.name, "uid": metadata.uid}).to_string().into()
}

fn kind(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or("ClusterIP")
}

fn has_address(spec: &ServiceSpec) -> bool {
    kind(spec) != "ExternalName"
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

fn has_ports(spec: &ServiceSpec) -> bool {
    match kind(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn may_have_ports(spec: &ServiceSpec) -> bool {
    matches!(kind(spec), "NodePort" | "LoadBalancer")
}

/// What a service holds.
fn held(spec: &ServiceSpec) -> Vec<Thing> {
    let mut things = Vec::new();
    if has_address(spec) {
        let address = spec.cluster_ip.as_deref().and_then(|address| address.parse().ok());
        things.extend(address.map(Thing::Address));
    }
    let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
    let ports = ports.chain(spec.health_check_node_port).filter_map(|port| u16::try_from(port).ok());
    for port in ports.filter(|port| *port != 0 && may_have_ports(spec)) {
        // One number may serve several protocols of one service.
        if !things.contains(&Thing::Port(port)) {
            things.push(Thing::Port(port));
        }
    }
    things
}

/// A change of a service that does not mention its addresses and ports keeps them; a change of type drops them.
fn take_over(spec: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    if let Some(old) = old {
        let unset = spec.cluster_ip.as_deref().unwrap_or_default().is_empty()
            && spec.cluster_ips.as_ref().is_none_or(Vec::is_empty);
        if has_address(spec) && has_address(old) && unset {
            spec.cluster_ip.clone_from(&old.cluster_ip);
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
        if !has_address(spec) && has_address(old) && spec.cluster_ip == old.cluster_ip {
            (spec.cluster_ip, spec.cluster_ips) = (None, None);
            (spec.ip_families, spec.ip_family_policy) = (None, None);
        }
        let former = |port: &k8s_openapi::api::core::v1::ServicePort| {
            let same = old
                .ports
                .iter()
                .flatten()
                .find(|other| other.port == port.port && other.protocol == port.protocol);
            same.and_then(|other| other.node_port).filter(|number| *number != 0)
        };
        for port in spec.ports.iter_mut().flatten() {
            let former = former(port);
            if matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
                if port.node_port.unwrap_or(0) == 0 {
                    port.node_port = former;
                }
            } else if may_have_ports(old) && port.node_port == former {
                port.node_port = None;
            }
        }
        if !may_have_ports(spec) && spec.health_check_node_port == old.health_check_node_port {
            spec.health_check_node_port = None;
        }
    }
    // The two spellings of the address are one.
    if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
        spec.cluster_ips =
            spec.cluster_ip.clone().filter(|address| !address.is_empty()).map(|address| vec![address]);
    }
}

/// Fills in families, address and ports; gives those that the server chose.
fn fill(ranges: &Ranges, random: &Random, spec: &mut ServiceSpec) -> Result<Vec<Thing>, FieldError> {
    let mut chosen = Vec::new();
    let path = Path::new("spec");
    if !has_address(spec) {
        return Ok(chosen);
    }
    let any_family = is_headless(spec) && spec.selector.as_ref().is_none_or(|selector| selector.is_empty());
    if any_family {
        let policy = spec.ip_family_policy.get_or_insert_with(|| "RequireDualStack".to_owned()).clone();
        let families = spec.ip_families.get_or_insert_with(Vec::new);
        if families.is_empty() {
            families.push("IPv4".to_owned());
        }
        if policy != "SingleStack" && families.len() == 1 {
            let other = if families[0] == "IPv4" { "IPv6" } else { "IPv4" };
            families.push(other.to_owned());
        }
    } else {
        if spec.ip_family_policy.as_deref() == Some("RequireDualStack") {
            let why = "this cluster is not configured for dual-stack services";
            return Err(FieldError::invalid(&path.child("ipFamilyPolicy"), "RequireDualStack", why));
        }
        spec.ip_family_policy.get_or_insert_with(|| "SingleStack".to_owned());
        let families = spec.ip_families.get_or_insert_with(Vec::new);
        if families.is_empty() {
            families.push("IPv4".to_owned());
        }
        if let Some(index) = families.iter().position(|family| family != "IPv4") {
            let at = path.child("ipFamilies").index(index);
            return Err(FieldError::invalid(&at, families[index].as_str(), "not configured on this cluster"));
        }
    }
    if spec.cluster_ip.as_deref().unwrap_or_default().is_empty() {
        let address = ranges.guess_address(random);
        chosen.push(Thing::Address(address));
        spec.cluster_ip = Some(address.to_string());
        spec.cluster_ips = Some(vec![address.to_string()]);
    }
    if has_ports(spec) {
        let mut known: Vec<(i32, i32)> = Vec::new();
        for port in spec.ports.iter_mut().flatten() {
            if port.node_port.unwrap_or(0) == 0 {
                // The same port over another protocol gets the same number.
                let number = match known.iter().find(|(other, _)| *other == port.port) {
                    Some((_, number)) => *number,
                    None => {
                        let number = loop {
                            let number = ranges.guess_port(random);
                            if !chosen.contains(&Thing::Port(number)) {
                                break number;
                            }
                        };
                        chosen.push(Thing::Port(number));
                        i32::from(number)
                    }
                };
                port.node_port = Some(number);
            }
            known.push((port.port, port.node_port.unwrap_or(0)));
        }
        let local = spec.external_traffic_policy.as_deref() == Some("Local");
        if kind(spec) == "LoadBalancer" && local && spec.health_check_node_port.unwrap_or(0) == 0 {
            let number = ranges.guess_port(random);
            chosen.push(Thing::Port(number));
            spec.health_check_node_port = Some(i32::from(number));
        }
    }
    Ok(chosen)
}

/// Refuses what is out of range.
fn check(ranges: &Ranges, thing: Thing, spec: &ServiceSpec) -> Result<(), FieldError> {
    let fits = match thing {
        Thing::Address(address) => ranges.contains(address),
        Thing::Port(port) => (ranges.ports.0..=ranges.ports.1).contains(&port),
    };
    if fits {
        return Ok(());
    }
    let address = match thing {
        Thing::Address(address) => format!(
            "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
            ranges.cidr
        ),
        Thing::Port(_) => String::new(),
    };
    let port = format!(
        "provided port is not in the valid range. The range of valid ports is {}-{}",
        ranges.ports.0, ranges.ports.1
    );
    Err(refused(spec, thing, &address, &port))
}

fn refused(spec: &ServiceSpec, thing: Thing, address: &str, port: &str) -> FieldError {
    let path = Path::new("spec");
    match thing {
        Thing::Address(ip) => {
            let shown = Value::from(spec.cluster_ips.clone().unwrap_or_default());
            let why = format!("failed to allocate IP {ip}: {address}");
            FieldError::invalid(&path.child("clusterIPs"), shown, why)
        }
        Thing::Port(number) => {
            let index =
                spec.ports.iter().flatten().position(|port| port.node_port == Some(i32::from(number)));
            let at = match index {
                Some(index) => path.child("ports").index(index).child("nodePort"),
                None => path.child("healthCheckNodePort"),
            };
            FieldError::invalid(&at, i64::from(number), port)
        }
    }
}

fn replace(spec: &mut ServiceSpec, old: Thing, new: Thing) {
    match (old, new) {
        (Thing::Address(_), Thing::Address(address)) => {
            spec.cluster_ip = Some(address.to_string());
            spec.cluster_ips = Some(vec![address.to_string()]);
        }
        (Thing::Port(old), Thing::Port(new)) => {
            let (old, new) = (Some(i32::from(old)), Some(i32::from(new)));
            for port in spec.ports.iter_mut().flatten().filter(|port| port.node_port == old) {
                port.node_port = new;
            }
            if spec.health_check_node_port == old {
                spec.health_check_node_port = new;
            }
        }
        (Thing::Address(_), Thing::Port(_)) | (Thing::Port(_), Thing::Address(_)) => {}
    }
}
