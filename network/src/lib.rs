//! Pod network, service proxy and cluster DNS: pure rule compilers and thin appliers.
//!
//! [`NodeNetwork`] is one node's share of the cluster network. It gives pods their addresses, keeps routes
//! to the other nodes, programs services into nftables and answers cluster DNS. It needs nothing installed:
//! everything is said to the kernel over netlink.
//!
//! - [`ipam`], [`peers`], [`nft`] and [`proxy`] (its compiler) and [`dns`] (its index) are pure;
//! - `netlink`, `pod`, `sysctl` and the appliers beside the compilers do the IO.

mod addr;
mod config;
mod conntrack;
pub mod dns;
mod error;
mod ipam;
mod links;
pub mod machine;
mod names;
mod netlink;
pub mod nft;
mod node;
mod peers;
mod pod;
pub mod proxy;
mod routes;
mod sysctl;
#[cfg(test)]
mod testing;

pub use addr::{Cidr, CidrError};
pub use config::{Attachment, Config, HostPort, Overlay, Protocol, Sandbox};
pub use error::Error;
pub use node::NodeNetwork;
