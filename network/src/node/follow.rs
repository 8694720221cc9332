//! Follows the Node objects: this node's range, and where the others are.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Cache, CacheConfig, Change};
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::addr::Cidr;
use crate::config::Config;
use crate::error::Error;
use crate::node::{NodeNetwork, subnet};
use crate::peers::{
    self, Facts, Local,
    apply::{Applier, Device},
};

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
    /// The range that is set up.
    cidr: Option<Cidr>,
}

/// Takes up the range of an earlier start, then follows the API.
pub(super) async fn start(network: &NodeNetwork) -> Result<(), Error> {
    // A task that held its own group would never be ended by the last handle's drop; a child's group it may.
    let config = Config { tasks: network.config.tasks.child("follow"), ..network.config.clone() };
    let network_of_task = NodeNetwork { inner: network.inner.clone(), config };
    let mut follower = Follower { network: network_of_task, applier: Applier::default(), cidr: None };
    let left = network.inner.ipam().as_ref().map(|ipam| ipam.cidr());
    if let Some(cidr) = left {
        // Pods can be attached again even while the API is away.
        follower.set_up(cidr).await?;
    }
    let config = &network.config;
    let cache: Cache<Node> = Cache::start(
        &config.tasks,
        config.client.clone(),
        config.clock.clone(),
        config.random.clone(),
        CacheConfig { trim: Some(trim), ..CacheConfig::default() },
    );
    config.tasks.spawn("network nodes", follower.run(cache));
    Ok(())
}

impl Follower {
    async fn run(mut self, cache: Cache<Node>) {
        let changed = watch::Sender::new(Nodes::default());
        let mut nodes = changed.subscribe();
        let own = self.network.config.node_name.clone();
        cache.on_change(move |change| {
            changed.send_if_modified(|nodes| nodes.note(&own, change));
        });
        // A partial list would take routes away that are needed.
        cache.synced().await;
        let mut delay = RETRY.0;
        loop {
            let current = nodes.borrow_and_update().clone();
            let changed = match self.apply(current).await {
                Ok(()) => {
                    delay = RETRY.0;
                    nodes.changed().await
                }
                Err(error) => {
                    warn!(%error, "the pod network is not up to date, trying again");
                    let wait = self.network.config.clock.wait(delay);
                    delay = (delay * 2).min(RETRY.1);
                    tokio::select! {
                        () = wait => Ok(()),
                        changed = nodes.changed() => changed,
                    }
                }
            };
            if changed.is_err() {
                return;
            }
        }
    }

    async fn apply(&mut self, nodes: Nodes) -> Result<(), Error> {
        let Some(cidr) = nodes.own.or(self.cidr) else {
            debug!(node = %self.network.config.node_name, "waiting for a podCIDR");
            return Ok(());
        };
        if self.cidr != Some(cidr) {
            self.set_up(cidr).await?;
        }
        let config = &self.network.config;
        let (node_ip, cluster_cidr, own_name) =
            (config.node_ip, config.cluster_cidr, config.node_name.clone());
        let device = Device { settings: config.overlay, mtu: self.network.inner.mtu };
        let mut applier = std::mem::take(&mut self.applier);
        let work = self.network.blocking(move |inner| {
            let mut socket = inner.socket();
            let mut apply = || {
                let local =
                    Local { node_ip, subnet: subnet(&mut socket, node_ip)?, pod_cidr: cidr, cluster_cidr };
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

    async fn set_up(&mut self, cidr: Cidr) -> Result<(), Error> {
        let bridge = self.network.blocking(move |inner| inner.set_up(cidr)).await?;
        self.cidr = Some(cidr);
        info!(%cidr, bridge = %self.network.inner.names.bridge, "pod network is ready");
        // What was there before is of no interest.
        let _ = self.network.inner.ready.send_replace(Ok(bridge));
        Ok(())
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
