//! The edge to the pod network: whoever gives sandboxes their addresses implements [`PodNetwork`].

use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;

/// Why a sandbox could not be attached to the network. The text reaches the user.
pub type NetworkError = Box<dyn std::error::Error + Send + Sync>;

/// A sandbox as the network sees it.
#[derive(Clone, Debug)]
pub struct SandboxNetwork {
    /// Identity of the sandbox; an address belongs to it.
    pub sandbox_id: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// UID of the pod.
    pub uid: String,
    /// The network namespace as a bind-mounted file. It may be gone when a sandbox is detached.
    pub netns: PathBuf,
    /// Ports of the node to be forwarded to the pod.
    pub host_ports: Vec<HostPort>,
}

/// One port of the node that leads to a port of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// Address of the node to listen on; `None` means all.
    pub host_ip: Option<IpAddr>,
    /// Port of the node.
    pub host_port: u16,
    /// Port of the pod.
    pub container_port: u16,
}

/// Gives sandboxes their place in the pod network.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Connects a sandbox and returns its addresses, the primary one first. Attaching an attached sandbox
    /// returns the same addresses.
    async fn attach(&self, sandbox: &SandboxNetwork) -> Result<Vec<IpAddr>, NetworkError>;

    /// Releases what `attach` took. Detaching an unknown sandbox succeeds.
    async fn detach(&self, sandbox: &SandboxNetwork) -> Result<(), NetworkError>;

    /// Whether sandboxes can be attached now; the error says in words why not.
    async fn ready(&self) -> Result<(), String>;
}

/// No network but loopback: sandboxes have no address. For tests and for nodes without a pod network.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopbackOnly;

#[async_trait]
impl PodNetwork for LoopbackOnly {
    async fn attach(&self, _sandbox: &SandboxNetwork) -> Result<Vec<IpAddr>, NetworkError> {
        Ok(Vec::new())
    }

    async fn detach(&self, _sandbox: &SandboxNetwork) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}
