//! What every long-running role does with its own process: privileges, limits, logs, signals, the async runtime.

use std::future::Future;
use std::io::IsTerminal;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::Failure;
use crate::failure::Because;

/// SIGINT and SIGTERM.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).because("signal handler");
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// Returns when one of them arrives.
    pub(crate) async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Containers, networks and cgroups need root.
pub(crate) fn need_root(role: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::usage(format!("skiff {role} needs root: run it with sudo")))
}

/// Runs a role to its end, with logs on stderr and as many open files as are allowed.
pub(crate) fn run<T>(role: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let filter = EnvFilter::try_from_env("SKIFF_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // Fails only when a log is set up already, which is then as good.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, most, most)
    {
        tracing::warn!(%error, "the number of open files stays as it is");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().because("async runtime")?;
    let result = runtime.block_on(role);
    // Blocking work that hangs must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}
