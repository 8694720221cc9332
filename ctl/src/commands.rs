//! What a user asks of a cluster, verb by verb, as kubectl has it.

mod apply;
mod create;
mod delete;
mod exec;
mod get;
mod global;
mod logs;
mod pods;
mod stream;
mod version;

use std::process::ExitCode;

use clap::Subcommand;

use crate::Failure;
use crate::failure::Because;
use crate::resources::Session;

pub(crate) use global::{Global, OPTIONS, duration, print, print_bytes};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Display one or many resources
    Get(get::Get),
    /// Apply a configuration to a resource by file name or stdin
    Apply(apply::Apply),
    /// Create a resource from a file or from stdin
    Create(create::Create),
    /// Delete resources by file names, stdin, resources and names, or by resources and label selector
    Delete(delete::Delete),
    /// Print the logs for a container in a pod
    Logs(logs::Logs),
    /// Execute a command in a container
    Exec(exec::Exec),
    /// Attach to a running container
    Attach(exec::Attach),
    /// Print the client and server version information
    Version(version::Version),
    /// Print the list of flags inherited by all commands
    Options,
}

impl Command {
    /// Runs to the end. The runtime lives no longer than the command.
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .because("error: async runtime")?;
        let ended = runtime.block_on(self.dispatch(global));
        // A read of the terminal that goes on must not hold up the end.
        runtime.shutdown_background();
        ended
    }

    async fn dispatch(self, global: &Global) -> Result<ExitCode, Failure> {
        let done = |()| ExitCode::SUCCESS;
        match self {
            Self::Get(get) => with(global, async |session| get.run(session).await).await.map(done),
            Self::Apply(apply) => with(global, async |session| apply.run(session).await).await.map(done),
            Self::Create(create) => create.run(global).await.map(done),
            Self::Delete(delete) => with(global, async |session| delete.run(session).await).await.map(done),
            Self::Logs(logs) => with(global, async |session| logs.run(session).await).await.map(done),
            Self::Exec(exec) => with(global, async |session| exec.run(session).await).await,
            Self::Attach(attach) => with(global, async |session| attach.run(session).await).await,
            Self::Version(version) => version.run(global).await.map(done),
            Self::Options => print(OPTIONS).map(done),
        }
    }
}

/// Runs a command on the cluster.
async fn with<T>(
    global: &Global,
    command: impl AsyncFnOnce(&Session) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let session = Session::open(global).await?;
    command(&session).await
}
