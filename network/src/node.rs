//! One node's share of the cluster network.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::info;

use crate::addr::Cidr;
use crate::config::{Attachment, Config, Sandbox};
use crate::error::Error;
use crate::ipam::{Ipam, Lease, file};
use crate::names::{self, Names};
use crate::netlink::{Netns, Socket};
use crate::pod::{self, Interface};
use crate::proxy::{HostPorts, Proxy};
use crate::{links, peers, sysctl};

mod follow;

/// How long an attach waits for the network to be ready.
const ATTACH_PATIENCE: Duration = Duration::from_secs(5);
/// How many sandboxes are worked on at once. The kernel does one change at a time anyway; more would only
/// keep threads waiting for it.
const CONCURRENCY: usize = 4;
/// What VXLAN adds to each packet.
const OVERLAY_OVERHEAD: u32 = 50;
const ETHERNET_MTU: u32 = 1500;

/// Pod interfaces, routes to the other nodes, the service proxy and cluster DNS of one node.
#[derive(Clone)]
pub struct NodeNetwork {
    inner: Arc<Inner>,
    config: Config,
}

/// What attaching needs, also on threads that may block.
struct Inner {
    id: String,
    state_dir: std::path::PathBuf,
    names: Names,
    netns: Netns,
    /// Speaks in the node's namespace.
    socket: Mutex<Socket>,
    mtu: u32,
    /// None until the node has a range.
    ipam: Mutex<Option<Ipam>>,
    host_ports: HostPorts,
    /// Sandboxes that are being worked on.
    busy: Busy,
    slots: Semaphore,
    /// Detaches that wait for the one under way; as many as callers wait.
    detaching: Mutex<Vec<Detach>>,
    detach_turn: tokio::sync::Mutex<()>,
    /// The bridge's index once pods can be attached, else what is missing.
    ready: watch::Sender<Result<u32, String>>,
}

/// Lets one caller at a time work on a sandbox.
#[derive(Default)]
struct Busy {
    ids: Mutex<HashSet<String>>,
    freed: Condvar,
}

struct Turn<'a>(&'a Busy, &'a str);

/// A wish to detach, and whom to tell.
struct Detach {
    ids: Vec<String>,
    done: oneshot::Sender<Result<(), Arc<Error>>>,
}

// === impl NodeNetwork ===

impl NodeNetwork {
    /// Adopts what an earlier start left and begins to follow the API. Returns at once: the network is ready
    /// when the node has a podCIDR, see [`NodeNetwork::ready`].
    pub async fn start(mut config: Config) -> Result<Self, Error> {
        // Before the first await: the calling thread's namespace is the node's.
        let netns = Netns::current().map_err(Error::kernel("open the network namespace"))?;
        let mut socket = Socket::open().map_err(Error::kernel("open a routing socket"))?;
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            None => default_mtu(&mut socket, config.node_ip).map_err(Error::kernel("read the interfaces"))?,
        };
        std::fs::create_dir_all(&config.state_dir).map_err(Error::file(&config.state_dir))?;
        let ipam = file::load(&config.state_dir)?;
        let missing = format!("node {} has no podCIDR", config.node_name);
        let inner = Inner {
            id: config.id.clone(),
            state_dir: config.state_dir.clone(),
            names: Names::of(&config.id),
            netns,
            socket: Mutex::new(socket),
            mtu,
            ipam: Mutex::new(ipam),
            host_ports: HostPorts::new(),
            busy: Busy::default(),
            slots: Semaphore::new(CONCURRENCY),
            detaching: Mutex::default(),
            detach_turn: tokio::sync::Mutex::default(),
            ready: watch::Sender::new(Err(missing)),
        };
        // What follows the API ends with the last handle of the network.
        config.tasks = config.tasks.child("network");
        let network = Self { inner: Arc::new(inner), config };
        follow::start(&network);
        Ok(network)
    }

    /// Gives a sandbox an interface and an address; waits a few seconds for the network to be ready.
    /// Asking again for the same sandbox gives the same answer.
    pub async fn attach(&self, sandbox: Sandbox) -> Result<Attachment, Error> {
        tokio::select! {
            biased;
            () = self.wait_ready() => {}
            () = self.config.clock.wait(ATTACH_PATIENCE) => {
                let missing = self.ready().err().unwrap_or_default();
                return Err(Error::NotReady(format!("sandbox {}: {missing}", sandbox.id)));
            }
        }
        let id = sandbox.id.clone();
        let ports = sandbox.host_ports.clone();
        let attachment = self.blocking(move |inner| inner.attach(&sandbox)).await?;
        if !ports.is_empty() {
            let set = self.inner.host_ports.set(&id, attachment.address, ports);
            tokio::select! {
                result = set => result?,
                () = self.config.clock.wait(ATTACH_PATIENCE) => {
                    return Err(Error::NotReady(format!("sandbox {id}: its host ports wait for the services")));
                }
            }
        }
        Ok(attachment)
    }

    /// Takes the interface and the address back. Does nothing for an unknown sandbox.
    pub async fn detach(&self, sandbox_id: &str) -> Result<(), Error> {
        self.detach_all(vec![sandbox_id.to_owned()]).await
    }

    /// Frees what belongs to sandboxes that are not in `live`; returns their ids.
    pub async fn retain(&self, live: &[String]) -> Result<Vec<String>, Error> {
        let live: BTreeSet<String> = live.iter().cloned().collect();
        let known: Vec<String> = match self.inner.ipam().as_ref() {
            Some(ipam) => ipam.leases().keys().filter(|id| !live.contains(*id)).cloned().collect(),
            None => Vec::new(),
        };
        self.detach_all(known.clone()).await?;
        self.blocking(|inner| inner.remove_strays()).await?;
        Ok(known)
    }

    /// The address of an attached sandbox.
    pub fn address(&self, sandbox_id: &str) -> Option<Ipv4Addr> {
        Some(self.inner.ipam().as_ref()?.get(sandbox_id)?.address)
    }

    /// What an attached sandbox has got.
    pub fn attachment(&self, sandbox_id: &str) -> Option<Attachment> {
        let guard = self.inner.ipam();
        let lease = guard.as_ref()?.get(sandbox_id)?.clone();
        Some(self.inner.attachment(lease))
    }

    /// Whether pods can be attached, or what is missing.
    pub fn ready(&self) -> Result<(), String> {
        self.inner.ready.borrow().clone().map(|_| ())
    }

    /// Returns once [`NodeNetwork::ready`] holds.
    pub async fn wait_ready(&self) {
        // The sender lives in `inner`, which `self` holds, so waiting can't fail.
        let _ = self.inner.ready.subscribe().wait_for(Result::is_ok).await;
    }

    /// Removes everything that a network of this id created in the current network namespace, and its state.
    /// For `skiff down`, when no agent of the id is running.
    pub fn cleanup(id: &str, state_dir: &Path) -> Result<(), Error> {
        let names = Names::of(id);
        let mut socket = Socket::open().map_err(Error::kernel("open a routing socket"))?;
        let mut remove = || {
            peers::apply::remove(&mut socket, &names)?;
            let ports = ports(&mut socket, &names.bridge)?;
            links::delete_all(&mut socket, &ports)?;
            links::delete(&mut socket, &names.bridge)
        };
        remove().map_err(Error::kernel(format!("remove the pod network {}", names.bridge)))?;
        Proxy::cleanup(id)?;
        file::remove(state_dir)
    }

    /// Takes everything of these sandboxes back.
    async fn detach_all(&self, ids: Vec<String>) -> Result<(), Error> {
        for id in self.inner.with_host_ports(&ids) {
            // What still comes in is dropped with the interface, so nobody need wait for it.
            let _ = self.inner.host_ports.remove(&id).now_or_never();
        }
        self.remove_interfaces(ids).await
    }

    /// Joins the detaches that wait meanwhile, so that all are one removal in the kernel.
    async fn remove_interfaces(&self, ids: Vec<String>) -> Result<(), Error> {
        let (done, mut result) = oneshot::channel();
        self.inner.detaching().push(Detach { ids, done });
        // Whoever comes in first takes all that wait. If its caller goes away, the work is done all the same.
        let _turn = tokio::select! {
            biased;
            result = &mut result => return outcome(result),
            turn = self.inner.detach_turn.lock() => turn,
        };
        let inner = self.inner.clone();
        let work = move || {
            let batch = std::mem::take(&mut *inner.detaching());
            let ids: BTreeSet<String> = batch.iter().flat_map(|detach| detach.ids.iter().cloned()).collect();
            let result = inner.detach(&ids).map_err(Arc::new);
            for detach in batch {
                // The caller may be gone.
                let _ = detach.done.send(result.clone());
            }
        };
        self.config.tasks.blocking(work).await;
        outcome(result.await)
    }

    /// Runs what blocks where it may, a few at a time.
    async fn blocking<T: Send + 'static>(&self, f: impl FnOnce(&Inner) -> T + Send + 'static) -> T {
        // The semaphore is never closed.
        let _slot = self.inner.slots.acquire().await.ok();
        let inner = self.inner.clone();
        self.config.tasks.blocking(move || f(&inner)).await
    }
}

impl fmt::Debug for NodeNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeNetwork")
            .field("config", &self.config)
            .field("names", &self.inner.names)
            .field("ready", &*self.inner.ready.borrow())
            .finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    fn ipam(&self) -> MutexGuard<'_, Option<Ipam>> {
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of the sandboxes that have host ports.
    fn with_host_ports(&self, ids: &[String]) -> Vec<String> {
        let guard = self.ipam();
        let has = |id: &&String| {
            let lease = guard.as_ref().and_then(|ipam| ipam.get(id));
            lease.is_some_and(|lease| !lease.host_ports.is_empty())
        };
        ids.iter().filter(has).cloned().collect()
    }

    fn detaching(&self) -> MutexGuard<'_, Vec<Detach>> {
        self.detaching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, ipam: &Ipam) -> Result<(), Error> {
        file::save(&self.state_dir, ipam)
    }

    fn attach(&self, sandbox: &Sandbox) -> Result<Attachment, Error> {
        let _turn = self.busy.turn(&sandbox.id);
        let bridge = self.ready.borrow().clone().map_err(Error::NotReady)?;
        let (lease, fresh) = self.lease(sandbox)?;
        let interface = Interface {
            sandbox: &sandbox.id,
            netns: &sandbox.netns,
            name: &sandbox.interface,
            host_name: &lease.host_interface,
            bridge,
            mtu: self.mtu,
            address: lease.address,
            gateway: lease.gateway,
        };
        if let Err(error) = pod::attach(&self.socket, &interface, fresh) {
            if fresh {
                self.release([&sandbox.id])?;
            }
            return Err(Error::kernel(format!("attach sandbox {}", sandbox.id))(error));
        }
        Ok(self.attachment(lease))
    }

    fn attachment(&self, lease: Lease) -> Attachment {
        Attachment {
            address: lease.address,
            gateway: lease.gateway,
            mac: names::pod_mac(lease.address),
            mtu: self.mtu,
            host_interface: lease.host_interface,
        }
    }

    /// What the sandbox has, or gets now; and whether it is new.
    fn lease(&self, sandbox: &Sandbox) -> Result<(Lease, bool), Error> {
        let mut guard = self.ipam();
        let ipam = guard.as_mut().ok_or_else(|| Error::NotReady("the node has no podCIDR".into()))?;
        let known = ipam.get(&sandbox.id).map(|lease| (lease.address, lease.gateway));
        let (address, gateway) = match known {
            Some(known) => known,
            None => (ipam.free()?, ipam.gateway()),
        };
        let lease = Lease {
            address,
            gateway,
            host_interface: names::host_interface(&self.id, &sandbox.id),
            interface: sandbox.interface.clone(),
            netns: sandbox.netns.clone(),
            host_ports: sandbox.host_ports.clone(),
        };
        if ipam.get(&sandbox.id) != Some(&lease) {
            // On disk before it is used: whoever starts after a crash knows of it.
            ipam.put(&sandbox.id, lease.clone());
            if let Err(error) = self.save(ipam) {
                if known.is_none() {
                    ipam.release(&sandbox.id);
                }
                return Err(error);
            }
        }
        Ok((lease, known.is_none()))
    }

    /// Takes interfaces and addresses back; `sandboxes` are in order and without repetition.
    fn detach(&self, sandboxes: &BTreeSet<String>) -> Result<(), Error> {
        // All in the same order, so that no two wait for each other.
        let _turns: Vec<_> = sandboxes.iter().map(|id| self.busy.turn(id)).collect();
        let interfaces: Vec<String> = match self.ipam().as_ref() {
            Some(ipam) => {
                let leases = sandboxes.iter().filter_map(|id| ipam.get(id));
                leases.map(|lease| lease.host_interface.clone()).collect()
            }
            None => return Ok(()),
        };
        links::delete_all(&mut self.socket(), &interfaces).map_err(Error::kernel("remove pod interfaces"))?;
        self.release(sandboxes)
    }

    fn release<'a>(&self, sandboxes: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
        let mut guard = self.ipam();
        let Some(ipam) = guard.as_mut() else { return Ok(()) };
        let released = sandboxes.into_iter().filter(|id| ipam.release(id).is_some()).count();
        if released > 0 { self.save(ipam) } else { Ok(()) }
    }

    /// Removes interfaces of sandboxes that nobody knows: their allocations were lost.
    fn remove_strays(&self) -> Result<(), Error> {
        let ports =
            ports(&mut self.socket(), &self.names.bridge).map_err(Error::kernel("list bridge ports"))?;
        // An interface is made after its lease is recorded, so this order misses none.
        let known: HashSet<String> = match self.ipam().as_ref() {
            Some(ipam) => ipam.leases().values().map(|lease| lease.host_interface.clone()).collect(),
            None => HashSet::new(),
        };
        let stray = |port: &String| names::is_host_interface(port) && !known.contains(port);
        let strays: Vec<String> = ports.into_iter().filter(stray).collect();
        if !strays.is_empty() {
            info!(interfaces = %strays.join(" "), "removing the interfaces of unknown sandboxes");
        }
        links::delete_all(&mut self.socket(), &strays).map_err(Error::kernel("remove stray interfaces"))
    }

    /// Makes the bridge for this range and returns its index; adopts what is there.
    fn set_up(&self, cidr: Cidr) -> Result<u32, Error> {
        let (gateway, keep_others) = {
            let mut guard = self.ipam();
            let ipam = guard.get_or_insert_with(|| Ipam::new(cidr));
            if ipam.cidr() != cidr {
                info!(from = %ipam.cidr(), to = %cidr, "the node has another podCIDR");
                ipam.renumber(cidr);
            }
            self.save(ipam)?;
            (ipam.gateway(), ipam.has_foreign())
        };
        let bridge = &self.names.bridge;
        let make = || {
            self.netns.run(sysctl::router)?;
            let mut socket = self.socket();
            let link = links::ensure_bridge(&mut socket, bridge, names::pod_mac(gateway), self.mtu)?;
            self.netns.run(|| sysctl::bridge(bridge))?;
            links::add_address(&mut socket, link.index, gateway, cidr.prefix())?;
            for old in links::addresses(&mut socket)? {
                if old.index == link.index && old.address != gateway && !keep_others {
                    links::remove_address(&mut socket, old.index, old.address, old.prefix)?;
                }
            }
            Ok(link.index)
        };
        make().map_err(Error::kernel(format!("set up bridge {bridge}")))
    }
}

// === impl Busy ===

impl Busy {
    fn turn<'a>(&'a self, id: &'a str) -> Turn<'a> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        while ids.contains(id) {
            ids = self.freed.wait(ids).unwrap_or_else(PoisonError::into_inner);
        }
        ids.insert(id.to_owned());
        Turn(self, id)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.ids.lock().unwrap_or_else(PoisonError::into_inner).remove(self.1);
        self.0.freed.notify_all();
    }
}

/// One failure of the kernel is told to all whose interfaces were to go.
fn outcome(result: Result<Result<(), Arc<Error>>, oneshot::error::RecvError>) -> Result<(), Error> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Error::kernel("detach")(std::io::Error::other(error))),
        // The worker panicked or the process is ending.
        Err(_) => Err(Error::NotReady("detaching was interrupted".into())),
    }
}

/// The interfaces that hang on a bridge, if it is there.
fn ports(socket: &mut Socket, bridge: &str) -> std::io::Result<Vec<String>> {
    match links::by_name(socket, bridge)? {
        Some(bridge) => links::ports(socket, bridge.index),
        None => Ok(Vec::new()),
    }
}

/// What fits into the interface of the node's address, with room for the overlay.
fn default_mtu(socket: &mut Socket, node_ip: Ipv4Addr) -> std::io::Result<u32> {
    let addresses = links::addresses(socket)?;
    let index = addresses.iter().find(|address| address.address == node_ip).map(|address| address.index);
    let mtu = index.and_then(|index| links::all(socket).ok()?.remove(&index)).map(|link| link.mtu);
    // The loopback interface has a size that no network has.
    let mtu = mtu.filter(|mtu| (576..=9216).contains(mtu)).unwrap_or(ETHERNET_MTU);
    Ok(mtu - OVERLAY_OVERHEAD)
}

/// The network and interface of the node's address.
fn subnet(socket: &mut Socket, node_ip: Ipv4Addr) -> std::io::Result<Option<(Cidr, u32)>> {
    let addresses = links::addresses(socket)?;
    let own = addresses.into_iter().find(|address| address.address == node_ip && address.prefix < 32);
    Ok(own.map(|address| (address.network(), address.index)))
}

#[cfg(test)]
mod tests;
