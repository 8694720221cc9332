//! Puts the parts of the agent together and owns them.

use std::sync::Arc;

use base::Tasks;

use crate::Config;
use crate::runtime::{Cri, Runtime, RuntimeError};

/// The agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Dial(#[from] cri::DialError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    tasks: Tasks,
}

impl Agent {
    /// Connects to the runtime and starts to work for the node.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let runtime: Arc<dyn Runtime> = Arc::new(Cri::connect(&config.runtime_endpoint).await?);
        let version = runtime.version().await?;
        tracing::info!(runtime = %version.runtime_name, version = %version.runtime_version, "container runtime");
        Ok(Self { tasks: config.tasks.child("agent") })
    }

    /// Stops the agent's tasks. Containers go on running.
    pub async fn shutdown(&self, deadline: std::time::Duration) -> Result<(), base::StillRunning> {
        self.tasks.shutdown(deadline).await
    }
}
