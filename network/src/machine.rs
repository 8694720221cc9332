//! Several nodes on one machine: each further node lives in a network namespace of its own, and a segment
//! (a bridge with a subnet) joins them with the machine, as a switch joins machines.
//!
//! The machine has the subnet's first address and is the way out of the other nodes. What leaves the segment
//! is masqueraded, because nobody outside knows its subnet.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{FsType, statfs};

use crate::addr::Cidr;
use crate::error::Error;
use crate::links::{self, Link, Veth};
use crate::names;
use crate::netlink::{Netns, Socket};
use crate::routes::{self, Route, Via};
use crate::sysctl;

mod masquerade;

/// Where segments are: one /24 of it each.
const RANGE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 0);
const PREFIX: u8 = 24;
const MTU: u32 = 1500;
/// What the node's interface is called inside of its namespace.
const INTERFACE: &str = "eth0";
/// Node `n` has the address after the gateway's by `n`.
const LAST_INDEX: u32 = 253;

/// The network between the nodes of one machine.
#[derive(Debug)]
pub struct Segment {
    bridge: String,
    /// The bridge's index.
    index: u32,
    network: Cidr,
    run_dir: PathBuf,
    id: String,
}

/// A node's place: start its agent there, see [`enter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNamespace {
    /// The file that keeps the network namespace.
    pub netns: PathBuf,
    /// The node's InternalIP.
    pub address: Ipv4Addr,
}

/// Runs `f` on a new thread inside of a network namespace. What it starts inherits the namespace: a
/// `Command` that is spawned in `f` runs there. (Don't ask for a signal on the death of its parent: that
/// would be the thread, which ends with `f`.)
pub fn enter<T: Send>(netns: &Path, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    Netns::open(netns)?.run(|| Ok(f()))
}

impl Segment {
    /// The segment of this id in the calling thread's network namespace; made if it isn't there.
    pub fn ensure(id: &str, run_dir: &Path) -> Result<Self, Error> {
        let bridge = bridge_name(id);
        fs::create_dir_all(run_dir).map_err(Error::file(run_dir))?;
        let make = || -> io::Result<(Link, Cidr)> {
            let mut socket = Socket::open()?;
            let existing = links::by_name(&mut socket, &bridge)?;
            let network = match existing.and_then(|link| network_of(&mut socket, link.index).transpose()) {
                Some(network) => network?,
                None => free_network(&mut socket, id)?,
            };
            let gateway = gateway(network);
            sysctl::router()?;
            let link = links::ensure_bridge(&mut socket, &bridge, names::segment_mac(gateway), MTU)?;
            sysctl::segment(&bridge)?;
            links::add_address(&mut socket, link.index, gateway, PREFIX)?;
            masquerade::ensure(&bridge, network)?;
            Ok((link, network))
        };
        let (link, network) = make().map_err(Error::kernel(format!("set up the node segment {bridge}")))?;
        Ok(Self { bridge, index: link.index, network, run_dir: run_dir.to_owned(), id: id.to_owned() })
    }

    /// The machine's own address on the segment.
    pub fn gateway(&self) -> Ipv4Addr {
        gateway(self.network)
    }

    /// The subnet of the nodes.
    pub fn network(&self) -> Cidr {
        self.network
    }

    /// The namespace of a further node, 1 and up; made if it isn't there.
    pub fn node(&self, index: u32) -> Result<NodeNamespace, Error> {
        let name = format!("node {index} of {}", self.bridge);
        let address = self.network.at(1 + u64::from(index)).filter(|_| (1..=LAST_INDEX).contains(&index));
        let Some(address) = address else {
            return Err(Error::kernel(name)(io::Error::other("a machine has at most 253 further nodes")));
        };
        let netns = self.run_dir.join(format!("{NODE_FILE}{index}"));
        ensure_netns(&netns).map_err(Error::file(&netns))?;
        self.connect(index, &netns, address).map_err(Error::kernel(format!("connect {name}")))?;
        Ok(NodeNamespace { netns, address })
    }

    fn connect(&self, index: u32, netns: &Path, address: Ipv4Addr) -> io::Result<()> {
        let netns = Netns::open(netns)?;
        let mut inside = netns.socket()?;
        let mut outside = Socket::open()?;
        let host_name = format!("skn{:08x}{index}", names::hash(&[&self.id]) as u32);
        let near = links::by_name(&mut outside, &host_name)?;
        let far = links::by_name(&mut inside, INTERFACE)?;
        if near.is_none_or(|near| near.master != Some(self.index)) || far.is_none() {
            links::delete(&mut outside, &host_name)?;
            let alias = netns_alias(&self.id, index);
            let veth = Veth {
                name: &host_name,
                alias: &alias,
                bridge: self.index,
                mtu: MTU,
                peer_name: INTERFACE,
                peer_mac: names::segment_mac(address),
            };
            links::create_veth(&mut outside, &veth, &netns)?;
        }
        let missing = || io::Error::from_raw_os_error(libc::ENODEV);
        let index = links::by_name(&mut inside, INTERFACE)?.ok_or_else(missing)?.index;
        links::up(&mut inside, links::LOOPBACK)?;
        links::add_address(&mut inside, index, address, PREFIX)?;
        links::up(&mut inside, index)?;
        let default = Route {
            destination: Cidr::new(Ipv4Addr::UNSPECIFIED, 0),
            via: Via::Gateway(self.gateway()),
            index,
            source: None,
            metric: 0,
        };
        routes::add(&mut inside, &default)?;
        netns.run(sysctl::router)
    }

    /// Removes the segment of this id, the namespaces of its nodes and their files. Nothing may run in them.
    pub fn remove(id: &str, run_dir: &Path) -> Result<(), Error> {
        let bridge = bridge_name(id);
        let remove = || -> io::Result<()> {
            let mut socket = Socket::open()?;
            if let Some(link) = links::by_name(&mut socket, &bridge)? {
                let ports = links::ports(&mut socket, link.index)?;
                links::delete_all(&mut socket, &ports)?;
            }
            links::delete(&mut socket, &bridge)?;
            masquerade::remove(&bridge)
        };
        remove().map_err(Error::kernel(format!("remove the node segment {bridge}")))?;
        remove_netns_files(run_dir).map_err(Error::file(run_dir))
    }
}

const NODE_FILE: &str = "node-";

/// Also the name of the nft table.
fn bridge_name(id: &str) -> String {
    format!("skiff{:08x}", names::hash(&[id]) as u32)
}

fn netns_alias(id: &str, index: u32) -> String {
    format!("{id} node {index}")
}

fn gateway(network: Cidr) -> Ipv4Addr {
    network.at(1).unwrap_or(network.network())
}

/// The segment that a bridge of an earlier start has.
fn network_of(socket: &mut Socket, index: u32) -> io::Result<Option<Cidr>> {
    let mut addresses = links::addresses(socket)?.into_iter();
    Ok(addresses
        .find(|address| address.index == index && address.prefix == PREFIX)
        .map(links::Address::network))
}

/// A subnet that nothing on this machine leads to. Where the search begins depends on the id, so that
/// clusters that start at the same time hardly meet.
fn free_network(socket: &mut Socket, id: &str) -> io::Result<Cidr> {
    let mut taken: Vec<Cidr> = links::addresses(socket)?.into_iter().map(links::Address::network).collect();
    let routes = routes::all(socket)?.into_iter().map(|route| route.destination);
    taken.extend(routes.filter(|destination| destination.prefix() > 0));
    pick(&taken, names::hash(&[id])).ok_or_else(|| io::Error::other("no subnet of 172.30.0.0/16 is free"))
}

fn pick(taken: &[Cidr], start: u64) -> Option<Cidr> {
    let overlaps = |one: Cidr, other: Cidr| one.contains(other.network()) || other.contains(one.network());
    let [a, b, ..] = RANGE.octets();
    let candidates =
        (0..=u8::MAX).map(|n| Cidr::new(Ipv4Addr::new(a, b, n.wrapping_add(start as u8), 0), PREFIX));
    candidates.into_iter().find(|candidate| !taken.iter().any(|taken| overlaps(*taken, *candidate)))
}

/// Makes sure that the file stands for a network namespace.
fn ensure_netns(path: &Path) -> io::Result<()> {
    match is_netns(path) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => drop(File::create(path)?),
        Err(error) => return Err(error),
    }
    // A namespace is made by a thread that moves into it, and kept by the mount when the thread has ended.
    let make = || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, make)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn is_netns(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.filesystem_type() == FsType(libc::NSFS_MAGIC as _))
}

fn remove_netns_files(run_dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(run_dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(NODE_FILE) {
            continue;
        }
        let path = entry.path();
        if is_netns(&path)? {
            umount2(&path, MntFlags::MNT_DETACH)?;
        }
        fs::remove_file(&path)?;
    }
    // Others may keep files there.
    let _ = fs::remove_dir(run_dir);
    Ok(())
}

#[cfg(test)]
mod tests;
