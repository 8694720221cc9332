//! What the proxy is to do, without saying how: frontends, each with its backends.

use std::net::Ipv4Addr;

use crate::addr::Cidr;
use crate::config::Protocol;

/// Which clients a frontend is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    All,
    /// Clients inside the cluster (pods, and this node) of an external address that is otherwise restricted to
    /// local endpoints: they aren't.
    Inside,
}

/// Where clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    pub view: View,
    /// Any local address when absent.
    pub address: Option<Ipv4Addr>,
    pub protocol: Protocol,
    pub port: u16,
}

/// Where connections are led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub port: u16,
}

/// Whose address is replaced by the node's, so that answers come back through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Masquerade {
    Never,
    /// That of clients which aren't pods.
    Outsiders,
    Always,
}

/// What happens to connections while there is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Told at once.
    Reject,
    /// Silence, because another node would answer.
    Drop,
}

/// What a frontend leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backends {
    /// Sorted, each once.
    pub endpoints: Vec<Endpoint>,
    pub masquerade: Masquerade,
    /// Seconds for which a client comes back to the same endpoint.
    pub affinity: Option<u32>,
    pub when_empty: Refusal,
    /// Where clients may come from: disjoint networks; anywhere if there is none.
    pub sources: Vec<Cidr>,
}

/// Who wants a frontend. The first in this order gets it when several do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Cluster DNS of this node.
    Dns,
    Service(client::Key),
    /// The host ports of a sandbox.
    Sandbox(String),
}

/// How connections to a frontend are handled; there is one chain for each class in use. Packed into the
/// connection's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Class {
    pub(crate) count: u32,
    pub(crate) any_address: bool,
    pub(crate) view: View,
    pub(crate) masquerade: Masquerade,
    /// Seconds; 0 is none.
    pub(crate) affinity: u32,
}

/// More endpoints than a frontend can use; the class has eleven bits for their count.
pub(crate) const MAX_ENDPOINTS: usize = (1 << 11) - 1;
const ANY_ADDRESS: u32 = 1 << 11;
const INSIDE: u32 = 1 << 12;
/// The bits of the mark that say who is masqueraded.
pub(crate) const MASQUERADE_ALWAYS: u32 = 1 << 13;
pub(crate) const MASQUERADE_OUTSIDERS: u32 = 1 << 14;
const AFFINITY_SHIFT: u32 = 15;
const MAX_AFFINITY: u32 = (1 << 17) - 1;

impl Class {
    /// None if there is no endpoint to choose.
    pub(crate) fn of(frontend: &Frontend, backends: &Backends) -> Option<Self> {
        let count = backends.endpoints.len().min(MAX_ENDPOINTS) as u32;
        (count > 0).then(|| Self {
            count,
            any_address: frontend.address.is_none(),
            view: frontend.view,
            masquerade: backends.masquerade,
            affinity: backends.affinity.unwrap_or(0).min(MAX_AFFINITY),
        })
    }

    /// What the mark of a connection is while its chain is looked for.
    pub(crate) fn mark(self) -> u32 {
        self.count | self.affinity << AFFINITY_SHIFT | self.slot(0)
    }

    /// The number of an endpoint; the mark of connections that stick to it.
    pub(crate) fn slot(self, index: usize) -> u32 {
        let mut mark = index as u32;
        if self.any_address {
            mark |= ANY_ADDRESS;
        }
        if self.view == View::Inside {
            mark |= INSIDE;
        }
        mark | match self.masquerade {
            Masquerade::Never => 0,
            Masquerade::Outsiders => MASQUERADE_OUTSIDERS,
            Masquerade::Always => MASQUERADE_ALWAYS,
        }
    }

    /// The chain that chooses an endpoint for connections of this class.
    pub(crate) fn chain(self) -> String {
        let mut name = format!("{}-of-{}", if self.any_address { "port" } else { "one" }, self.count);
        if self.view == View::Inside {
            name.push_str("-inside");
        }
        match self.masquerade {
            Masquerade::Never => {}
            Masquerade::Outsiders => name.push_str("-masq-outsiders"),
            Masquerade::Always => name.push_str("-masq"),
        }
        if self.affinity > 0 {
            name.push_str(&format!("-sticky-{}", self.affinity));
        }
        name
    }
}
