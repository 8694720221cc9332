//! The embedded CRI v1 runtime: images, sandboxes, containers, shim.
//!
//! [`Runtime::start`] serves CRI on a unix socket. Everything that must outlive the server lives in other
//! processes of the same binary, started by argv role (see [`role`]): one `shim` per container, a `pause`
//! where a pod shares its pid namespace, a short-lived `exec-helper` per exec. All state is on disk, so a
//! server that starts again adopts what runs.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use base::{Clock, Tasks};

pub use crate::error::Error;
pub use crate::network::{HostPort, LoopbackOnly, NetworkError, PodNetwork, SandboxNetwork};

mod cgroup;
mod container;
mod core;
mod error;
mod exec;
pub mod fuzz;
pub mod image;
mod network;
mod paths;
mod process;
mod record;
pub mod role;
mod sandbox;
mod server;
mod service;
mod shim;
mod streaming;

/// What a runtime needs to know and to reach.
#[derive(Clone)]
pub struct Config {
    /// Directory that survives a reboot: images, snapshots, records.
    pub root: PathBuf,
    /// Directory that need not survive a reboot (below `/run`): namespaces, mounts, sockets.
    pub state: PathBuf,
    /// The unix socket CRI is served on.
    pub socket: PathBuf,
    /// Cgroup, absolute in every hierarchy, below which the containers without a given parent are put.
    pub cgroup_root: String,
    /// Who gives sandboxes their addresses.
    pub network: Arc<dyn PodNetwork>,
    /// This binary, started again in the roles of [`role`].
    pub executable: PathBuf,
    /// Owner of the server's tasks.
    pub tasks: Tasks,
    /// Time.
    pub clock: Clock,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("root", &self.root).field("state", &self.state).finish_non_exhaustive()
    }
}

/// A running server. The containers outlive it.
#[derive(Clone, Debug)]
pub struct Runtime {
    socket: PathBuf,
    images: image::Images,
}

impl Runtime {
    /// Adopts what runs and serves CRI on the socket until the tasks are cancelled.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let socket = config.socket.clone();
        let images = server::start(config).await?;
        Ok(Self { socket, images })
    }

    /// The images of this node, for those in the same process.
    pub fn images(&self) -> &image::Images {
        &self.images
    }

    /// The endpoint to dial.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

/// For `skiff down`: ends every container and sandbox and leaves no process, mount, cgroup or socket behind.
/// Images stay. Succeeds when nothing is there.
pub async fn cleanup(config: &Config) -> Result<(), Error> {
    server::cleanup(config).await
}
