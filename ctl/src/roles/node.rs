//! A node of this process: network, runtime and agent.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{Clock, Random, Tasks};
use client::Client;
use network::{Cidr, NodeNetwork};
use nodeagent::{Agent, StartError};
use runtime::{NetworkError, PodNetwork, Runtime, SandboxNetwork};

use super::control_plane::no_listener;
use super::foreign::{self, RuntimeArgs};
use super::place::Place;
use crate::Failure;
use crate::failure::Because;

const DRAIN: Duration = Duration::from_secs(10);

/// What all nodes of a cluster are told.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) cluster_cidr: String,
    pub(crate) service_cidr: String,
    pub(crate) dns: String,
    pub(crate) domain: String,
}

/// What one node is started with.
pub(crate) struct NodeConfig {
    pub(crate) place: Place,
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) client: Client,
    pub(crate) server_tls: Arc<rustls::ServerConfig>,
    pub(crate) cluster: Cluster,
    pub(crate) runtime: RuntimeArgs,
    pub(crate) max_pods: u32,
}

/// A running node.
pub(crate) struct Node {
    agent: Agent,
    tasks: Tasks,
}

impl Node {
    /// Starts a node. It adopts what an earlier start left running.
    pub(crate) async fn start(
        config: NodeConfig,
        tasks: &Tasks,
        clock: Clock,
        random: Random,
    ) -> Result<Self, Failure> {
        let NodeConfig { place, address, port, client, server_tls, cluster, runtime, max_pods } = config;
        let tasks = tasks.child(&place.name);
        let about = |part: &str| format!("node {}: {part}", place.name);
        let cidr = |text: &str| text.parse::<Cidr>().because(about(text));
        let dns: Ipv4Addr = cluster.dns.parse().because(about("cluster DNS address"))?;
        for dir in [&place.data, &place.run] {
            std::fs::create_dir_all(dir).because(dir.display())?;
        }
        foreign::check_same(&place, runtime.runtime_endpoint.as_deref())?;
        let network = NodeNetwork::start(network::Config {
            id: place.id.clone(),
            node_name: place.name.clone(),
            node_ip: address,
            client: client.clone(),
            clock: clock.clone(),
            random: random.clone(),
            tasks: tasks.clone(),
            cluster_cidr: cidr(&cluster.cluster_cidr)?,
            service_cidr: cidr(&cluster.service_cidr)?,
            cluster_dns: dns,
            cluster_domain: cluster.domain.clone(),
            state_dir: place.network_state(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            mtu: None,
            overlay: network::Overlay::default(),
        })
        .await
        .because(about("network"))?;
        let runtime_endpoint = match &runtime.runtime_endpoint {
            Some(endpoint) => {
                foreign::connect(&place, &runtime, endpoint, &network, &tasks, &clock).await?;
                endpoint.clone()
            }
            None => {
                let pods = Arc::new(Pods(network.clone()));
                let config = place.runtime(pods, tasks.clone(), clock.clone())?;
                Runtime::start(config).await.because(about("runtime"))?.endpoint()
            }
        };
        let agent = Agent::start(nodeagent::Config {
            node_name: place.name.clone(),
            node_ip: IpAddr::V4(address),
            data_dir: place.agent_data(),
            runtime_endpoint,
            owner: place.id.clone(),
            client,
            clock,
            random,
            tasks: tasks.clone(),
            server_tls,
            port,
            cluster_dns: IpAddr::V4(dns),
            cluster_domain: cluster.domain,
            labels: Default::default(),
            taints: Vec::new(),
            max_pods,
            cgroup_root: place.cgroup_root.clone(),
        })
        .await
        .map_err(|error| match error {
            StartError::Listen { address, source } => {
                no_listener(&about("kubelet API"), address, &source, "--agent-port")
            }
            error => Failure::new(format!("{}: {error}", about("agent"))),
        })?;
        Ok(Self { agent, tasks })
    }

    /// Ends the agent, the runtime's server and the network's tasks. Containers go on running.
    pub(crate) async fn shutdown(self) {
        for ended in [self.agent.shutdown(DRAIN).await, self.tasks.shutdown(DRAIN).await] {
            if let Err(still_running) = ended {
                tracing::warn!(%still_running, "a task of the node does not end");
            }
        }
    }
}

/// The node's network, as the runtime sees it.
struct Pods(NodeNetwork);

#[async_trait]
impl PodNetwork for Pods {
    async fn attach(&self, sandbox: &SandboxNetwork) -> Result<Vec<IpAddr>, NetworkError> {
        let mut host_ports = Vec::new();
        for port in &sandbox.host_ports {
            host_ports.push(network::HostPort {
                host_ip: match port.host_ip {
                    None => None,
                    Some(IpAddr::V4(address)) => Some(address),
                    Some(IpAddr::V6(address)) => {
                        return Err(format!("host port on {address}: only IPv4 is supported").into());
                    }
                },
                protocol: network::Protocol::parse(Some(&port.protocol.to_ascii_uppercase()))
                    .ok_or_else(|| format!("host port with unknown protocol {}", port.protocol))?,
                host_port: port.host_port,
                container_port: port.container_port,
            });
        }
        let wanted = network::Sandbox {
            id: sandbox.sandbox_id.clone(),
            netns: sandbox.netns.clone(),
            interface: "eth0".to_owned(),
            host_ports,
        };
        Ok(vec![self.0.attach(wanted).await?.address.into()])
    }

    async fn detach(&self, sandbox: &SandboxNetwork) -> Result<(), NetworkError> {
        Ok(self.0.detach(&sandbox.sandbox_id).await?)
    }

    async fn ready(&self) -> Result<(), String> {
        self.0.ready()
    }
}
