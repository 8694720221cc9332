//! The rules, which never change, and the maps that steer them.
//!
//! A connection's way: `services` finds the frontend in a map and puts its class (how many endpoints, who is
//! masqueraded, for how long clients stick) into the connection's mark; the mark leads to the chain of the
//! class; the chain draws a number and finds (number, frontend) in the map of endpoints. So a change of a service
//! is a change of map elements only, and the cost of a packet does not depend on the number of services.
//!
//! Each rule has a form that the `nft` program can list: it can't express a lookup by the result of another one.

mod sets;

use std::net::Ipv4Addr;
use std::time::Duration;

use super::model::{Class, MASQUERADE_ALWAYS, MASQUERADE_OUTSIDERS};
use super::table::Changes;
use crate::addr::Cidr;
use crate::nft::{AddressType, Batch, Chain, Ct, Element, Expr, Hook, Meta, Reg, Reject, Verdict};
use sets::*;

pub(crate) use sets::{
    AFFINITY, Entry, HAIRPINS, class_entry, endpoint_entry, hairpin_entry, refusal_entry, retied,
    source_entries,
};

const REJECT: &str = "reject";

const PRE_ROUTING: u32 = 0;
const LOCAL_IN: u32 = 1;
const LOCAL_OUT: u32 = 3;
const POST_ROUTING: u32 = 4;
const DNAT_PRIORITY: i32 = -100;
const SNAT_PRIORITY: i32 = 100;
/// Before destination NAT, so that the frontend is seen.
const BEFORE_DNAT: i32 = -110;
/// After destination NAT, so that only what it left alone is seen.
const AFTER_DNAT: i32 = -90;

const RTN_LOCAL: u32 = 2;
const STATE_ESTABLISHED_OR_RELATED: u32 = 1 << 1 | 1 << 2;
const STATE_NEW: u32 = 1 << 3;
const STATUS_DNAT: u32 = 1 << 5;

/// What the rules are made for.
#[derive(Clone, Debug)]
pub struct Place {
    pub pod_cidr: Cidr,
    pub cluster_cidr: Cidr,
    pub service_cidr: Cidr,
    /// The interface to this node's pods. They must reach each other through the node, not beside it, or answers
    /// would miss the rules.
    pub bridge: String,
}

/// Makes the table anew, with everything in it.
pub(crate) fn replace(table: &str, place: &Place, everything: &Changes) -> Batch {
    let mut batch = Batch::new(table);
    // Deleting what isn't there would be an error.
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    base(&mut batch, place);
    fill(&mut batch, everything);
    batch
}

/// Makes only these changes.
pub(crate) fn update(table: &str, changes: &Changes) -> Batch {
    let mut batch = Batch::new(table);
    fill(&mut batch, changes);
    batch
}

fn fill(batch: &mut Batch, changes: &Changes) {
    for class in &changes.classes {
        let chain = Chain { name: class.chain(), hook: None };
        batch.add_chain(&chain);
        for rule in choose(*class) {
            batch.add_rule(&chain.name, &rule);
        }
        let verdict = Verdict::Goto(chain.name);
        batch.add_elements(CLASSES, &[Element::Verdict(class.mark().to_ne_bytes().to_vec(), verdict)]);
    }
    for set in &SETS {
        let of_set = |entries: &[Entry]| -> Vec<Element> {
            entries.iter().filter(|entry| entry.map == set.name).map(Entry::element).collect()
        };
        let keys = |entries: Vec<Element>| -> Vec<Element> {
            let key = |element: Element| match element {
                Element::Range(..) => element,
                other => Element::Key(other.key().to_vec()),
            };
            entries.into_iter().map(key).collect()
        };
        batch.delete_elements(set.name, &keys(of_set(&changes.deleted)));
        batch.add_elements(set.name, &of_set(&changes.added));
    }
}

fn base(batch: &mut Batch, place: &Place) {
    let base_chain = |name: &str, kind, number, priority| Chain {
        name: name.to_owned(),
        hook: Some(Hook { kind, number, priority }),
    };
    let chain = |name: &str| Chain { name: name.to_owned(), hook: None };
    for chain in [
        base_chain("nat-prerouting", "nat", PRE_ROUTING, DNAT_PRIORITY),
        base_chain("nat-output", "nat", LOCAL_OUT, DNAT_PRIORITY),
        base_chain("nat-postrouting", "nat", POST_ROUTING, SNAT_PRIORITY),
        base_chain("sources-prerouting", "filter", PRE_ROUTING, BEFORE_DNAT),
        base_chain("sources-output", "filter", LOCAL_OUT, BEFORE_DNAT),
        base_chain("filter-prerouting", "filter", PRE_ROUTING, AFTER_DNAT),
        base_chain("filter-output", "filter", LOCAL_OUT, AFTER_DNAT),
        base_chain("filter-input", "filter", LOCAL_IN, 0),
        chain("find-service"),
        chain("find-refusal"),
        chain(REJECT),
    ] {
        batch.add_chain(&chain);
    }
    for set in &SETS {
        batch.add_set(set);
    }
    let jump = |name: &str| [Expr::Verdict(Verdict::Jump(name.to_owned()))];
    batch.add_rule("nat-prerouting", &jump("find-service"));
    batch.add_rule("nat-output", &jump("find-service"));
    for rule in find_service(place) {
        batch.add_rule("find-service", &rule);
    }
    let of_new_connections: Vec<Expr> = [Expr::Ct { key: Ct::State, to: Reg(0) }]
        .into_iter()
        .chain(Expr::any_bit(Reg(0), Reg(0), STATE_NEW))
        .chain(jump("find-refusal"))
        .collect();
    batch.add_rule("filter-prerouting", &of_new_connections);
    batch.add_rule("filter-output", &of_new_connections);
    batch.add_rule("sources-prerouting", &check_source());
    batch.add_rule("sources-output", &check_source());
    for rule in find_refusal(place) {
        batch.add_rule("find-refusal", &rule);
    }
    batch.add_rule(REJECT, &reject_tcp());
    batch.add_rule(REJECT, &[Expr::Reject(Reject::PortUnreachable)]);
    batch.add_rule("filter-input", &protect_loopback());
    for rule in masquerade(place) {
        batch.add_rule("nat-postrouting", &rule);
    }
}

/// Loads address (if wanted), protocol and port of the destination from this register on.
fn destination(first: u8, with_address: bool) -> Vec<Expr> {
    let mut exprs = Vec::new();
    let mut next = first;
    if with_address {
        exprs.push(Expr::DestinationAddress(Reg(next)));
        next += 1;
    }
    exprs.push(Expr::Meta { key: Meta::L4Proto, to: Reg(next) });
    exprs.push(Expr::DestinationPort(Reg(next + 1)));
    exprs
}

fn is_local(of: AddressType) -> [Expr; 2] {
    [Expr::Fib { of, to: Reg(0) }, Expr::Equal { from: Reg(0), value: RTN_LOCAL.to_ne_bytes().to_vec() }]
}

fn from_pods(place: &Place) -> Vec<Expr> {
    let mut exprs = vec![Expr::SourceAddress(Reg(0))];
    exprs.extend(Expr::network(Reg(0), Reg(0), place.cluster_cidr, true));
    exprs
}

/// Later rules outweigh earlier ones: they overwrite the mark.
fn find_service(place: &Place) -> Vec<Vec<Expr>> {
    let class_from = |map: &str, with_address: bool| {
        let mut exprs = Vec::new();
        if !with_address {
            exprs.extend(is_local(AddressType::Destination));
        }
        exprs.extend(destination(0, with_address));
        exprs.push(Expr::Find { map: map.to_owned(), from: Reg(0), to: Reg(4) });
        exprs.push(Expr::SetCtMark(Reg(4)));
        exprs
    };
    let mut rules = vec![class_from(NODE_PORTS, false), class_from(SERVICES, true)];
    for inside in [from_pods(place), is_local(AddressType::Source).to_vec()] {
        for (map, with_address) in [(NODE_PORTS_INSIDE, false), (SERVICES_INSIDE, true)] {
            let mut rule = inside.clone();
            rule.extend(class_from(map, with_address));
            rules.push(rule);
        }
    }
    rules.push(vec![
        Expr::Ct { key: Ct::Mark, to: Reg(0) },
        Expr::Dispatch { map: CLASSES.to_owned(), from: Reg(0) },
    ]);
    rules
}

/// The chain of a class. A mark that someone else set leads nowhere, because the frontend isn't in the map.
fn choose(class: Class) -> Vec<Vec<Expr>> {
    let random = || Expr::Random { to: Reg(0), modulus: class.count, offset: class.slot(0) };
    let to_endpoint = |number: Expr| {
        let mut exprs = vec![number];
        exprs.extend(destination(1, !class.any_address));
        let map = if class.any_address { PORT_ENDPOINTS } else { ENDPOINTS };
        exprs.push(Expr::Find { map: map.to_owned(), from: Reg(0), to: Reg(8) });
        exprs.push(Expr::Dnat { address: Reg(8), port: Reg(9) });
        exprs
    };
    if class.affinity == 0 {
        return vec![to_endpoint(random())];
    }
    let mut client = vec![Expr::SourceAddress(Reg(0))];
    client.extend(destination(1, true));
    let mut known = client.clone();
    known.push(Expr::Find { map: AFFINITY.to_owned(), from: Reg(0), to: Reg(4) });
    known.push(Expr::SetCtMark(Reg(4)));
    let mut remember = client;
    remember.push(Expr::Ct { key: Ct::Mark, to: Reg(4) });
    remember.push(Expr::Update {
        map: AFFINITY.to_owned(),
        key: Reg(0),
        data: Reg(4),
        timeout: Duration::from_secs(class.affinity.into()),
    });
    vec![
        vec![random(), Expr::SetCtMark(Reg(0))],
        known,
        remember,
        to_endpoint(Expr::Ct { key: Ct::Mark, to: Reg(0) }),
        // For the moment between the end of an endpoint and that of its ties.
        to_endpoint(random()),
    ]
}

fn find_refusal(place: &Place) -> Vec<Vec<Expr>> {
    let mut of_address = destination(0, true);
    of_address.push(Expr::Dispatch { map: REFUSED.to_owned(), from: Reg(0) });
    let mut of_port = is_local(AddressType::Destination).to_vec();
    of_port.extend(destination(0, false));
    of_port.push(Expr::Dispatch { map: REFUSED_PORTS.to_owned(), from: Reg(0) });
    // What is still addressed to a service has no service: without this it would leave through the default route.
    let mut unknown = vec![Expr::DestinationAddress(Reg(0))];
    unknown.extend(Expr::network(Reg(0), Reg(0), place.service_cidr, true));
    unknown.push(Expr::Verdict(Verdict::Goto(REJECT.to_owned())));
    vec![of_address, of_port, unknown]
}

/// Load balancers tell who may come; the packet still shows whom it is for.
fn check_source() -> Vec<Expr> {
    let mut rule = vec![Expr::Ct { key: Ct::State, to: Reg(0) }];
    rule.extend(Expr::any_bit(Reg(0), Reg(0), STATE_NEW));
    rule.extend(destination(0, true));
    rule.push(Expr::Contains { set: RESTRICTED.to_owned(), from: Reg(0) });
    rule.extend(destination(0, true));
    rule.push(Expr::SourceAddress(Reg(3)));
    rule.push(Expr::NotContains { set: ALLOWED.to_owned(), from: Reg(0) });
    rule.push(Expr::Verdict(Verdict::Drop));
    rule
}

fn reject_tcp() -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::L4Proto, to: Reg(0) },
        Expr::Equal { from: Reg(0), value: vec![libc::IPPROTO_TCP as u8] },
        Expr::Reject(Reject::TcpReset),
    ]
}

/// NodePorts on 127.0.0.1 need `route_localnet`, which alone would open loopback services to the neighbours
/// (CVE-2020-8558).
fn protect_loopback() -> Vec<Expr> {
    let mut rule = vec![
        Expr::Meta { key: Meta::InputInterface, to: Reg(0) },
        Expr::NotEqual { from: Reg(0), value: interface("lo") },
        Expr::DestinationAddress(Reg(0)),
    ];
    rule.extend(Expr::network(Reg(0), Reg(0), Cidr::new(Ipv4Addr::LOCALHOST, 8), true));
    rule.push(Expr::Ct { key: Ct::State, to: Reg(0) });
    rule.extend(Expr::no_bit(Reg(0), Reg(0), STATE_ESTABLISHED_OR_RELATED));
    rule.push(Expr::Verdict(Verdict::Drop));
    rule
}

fn masquerade(place: &Place) -> Vec<Vec<Expr>> {
    let source = |cidr, inside| {
        [Expr::SourceAddress(Reg(0))].into_iter().chain(Expr::network(Reg(0), Reg(0), cidr, inside))
    };
    let target = |cidr, inside| {
        [Expr::DestinationAddress(Reg(0))].into_iter().chain(Expr::network(Reg(0), Reg(0), cidr, inside))
    };
    let marked =
        |bit| [Expr::Ct { key: Ct::Mark, to: Reg(0) }].into_iter().chain(Expr::any_bit(Reg(0), Reg(0), bit));
    let redirected = || {
        let status = [Expr::Ct { key: Ct::Status, to: Reg(0) }];
        status.into_iter().chain(Expr::any_bit(Reg(0), Reg(0), STATUS_DNAT))
    };
    let hairpin = [
        Expr::SourceAddress(Reg(0)),
        Expr::DestinationAddress(Reg(1)),
        Expr::Contains { set: HAIRPINS.to_owned(), from: Reg(0) },
    ];
    let mut rules: [Vec<Expr>; 5] = [
        redirected().chain(marked(MASQUERADE_ALWAYS)).collect(),
        redirected().chain(marked(MASQUERADE_OUTSIDERS)).chain(source(place.cluster_cidr, false)).collect(),
        redirected().chain(hairpin).collect(),
        redirected().chain(source(Cidr::new(Ipv4Addr::LOCALHOST, 8), true)).collect(),
        // Nobody outside the cluster knows the way back to a pod.
        source(place.pod_cidr, true)
            .chain(target(place.cluster_cidr, false))
            .chain([
                Expr::Meta { key: Meta::OutputInterface, to: Reg(0) },
                Expr::NotEqual { from: Reg(0), value: interface(&place.bridge) },
            ])
            .collect(),
    ];
    for rule in &mut rules {
        rule.push(Expr::Masquerade);
    }
    rules.into()
}

/// An interface's name as the kernel compares it: sixteen bytes.
fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(libc::IFNAMSIZ, 0);
    bytes
}
