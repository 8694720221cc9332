//! A container is stopped: asked first, then killed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{Container, Phase};
use crate::core::Core;
use crate::error::{Error, IoContext};

/// How long the end may take after SIGKILL. A process in an uninterruptible wait can take longer: then the
/// caller tries again.
const KILL_LIMIT: Duration = Duration::from_secs(30);

impl Core {
    /// Ends a container. One that does not run is no error.
    pub(crate) async fn stop_container(
        &self,
        container: &Arc<Container>,
        grace: Duration,
    ) -> Result<(), Error> {
        let Some(started) = container.running() else { return Ok(()) };
        let mut phase = container.phase.subscribe();
        let ended = |phase: &Phase| matches!(phase, Phase::Exited { .. });
        // Gone already if there is no process: its end is about to be told.
        let process = started.init.open();
        if let Some(process) = &process
            && !grace.is_zero()
        {
            process.signal(container.stop_signal).at("signal container", &container.id)?;
            if timeout(grace, phase.wait_for(ended)).await.is_ok() {
                return Ok(());
            }
        }
        if let Some(process) = &process {
            process.signal(libc::SIGKILL).at("kill container", &container.id)?;
        }
        match timeout(KILL_LIMIT, phase.wait_for(ended)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Deadline(format!("container {:?} does not end on SIGKILL", container.id))),
        }
    }
}
