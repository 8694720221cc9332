//! Interfaces: what exists, and the ones that the pod network consists of.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use crate::addr::Cidr;
use crate::netlink::{Attributes, Message, Netns, Socket, text, u32_of};

mod constants;
pub(crate) use constants::*;

/// The loopback interface has this index in each namespace.
pub(crate) const LOOPBACK: u32 = 1;
/// Interfaces of this group are about to be removed. A number that nobody else uses.
const DELETED_GROUP: u32 = 0x736b_6466;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: u32,
    /// The index of the bridge that it is a port of.
    pub(crate) master: Option<u32>,
    /// Such as `veth`, `bridge`, `vxlan`.
    pub(crate) kind: Option<String>,
    pub(crate) vxlan: Option<Vxlan>,
}

/// What makes one VXLAN device different from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vxlan {
    pub(crate) vni: u32,
    pub(crate) port: u16,
    pub(crate) local: Ipv4Addr,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
}

/// A pair of interfaces to be made: one here, one in another namespace.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    pub(crate) name: &'a str,
    /// Shown by `ip link`: tells people whose it is.
    pub(crate) alias: &'a str,
    pub(crate) bridge: u32,
    pub(crate) mtu: u32,
    pub(crate) peer_name: &'a str,
    pub(crate) peer_mac: [u8; 6],
}

impl Address {
    /// The network that the interface is in.
    pub(crate) fn network(self) -> Cidr {
        Cidr::new(self.address, self.prefix)
    }
}

/// All interfaces, by index.
pub(crate) fn all(socket: &mut Socket) -> io::Result<BTreeMap<u32, Link>> {
    let bodies = socket.dump(&Message::new(libc::RTM_GETLINK, 0, &ifinfo(0, 0, 0)))?;
    Ok(bodies.iter().filter_map(|body| parse(body)).map(|link| (link.index, link)).collect())
}

/// The interface of this name, if there is one.
pub(crate) fn by_name(socket: &mut Socket, name: &str) -> io::Result<Option<Link>> {
    let mut found = None;
    let message = Message::new(libc::RTM_GETLINK, 0, &ifinfo(0, 0, 0)).text(libc::IFLA_IFNAME, name);
    match socket.get(message, |_, body| found = parse(body)) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        result => result.map(|()| found),
    }
}

/// The IPv4 addresses of all interfaces.
pub(crate) fn addresses(socket: &mut Socket) -> io::Result<Vec<Address>> {
    let fixed = [libc::AF_INET as u8, 0, 0, 0, 0, 0, 0, 0];
    let bodies = socket.dump(&Message::new(libc::RTM_GETADDR, 0, &fixed))?;
    Ok(bodies.iter().filter_map(|body| parse_address(body)).collect())
}

fn parse_address(body: &[u8]) -> Option<Address> {
    let (prefix, index) = (*body.get(1)?, u32_of(body.get(4..8)?));
    let octets: [u8; 4] = Attributes::after(body, 8).value(IFA_LOCAL)?.try_into().ok()?;
    Some(Address { index, address: octets.into(), prefix })
}

/// Gives an interface an address. It may have it already.
pub(crate) fn add_address(socket: &mut Socket, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    // Replacing is what makes it idempotent: creating exclusively would fail.
    change_address(
        socket,
        libc::RTM_NEWADDR,
        libc::NLM_F_CREATE | libc::NLM_F_REPLACE,
        index,
        address,
        prefix,
    )
}

/// Takes an address away. It may be gone already.
pub(crate) fn remove_address(
    socket: &mut Socket,
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
) -> io::Result<()> {
    match change_address(socket, libc::RTM_DELADDR, 0, index, address, prefix) {
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        result => result,
    }
}

fn change_address(
    socket: &mut Socket,
    kind: u16,
    flags: i32,
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
) -> io::Result<()> {
    let mut fixed = [libc::AF_INET as u8, prefix, 0, 0, 0, 0, 0, 0];
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    let mut message =
        Message::new(kind, flags, &fixed).address(IFA_LOCAL, address).address(IFA_ADDRESS, address);
    if prefix < 31 {
        message = message.address(IFA_BROADCAST, broadcast(address, prefix));
    }
    socket.request(message)
}

fn broadcast(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let network = Cidr::new(address, prefix);
    network.at(network.size() - 1).unwrap_or(address)
}

/// Makes sure that there is a bridge of this name, that it is up, and returns it.
pub(crate) fn ensure_bridge(socket: &mut Socket, name: &str, mac: [u8; 6], mtu: u32) -> io::Result<Link> {
    if by_name(socket, name)?.is_none() {
        // With a MAC of its own the bridge does not change its address with each port that comes and goes.
        let message = new_link(name, mtu).bytes(libc::IFLA_ADDRESS, &mac).nest(libc::IFLA_LINKINFO, |info| {
            // Nothing here listens to multicast: no snooping queries, no timers.
            info.text(IFLA_INFO_KIND, "bridge")
                .nest(IFLA_INFO_DATA, |data| data.u8(IFLA_BR_MCAST_SNOOPING, 0))
        });
        already(socket.request(message))?;
    }
    found(socket, name)
}

/// Makes sure that there is a VXLAN device with these settings, without learning: peers are told.
/// The flag tells whether it was made now.
pub(crate) fn ensure_vxlan(
    socket: &mut Socket,
    name: &str,
    mac: [u8; 6],
    mtu: u32,
    vxlan: Vxlan,
) -> io::Result<(Link, bool)> {
    if let Some(link) = by_name(socket, name)? {
        if link.vxlan == Some(vxlan) && link.mac == Some(mac) {
            return Ok((link, false));
        }
        delete(socket, name)?;
    }
    let message = new_link(name, mtu).bytes(libc::IFLA_ADDRESS, &mac).nest(libc::IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "vxlan").nest(IFLA_INFO_DATA, |data| {
            data.u32(IFLA_VXLAN_ID, vxlan.vni)
                .address(IFLA_VXLAN_LOCAL, vxlan.local)
                .bytes(IFLA_VXLAN_PORT, &vxlan.port.to_be_bytes())
                .u8(IFLA_VXLAN_LEARNING, 0)
        })
    });
    socket.request(message)?;
    Ok((found(socket, name)?, true))
}

/// Makes a pair whose near end is up and a port of the bridge, and whose far end is down in `netns`.
pub(crate) fn create_veth(socket: &mut Socket, veth: &Veth<'_>, netns: &Netns) -> io::Result<()> {
    let message =
        new_link(veth.name, veth.mtu).u32(libc::IFLA_MASTER, veth.bridge).nest(libc::IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.raw(&ifinfo(0, 0, 0))
                        .text(libc::IFLA_IFNAME, veth.peer_name)
                        .bytes(libc::IFLA_ADDRESS, &veth.peer_mac)
                        .u32(libc::IFLA_MTU, veth.mtu)
                        .u32(libc::IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned())
                })
            })
        });
    socket.request(message)?;
    // A port can't be configured by the message that makes it. Hairpin: where the host filters bridged
    // packets, a pod's packet to its own service goes back through the port that it came from.
    let message = Message::new(libc::RTM_NEWLINK, 0, &ifinfo(0, 0, 0))
        .text(libc::IFLA_IFNAME, veth.name)
        .bytes(libc::IFLA_IFALIAS, veth.alias.as_bytes().get(..255).unwrap_or(veth.alias.as_bytes()))
        .nest(libc::IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_SLAVE_KIND, "bridge")
                .nest(IFLA_INFO_SLAVE_DATA, |data| data.u8(IFLA_BRPORT_MODE, 1))
        });
    socket.request(message)
}

/// Makes a pair of interfaces of the same name that are down: one here, one in another namespace.
#[cfg(test)]
pub(crate) fn create_pair(socket: &mut Socket, name: &str, netns: &Netns) -> io::Result<()> {
    let message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &ifinfo(0, 0, 0))
        .text(libc::IFLA_IFNAME, name)
        .nest(libc::IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.raw(&ifinfo(0, 0, 0))
                        .text(libc::IFLA_IFNAME, name)
                        .u32(libc::IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned())
                })
            })
        });
    socket.request(message)
}

/// Takes an interface up.
pub(crate) fn up(socket: &mut Socket, index: u32) -> io::Result<()> {
    let up = libc::IFF_UP as u32;
    socket.request(Message::new(libc::RTM_NEWLINK, 0, &ifinfo(index, up, up)))
}

/// The interfaces that hang on a bridge.
pub(crate) fn ports(socket: &mut Socket, bridge: u32) -> io::Result<Vec<String>> {
    let links = all(socket)?.into_values();
    Ok(links.filter(|link| link.master == Some(bridge)).map(|link| link.name).collect())
}

/// Removes interfaces, of which any may be gone already.
///
/// The kernel waits some 20 ms for each removal until nobody looks at the interface any more, and lets no
/// other change happen meanwhile. So several are put into a group and removed as one.
pub(crate) fn delete_all(socket: &mut Socket, names: &[String]) -> io::Result<()> {
    if let [name] = names {
        return delete(socket, name);
    }
    let mut any = false;
    for name in names {
        let message = Message::new(libc::RTM_SETLINK, 0, &ifinfo(0, 0, 0))
            .text(libc::IFLA_IFNAME, name)
            .u32(libc::IFLA_GROUP, DELETED_GROUP);
        match socket.request(message) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            result => result.map(|()| any = true)?,
        }
    }
    if !any {
        return Ok(());
    }
    let message = Message::new(libc::RTM_DELLINK, 0, &ifinfo(0, 0, 0)).u32(libc::IFLA_GROUP, DELETED_GROUP);
    match socket.request(message) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

/// Removes an interface (and with it the other end of a pair). It may be gone already.
pub(crate) fn delete(socket: &mut Socket, name: &str) -> io::Result<()> {
    let message = Message::new(libc::RTM_DELLINK, 0, &ifinfo(0, 0, 0)).text(libc::IFLA_IFNAME, name);
    match socket.request(message) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

fn found(socket: &mut Socket, name: &str) -> io::Result<Link> {
    let link = by_name(socket, name)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
    up(socket, link.index)?;
    Ok(link)
}

/// Someone else may have been quicker.
fn already(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

fn new_link(name: &str, mtu: u32) -> Message {
    let up = libc::IFF_UP as u32;
    Message::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &ifinfo(0, up, up))
        .text(libc::IFLA_IFNAME, name)
        .u32(libc::IFLA_MTU, mtu)
}

/// `struct ifinfomsg`.
fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..].copy_from_slice(&change.to_ne_bytes());
    fixed
}

fn parse(body: &[u8]) -> Option<Link> {
    let index = u32_of(body.get(4..8)?);
    let (mut name, mut mac, mut mtu, mut master, mut kind, mut vxlan) = (None, None, 0, None, None, None);
    for (attribute, value) in Attributes::after(body, 16) {
        match attribute {
            libc::IFLA_IFNAME => name = Some(text(value)),
            libc::IFLA_ADDRESS => mac = value.try_into().ok(),
            libc::IFLA_MTU => mtu = u32_of(value),
            libc::IFLA_MASTER => master = Some(u32_of(value)),
            libc::IFLA_LINKINFO => {
                kind = Attributes::within(value).value(IFLA_INFO_KIND).map(text);
                if kind.as_deref() == Some("vxlan") {
                    vxlan = Attributes::within(value).value(IFLA_INFO_DATA).and_then(parse_vxlan);
                }
            }
            _ => {}
        }
    }
    Some(Link { index, name: name?, mac, mtu, master, kind, vxlan })
}

fn parse_vxlan(data: &[u8]) -> Option<Vxlan> {
    let find = |kind| Attributes::within(data).value(kind);
    let local: [u8; 4] = find(IFLA_VXLAN_LOCAL)?.try_into().ok()?;
    let port: [u8; 2] = find(IFLA_VXLAN_PORT)?.try_into().ok()?;
    Some(Vxlan { vni: u32_of(find(IFLA_VXLAN_ID)?), port: u16::from_be_bytes(port), local: local.into() })
}
