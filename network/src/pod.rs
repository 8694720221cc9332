//! A sandbox's interface: a pair from the node's bridge into the sandbox, an address, and routes.
//!
//! A pod has its address alone (/32) and reaches everything through the gateway, also the pods beside it. So
//! the node routes and sees each packet: services and network policies work without the kernel's filtering
//! of bridged packets, and in the same way for all destinations.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::links::{self, Veth};
use crate::names;
use crate::netlink::{Netns, Socket};
use crate::routes::{self, Route, Via};

/// The interface to be made.
#[derive(Debug)]
pub(crate) struct Interface<'a> {
    pub(crate) sandbox: &'a str,
    pub(crate) netns: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) host_name: &'a str,
    /// The bridge's index.
    pub(crate) bridge: u32,
    pub(crate) mtu: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) gateway: Ipv4Addr,
}

/// Makes sure that the sandbox has exactly this interface.
///
/// `host` is a socket of the node's namespace. It is held only for what happens there.
pub(crate) fn attach(host: &Mutex<Socket>, wanted: &Interface<'_>, fresh: bool) -> io::Result<()> {
    let netns = Netns::open(wanted.netns)?;
    let mut inside = netns.socket()?;
    if !fresh {
        if complete(host, &mut inside, wanted)? {
            return Ok(());
        }
        links::delete(&mut lock(host), wanted.host_name)?;
    }
    let mac = names::pod_mac(wanted.address);
    let veth = Veth {
        name: wanted.host_name,
        alias: wanted.sandbox,
        bridge: wanted.bridge,
        mtu: wanted.mtu,
        peer_name: wanted.name,
        peer_mac: mac,
    };
    let create = || links::create_veth(&mut lock(host), &veth, &netns);
    match create() {
        // Left by a start whose allocations were lost.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            links::delete(&mut lock(host), wanted.host_name)?;
            create()?;
        }
        result => result?,
    }
    configure(&mut inside, wanted).inspect_err(|_| {
        // Nothing half made stays; the first error is the one to report.
        let _ = links::delete(&mut lock(host), wanted.host_name);
    })
}

fn configure(inside: &mut Socket, wanted: &Interface<'_>) -> io::Result<()> {
    let missing = || io::Error::from_raw_os_error(libc::ENODEV);
    let index = links::by_name(inside, wanted.name)?.ok_or_else(missing)?.index;
    links::add_address(inside, index, wanted.address, 32)?;
    links::up(inside, index)?;
    for route in pod_routes(index, wanted.gateway) {
        routes::add(inside, &route)?;
    }
    Ok(())
}

/// True if an earlier attach got to its end and nobody undid it.
fn complete(host: &Mutex<Socket>, inside: &mut Socket, wanted: &Interface<'_>) -> io::Result<bool> {
    let Some(near) = links::by_name(&mut lock(host), wanted.host_name)? else { return Ok(false) };
    let Some(far) = links::by_name(inside, wanted.name)? else { return Ok(false) };
    if near.master != Some(wanted.bridge) || far.mac != Some(names::pod_mac(wanted.address)) {
        return Ok(false);
    }
    let has = |address: &links::Address| address.index == far.index && address.address == wanted.address;
    if !links::addresses(inside)?.iter().any(has) {
        return Ok(false);
    }
    // The default route is the last thing that is set.
    let [_, default] = pod_routes(far.index, wanted.gateway);
    Ok(routes::all(inside)?
        .iter()
        .any(|route| route.destination == default.destination && route.via == default.via))
}

fn pod_routes(index: u32, gateway: Ipv4Addr) -> [Route; 2] {
    let route = |destination, via| Route { destination, via, index, source: None, metric: 0 };
    [
        route(crate::Cidr::new(gateway, 32), Via::Link),
        route(crate::Cidr::new(Ipv4Addr::UNSPECIFIED, 0), Via::Gateway(gateway)),
    ]
}

fn lock(socket: &Mutex<Socket>) -> std::sync::MutexGuard<'_, Socket> {
    socket.lock().unwrap_or_else(PoisonError::into_inner)
}
