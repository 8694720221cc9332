//! One node's share of the cluster network.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::config::{Attachment, Config, Sandbox};
use crate::error::Error;

/// Pod interfaces, routes to the other nodes, the service proxy and cluster DNS of one node.
#[derive(Clone, Debug)]
pub struct NodeNetwork {
    config: Config,
}

impl NodeNetwork {
    /// Adopts what an earlier start left and begins to follow the API. Returns at once: the network is ready
    /// when the node has a podCIDR, see [`NodeNetwork::ready`].
    pub async fn start(config: Config) -> Result<Self, Error> {
        Ok(Self { config })
    }

    /// Gives a sandbox an interface and an address; waits a few seconds for the network to be ready.
    /// Asking again for the same sandbox gives the same answer.
    pub async fn attach(&self, sandbox: Sandbox) -> Result<Attachment, Error> {
        Err(Error::NotReady(format!("sandbox {}: node {} has no podCIDR", sandbox.id, self.config.node_name)))
    }

    /// Takes the interface and the address back. Does nothing for an unknown sandbox.
    pub async fn detach(&self, _sandbox_id: &str) -> Result<(), Error> {
        Ok(())
    }

    /// Frees what belongs to sandboxes that are not in `live`; returns their ids.
    pub async fn retain(&self, _live: &[String]) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// The address of an attached sandbox.
    pub fn address(&self, _sandbox_id: &str) -> Option<Ipv4Addr> {
        None
    }

    /// Whether pods can be attached, or what is missing.
    pub fn ready(&self) -> Result<(), String> {
        Err(format!("node {} has no podCIDR", self.config.node_name))
    }

    /// Returns once [`NodeNetwork::ready`] holds.
    pub async fn wait_ready(&self) {
        std::future::pending().await
    }

    /// Removes everything that a network of this id created in the current network namespace, and its state.
    /// For `skiff down`, when no agent of the id is running.
    pub fn cleanup(_id: &str, _state_dir: &Path) -> Result<(), Error> {
        Ok(())
    }
}
