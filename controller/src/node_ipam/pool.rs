//! Which ranges are taken: pure bookkeeping.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The size of a node's range, by address family.
const NODE_BITS_V4: u32 = 24;
const NODE_BITS_V6: u32 = 64;
/// More ranges than this are not kept account of (upstream's limit).
const MOST: u32 = 16;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    base: u128,
    bits: u32,
    v4: bool,
}

/// Why the cluster's range can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRange {
    #[error("{0:?} is not a range of addresses such as 10.244.0.0/16")]
    Unreadable(String),
    #[error("{range} is too small for ranges of /{node} for the nodes")]
    TooSmall { range: String, node: u32 },
    #[error("{range} holds more ranges of /{node} than the {most} that can be kept account of")]
    TooBig { range: String, node: u32, most: u32 },
}

/// No range is free; `news` the first time that this node learns it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) news: bool,
}

/// The ranges of a cluster and who has them.
#[derive(Debug)]
pub(super) struct Pool {
    cluster: Network,
    node_bits: u32,
    /// How many nodes have each range; more than one only if somebody else assigned them so.
    taken: Vec<u32>,
    /// By node UID.
    held: HashMap<String, Vec<RangeInclusive<usize>>>,
    /// Names of nodes that found no free range.
    waiting: BTreeSet<String>,
}

impl Pool {
    pub(super) fn new(cluster_cidr: &str) -> Result<Self, BadRange> {
        let cluster =
            Network::parse(cluster_cidr).ok_or_else(|| BadRange::Unreadable(cluster_cidr.to_owned()))?;
        let node_bits = if cluster.v4 { NODE_BITS_V4 } else { NODE_BITS_V6 };
        let range = || cluster_cidr.to_owned();
        match node_bits.checked_sub(cluster.bits) {
            None => Err(BadRange::TooSmall { range: range(), node: node_bits }),
            Some(bits) if bits > MOST => {
                Err(BadRange::TooBig { range: range(), node: node_bits, most: 1 << MOST })
            }
            Some(bits) => Ok(Self {
                cluster,
                node_bits,
                taken: vec![0; 1 << bits],
                held: HashMap::new(),
                waiting: BTreeSet::new(),
            }),
        }
    }

    /// Takes note of a node's ranges. Returns the names of those that wait, if that made something free.
    pub(super) fn observe(&mut self, node: &ObjectMeta, cidrs: Vec<String>) -> Vec<String> {
        if cidrs.is_empty() {
            return Vec::new();
        }
        if let Some(name) = &node.name {
            self.waiting.remove(name);
        }
        let uid = node.uid.clone().unwrap_or_default();
        let ranges: Vec<_> = cidrs.iter().filter_map(|cidr| self.covered(cidr)).collect();
        if self.held.get(&uid) == Some(&ranges) {
            return Vec::new();
        }
        let freed = self.release(&uid);
        for index in ranges.iter().flat_map(Clone::clone) {
            self.taken[index] += 1;
        }
        self.held.insert(uid, ranges);
        if freed { self.waiting.iter().cloned().collect() } else { Vec::new() }
    }

    /// Takes back what a node has. Returns the names of those that wait, if that made something free.
    pub(super) fn forget(&mut self, node: &ObjectMeta) -> Vec<String> {
        if let Some(name) = &node.name {
            self.waiting.remove(name);
        }
        let freed = self.release(node.uid.as_deref().unwrap_or_default());
        if freed { self.waiting.iter().cloned().collect() } else { Vec::new() }
    }

    /// The range that this node got before, or the lowest free one.
    pub(super) fn assign(&mut self, node: &ObjectMeta) -> Result<String, Full> {
        let uid = node.uid.clone().unwrap_or_default();
        let before = self.held.get(&uid).and_then(|ranges| ranges.first()).map(|range| *range.start());
        let Some(index) = before.or_else(|| self.taken.iter().position(|count| *count == 0)) else {
            return Err(Full { news: self.waiting.insert(node.name.clone().unwrap_or_default()) });
        };
        if before.is_none() {
            self.taken[index] += 1;
            self.held.insert(uid, vec![index..=index]);
        }
        if let Some(name) = &node.name {
            self.waiting.remove(name);
        }
        Ok(self.text(index))
    }

    fn release(&mut self, uid: &str) -> bool {
        let ranges = self.held.remove(uid).unwrap_or_default();
        for index in ranges.iter().flat_map(Clone::clone) {
            self.taken[index] -= 1;
        }
        !ranges.is_empty()
    }

    /// The ranges of the pool that `cidr` touches.
    fn covered(&self, cidr: &str) -> Option<RangeInclusive<usize>> {
        let network = Network::parse(cidr).filter(|network| network.v4 == self.cluster.v4)?;
        let first = network.base.max(self.cluster.base);
        let last = network.last().min(self.cluster.last());
        if first > last {
            return None;
        }
        let shift = self.cluster.width() - self.node_bits;
        let index = |address: u128| usize::try_from((address - self.cluster.base) >> shift).ok();
        Some(index(first)?..=index(last)?)
    }

    fn text(&self, index: usize) -> String {
        let shift = self.cluster.width() - self.node_bits;
        let base = self.cluster.base + ((index as u128) << shift);
        let address = if self.cluster.v4 {
            IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(base).unwrap_or(0)))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(base))
        };
        format!("{address}/{}", self.node_bits)
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.trim().split_once('/')?;
        let (address, v4) = match address.parse().ok()? {
            IpAddr::V4(address) => (u128::from(address.to_bits()), true),
            IpAddr::V6(address) => (address.to_bits(), false),
        };
        let whole = Self { base: address, bits: bits.parse().ok()?, v4 };
        let hosts = whole.width().checked_sub(whole.bits)?;
        let base = if hosts == 128 { 0 } else { address >> hosts << hosts };
        Some(Self { base, ..whole })
    }

    fn width(&self) -> u32 {
        if self.v4 { 32 } else { 128 }
    }

    fn last(&self) -> u128 {
        let hosts = self.width() - self.bits;
        self.base | if hosts == 128 { u128::MAX } else { (1 << hosts) - 1 }
    }
}
