//! Cluster DNS: every node answers for its own pods, from its own copy of the services.
//!
//! [`index`] holds the names (pure), `answer` speaks DNS messages, `server` has the sockets, `forward` asks the
//! upstream servers for everything else.

pub(crate) mod answer;
pub(crate) mod forward;
pub mod index;
mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, PoisonError};

use base::Tasks;
use hickory_proto::rr::Name;

use crate::config::Config;
use crate::error::Error;
use crate::proxy::ServiceCaches;
use forward::Upstream;
use index::{Entry, Index};
use server::Server;

const PORT: u16 = 53;

/// The running DNS server of a node.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    _tasks: Tasks,
}

impl Dns {
    /// Starts the server with caches of its own; see [`Dns::start_with`].
    pub async fn start(config: &Config, listen: Ipv4Addr) -> Result<Self, Error> {
        Self::start_with(config, ServiceCaches::start(config), listen).await
    }

    /// Serves cluster DNS over UDP and TCP on port 53 of `listen`, to which the proxy redirects the cluster's DNS
    /// address. Ends with `config.tasks` or when dropped.
    pub async fn start_with(config: &Config, caches: ServiceCaches, listen: Ipv4Addr) -> Result<Self, Error> {
        let own = vec![listen, config.cluster_dns];
        let upstream =
            Upstream::new(config.resolv_conf.clone(), own, config.clock.clone(), config.random.clone());
        Self::serve(config, caches, (listen, PORT).into(), upstream).await
    }

    async fn serve(
        config: &Config,
        caches: ServiceCaches,
        listen: SocketAddr,
        upstream: Upstream,
    ) -> Result<Self, Error> {
        let error = |source| Error::Kernel { what: format!("cluster DNS on {listen}"), source };
        let mut zone =
            Name::from_str(&config.cluster_domain).map_err(|source| error(std::io::Error::other(source)))?;
        zone.set_fqdn(true);
        let server =
            Arc::new(Server::new(zone.to_lowercase(), upstream, config.random.clone(), config.clock.clone()));
        let tasks = config.tasks.child("dns");
        let address = server.clone().listen(&tasks, listen).await.map_err(error)?;
        let networks = vec![config.service_cidr, config.cluster_cidr];
        let index = Index::new(&config.cluster_domain, networks);
        tasks.spawn("index", follow(caches, server, index));
        Ok(Self { address, _tasks: tasks })
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Keeps the index as the caches are.
async fn follow(caches: ServiceCaches, server: Arc<Server>, first: Index) {
    caches.synced().await;
    let dirty = caches.follow();
    let mut first = Some(first);
    loop {
        let entries: Vec<_> = dirty
            .take()
            .into_iter()
            .map(|key| {
                let service = caches.services.get_key(&key);
                let entry = service.and_then(|service| Entry::of(&service, &caches.slices_of(&key)));
                (key, entry)
            })
            .collect();
        let set = |index: &mut Index| {
            for (key, entry) in entries {
                index.set(&key, entry);
            }
        };
        // The first index is filled before anyone sees it.
        match first.take() {
            Some(mut index) => {
                set(&mut index);
                *server.index.write().unwrap_or_else(PoisonError::into_inner) = Some(index);
            }
            None => {
                if let Some(index) = server.index.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
                    set(index);
                }
            }
        }
        dirty.changed().await;
    }
}

#[cfg(test)]
mod tests;
