//! `skiff server`: a control plane that agents on other machines join.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use base::{Clock, Random, Tasks};
use clap::Args;

use super::audit::AuditArgs;
use super::control_plane::{ControlPlane, ControlPlaneConfig, StoreArgs};
use super::lock::Lock;
use super::{DATA_DIR, facts, process};
use crate::{Failure, kubeconfig};

/// Where a control plane keeps its state, and where it is reached.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerArgs {
    /// Where the control plane is kept.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR, env = "SKIFF_DATA_DIR")]
    pub(super) data_dir: PathBuf,
    /// Where the API is served for clients of this machine.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6443", env = "SKIFF_BIND")]
    bind: SocketAddr,
    /// Address under which nodes and pods reach the API; by default that of the default route.
    #[arg(long, value_name = "ADDRESS", env = "SKIFF_NODE_IP")]
    node_ip: Option<Ipv4Addr>,
    /// Further host names and addresses of this machine, for the certificate.
    #[arg(long, value_name = "NAME", value_delimiter = ',', env = "SKIFF_TLS_SAN")]
    tls_san: Vec<String>,
    /// Port of the node agents' own API.
    #[arg(long, value_name = "PORT", default_value_t = 10250, env = "SKIFF_AGENT_PORT")]
    agent_port: u16,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    audit: AuditArgs,
    /// Seconds for which the API is still served after it began to say that it ends (/readyz).
    #[arg(long, value_name = "SECONDS", default_value_t = 0, env = "SKIFF_SHUTDOWN_DELAY")]
    shutdown_delay: u32,
}

impl ServerArgs {
    /// Says what doesn't fit, before anything is started.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.audit.settings()?;
        self.store.check()
    }

    /// The address under which nodes and pods reach the API.
    pub(super) fn address(&self) -> Ipv4Addr {
        self.node_ip.unwrap_or_else(facts::main_address)
    }

    /// Serves what `start` makes until a signal comes. Says when it is ready, and what to do `next`.
    pub(super) async fn serve(
        self,
        role: &'static str,
        start: impl AsyncFnOnce(ControlPlaneConfig, &Tasks) -> Result<ControlPlane, Failure>,
        next: impl FnOnce(&ControlPlane, &Path) -> String,
    ) -> Result<ExitCode, Failure> {
        let started = Instant::now();
        let mut end = process::Signals::new()?;
        let data_dir = facts::data_dir(&self.data_dir)?;
        let _lock = Lock::take(&data_dir)?;
        let config = self.config(data_dir.clone())?;
        let tasks = Tasks::new(role);
        let served = start(config, &tasks).await?;
        let admin = data_dir.join("admin.kubeconfig");
        kubeconfig::write(&admin, &served.kubeconfig()?)?;
        println!(
            "skiff {role} is ready at {} after {:.1} s: {}",
            served.url(),
            started.elapsed().as_secs_f32(),
            next(&served, &admin)
        );
        end.recv().await;
        served.shutdown().await;
        Ok(ExitCode::SUCCESS)
    }

    /// What a control plane in `data_dir` is started with.
    fn config(&self, data_dir: PathBuf) -> Result<ControlPlaneConfig, Failure> {
        let mut names = vec![facts::host_name()?];
        names.extend(self.tls_san.iter().cloned());
        Ok(ControlPlaneConfig {
            data_dir,
            store: self.store.clone(),
            bind: self.bind,
            address: self.address().into(),
            names,
            node_agent_port: self.agent_port,
            enabled_admission: Vec::new(),
            disabled_admission: Vec::new(),
            audit: self.audit.settings()?,
            shutdown_delay: Duration::from_secs(self.shutdown_delay.into()),
        })
    }
}

#[derive(Args, Debug)]
pub(crate) struct ServerRole {
    #[command(flatten)]
    args: ServerArgs,
}

impl ServerRole {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        self.args.check()?;
        process::run(self.serve())
    }

    async fn serve(self) -> Result<ExitCode, Failure> {
        let address = self.args.address();
        let start = async |config: ControlPlaneConfig, tasks: &Tasks| {
            ControlPlane::start(config, tasks, &Clock::system(), &Random::system()).await
        };
        let join = |served: &ControlPlane, _: &Path| {
            let port = served.port();
            format!(
                "join nodes with `skiff agent --server https://{address}:{port} --token $(skiff token create)`"
            )
        };
        self.args.serve("server", start, join).await
    }
}
