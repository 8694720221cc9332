//! What a node's network is told.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use base::{Clock, Random, Tasks};
use client::Client;
use serde::{Deserialize, Serialize};

use crate::addr::Cidr;

/// The settings of one node's network. It acts in the network namespace of the thread that starts it.
#[derive(Clone)]
pub struct Config {
    /// Names what this network creates in the kernel (interfaces, the nftables table), so that `cleanup` finds
    /// it again. Different for each cluster and node that may share a network namespace.
    pub id: String,
    pub node_name: String,
    /// This node's InternalIP.
    pub node_ip: Ipv4Addr,
    /// Must be allowed to list and watch nodes, services and endpointslices.
    pub client: Client,
    pub clock: Clock,
    pub random: Random,
    pub tasks: Tasks,
    pub cluster_cidr: Cidr,
    pub service_cidr: Cidr,
    /// The service address under which every node answers cluster DNS.
    pub cluster_dns: Ipv4Addr,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// Persistent directory for address allocations.
    pub state_dir: PathBuf,
    /// Where the upstream name servers are read from, usually `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// The MTU of the pods; by default what the interface of `node_ip` allows.
    pub mtu: Option<u32>,
    pub overlay: Overlay,
}

/// The VXLAN that joins nodes without a common subnet. The same on all nodes of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlay {
    pub vni: u32,
    pub port: u16,
}

/// A transport protocol that services and host ports know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(rename = "SCTP")]
    Sctp,
}

/// A port of the node that leads to a port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// The node's address to listen on; all when absent.
    pub host_ip: Option<Ipv4Addr>,
    pub protocol: Protocol,
    pub host_port: u16,
    pub container_port: u16,
}

/// A pod sandbox that wants a network.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Unique among the sandboxes of this node.
    pub id: String,
    /// The file of its network namespace.
    pub netns: PathBuf,
    /// The name that the interface gets inside; usually `eth0`.
    pub interface: String,
    pub host_ports: Vec<HostPort>,
}

/// What a sandbox got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
    pub mac: [u8; 6],
    pub mtu: u32,
    /// The other end of the pod's interface, in the node's namespace.
    pub host_interface: String,
}

impl Default for Overlay {
    fn default() -> Self {
        Self { vni: 83, port: 8472 }
    }
}

impl Protocol {
    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// From the API's word; absent means TCP.
    pub fn parse(word: Option<&str>) -> Option<Self> {
        match word {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("id", &self.id)
            .field("node_name", &self.node_name)
            .field("node_ip", &self.node_ip)
            .field("cluster_cidr", &self.cluster_cidr)
            .field("service_cidr", &self.service_cidr)
            .finish_non_exhaustive()
    }
}
