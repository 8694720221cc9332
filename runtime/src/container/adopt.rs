//! After a restart of the server the containers are found again, with what happened meanwhile.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tracing::warn;

use super::start::Notices;
use super::{Container, Phase, Record};
use crate::core::Core;
use crate::error::Error;
use crate::record;
use crate::shim::protocol::{Exited, Request, Started, connect, line};

impl Core {
    /// Takes over the containers on disk, and clears away what has no record.
    pub(crate) async fn adopt_containers(self: &Arc<Self>) -> Result<(), Error> {
        for id in record::names(&self.paths.container_records())? {
            let restored = match record::read::<Record>(&self.paths.container_record(&id)) {
                Ok(record) => record.map(Record::restore).transpose(),
                Err(error) => Err(error),
            };
            match restored {
                Ok(Some(container)) => self.adopt(Arc::new(container)).await?,
                // The server died while it made or removed the container.
                Ok(None) => self.erase_stray(&id).await,
                Err(error) => {
                    warn!(container = %id, %error, "unreadable container record");
                    self.erase_stray(&id).await;
                }
            }
        }
        for id in record::names(&self.paths.container_states())? {
            if self.containers.get(&id).is_err() {
                self.erase_stray(&id).await;
            }
        }
        Ok(())
    }

    async fn adopt(self: &Arc<Self>, container: Arc<Container>) -> Result<(), Error> {
        let id = &container.id;
        let exited: Option<Exited> = record::read(&self.paths.exit(id))?;
        let started: Option<Started> = record::read(&self.paths.started(id))?;
        self.containers.insert(container.clone());
        if let Some(exited) = exited {
            container.phase.send_replace(Phase::Exited { started, exited });
            return Ok(());
        }
        if let Some(started) = started {
            container.phase.send_replace(Phase::Running(started));
        }
        match self.watch(id).await {
            Ok(stream) => {
                container.shim_gone.send_replace(false);
                self.tasks.spawn("follow", self.clone().follow(container, Notices::new(stream)));
            }
            Err(_) if started.is_some() => {
                let core = self.clone();
                self.tasks.spawn("follow", async move { core.without_shim(&container, started).await });
            }
            // Never started. After a reboot it can't be any more: its bundle is gone.
            Err(_) if self.paths.container_state(id).join("config.json").exists() => {}
            Err(_) => self.without_shim(&container, None).await,
        }
        Ok(())
    }

    async fn watch(&self, id: &str) -> io::Result<UnixStream> {
        let mut stream = connect(&self.paths.container_state(id)).await?;
        stream.write_all(&line(&Request::Watch)?).await?;
        Ok(stream)
    }

    async fn erase_stray(self: &Arc<Self>, id: &str) {
        if let Err(error) = self.erase_container(id).await {
            warn!(container = id, %error, "clear away a container without a record");
        }
    }
}
