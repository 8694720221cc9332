//! How this node reaches the pods of the others. Pure: nodes in, kernel entries out.
//!
//! A node on our own subnet gets a plain route. For any other there is the overlay: its packets travel in
//! UDP from node to node. All that a peer needs for that follows from the Node object: the device's MAC
//! from the node's address, and the router behind the device is the network address of its range.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Node;

use crate::addr::Cidr;
use crate::names;
use crate::routes::{Neighbour, Route, Via};

pub(crate) mod apply;

/// What other nodes must know of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) node_ip: Ipv4Addr,
    pub(crate) pod_cidr: Cidr,
}

/// Where this node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) node_ip: Ipv4Addr,
    /// The network of the node's address and its interface; none if the address is nobody's or alone.
    pub(crate) subnet: Option<(Cidr, u32)>,
    pub(crate) pod_cidr: Cidr,
    pub(crate) cluster_cidr: Cidr,
}

/// The ranges of the other nodes, each with the address of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// By plain routes.
    pub(crate) direct: BTreeMap<Cidr, Ipv4Addr>,
    /// Through the VXLAN device.
    pub(crate) overlay: BTreeMap<Cidr, Ipv4Addr>,
}

/// Entries of the kernel's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(crate) routes: BTreeSet<Route>,
    pub(crate) neighbours: BTreeSet<Neighbour>,
}

/// What leads from some entries to others. Additions replace what has the same key, and come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) add: Entries,
    pub(crate) remove: Entries,
}

/// Reads a Node object; none while it lacks an address or a range.
pub(crate) fn facts(node: &Node) -> Option<Facts> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    let node_ip = internal.filter_map(|address| address.address.parse().ok()).next()?;
    Some(Facts { node_ip, pod_cidr: pod_cidr(node)? })
}

/// The IPv4 range of a Node object.
pub(crate) fn pod_cidr(node: &Node) -> Option<Cidr> {
    let spec = node.spec.as_ref()?;
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    all.filter_map(|cidr| cidr.parse().ok()).next()
}

/// Decides how each of the other nodes is reached. `nodes` are all of the cluster, by name.
pub(crate) fn wanted(local: &Local, own_name: &str, nodes: &BTreeMap<String, Facts>) -> Wanted {
    let mut wanted = Wanted::default();
    let mut claimed = vec![local.pod_cidr];
    for (name, facts) in nodes {
        // Nobody may redirect what isn't the cluster's, what is ours, or what another node has.
        let inside = local.cluster_cidr.contains(facts.pod_cidr.network())
            && facts.pod_cidr.prefix() >= local.cluster_cidr.prefix();
        let overlaps = |claim: &Cidr| {
            claim.contains(facts.pod_cidr.network()) || facts.pod_cidr.contains(claim.network())
        };
        if name == own_name || facts.node_ip == local.node_ip || !inside || claimed.iter().any(overlaps) {
            continue;
        }
        claimed.push(facts.pod_cidr);
        let near = local.subnet.is_some_and(|(subnet, _)| subnet.contains(facts.node_ip));
        let table = if near { &mut wanted.direct } else { &mut wanted.overlay };
        table.insert(facts.pod_cidr, facts.node_ip);
    }
    wanted
}

/// The kernel's entries for it. `overlay` is the index of the VXLAN device.
pub(crate) fn entries(local: &Local, wanted: &Wanted, overlay: Option<u32>, metric: u32) -> Entries {
    let mut entries = Entries::default();
    if let Some((_, index)) = local.subnet {
        entries.routes.extend(wanted.direct.iter().map(|(&destination, &node)| Route {
            destination,
            via: Via::Onlink(node),
            index,
            source: Some(local.node_ip),
            metric,
        }));
    }
    let Some(index) = overlay else { return entries };
    for (&destination, &node) in &wanted.overlay {
        let (router, mac) = (destination.network(), names::overlay_mac(node));
        // With the gateway as its address the node is answered by the same way.
        let source = Some(crate::ipam::gateway(local.pod_cidr));
        entries.routes.insert(Route { destination, via: Via::Onlink(router), index, source, metric });
        entries.neighbours.insert(Neighbour::Address { index, address: router, mac });
        entries.neighbours.insert(Neighbour::Forward { index, mac, node });
    }
    entries
}

/// What is to be done to get from what is there to what is wanted.
pub(crate) fn changes(there: &Entries, wanted: &Entries) -> Changes {
    let routes: BTreeSet<_> = wanted.routes.iter().map(route_key).collect();
    let neighbours: BTreeSet<_> = wanted.neighbours.iter().map(neighbour_key).collect();
    let outdated_route = |route: &&Route| !routes.contains(&route_key(route));
    let outdated_neighbour = |neighbour: &&Neighbour| !neighbours.contains(&neighbour_key(neighbour));
    Changes {
        add: Entries {
            routes: wanted.routes.difference(&there.routes).copied().collect(),
            neighbours: wanted.neighbours.difference(&there.neighbours).copied().collect(),
        },
        remove: Entries {
            routes: there.routes.iter().filter(outdated_route).copied().collect(),
            neighbours: there.neighbours.iter().filter(outdated_neighbour).copied().collect(),
        },
    }
}

/// The kernel has one route per destination and metric.
fn route_key(route: &Route) -> (Cidr, u32) {
    (route.destination, route.metric)
}

/// The kernel has one entry per device and address, or MAC.
fn neighbour_key(neighbour: &Neighbour) -> (u32, Result<Ipv4Addr, [u8; 6]>) {
    match *neighbour {
        Neighbour::Address { index, address, .. } => (index, Ok(address)),
        Neighbour::Forward { index, mac, .. } => (index, Err(mac)),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeAddress, NodeSpec, NodeStatus};

    use super::*;

    fn local() -> Local {
        Local {
            node_ip: Ipv4Addr::new(192, 168, 1, 1),
            subnet: Some(("192.168.1.0/24".parse().unwrap(), 7)),
            pod_cidr: "10.244.0.0/24".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        }
    }

    fn nodes(rows: &[(&str, &str, &str)]) -> BTreeMap<String, Facts> {
        let facts = |(name, ip, cidr): &(&str, &str, &str)| {
            (name.to_string(), Facts { node_ip: ip.parse().unwrap(), pod_cidr: cidr.parse().unwrap() })
        };
        rows.iter().map(facts).collect()
    }

    #[test]
    fn near_nodes_get_routes_and_far_ones_the_overlay() {
        let nodes = nodes(&[
            ("a", "192.168.1.1", "10.244.0.0/24"),
            ("b", "192.168.1.2", "10.244.1.0/24"),
            ("c", "192.168.2.2", "10.244.2.0/24"),
        ]);
        let wanted = wanted(&local(), "a", &nodes);
        let entries = entries(&local(), &wanted, Some(9), 5);
        let mac = [0x0a, 0x5f, 192, 168, 2, 2];
        let far = Ipv4Addr::new(10, 244, 2, 0);
        assert_eq!(
            entries.routes.into_iter().collect::<Vec<_>>(),
            [
                Route {
                    destination: "10.244.1.0/24".parse().unwrap(),
                    via: Via::Onlink(Ipv4Addr::new(192, 168, 1, 2)),
                    index: 7,
                    source: Some(Ipv4Addr::new(192, 168, 1, 1)),
                    metric: 5,
                },
                Route {
                    destination: "10.244.2.0/24".parse().unwrap(),
                    via: Via::Onlink(far),
                    index: 9,
                    source: Some(Ipv4Addr::new(10, 244, 0, 1)),
                    metric: 5,
                },
            ]
        );
        assert_eq!(
            entries.neighbours.into_iter().collect::<Vec<_>>(),
            [
                Neighbour::Address { index: 9, address: far, mac },
                Neighbour::Forward { index: 9, mac, node: Ipv4Addr::new(192, 168, 2, 2) },
            ]
        );
    }

    #[test]
    fn without_a_subnet_every_node_is_far() {
        let local = Local { subnet: None, ..local() };
        let wanted = wanted(&local, "a", &nodes(&[("b", "192.168.1.2", "10.244.1.0/24")]));
        assert!(wanted.direct.is_empty());
        assert_eq!(wanted.overlay.len(), 1);
    }

    #[test]
    fn nodes_that_claim_what_is_not_theirs_are_not_routed_to() {
        for (what, ip, cidr) in [
            ("outside of the cluster", "192.168.1.2", "10.96.0.0/24"),
            ("wider than the cluster", "192.168.1.2", "10.0.0.0/8"),
            ("ours", "192.168.1.2", "10.244.0.0/24"),
            ("part of ours", "192.168.1.2", "10.244.0.128/25"),
            ("around ours", "192.168.1.2", "10.244.0.0/23"),
            ("with our address", "192.168.1.1", "10.244.1.0/24"),
        ] {
            assert_eq!(wanted(&local(), "a", &nodes(&[("b", ip, cidr)])), Wanted::default(), "{what}");
        }
        let twice = nodes(&[("b", "192.168.1.2", "10.244.1.0/24"), ("c", "192.168.1.3", "10.244.1.0/24")]);
        let wanted = wanted(&local(), "a", &twice);
        assert_eq!(wanted.direct.values().copied().collect::<Vec<_>>(), [Ipv4Addr::new(192, 168, 1, 2)]);
    }

    #[test]
    fn a_changed_entry_is_replaced_and_a_gone_one_removed() {
        let before = wanted(
            &local(),
            "a",
            &nodes(&[("b", "192.168.2.2", "10.244.1.0/24"), ("c", "192.168.2.3", "10.244.2.0/24")]),
        );
        let after = wanted(
            &local(),
            "a",
            &nodes(&[("b", "192.168.2.9", "10.244.1.0/24"), ("d", "192.168.1.4", "10.244.4.0/24")]),
        );
        let there = entries(&local(), &before, Some(9), 5);
        let wanted = entries(&local(), &after, Some(9), 5);
        let changes = changes(&there, &wanted);
        let text = |route: &Route| format!("{} {:?}", route.destination, route.via);
        assert_eq!(
            changes.add.routes.iter().map(text).collect::<Vec<_>>(),
            ["10.244.4.0/24 Onlink(192.168.1.4)"]
        );
        assert_eq!(
            changes.remove.routes.iter().map(text).collect::<Vec<_>>(),
            ["10.244.2.0/24 Onlink(10.244.2.0)"]
        );
        // b: its router got another MAC, which is behind another node.
        assert_eq!(changes.add.neighbours.len(), 2);
        // The old MAC of b; router and MAC of c.
        assert_eq!(changes.remove.neighbours.len(), 3);
        let nothing = super::changes(&wanted, &wanted);
        assert_eq!(nothing, Changes::default());
    }

    #[test]
    fn facts_come_from_the_first_ipv4_values() {
        let mut node = Node {
            spec: Some(NodeSpec {
                pod_cidr: Some("10.244.3.0/24".into()),
                pod_cidrs: Some(vec!["fd00::/64".into(), "10.244.3.0/24".into()]),
                ..NodeSpec::default()
            }),
            ..Node::default()
        };
        assert_eq!(facts(&node), None);
        let address =
            |type_: &str, address: &str| NodeAddress { type_: type_.into(), address: address.into() };
        node.status = Some(NodeStatus {
            addresses: Some(vec![
                address("Hostname", "n1"),
                address("ExternalIP", "1.2.3.4"),
                address("InternalIP", "fd00::1"),
                address("InternalIP", "192.168.1.9"),
            ]),
            ..NodeStatus::default()
        });
        let expected =
            Facts { node_ip: Ipv4Addr::new(192, 168, 1, 9), pod_cidr: "10.244.3.0/24".parse().unwrap() };
        assert_eq!(facts(&node), Some(expected));
        node.spec = None;
        assert_eq!(facts(&node), None);
    }
}
