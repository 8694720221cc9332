//! What a user asks of a cluster, verb by verb, as kubectl has it.

mod apply;
mod auth;
mod config;
mod create;
mod delete;
mod describe;
mod diff;
mod discovery;
mod edit;
mod exec;
mod explain;
mod forward;
mod get;
mod global;
mod image;
mod logs;
mod mutate;
mod nodes;
mod pods;
mod replace;
mod rollout;
mod run;
mod set;
mod stream;
mod taint;
mod version;
mod wait;

use std::process::ExitCode;

use clap::Subcommand;

use crate::Failure;
use crate::failure::Because;
use crate::resources::Session;

use mutate::Marks;

pub(crate) use global::{Global, OPTIONS, duration, go_duration, print, print_bytes};

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
    /// Forward one or more local ports to a pod
    PortForward(forward::PortForward),
    /// Show details of a specific resource or group of resources
    Describe(describe::Describe),
    /// Edit a resource on the server
    Edit(edit::Edit),
    /// Set a new size for a deployment, replica set, or stateful set
    Scale(mutate::Scale),
    /// Manage the rollout of a resource
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// Run a particular image on the cluster
    Run(run::Run),
    /// Take a workload, service or pod and expose it as a new Kubernetes service
    Expose(run::Expose),
    /// Update the labels on a resource
    Label(mutate::Label),
    /// Update the annotations on a resource
    Annotate(mutate::Label),
    /// Update fields of a resource
    Patch(mutate::PatchCommand),
    /// Set specific features on objects
    #[command(subcommand)]
    Set(set::Set),
    /// Replace a resource by file name or stdin
    Replace(replace::Replace),
    /// Diff the live version against a would-be applied version
    Diff(diff::Diff),
    /// Wait for a specific condition on one or many resources
    Wait(wait::Wait),
    /// Mark node as unschedulable
    Cordon(nodes::Nodes),
    /// Mark node as schedulable
    Uncordon(nodes::Nodes),
    /// Update the taints on one or more nodes
    Taint(taint::Taint),
    /// Drain node in preparation for maintenance
    Drain(nodes::Drain),
    /// List events
    Events(discovery::Events),
    /// Display resource (CPU/memory) usage
    Top(discovery::Top),
    /// Print the supported API resources on the server
    ApiResources(discovery::ApiResources),
    /// Print the supported API versions on the server, in the form of "group/version"
    ApiVersions,
    /// Get documentation for a resource
    Explain(explain::Explain),
    /// Display cluster information
    ClusterInfo,
    /// Inspect authorization
    #[command(subcommand)]
    Auth(auth::Auth),
    /// Modify kubeconfig files
    #[command(subcommand)]
    Config(config::Config),
    /// Manage the images of this machine's node
    Image(image::ImageCommand),
    /// Output shell completion code for the specified shell (bash, zsh, fish)
    Completion { shell: clap_complete::Shell },
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
            Self::PortForward(forward) => {
                with(global, async |session| forward.run(session).await).await.map(done)
            }
            Self::Describe(describe) => {
                with(global, async |session| describe.run(session).await).await.map(done)
            }
            Self::Edit(edit) => with(global, async |session| edit.run(session).await).await.map(done),
            Self::Scale(scale) => with(global, async |session| scale.run(session).await).await.map(done),
            Self::Rollout(rollout) => {
                with(global, async |session| rollout.run(session).await).await.map(done)
            }
            Self::Run(run) => with(global, async |session| run.run(session).await).await,
            Self::Expose(expose) => with(global, async |session| expose.run(session).await).await.map(done),
            Self::Label(label) => {
                with(global, async |session| label.run(session, Marks::Labels).await).await.map(done)
            }
            Self::Annotate(label) => {
                with(global, async |session| label.run(session, Marks::Annotations).await).await.map(done)
            }
            Self::Patch(patch) => with(global, async |session| patch.run(session).await).await.map(done),
            Self::Set(set) => with(global, async |session| set.run(session).await).await.map(done),
            Self::Replace(replace) => {
                with(global, async |session| replace.run(session).await).await.map(done)
            }
            Self::Diff(diff) => with(global, async |session| diff.run(session).await).await,
            Self::Wait(wait) => with(global, async |session| wait.run(session).await).await.map(done),
            Self::Cordon(nodes) => {
                with(global, async |session| nodes.cordon(session, true).await).await.map(done)
            }
            Self::Uncordon(nodes) => {
                with(global, async |session| nodes.cordon(session, false).await).await.map(done)
            }
            Self::Taint(taint) => with(global, async |session| taint.run(session).await).await.map(done),
            Self::Drain(drain) => with(global, async |session| drain.run(session).await).await.map(done),
            Self::Events(events) => with(global, async |session| events.run(session).await).await.map(done),
            Self::Top(top) => with(global, async |session| top.run(session).await).await.map(done),
            Self::ApiResources(list) => with(global, async |session| list.run(session).await).await.map(done),
            Self::ApiVersions => with(global, discovery::api_versions).await.map(done),
            Self::Explain(explain) => {
                with(global, async |session| explain.run(session).await).await.map(done)
            }
            Self::ClusterInfo => with(global, discovery::cluster_info).await.map(done),
            Self::Auth(auth) => with(global, async |session| auth.run(session).await).await,
            Self::Config(config) => config.run(global).map(done),
            Self::Image(image) => image.run().await.map(done),
            Self::Completion { shell } => completion(shell).map(done),
            Self::Version(version) => version.run(global).await.map(done),
            Self::Options => print(OPTIONS).map(done),
        }
    }
}

/// Prints what a shell needs to complete commands and flags.
fn completion(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    let mut command = <crate::args::Arguments as clap::CommandFactory>::command();
    clap_complete::generate(shell, &mut command, "skiff", &mut script);
    print_bytes(&script)
}

/// Runs a command on the cluster.
async fn with<T>(
    global: &Global,
    command: impl AsyncFnOnce(&Session) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let session = Session::open(global).await?;
    command(&session).await
}
