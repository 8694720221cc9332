//! The kubelet's HTTPS API: what the API server, and monitoring, ask a node for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

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
        let _ = pods;
        Ok(Self { port })
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }
}
