//! A container is removed with everything it had, except its log.

use std::sync::Arc;
use std::time::Duration;

use cri::ContainerEventType;
use tokio::time::timeout;

use super::Container;
use crate::core::Core;
use crate::error::Error;
use crate::record;
use crate::shim;

/// How long a shim may take to clear up after its container.
const SHIM_LIMIT: Duration = Duration::from_secs(5);
/// How long killed processes may take to disappear.
const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Core {
    /// Removes a container, stopping it if need be.
    pub(crate) async fn remove_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<(), Error> {
        let _changing = container.changing.lock().await;
        self.stop_container(container, Duration::ZERO).await?;
        // It may be removing the same things just now. What it leaves is removed below.
        let _ = timeout(SHIM_LIMIT, container.shim_gone.subscribe().wait_for(|gone| *gone)).await;
        let (core, id, cgroup) = (self.clone(), container.id.clone(), container.cgroup.clone());
        self.tasks.blocking(move || core.clear_runtime(&id, &cgroup)).await?;
        self.erase_container(&container.id).await?;
        self.containers.take(&container.id);
        if let Ok(sandbox) = self.sandboxes.get(&container.sandbox_id) {
            self.emit(&container.id, &sandbox, ContainerEventType::ContainerDeletedEvent);
        }
        Ok(())
    }

    /// Removes processes, cgroup and libcontainer's files of a container that ended. Blocks.
    pub(super) fn clear_runtime(&self, id: &str, cgroup: &str) -> Result<(), Error> {
        self.cgroups.kill(cgroup, KILL_LIMIT)?;
        self.cgroups.remove(cgroup)?;
        record::remove_dir_all(&self.paths.container_state(id).join(shim::LIBCONTAINER))
    }

    /// Removes the files of a container.
    pub(crate) async fn erase_container(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        self.images
            .unmount_rootfs(id)
            .await
            .map_err(|error| Error::failed(&format!("root file system of container {id}"), error))?;
        let (core, id) = (self.clone(), id.to_owned());
        self.tasks
            .blocking(move || {
                record::remove_dir_all(&core.paths.container_state(&id))?;
                record::remove_dir_all(&core.paths.container_root(&id))
            })
            .await
    }
}
