//! Which sandbox has which address. Pure: the state is a value, its file is [`file`]'s matter.
//!
//! Addresses are given round robin, so a freed one is reused as late as possible: what still remembers its
//! last owner (connection tracking, a client's cache) has forgotten it by then. The first address of the
//! range is the gateway; the network address stands for the node in the overlay, and the last is broadcast.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::addr::Cidr;
use crate::config::HostPort;
use crate::error::Error;

pub(crate) mod file;

/// The offset of the gateway in the range.
const GATEWAY: u64 = 1;

/// What a sandbox holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    pub(crate) gateway: Ipv4Addr,
    /// The node's end of the pair.
    pub(crate) host_interface: String,
    /// The sandbox's end, and where it is.
    pub(crate) interface: String,
    pub(crate) netns: PathBuf,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) host_ports: Vec<HostPort>,
}

/// The addresses of a node's range and who has them. This is also what is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ipam {
    cidr: Cidr,
    /// What was given last.
    last: Option<Ipv4Addr>,
    leases: BTreeMap<String, Lease>,
}

impl Ipam {
    /// Nobody has an address yet.
    pub(crate) fn new(cidr: Cidr) -> Self {
        Self { cidr, last: None, leases: BTreeMap::new() }
    }

    /// The range that new addresses come from.
    pub(crate) fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// The pods' way out.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        gateway(self.cidr)
    }

    /// Gives addresses of another range from now on. Who has one of the old range keeps it.
    pub(crate) fn renumber(&mut self, cidr: Cidr) {
        self.cidr = cidr;
        self.last = None;
    }

    /// True while a sandbox has an address outside of the range.
    pub(crate) fn has_foreign(&self) -> bool {
        self.leases.values().any(|lease| !self.cidr.contains(lease.address))
    }

    /// The address that [`Ipam::put`] should record next.
    pub(crate) fn free(&self) -> Result<Ipv4Addr, Error> {
        let taken: HashSet<Ipv4Addr> = self.leases.values().map(|lease| lease.address).collect();
        let base = self.cidr.network().to_bits();
        let (first, end) = (GATEWAY + 1, self.cidr.size().saturating_sub(1));
        let after_last = self
            .last
            .filter(|last| self.cidr.contains(*last))
            .map(|last| u64::from(last.to_bits() - base) + 1);
        let start = after_last.filter(|start| (first..end).contains(start)).unwrap_or(first);
        (start..end)
            .chain(first..start)
            .filter_map(|offset| self.cidr.at(offset))
            .find(|address| !taken.contains(address))
            .ok_or(Error::Exhausted { cidr: self.cidr })
    }

    /// Records what a sandbox holds.
    pub(crate) fn put(&mut self, sandbox: &str, lease: Lease) {
        self.last = Some(lease.address);
        self.leases.insert(sandbox.to_owned(), lease);
    }

    /// What a sandbox holds.
    pub(crate) fn get(&self, sandbox: &str) -> Option<&Lease> {
        self.leases.get(sandbox)
    }

    /// Takes back what a sandbox holds.
    pub(crate) fn release(&mut self, sandbox: &str) -> Option<Lease> {
        self.leases.remove(sandbox)
    }

    /// All sandboxes with what they hold.
    pub(crate) fn leases(&self) -> &BTreeMap<String, Lease> {
        &self.leases
    }
}

/// The first address of a range.
pub(crate) fn gateway(cidr: Cidr) -> Ipv4Addr {
    cidr.at(GATEWAY).unwrap_or(cidr.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(address: Ipv4Addr) -> Lease {
        Lease {
            address,
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            host_interface: "v".into(),
            interface: "eth0".into(),
            netns: "/x".into(),
            host_ports: Vec::new(),
        }
    }

    fn take(ipam: &mut Ipam, sandbox: &str) -> Option<u8> {
        let address = ipam.free().ok()?;
        ipam.put(sandbox, lease(address));
        Some(address.octets()[3])
    }

    #[test]
    fn addresses_are_given_in_turn_and_freed_ones_last() {
        let mut ipam = Ipam::new("10.0.0.0/29".parse().unwrap());
        assert_eq!(ipam.gateway(), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(take(&mut ipam, "a"), Some(2));
        assert_eq!(take(&mut ipam, "b"), Some(3));
        ipam.release("a");
        assert_eq!(take(&mut ipam, "c"), Some(4));
        assert_eq!(take(&mut ipam, "d"), Some(5));
        assert_eq!(take(&mut ipam, "e"), Some(6));
        assert_eq!(take(&mut ipam, "f"), Some(2));
        assert_eq!(take(&mut ipam, "g"), None);
        ipam.release("d");
        assert_eq!(take(&mut ipam, "g"), Some(5));
    }

    #[test]
    fn the_turn_survives_writing_and_reading() {
        let mut ipam = Ipam::new("10.0.0.0/24".parse().unwrap());
        take(&mut ipam, "a");
        take(&mut ipam, "b");
        ipam.release("b");
        let mut again: Ipam = serde_json::from_str(&serde_json::to_string(&ipam).unwrap()).unwrap();
        assert_eq!(again, ipam);
        assert_eq!(take(&mut again, "c"), Some(4));
    }

    #[test]
    fn another_range_leaves_the_old_addresses_alone() {
        let mut ipam = Ipam::new("10.0.0.0/24".parse().unwrap());
        take(&mut ipam, "a");
        ipam.renumber("10.0.7.0/24".parse().unwrap());
        assert!(ipam.has_foreign());
        assert_eq!(ipam.free().unwrap(), Ipv4Addr::new(10, 0, 7, 2));
        assert_eq!(ipam.get("a").map(|lease| lease.address), Some(Ipv4Addr::new(10, 0, 0, 2)));
    }

    #[test]
    fn ranges_without_room_are_exhausted_from_the_start() {
        for (cidr, room) in [("10.0.0.0/32", 0), ("10.0.0.0/31", 0), ("10.0.0.0/30", 1), ("10.0.0.0/29", 5)] {
            let mut ipam = Ipam::new(cidr.parse().unwrap());
            let given = (0..20).filter(|n| take(&mut ipam, &n.to_string()).is_some()).count();
            assert_eq!(given, room, "{cidr}");
        }
    }
}
