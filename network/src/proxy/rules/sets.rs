//! The maps that steer the rules, and their elements.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::REJECT;
use crate::addr::Cidr;
use crate::nft::{Element, Set, Verdict};
use crate::proxy::model::{Class, Endpoint, Frontend, Refusal, View};
use crate::proxy::table::Retie;

// The `nft` program's numbers of its types.
pub(super) const ADDRESS: u32 = 7;
pub(super) const PROTOCOL: u32 = 12;
pub(super) const PORT: u32 = 13;
pub(super) const MARK: u32 = 19;

pub(super) const SERVICES: &str = "services";
pub(super) const SERVICES_INSIDE: &str = "services-inside";
pub(super) const NODE_PORTS: &str = "node-ports";
pub(super) const NODE_PORTS_INSIDE: &str = "node-ports-inside";
pub(super) const CLASSES: &str = "classes";
pub(super) const ENDPOINTS: &str = "endpoints";
pub(super) const PORT_ENDPOINTS: &str = "port-endpoints";
pub(super) const REFUSED: &str = "refused";
pub(super) const REFUSED_PORTS: &str = "refused-ports";
/// Load balancers' frontends with source ranges, and these.
pub(super) const RESTRICTED: &str = "restricted";
pub(super) const ALLOWED: &str = "allowed";
/// Also tells whether our table is there: it is small.
pub(crate) const HAIRPINS: &str = "hairpins";
/// Which endpoint a client sticks to.
pub(crate) const AFFINITY: &str = "affinity";

const MAX_AFFINITIES: u32 = 1 << 18;

const fn map(name: &'static str, key: &'static [u32], data: &'static [u32]) -> Set {
    Set { name, key, data: Some(data), verdicts: false, ranges: false, dynamic: None }
}

const fn verdicts(name: &'static str, key: &'static [u32]) -> Set {
    Set { name, key, data: None, verdicts: true, ranges: false, dynamic: None }
}

pub(super) const SETS: [Set; 13] = [
    map(SERVICES, &[ADDRESS, PROTOCOL, PORT], &[MARK]),
    map(SERVICES_INSIDE, &[ADDRESS, PROTOCOL, PORT], &[MARK]),
    map(NODE_PORTS, &[PROTOCOL, PORT], &[MARK]),
    map(NODE_PORTS_INSIDE, &[PROTOCOL, PORT], &[MARK]),
    verdicts(CLASSES, &[MARK]),
    map(ENDPOINTS, &[MARK, ADDRESS, PROTOCOL, PORT], &[ADDRESS, PORT]),
    map(PORT_ENDPOINTS, &[MARK, PROTOCOL, PORT], &[ADDRESS, PORT]),
    verdicts(REFUSED, &[ADDRESS, PROTOCOL, PORT]),
    verdicts(REFUSED_PORTS, &[PROTOCOL, PORT]),
    Set {
        name: RESTRICTED,
        key: &[ADDRESS, PROTOCOL, PORT],
        data: None,
        verdicts: false,
        ranges: false,
        dynamic: None,
    },
    Set {
        name: ALLOWED,
        key: &[ADDRESS, PROTOCOL, PORT, ADDRESS],
        data: None,
        verdicts: false,
        ranges: true,
        dynamic: None,
    },
    Set {
        name: HAIRPINS,
        key: &[ADDRESS, ADDRESS],
        data: None,
        verdicts: false,
        ranges: false,
        dynamic: None,
    },
    Set {
        name: AFFINITY,
        key: &[ADDRESS, ADDRESS, PROTOCOL, PORT],
        data: Some(&[MARK]),
        verdicts: false,
        ranges: false,
        dynamic: Some(MAX_AFFINITIES),
    },
];

/// An element of one of the maps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(super) map: &'static str,
    key: Vec<u8>,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    None,
    /// The end of a range.
    To(Vec<u8>),
    Data(Vec<u8>),
    Verdict(Verdict),
}

impl Entry {
    pub(super) fn element(&self) -> Element {
        match &self.value {
            Value::None => Element::Key(self.key.clone()),
            Value::To(end) => Element::Range(self.key.clone(), end.clone()),
            Value::Data(data) => Element::Value(self.key.clone(), data.clone()),
            Value::Verdict(verdict) => Element::Verdict(self.key.clone(), verdict.clone()),
        }
    }
}

/// The frontend's class, in the map in which its clients look.
pub(crate) fn class_entry(frontend: &Frontend, class: Class) -> Entry {
    let map = match (frontend.address, frontend.view) {
        (Some(_), View::All) => SERVICES,
        (Some(_), View::Inside) => SERVICES_INSIDE,
        (None, View::All) => NODE_PORTS,
        (None, View::Inside) => NODE_PORTS_INSIDE,
    };
    Entry { map, key: frontend_key(frontend), value: Value::Data(class.mark().to_ne_bytes().to_vec()) }
}

/// How a frontend without endpoints refuses. The inside view leaves that to the other one.
pub(crate) fn refusal_entry(frontend: &Frontend, refusal: Refusal) -> Option<Entry> {
    let map = if frontend.address.is_some() { REFUSED } else { REFUSED_PORTS };
    let verdict = match refusal {
        Refusal::Reject => Verdict::Goto(REJECT.to_owned()),
        Refusal::Drop => Verdict::Drop,
    };
    let entry = Entry { map, key: frontend_key(frontend), value: Value::Verdict(verdict) };
    (frontend.view == View::All).then_some(entry)
}

pub(crate) fn endpoint_entry(frontend: &Frontend, slot: u32, endpoint: Endpoint) -> Entry {
    let map = if frontend.address.is_some() { ENDPOINTS } else { PORT_ENDPOINTS };
    let mut key = slot.to_ne_bytes().to_vec();
    key.extend(frontend_key(frontend));
    Entry { map, key, value: Value::Data(endpoint_data(endpoint)) }
}

/// Where clients of the frontend may come from.
pub(crate) fn source_entries(frontend: &Frontend, sources: &[Cidr]) -> Vec<Entry> {
    if sources.is_empty() {
        return Vec::new();
    }
    let key = frontend_key(frontend);
    let allowed = sources.iter().map(|network| {
        let first = network.network();
        let last = Ipv4Addr::from_bits(first.to_bits() | !network.mask().to_bits());
        let with = |address: Ipv4Addr| [key.as_slice(), &address.octets()].concat();
        Entry { map: ALLOWED, key: with(first), value: Value::To(with(last)) }
    });
    let restricted = Entry { map: RESTRICTED, key: key.clone(), value: Value::None };
    std::iter::once(restricted).chain(allowed).collect()
}

pub(crate) fn hairpin_entry(address: Ipv4Addr) -> Entry {
    Entry { map: HAIRPINS, key: [address.octets(), address.octets()].concat(), value: Value::None }
}

/// What becomes of an element of the affinity map: nothing, or what replaces it, if anything does.
pub(crate) fn retied(tie: &Element, changes: &[Retie]) -> Option<Option<Element>> {
    let Element::Value(key, data) = tie else { return None };
    let slot = u32::from_ne_bytes(*data.first_chunk::<4>()?);
    let of_tie = |retie: &&Retie| retie.old == slot && key.ends_with(&frontend_key(&retie.frontend));
    let retie = changes.iter().find(of_tie)?;
    let timeout = Duration::from_secs(retie.seconds.into());
    Some(retie.new.map(|new| Element::Expiring(key.clone(), new.to_ne_bytes().to_vec(), timeout)))
}

fn frontend_key(frontend: &Frontend) -> Vec<u8> {
    let mut key = Vec::with_capacity(12);
    if let Some(address) = frontend.address {
        key.extend(address.octets());
    }
    key.extend([frontend.protocol.number(), 0, 0, 0]);
    key.extend(frontend.port.to_be_bytes());
    key.extend([0, 0]);
    key
}

fn endpoint_data(endpoint: Endpoint) -> Vec<u8> {
    let mut data = endpoint.address.octets().to_vec();
    data.extend(endpoint.port.to_be_bytes());
    data.extend([0, 0]);
    data
}
