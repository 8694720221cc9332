//! Follows the Node objects: this node's range, and where the others are.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Cache, CacheConfig, Change};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::addr::Cidr;
use crate::config::Config;
use crate::dns::Dns;
use crate::error::Error;
use crate::ipam::{self, Ipam};
use crate::node::{NodeNetwork, subnet};
use crate::peers::{
    self, Facts, Local,
    apply::{Applier, Device},
};
use crate::proxy::{Proxy, ServiceCaches};

/// How long after a failure the kernel is asked again; it doubles up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What this node must know of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Nodes {
    own: Option<Cidr>,
    all: BTreeMap<String, Facts>,
}

struct Follower {
    network: NodeNetwork,
    applier: Applier,
    caches: ServiceCaches,
    /// The range to serve; that of an earlier start until the API says another.
    cidr: Option<Cidr>,
    running: Option<Running>,
}

/// What serves a range while it is held.
struct Running {
    cidr: Cidr,
    _proxy: Proxy,
    _dns: Dns,
}

/// Takes up the range of an earlier start, then follows the API.
pub(super) fn start(network: &NodeNetwork) {
    // A task that held its own group would never be ended by the last handle's drop; a child's group it may.
    let config = Config { tasks: network.config.tasks.child("follow"), ..network.config.clone() };
    let caches = ServiceCaches::start(&config);
    let nodes: Cache<Node> = Cache::start(
        &config.tasks,
        config.client.clone(),
        config.clock.clone(),
        config.random.clone(),
        CacheConfig { trim: Some(trim), ..CacheConfig::default() },
    );
    let cidr = network.inner.ipam().as_ref().map(Ipam::cidr);
    let follower = Follower {
        network: NodeNetwork { inner: network.inner.clone(), config },
        applier: Applier::default(),
        caches,
        cidr,
        running: None,
    };
    follower.restore_host_ports();
    network.config.tasks.spawn("nodes", follower.run(nodes));
}

impl Follower {
    async fn run(mut self, cache: Cache<Node>) {
        let sender = watch::Sender::new(Nodes::default());
        let mut nodes = sender.subscribe();
        let own = self.network.config.node_name.clone();
        cache.on_change(move |change| {
            sender.send_if_modified(|nodes| nodes.note(&own, change));
        });
        let clock = self.network.config.clock.clone();
        let mut synced = false;
        let mut retry = None;
        loop {
            // Pods can be attached again even while the API is away, but routes stay until all nodes are known.
            let current = synced.then(|| nodes.borrow_and_update().clone());
            match self.apply(current).await {
                Ok(()) => retry = None,
                Err(error) => {
                    let delay = retry.map_or(RETRY.0, |delay: Duration| (delay * 2).min(RETRY.1));
                    warn!(%error, "the pod network is not up to date, trying again in {delay:?}");
                    retry = Some(delay);
                }
            }
            tokio::select! {
                () = cache.synced(), if !synced => synced = true,
                changed = nodes.changed(), if synced => if changed.is_err() { return },
                () = clock.wait(retry.unwrap_or_default()), if retry.is_some() => {}
            }
        }
    }

    /// Hands the host ports of an earlier start to the proxy, before it programs anything.
    fn restore_host_ports(&self) {
        let inner = &self.network.inner;
        let guard = inner.ipam();
        for (id, lease) in guard.iter().flat_map(|ipam| ipam.leases()) {
            if !lease.host_ports.is_empty() {
                // To have asked is enough; waiting would be for the API.
                let _ = inner.host_ports.set(id, lease.address, lease.host_ports.clone()).now_or_never();
            }
        }
    }

    async fn apply(&mut self, nodes: Option<Nodes>) -> Result<(), Error> {
        self.cidr = nodes.as_ref().and_then(|nodes| nodes.own).or(self.cidr);
        let Some(cidr) = self.cidr else {
            debug!(node = %self.network.config.node_name, "waiting for a podCIDR");
            return Ok(());
        };
        if self.running.as_ref().is_none_or(|running| running.cidr != cidr) {
            let result = self.set_up(cidr).await;
            let ready = result.as_ref().copied().map_err(ToString::to_string);
            // What was there before is of no interest.
            let _ = self.network.inner.ready.send_replace(ready);
            result?;
        }
        match nodes {
            Some(nodes) => self.reach(cidr, nodes).await,
            None => Ok(()),
        }
    }

    /// Sets the routes to the other nodes.
    async fn reach(&mut self, pod_cidr: Cidr, nodes: Nodes) -> Result<(), Error> {
        let config = &self.network.config;
        let (node_ip, cluster_cidr, own_name) =
            (config.node_ip, config.cluster_cidr, config.node_name.clone());
        let device = Device { settings: config.overlay, mtu: self.network.inner.mtu };
        let mut applier = std::mem::take(&mut self.applier);
        let work = self.network.blocking(move |inner| {
            let mut socket = inner.socket();
            let mut apply = || {
                let local = Local { node_ip, subnet: subnet(&mut socket, node_ip)?, pod_cidr, cluster_cidr };
                let wanted = peers::wanted(&local, &own_name, &nodes.all);
                applier.apply(&mut socket, &inner.netns, &inner.names, &device, &local, &wanted)
            };
            let result = apply();
            (applier, result)
        });
        let (applier, result) = work.await;
        self.applier = applier;
        result.map_err(Error::kernel("set the routes to the other nodes"))
    }

    /// Serves a range; returns the bridge's index.
    async fn set_up(&mut self, cidr: Cidr) -> Result<u32, Error> {
        // Two would fight for one table.
        self.running = None;
        let inner = &self.network.inner;
        let bridge = self.network.blocking(move |inner| inner.set_up(cidr)).await?;
        let (config, caches) = (&self.network.config, &self.caches);
        let (name, host_ports) = (&inner.names.bridge, inner.host_ports.clone());
        let proxy = Proxy::start_with(config, caches.clone(), cidr, name, host_ports).await?;
        let dns = Dns::start_with(config, caches.clone(), ipam::gateway(cidr)).await?;
        self.running = Some(Running { cidr, _proxy: proxy, _dns: dns });
        info!(%cidr, bridge = %name, "pod network is ready");
        Ok(bridge)
    }
}

impl Nodes {
    /// Takes a change over; true if it matters.
    fn note(&mut self, own: &str, change: &Change<Node>) -> bool {
        let before = self.clone_of(own, change);
        match change {
            Change::Applied(node, _) => {
                let name = name(node);
                if name == own {
                    self.own = peers::pod_cidr(node);
                }
                match peers::facts(node) {
                    Some(facts) => self.all.insert(name.to_owned(), facts),
                    None => self.all.remove(name),
                };
            }
            Change::Deleted(node) => {
                if name(node) == own {
                    self.own = None;
                }
                self.all.remove(name(node));
            }
            // Only subscribers are told so.
            Change::Missed => {}
        }
        before != self.clone_of(own, change)
    }

    fn clone_of(&self, own: &str, change: &Change<Node>) -> (Option<Cidr>, Option<Facts>) {
        let (Change::Applied(node, _) | Change::Deleted(node)) = change else { return (None, None) };
        let name = name(node);
        (self.own.filter(|_| name == own), self.all.get(name).copied())
    }
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

/// Keeps the range and the addresses.
fn trim(node: &mut Node) {
    node.metadata.managed_fields = None;
    node.metadata.annotations = None;
    node.metadata.labels = None;
    let addresses = node.status.take().and_then(|status| status.addresses);
    node.status = Some(NodeStatus { addresses, ..NodeStatus::default() });
}
