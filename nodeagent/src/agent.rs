//! Puts the parts of the agent together and owns them.

use std::net::SocketAddr;
use std::sync::Arc;

use base::Tasks;
use client::Events;
use k8s_openapi::api::core::v1::Node;
use tokio::sync::{Notify, watch};

use crate::Config;
use crate::cgroups::Cgroups;
use crate::context::Context;
use crate::follow::follow;
use crate::host::{Host, Machine};
use crate::images::Images;
use crate::node::{self, Identity, machine::Resources};
use crate::pod::network::{DnsSettings, Resolver};
use crate::runtime::{Cri, Runtime, RuntimeError};
use crate::server::{Server, ServerConfig};
use crate::source::Source;
use crate::volumes::Volumes;
use crate::workers::Workers;

/// The agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Dial(#[from] cri::DialError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// The agent's own API can't be served there.
    #[error("kubelet API on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    tasks: Tasks,
    server: Server,
    registered: watch::Receiver<Option<Arc<Node>>>,
}

impl Agent {
    /// Connects to the runtime and starts to work for the node. Returns before the node is registered.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let io = |what: String| move |source| StartError::Io { what, source };
        let runtime: Arc<dyn Runtime> =
            Arc::new(Cri::connect(&config.runtime_endpoint, &config.owner).await?);
        let tasks = config.tasks.child("agent");
        let cgroups =
            Cgroups::new(&config.cgroup_root).map_err(io(format!("cgroup {}", config.cgroup_root)))?;
        let data = config.data_dir.display();
        std::fs::create_dir_all(&config.data_dir).map_err(io(format!("data directory {data}")))?;
        let resources = Resources::read(&config.data_dir, config.max_pods);
        let volumes = Volumes::new(
            &config.data_dir,
            config.client.clone(),
            &config.node_name,
            config.node_ip,
            config.clock.clone(),
            config.random.clone(),
            &tasks,
        );
        volumes.set_cluster_domain(&config.cluster_domain);
        volumes.set_allocatable(resources.allocatable.clone());
        let host = Machine {
            data_dir: config.data_dir.clone(),
            volumes,
            cgroups: Arc::new(cgroups),
            tasks: tasks.child("files"),
        };
        Self::on(config, runtime, Arc::new(host), resources, tasks).await
    }

    /// An agent on this runtime and this host.
    pub(crate) async fn on(
        config: Config,
        runtime: Arc<dyn Runtime>,
        host: Arc<dyn Host>,
        resources: Resources,
        tasks: Tasks,
    ) -> Result<Self, StartError> {
        let version = runtime.version().await?;
        let (name, version) = (version.runtime_name, version.runtime_version);
        tracing::info!(runtime = %name, %version, "container runtime");
        let (client, clock, random) = (&config.client, &config.clock, &config.random);
        let events = Events::start(
            &tasks,
            client.clone(),
            clock.clone(),
            random.clone(),
            "kubelet",
            &config.node_name,
        );
        let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let context = Arc::new(Context {
            node_name: config.node_name.clone(),
            node_ip: config.node_ip,
            host_ips: vec![config.node_ip.to_string()],
            runtime: runtime.clone(),
            runtime_name: name.clone(),
            client: client.clone(),
            clock: clock.clone(),
            random: random.clone(),
            tasks: tasks.clone(),
            events: events.clone(),
            host: host.clone(),
            source: Source::start(&tasks, client, clock, random, &config.node_name),
            images: Images::new(runtime.clone(), host, events, clock.clone()),
            dns: DnsSettings {
                cluster_servers: vec![config.cluster_dns.to_string()],
                cluster_domain: config.cluster_domain.clone(),
                host: Resolver::parse(&resolver),
            },
            allocatable: resources.allocatable.clone(),
            memory_capacity: resources.capacity.get("memory").copied().unwrap_or(0),
            activity: Notify::new(),
        });
        let workers = Workers::new(context.clone());
        let address = SocketAddr::new(config.node_ip, config.port);
        let server = ServerConfig {
            address,
            tls: config.server_tls.clone(),
            tasks: tasks.child("server"),
            clock: clock.clone(),
            client: client.clone(),
            runtime,
            node_name: config.node_name.clone(),
        };
        let server = Server::start(server, workers.clone())
            .await
            .map_err(|source| StartError::Listen { address, source })?;
        let identity = Identity {
            labels: config.labels.clone(),
            taints: config.taints.clone(),
            port: server.port(),
            runtime_version: format!("{name}://{version}"),
            resources,
        };
        let (sender, registered) = watch::channel(None);
        tasks.spawn("node", node::keep(context.clone(), identity, sender));
        let ready = registered.clone();
        tasks.spawn("pods", work(workers, ready));
        Ok(Self { tasks, server, registered })
    }

    /// The port of the kubelet API.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Returns the node's object once it is registered with the API.
    pub async fn registered(&self) -> Option<Arc<Node>> {
        let mut registered = self.registered.clone();
        registered.wait_for(Option::is_some).await.ok().and_then(|node| node.clone())
    }

    /// Stops the agent's tasks. Containers go on running.
    pub async fn shutdown(&self, deadline: std::time::Duration) -> Result<(), base::StillRunning> {
        self.tasks.shutdown(deadline).await
    }
}

/// Works for the pods. Nothing is decided about any before the API has told of all: what the runtime has of a
/// pod that is not in the API is ended.
async fn work(workers: Arc<Workers>, mut registered: watch::Receiver<Option<Arc<Node>>>) {
    if registered.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let source = &workers.context().source;
    futures::join!(source.pods.synced(), source.nodes.synced());
    follow(workers.clone()).await;
}
