//! The pod network for container runtimes that ask for it through CNI, the Container Network Interface.
//!
//! ```text
//!  containerd ──exec──► plugin ──unix socket──► agent: server ──► NodeNetwork
//! ```
//!
//! A runtime reads a configuration from a directory and executes the plugin that it names, once for each sandbox that
//! comes or goes. The plugin is the same binary under a name of its own. It decides nothing: it hands the request to
//! the running node agent, because addresses, host ports and rules have one owner. Without an agent an ADD is to be
//! tried again, and a DEL fails, so that the runtime comes back for what is still held.
//!
//! - `spec`: PURE. The language of CNI: environment and JSON in, JSON out;
//! - `plugin`: the process that the runtime executes; `server`: the agent's side of the socket;
//! - `install`: the files by which a runtime finds the plugin.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Attachment, HostPort};

mod install;
mod plugin;
mod server;
pub(crate) mod spec;
#[cfg(test)]
mod tests;

pub use install::{Found, Installation};
pub use plugin::main;
pub use server::{Backend, serve};

/// What a runtime sets for a plugin, and nobody else does.
pub const COMMAND: &str = "CNI_COMMAND";

/// The most bytes of a request or an answer on the socket.
const MESSAGE_LIMIT: u64 = 64 * 1024;

/// What the plugin asks the agent; one for each connection, ended by closing that direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    Add { sandbox: String, netns: PathBuf, interface: String, host_ports: Vec<HostPort> },
    Check { sandbox: String },
    Del { sandbox: String },
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    /// To ADD and CHECK.
    Attached(Attachment),
    /// To DEL.
    Released,
    Failed(Failure),
}

/// A failure in the form in which a runtime is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    code: u32,
    msg: String,
}

impl Failure {
    /// The configuration's version is none of ours.
    const VERSION: u32 = 1;
    const UNKNOWN_CONTAINER: u32 = 3;
    const ENVIRONMENT: u32 = 4;
    const IO: u32 = 5;
    const DECODE: u32 = 6;
    const CONFIG: u32 = 7;
    const TRY_AGAIN: u32 = 11;
    /// The first of those that a plugin gives a meaning to.
    const NETWORK: u32 = 100;

    fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into() }
    }
}
