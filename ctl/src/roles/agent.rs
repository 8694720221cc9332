//! `skiff agent`: one node, on a machine of its own or in a network namespace that `skiff up` has made.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use apiserver::pki;
use apiserver::pki::join_token::JoinToken;
use base::{Clock, Random, Tasks};
use clap::Args;
use client::{Client, connect};
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStdin, Command};

use super::foreign::RuntimeArgs;
use super::join::{Membership, join, renew};
use super::lock::Lock;
use super::node::{Cluster, Node, NodeConfig};
use super::place::Place;
use super::{DATA_DIR, facts, process};
use crate::failure::Because;
use crate::{Failure, kubeconfig};

/// How long an agent may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Args, Debug)]
pub(crate) struct AgentRole {
    /// URL of the control plane.
    #[arg(long, value_name = "URL", env = "SKIFF_SERVER")]
    server: Option<String>,
    /// Token from `skiff token create`. Needed once: the certificates that it gives are kept.
    #[arg(long, value_name = "TOKEN", env = "SKIFF_TOKEN", hide_env_values = true)]
    token: Option<JoinToken>,
    /// Where the node is kept.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR, env = "SKIFF_DATA_DIR")]
    data_dir: PathBuf,
    /// Name of the node; by default the host's name.
    #[arg(long, value_name = "NAME", env = "SKIFF_NODE_NAME")]
    node_name: Option<String>,
    /// Address of the node; by default that of the default route.
    #[arg(long, value_name = "ADDRESS", env = "SKIFF_NODE_IP")]
    node_ip: Option<Ipv4Addr>,
    /// Port of the agent's own API.
    #[arg(long, value_name = "PORT", default_value_t = 10250, env = "SKIFF_AGENT_PORT")]
    agent_port: u16,
    /// Most pods on the node.
    #[arg(long, value_name = "N", default_value_t = 110, env = "SKIFF_MAX_PODS")]
    max_pods: u32,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// End when standard input does: the parent holds the other end and lives as long as it.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

impl AgentRole {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        process::need_root("agent")?;
        process::run(self.serve())
    }

    async fn serve(self) -> Result<ExitCode, Failure> {
        let mut end = process::Signals::new()?;
        let name = match &self.node_name {
            Some(name) => name.clone(),
            None => facts::host_name()?,
        };
        if let Some(problem) = api::name::subdomain_name(&name, false).first() {
            let name = api::field::quote(&name);
            return Err(Failure::usage(format!(
                "{name} can't be a node's name, choose one with --node-name: {problem}"
            )));
        }
        let data_dir = facts::data_dir(&self.data_dir)?;
        let place = Place::new(&data_dir, &name);
        let _lock = Lock::take(&place.data)?;
        let address = self.node_ip.unwrap_or_else(facts::main_address);
        let membership = self.membership(&place, address).await?;
        let granted = &membership.granted;
        let server_tls =
            pki::tls::node_agent(&granted.ca, &granted.serving_certificate, &membership.serving_key)
                .because("the node's certificate")?;
        let config = NodeConfig {
            client: client_of(&membership).await?,
            place,
            address,
            port: self.agent_port,
            server_tls,
            cluster: Cluster {
                cluster_cidr: granted.cluster_cidr.clone(),
                service_cidr: granted.service_cidr.clone(),
                dns: granted.cluster_dns.clone(),
                domain: granted.cluster_domain.clone(),
            },
            runtime: self.runtime.clone(),
            max_pods: self.max_pods,
        };
        let tasks = Tasks::new("agent");
        let node = Node::start(config, &tasks, Clock::system(), Random::system()).await?;
        if !self.until_stdin_ends {
            println!("node {name} of {} is running", membership.server);
        }
        tokio::select! {
            () = end.recv() => {}
            () = stdin_ends(), if self.until_stdin_ends => {}
        }
        node.shutdown().await;
        Ok(ExitCode::SUCCESS)
    }

    /// What an earlier join gave, renewed where it does not fit any more; else joins.
    async fn membership(&self, place: &Place, address: Ipv4Addr) -> Result<Membership, Failure> {
        let address = IpAddr::V4(address);
        let known = Membership::load(&place.data)?.filter(|known| known.node_name == place.name);
        if let Some(known) = known {
            let server = self.server.as_ref().unwrap_or(&known.server);
            let fits = *server == known.server && known.node_ip == address;
            if fits && known.is_fresh() {
                return Ok(known);
            }
            match renew(&place.data, server, &known, address).await {
                Ok(renewed) => return Ok(renewed),
                // The server may be away. The certificates need not be over yet.
                Err(failure) if fits && self.token.is_none() => {
                    tracing::warn!(%failure, "the node's certificates are not renewed");
                    return Ok(known);
                }
                // It may be another cluster now.
                Err(failure) if self.token.is_some() => {
                    tracing::info!(%failure, "joining with the token");
                }
                Err(failure) => return Err(failure),
            }
        }
        let Some(server) = &self.server else {
            return Err(Failure::usage("skiff agent needs --server URL the first time"));
        };
        let Some(token) = &self.token else {
            return Err(Failure::usage(
                "skiff agent needs --token the first time: get one with `skiff token create` on the server",
            ));
        };
        join(&place.data, server, token, &place.name, address).await
    }
}

async fn stdin_ends() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    // An error ends it as the end of the file does.
    while stdin.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}

/// A client with the node's own certificate.
async fn client_of(membership: &Membership) -> Result<Client, Failure> {
    let config = kubeconfig::single(&kubeconfig::Access {
        server: membership.server.clone(),
        authority_pem: &membership.granted.ca,
        certificate_pem: &membership.granted.client_certificate,
        key_pem: &membership.client_key,
    });
    let about = format!("client for {}", membership.server);
    let parsed = serde_json::from_value(config).because(&about)?;
    let config =
        client::kube::Config::from_custom_kubeconfig(parsed, &Default::default()).await.because(&about)?;
    connect::over_tls(config).because(&about)
}

/// A node that `skiff up` runs as a process of its own.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: tokio::process::Child,
    /// The child ends when this is closed, also when this process is killed.
    _life: ChildStdin,
}

/// What such a node is told.
pub(crate) struct ChildConfig<'a> {
    pub(crate) netns: &'a Path,
    pub(crate) address: Ipv4Addr,
    pub(crate) data_dir: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) server: &'a str,
    pub(crate) token: &'a JoinToken,
    pub(crate) agent_port: u16,
    pub(crate) max_pods: u32,
}

impl Child {
    pub(crate) fn start(config: &ChildConfig<'_>) -> Result<Self, Failure> {
        let about = format!("node {}", config.name);
        let mut command = Command::new(std::env::current_exe().because(&about)?);
        command
            .arg("agent")
            .arg("--until-stdin-ends")
            .arg("--data-dir")
            .arg(config.data_dir)
            .args(["--server", config.server, "--node-name", config.name])
            .arg(format!("--node-ip={}", config.address))
            .arg(format!("--agent-port={}", config.agent_port))
            .arg(format!("--max-pods={}", config.max_pods))
            // Not an argument: those can be read by everybody.
            .env("SKIFF_TOKEN", config.token.to_string())
            .env_remove("SKIFF_RUNTIME_ENDPOINT")
            .env_remove("SKIFF_CNI_CONF_DIR")
            .env_remove("SKIFF_CNI_BIN_DIR")
            .stdin(Stdio::piped())
            // Ctrl-C on the terminal is for the parent, which then ends its children in order.
            .process_group(0);
        let handle = tokio::runtime::Handle::current();
        let mut process = network::machine::enter(config.netns, move || {
            let _context = handle.enter();
            command.spawn()
        })
        .because(&about)?
        .because(&about)?;
        let life = process.stdin.take().ok_or_else(|| Failure::new("a child without standard input"))?;
        Ok(Self { name: config.name.to_owned(), process, _life: life })
    }

    /// Ends the node's agent; its containers go on running.
    pub(crate) async fn shutdown(self) {
        let Self { name, mut process, _life } = self;
        drop(_life);
        match tokio::time::timeout(PATIENCE, process.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => tracing::warn!(node = name, %status, "the agent failed"),
            Ok(Err(error)) => tracing::warn!(node = name, %error, "the agent can't be waited for"),
            Err(_) => {
                tracing::warn!(node = name, "the agent does not end and is killed");
                if let Err(error) = process.kill().await {
                    tracing::warn!(node = name, %error, "the agent can't be killed");
                }
            }
        }
    }
}
