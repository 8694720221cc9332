//! `skiff up`: a whole cluster on one machine, in the foreground.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use apiserver::{UserInfo, pki};
use base::{Clock, Random, Tasks};
use clap::Args;
use client::{Cache, CacheConfig, Client};
use k8s_openapi::api::core::v1::Node as ApiNode;
use network::machine::Segment;

use super::agent::{Child, ChildConfig};
use super::control_plane::{ControlPlane, ControlPlaneConfig, StoreArgs};
use super::foreign::RuntimeArgs;
use super::lock::Lock;
use super::node::{Node, NodeConfig};
use super::place::Place;
use super::{DATA_DIR, facts, process};
use crate::failure::Because;
use crate::{Failure, kubeconfig};

/// How long the join token of the further nodes is good: they use it at once.
const JOIN: Duration = Duration::from_secs(600);
/// When to say that something must be wrong.
const READY: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub(crate) struct Up {
    /// Where the cluster is kept.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR, env = "SKIFF_DATA_DIR")]
    data_dir: PathBuf,
    /// How many nodes to run.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100), env = "SKIFF_NODES")]
    nodes: u32,
    /// Where the API is served for clients of this machine.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6443", env = "SKIFF_BIND")]
    bind: SocketAddr,
    /// Address of the first node; by default that of the default route.
    #[arg(long, value_name = "ADDRESS", env = "SKIFF_NODE_IP")]
    node_ip: Option<Ipv4Addr>,
    /// Port of the node agents' own API.
    #[arg(long, value_name = "PORT", default_value_t = 10250, env = "SKIFF_AGENT_PORT")]
    agent_port: u16,
    /// Most pods on a node.
    #[arg(long, value_name = "N", default_value_t = 110, env = "SKIFF_MAX_PODS")]
    max_pods: u32,
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    store: StoreArgs,
}

impl Up {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        self.store.check()?;
        process::need_root("up")?;
        process::run(self.serve())
    }

    async fn serve(self) -> Result<ExitCode, Failure> {
        let started = Instant::now();
        let mut end = process::Signals::new()?;
        let data_dir = facts::data_dir(&self.data_dir)?;
        let _lock = Lock::take(&data_dir)?;
        let id = facts::id(&data_dir);
        let segment = match self.nodes {
            1 => None,
            _ => {
                let segment = Segment::ensure(&id, &facts::namespaces_dir(&id));
                Some(segment.because("network of the nodes")?)
            }
        };
        let address = match (&segment, self.node_ip) {
            // The further nodes and their pods reach the first one there.
            (Some(segment), _) => segment.gateway(),
            (None, Some(address)) => address,
            (None, None) => facts::main_address(),
        };
        let (clock, random) = (Clock::system(), Random::system());
        let tasks = Tasks::new("up");
        let config = ControlPlaneConfig {
            data_dir: data_dir.clone(),
            store: self.store.clone(),
            bind: self.bind,
            address: address.into(),
            names: vec![facts::host_name()?],
            node_agent_port: self.agent_port,
            enabled_admission: Vec::new(),
            disabled_admission: Vec::new(),
            audit: None,
            shutdown_delay: Duration::ZERO,
        };
        let control_plane = ControlPlane::start(config, &tasks, &clock, &random).await?;
        write_kubeconfigs(&control_plane, &data_dir)?;
        let nodes = self.start_nodes(&control_plane, segment.as_ref(), address, &data_dir, &tasks).await;
        let (node, children) = match nodes {
            Ok(nodes) => nodes,
            Err(failure) => {
                control_plane.shutdown().await;
                return Err(failure);
            }
        };
        let interrupted = tokio::select! {
            () = self.announce(&control_plane, &tasks, &data_dir, started) => false,
            () = end.recv() => true,
        };
        if !interrupted {
            end.recv().await;
        }
        eprintln!("stopping; containers go on running");
        for child in children {
            child.shutdown().await;
        }
        node.shutdown().await;
        control_plane.shutdown().await;
        Ok(ExitCode::SUCCESS)
    }

    /// The first node in this process, and each further one as a process in a network namespace of its own.
    async fn start_nodes(
        &self,
        control_plane: &ControlPlane,
        segment: Option<&Segment>,
        address: Ipv4Addr,
        data_dir: &Path,
        tasks: &Tasks,
    ) -> Result<(Node, Vec<Child>), Failure> {
        let (clock, random) = (Clock::system(), Random::system());
        let place = Place::new(data_dir, &name(1));
        let serving = control_plane
            .pki()
            .node_serving(&place.name, &[address.into()])
            .because("the node's certificate")?;
        let server_tls = pki::tls::node_agent(
            control_plane.pki().authority_pem(),
            &serving.certificate_pem,
            serving.key_pem(),
        )
        .because("the node's certificate")?;
        let config = NodeConfig {
            client: control_plane.client(UserInfo::node(&place.name)),
            place,
            address,
            port: self.agent_port,
            server_tls,
            cluster: control_plane.cluster().clone(),
            runtime: self.runtime.clone(),
            max_pods: self.max_pods,
        };
        let node = Node::start(config, tasks, clock, random.clone()).await?;
        let mut children = Vec::new();
        if let Some(segment) = segment {
            let token = control_plane.join_token(JOIN, "further nodes of skiff up", &random).await?;
            let server = format!("https://{address}:{}", control_plane.port());
            for index in 2..=self.nodes {
                let namespace = segment.node(index - 1).because(format!("network of {}", name(index)))?;
                let config = ChildConfig {
                    netns: &namespace.netns,
                    address: namespace.address,
                    data_dir,
                    name: &name(index),
                    server: &server,
                    token: &token,
                    agent_port: self.agent_port,
                    max_pods: self.max_pods,
                };
                children.push(Child::start(&config)?);
            }
        }
        Ok((node, children))
    }

    /// Says that the cluster is ready once all its nodes are.
    async fn announce(&self, control_plane: &ControlPlane, tasks: &Tasks, data_dir: &Path, started: Instant) {
        let client = control_plane.client(UserInfo::api_server());
        let ready = nodes_ready(tasks.child("announcement"), client, self.nodes);
        if tokio::time::timeout(READY, ready).await.is_err() {
            eprintln!(
                "not all nodes are ready after {} s: see `skiff describe nodes`, or start with SKIFF_LOG=info",
                READY.as_secs()
            );
            return;
        }
        println!(
            "skiff is up at {} with {} after {:.1} s: try `kubectl --kubeconfig {} get nodes`; Ctrl-C stops it, `skiff down` removes its containers too",
            control_plane.url(),
            if self.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", self.nodes) },
            started.elapsed().as_secs_f32(),
            data_dir.join("admin.kubeconfig").display(),
        );
    }
}

/// The name of a node, counted from 1.
fn name(index: u32) -> String {
    format!("node-{index}")
}

/// Returns once as many nodes are ready.
async fn nodes_ready(tasks: Tasks, client: Client, wanted: u32) {
    let cache: Cache<ApiNode> =
        Cache::start(&tasks, client, Clock::system(), Random::system(), CacheConfig::default());
    let mut changes = cache.subscribe();
    cache.synced().await;
    loop {
        let ready = cache.list().iter().filter(|node| is_ready(node)).count();
        if ready >= usize::try_from(wanted).unwrap_or(usize::MAX) || changes.next().await.is_none() {
            return;
        }
    }
}

fn is_ready(node: &ApiNode) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn write_kubeconfigs(control_plane: &ControlPlane, data_dir: &Path) -> Result<(), Failure> {
    let config = control_plane.kubeconfig()?;
    kubeconfig::write(&data_dir.join("admin.kubeconfig"), &config)?;
    if data_dir == Path::new(DATA_DIR)
        && let Some(file) = kubeconfig::user_file()
    {
        kubeconfig::merge(&file, &config)?;
    }
    Ok(())
}
