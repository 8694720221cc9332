//! Routes, neighbours and forwarding entries: reading them and changing one at a time.

use std::io;
use std::net::Ipv4Addr;

use crate::addr::Cidr;
use crate::netlink::{Attributes, Message, Socket, u32_of};

/// Marks our routes (`proto` of `ip route`).
pub(crate) const PROTOCOL: u8 = 83;

const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
const NTF_SELF: u8 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) destination: Cidr,
    pub(crate) via: Via,
    /// The interface.
    pub(crate) index: u32,
    /// What the node calls itself when it sends there.
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) metric: u32,
}

/// How the next hop is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Via {
    /// The destination is on the link.
    Link,
    /// Through a router.
    Gateway(Ipv4Addr),
    /// Through a router whose address no route leads to.
    Onlink(Ipv4Addr),
}

/// An address or a MAC and where it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Neighbour {
    /// A permanent neighbour: this address has this MAC.
    Address { index: u32, address: Ipv4Addr, mac: [u8; 6] },
    /// A forwarding entry of a VXLAN device: this MAC is behind this node.
    Forward { index: u32, mac: [u8; 6], node: Ipv4Addr },
}

/// Our routes, and others' unicast routes of the main table (these with their protocol unknown).
pub(crate) fn all(socket: &mut Socket) -> io::Result<Vec<Route>> {
    collect(socket, |_| true)
}

/// The routes that we made.
pub(crate) fn ours(socket: &mut Socket) -> io::Result<Vec<Route>> {
    collect(socket, |protocol| protocol == PROTOCOL)
}

fn collect(socket: &mut Socket, wanted: impl Fn(u8) -> bool) -> io::Result<Vec<Route>> {
    let bodies = socket.dump(&Message::new(libc::RTM_GETROUTE, 0, &rtmsg(0, 0, 0, 0)))?;
    let of_interest = |body: &&Vec<u8>| {
        body.len() >= 12 && body[4] == RT_TABLE_MAIN && body[7] == RTN_UNICAST && wanted(body[5])
    };
    Ok(bodies.iter().filter(of_interest).filter_map(|body| parse_route(body)).collect())
}

/// Makes a route, or replaces the one of the same destination and metric.
pub(crate) fn add(socket: &mut Socket, route: &Route) -> io::Result<()> {
    socket.request(route_message(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, route))
}

/// Removes a route. It may be gone already, for example with its interface.
pub(crate) fn remove(socket: &mut Socket, route: &Route) -> io::Result<()> {
    gone(socket.request(route_message(libc::RTM_DELROUTE, 0, route)))
}

/// Makes a permanent entry, or replaces the one of the same key.
pub(crate) fn add_neighbour(socket: &mut Socket, neighbour: &Neighbour) -> io::Result<()> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    socket.request(neighbour_message(libc::RTM_NEWNEIGH, flags, neighbour))
}

/// Removes an entry. It may be gone already.
pub(crate) fn remove_neighbour(socket: &mut Socket, neighbour: &Neighbour) -> io::Result<()> {
    gone(socket.request(neighbour_message(libc::RTM_DELNEIGH, 0, neighbour)))
}

/// The permanent neighbours and the forwarding entries of a VXLAN device.
pub(crate) fn neighbours(socket: &mut Socket, index: u32) -> io::Result<Vec<Neighbour>> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_BRIDGE] {
        let bodies = socket.dump(&Message::new(libc::RTM_GETNEIGH, 0, &ndmsg(family, 0, 0, 0)))?;
        let of_device = |body: &&Vec<u8>| body.len() >= 12 && u32_of(&body[4..]) == index;
        found.extend(bodies.iter().filter(of_device).filter_map(|body| parse_neighbour(body)));
    }
    Ok(found)
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT | libc::ENODEV)) => {
            Ok(())
        }
        result => result,
    }
}

fn route_message(kind: u16, flags: i32, route: &Route) -> Message {
    let (scope, hop) = match route.via {
        Via::Link => (RT_SCOPE_LINK, 0),
        Via::Gateway(_) => (RT_SCOPE_UNIVERSE, 0),
        Via::Onlink(_) => (RT_SCOPE_UNIVERSE, RTNH_F_ONLINK),
    };
    let mut message = Message::new(kind, flags, &rtmsg(route.destination.prefix(), PROTOCOL, scope, hop));
    if route.destination.prefix() > 0 {
        message = message.address(libc::RTA_DST, route.destination.network());
    }
    message = message.u32(libc::RTA_OIF, route.index);
    if let Via::Gateway(gateway) | Via::Onlink(gateway) = route.via {
        message = message.address(libc::RTA_GATEWAY, gateway);
    }
    if let Some(source) = route.source {
        message = message.address(libc::RTA_PREFSRC, source);
    }
    if route.metric != 0 {
        message = message.u32(libc::RTA_PRIORITY, route.metric);
    }
    message
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let (mut destination, mut index, mut gateway, mut source, mut metric) =
        (Ipv4Addr::UNSPECIFIED, None, None, None, 0);
    for (kind, value) in Attributes::after(body, 12) {
        let address = <[u8; 4]>::try_from(value).map(Ipv4Addr::from).ok();
        match kind {
            libc::RTA_DST => destination = address?,
            libc::RTA_OIF => index = Some(u32_of(value)),
            libc::RTA_GATEWAY => gateway = address,
            libc::RTA_PREFSRC => source = address,
            libc::RTA_PRIORITY => metric = u32_of(value),
            _ => {}
        }
    }
    let via = match gateway {
        None => Via::Link,
        Some(gateway) if u32_of(&body[8..]) & RTNH_F_ONLINK != 0 => Via::Onlink(gateway),
        Some(gateway) => Via::Gateway(gateway),
    };
    Some(Route { destination: Cidr::new(destination, body[1]), via, index: index?, source, metric })
}

fn neighbour_message(kind: u16, flags: i32, neighbour: &Neighbour) -> Message {
    match *neighbour {
        Neighbour::Address { index, address, mac } => {
            Message::new(kind, flags, &ndmsg(libc::AF_INET, index, NUD_PERMANENT, 0))
                .address(libc::NDA_DST, address)
                .bytes(libc::NDA_LLADDR, &mac)
        }
        Neighbour::Forward { index, mac, node } => {
            Message::new(kind, flags, &ndmsg(libc::AF_BRIDGE, index, NUD_PERMANENT, NTF_SELF))
                .bytes(libc::NDA_LLADDR, &mac)
                .address(libc::NDA_DST, node)
        }
    }
}

fn parse_neighbour(body: &[u8]) -> Option<Neighbour> {
    let index = u32_of(&body[4..]);
    if u16::from_ne_bytes([body[8], body[9]]) & NUD_PERMANENT == 0 {
        return None;
    }
    let find = |kind| Attributes::after(body, 12).value(kind);
    let mac = find(libc::NDA_LLADDR)?.try_into().ok()?;
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(find(libc::NDA_DST)?).ok()?);
    match i32::from(body[0]) {
        libc::AF_INET => Some(Neighbour::Address { index, address, mac }),
        libc::AF_BRIDGE => Some(Neighbour::Forward { index, mac, node: address }),
        _ => None,
    }
}

/// `struct rtmsg`.
fn rtmsg(prefix: u8, protocol: u8, scope: u8, flags: u32) -> [u8; 12] {
    let mut fixed =
        [libc::AF_INET as u8, prefix, 0, 0, RT_TABLE_MAIN, protocol, scope, RTN_UNICAST, 0, 0, 0, 0];
    fixed[8..].copy_from_slice(&flags.to_ne_bytes());
    fixed
}

/// `struct ndmsg`.
fn ndmsg(family: i32, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut fixed = [family as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..10].copy_from_slice(&state.to_ne_bytes());
    fixed
}
