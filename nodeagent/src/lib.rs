//! The node agent: runs the pods that are bound to its node through any CRI v1 runtime, keeps their
//! volumes, probes and status, reports the node, and serves the kubelet's HTTPS API.
//!
//! # Layout
//!
//! - [`pod`]: PURE. What to do next for a pod, and what to tell the API about it.
//! - [`runtime`]: the calls of a container runtime, behind a small trait;
//! - [`volumes`]: what a pod's containers see of files: made, kept up to date and removed;
//! - [`cgroups`]: the cgroups of pods, above those that the runtime makes for containers;
//! - [`logs`]: reads, follows and rotates the logs that the runtime writes;
//! - [`server`]: the kubelet's HTTPS API;
//! - `source`, `follow`: what the API and the runtime tell; `workers` hands it to the pods' tasks;
//! - `worker`: one task per pod, and what it does: starts, kills, cleanups, status;
//! - `containers`, `images`, `probes`, `hooks`: the parts of running a container;
//! - `node`: the node's object and its lease.
//!
//! Stopping the agent leaves the containers running; the next agent adopts them.

mod agent;
pub mod cgroups;
mod containers;
mod context;
mod follow;
pub mod fuzz;
mod hooks;
mod host;
mod images;
mod ledger;
pub mod logs;
mod node;
mod observe;
pub mod pod;
mod probes;
pub mod runtime;
pub mod server;
mod source;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod volumes;
mod worker;
mod workers;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base::{Clock, Random, Tasks};
use k8s_openapi::api::core::v1::Taint;

pub use agent::{Agent, StartError};

/// What an agent is told about its node and its cluster.
#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    /// The address under which the API server reaches this node.
    pub node_ip: IpAddr,
    /// Where volumes, logs and other files of the pods live.
    pub data_dir: PathBuf,
    /// A path or `unix://` URL of a CRI v1 socket.
    pub runtime_endpoint: String,
    /// Marks what this agent makes in the runtime, always the same for this node. The agent leaves alone what others
    /// made there.
    pub owner: String,
    /// A client with the node's own identity.
    pub client: kube::Client,
    pub clock: Clock,
    pub random: Random,
    pub tasks: Tasks,
    /// Requires client certificates of the cluster's CA; who may do what is decided by the agent.
    pub server_tls: Arc<rustls::ServerConfig>,
    /// The port of the kubelet API on `node_ip`, usually 10250; 0 picks a free one.
    pub port: u16,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    /// Labels to register the node with, beyond the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// Taints to register the node with.
    pub taints: Vec<Taint>,
    pub max_pods: u32,
    /// The cgroup under which the agent makes the pods' cgroups, for example `/skiff`.
    pub cgroup_root: String,
}

/// For `skiff down`: unmounts and removes what an agent keeps of its pods, and their cgroups. Succeeds when nothing is
/// there; no agent may be running on the directory, and no container.
pub fn cleanup(data_dir: &std::path::Path, cgroup_root: &str) -> std::io::Result<()> {
    volumes::remove_all(data_dir)?;
    cgroups::remove_all(cgroup_root)
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("node_name", &self.node_name)
            .field("node_ip", &self.node_ip)
            .field("data_dir", &self.data_dir)
            .field("runtime_endpoint", &self.runtime_endpoint)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}
