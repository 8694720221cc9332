//! The long-running parts of a cluster, and what starts and ends them.
//!
//! - [`up`]: a whole cluster; [`down`]: its end
//! - [`server`]: the control plane alone; [`apiserver`]: the API alone; [`agent`]: one node alone
//! - [`token`]: how agents are let in
//! - [`control_plane`], [`node`]: the parts that these are put together from; [`foreign`]: another container runtime
//! - [`audit`]: what is recorded of requests
//! - [`place`], [`facts`], [`lock`], [`process`], [`join`]: where, who, once, how, and by which right

mod agent;
mod apiserver;
mod audit;
mod control_plane;
mod down;
mod facts;
mod foreign;
mod join;
mod lock;
mod node;
mod place;
pub(crate) mod process;
mod server;
mod token;
mod up;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use crate::Failure;

/// Where a cluster's files are unless the user says otherwise.
pub(crate) const DATA_DIR: &str = "/var/lib/skiff";

/// The nodes of a data directory, by name, and where each keeps the data of its embedded runtime.
pub(crate) fn node_stores(data_dir: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let places = place::Place::all(data_dir)?;
    Ok(places.into_iter().map(|place| (place.name.clone(), place.data.join("runtime"))).collect())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Run a whole cluster on this machine until interrupted
    Up(up::Up),
    /// Stop the cluster of `skiff up` and remove its containers and networks
    Down(down::Down),
    /// Run a control plane that agents on other machines join
    Server(server::ServerRole),
    /// Run an API server alone: nothing is scheduled and no controller acts
    #[command(name = "apiserver")]
    ApiServer(apiserver::ApiServerRole),
    /// Run this machine as a node of a cluster
    Agent(agent::AgentRole),
    /// Manage the tokens with which machines join
    #[command(subcommand)]
    Token(token::Token),
}

impl Role {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Up(up) => up.run(),
            Self::Down(down) => down.run(),
            Self::Server(server) => server.run(),
            Self::ApiServer(server) => server.run(),
            Self::Agent(agent) => agent.run(),
            Self::Token(token) => token.run(),
        }
    }
}
