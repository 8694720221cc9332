//! The kubelet's HTTPS API: what the API server, and monitoring, ask a node for.
//!
//! | path | |
//! |---|---|
//! | `/healthz` | `ok` |
//! | `/pods` | the pods of the node |
//! | `/containerLogs/NAMESPACE/POD/CONTAINER` | [`container_logs`] |
//! | `/exec/…`, `/attach/…`, `/portForward/…` | [`streams`]: bytes between the client and the runtime's own server |
//! | `/stats/summary`, `/metrics/resource` | [`stats`] |
//!
//! Every client shows a certificate of the cluster's CA, and the API is asked what it may do ([`access`]).

mod access;
#[cfg(test)]
mod api_server_tests;
mod connection;
mod container_logs;
mod older;
mod reply;
pub(crate) mod routes;
mod stats;
mod streams;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base::{Clock, Tasks};
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpListener;

use crate::runtime::Runtime;

/// What a server is told.
#[derive(Clone)]
pub struct ServerConfig {
    pub address: SocketAddr,
    /// Requires client certificates of the cluster's CA.
    pub tls: Arc<rustls::ServerConfig>,
    pub tasks: Tasks,
    pub clock: Clock,
    /// A client with the node's own identity: asks who may do what.
    pub client: kube::Client,
    pub runtime: Arc<dyn Runtime>,
    pub node_name: String,
}

/// The server; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    port: u16,
    tasks: Tasks,
}

/// The pods of the node, as the agent knows them.
pub trait PodDirectory: Send + Sync + 'static {
    fn pods(&self) -> Vec<Arc<Pod>>;
    /// The newest run of a container, or the one before it.
    fn container(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Option<ContainerRef>;
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef {
    /// The runtime's id.
    pub id: String,
    pub pod_uid: String,
    pub attempt: u32,
    pub log_path: PathBuf,
    pub running: bool,
}

/// What every request is answered from.
struct Context {
    node_name: String,
    clock: Clock,
    runtime: Arc<dyn Runtime>,
    pods: Arc<dyn PodDirectory>,
    access: access::Access,
    rates: stats::Rates,
    /// The runtime was found not to know the newest protocol of streams.
    runtime_is_older: AtomicBool,
    /// Connections, and the streams that outlive a request.
    tasks: Tasks,
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig")
            .field("address", &self.address)
            .field("node_name", &self.node_name)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Starts to listen; port 0 picks a free one.
    pub async fn start(config: ServerConfig, pods: Arc<dyn PodDirectory>) -> Result<Self, std::io::Error> {
        let listener = TcpListener::bind(config.address).await?;
        let port = listener.local_addr()?.port();
        let tasks = config.tasks.child("kubelet api");
        let context = Arc::new(Context {
            access: access::Access::new(config.client, config.clock.clone(), config.node_name.clone()),
            node_name: config.node_name,
            clock: config.clock,
            runtime: config.runtime,
            pods,
            rates: stats::Rates::default(),
            runtime_is_older: AtomicBool::new(false),
            tasks: tasks.clone(),
        });
        tasks.spawn("accept", connection::accept(listener, config.tls, context));
        Ok(Self { port, tasks })
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its own tasks hold the group too, so that it doesn't end by itself.
        self.tasks.token().cancel();
    }
}

impl Context {
    /// A pod of the node by its name.
    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let is_it =
            |pod: &&Arc<Pod>| crate::pod::namespace(pod) == namespace && crate::pod::name(pod) == name;
        self.pods.pods().iter().find(is_it).cloned()
    }
}
