//! The service proxy: services, host ports and masquerading of one node in nftables.
//!
//! - [`compile`] turns a service and its endpoint slices into frontends ([`model`]), [`table`] says which map
//!   elements change, [`rules`] has the rules around the maps: all pure.
//! - `apply` brings it to the kernel as changes come, [`HostPorts`] and [`ServiceCaches`] feed it.

mod apply;
mod caches;
pub mod compile;
mod inbox;
#[cfg(test)]
mod kernel_tests;
pub mod model;
pub mod rules;
pub mod table;

use std::fs;
use std::net::Ipv4Addr;

use base::Tasks;
use tracing::warn;

pub use caches::ServiceCaches;
pub use inbox::HostPorts;

use crate::addr::Cidr;
use crate::config::Config;
use crate::error::Error;
use crate::nft::{Batch, Socket, Watch};
use apply::{Applier, Kernel};
use compile::Location;
use model::Owner;
use rules::Place;
use table::Table;

const ROUTE_LOCALNET: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";

/// The running service proxy of a node. The rules stay when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    _tasks: Tasks,
}

impl Proxy {
    /// Starts the proxy with caches of its own; see [`Proxy::start_with`].
    pub async fn start(
        config: &Config,
        pod_cidr: Cidr,
        bridge: &str,
        host_ports: HostPorts,
    ) -> Result<Self, Error> {
        Self::start_with(config, ServiceCaches::start(config), pod_cidr, bridge, host_ports).await
    }

    /// Starts to keep the nftables table of `config.id` as the API and `host_ports` want it, in the network
    /// namespace of the calling thread. Connections that are established go on. Ends with `config.tasks` or
    /// when dropped.
    pub async fn start_with(
        config: &Config,
        caches: ServiceCaches,
        pod_cidr: Cidr,
        bridge: &str,
        host_ports: HostPorts,
    ) -> Result<Self, Error> {
        let socket = Socket::open().map_err(Error::kernel("nfnetlink socket"))?;
        let name = table_name(&config.id);
        let watch = Watch::open(&name).map_err(Error::kernel("nfnetlink notifications"))?;
        let place = Place {
            pod_cidr,
            cluster_cidr: config.cluster_cidr,
            service_cidr: config.service_cidr,
            bridge: bridge.to_owned(),
        };
        // For NodePorts on 127.0.0.1; the rules keep neighbours out.
        if let Err(error) = fs::write(ROUTE_LOCALNET, "1") {
            warn!(%error, "{ROUTE_LOCALNET} can't be set: NodePorts don't answer on 127.0.0.1");
        }
        let mut table = Table::new(pod_cidr);
        if let Some(server) = dns_address(pod_cidr) {
            table.set(&Owner::Dns, compile::dns(config.cluster_dns, server));
        }
        let tasks = config.tasks.child("proxy");
        caches::follow_zone(config, &tasks, host_ports.0.clone());
        let applier = Applier {
            kernel: Some(Kernel::new(socket, name, place)),
            watch,
            table,
            caches,
            host_ports,
            here: Location { node: config.node_name.clone(), zone: None },
            clock: config.clock.clone(),
            tasks: config.tasks.clone(),
        };
        tasks.spawn("apply", applier.run());
        Ok(Self { _tasks: tasks })
    }

    /// Removes the rules of this id from the network namespace of the calling thread.
    pub fn cleanup(id: &str) -> Result<(), Error> {
        let name = table_name(id);
        let error = |source| Error::Kernel { what: format!("delete nft table {name}"), source };
        let mut socket = Socket::open().map_err(error)?;
        let mut batch = Batch::new(&name);
        batch.delete_table();
        match socket.commit(batch) {
            Err(refused) if refused.source.raw_os_error() != Some(libc::ENOENT) => Err(error(refused.source)),
            _ => Ok(()),
        }
    }
}

/// Where this node's DNS server listens: the first address of its pods' network.
pub fn dns_address(pod_cidr: Cidr) -> Option<Ipv4Addr> {
    pod_cidr.at(1)
}

fn table_name(id: &str) -> String {
    format!("skiff-{id}")
}
