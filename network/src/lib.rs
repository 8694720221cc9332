//! Pod network, service proxy and cluster DNS: pure rule compilers and thin appliers.
//!
//! [`NodeNetwork`] is one node's share of the cluster network. It gives pods their addresses, keeps routes
//! to the other nodes, programs services into nftables and answers cluster DNS. It needs nothing installed:
//! everything is said to the kernel over netlink.
//!
//! - `ipam`, `peers`, [`nft`] (its batches), [`proxy`] (its compiler) and [`dns`] (its index) are pure;
//! - `node` puts them together; `netlink`, `links`, `routes`, `pod`, `sysctl` and the appliers beside the
//!   compilers do the IO;
//! - [`machine`] makes places for several nodes on one machine;
//! - [`cni`] gives the same network to container runtimes that ask for it through CNI.
//!
//! A pod has its address alone (/32) and reaches everything through its node's bridge, also the pods beside
//! it: so each packet is routed, and meets the rules of services and policies, once.

mod addr;
pub mod cni;
mod config;
mod conntrack;
pub mod dns;
mod error;
pub mod fuzz;
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
