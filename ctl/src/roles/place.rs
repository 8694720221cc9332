//! Where a node keeps its things.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{Clock, Tasks};

use super::facts;
use crate::Failure;
use crate::failure::Because;

/// The directories and kernel names of one node. Derived from the data directory and the node's name alone, so
/// that whoever cleans up finds what whoever started has made.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    /// Names what belongs to this node in the kernel.
    pub(crate) id: String,
    /// Survives a reboot.
    pub(crate) data: PathBuf,
    /// Below `/run`.
    pub(crate) run: PathBuf,
    pub(crate) cgroup_root: String,
}

impl Place {
    /// The place of the node `name` of a data directory.
    pub(crate) fn new(data_dir: &Path, name: &str) -> Self {
        let id = facts::id(data_dir);
        Self {
            name: name.to_owned(),
            data: data_dir.join("nodes").join(name),
            run: facts::run_dir(&id).join(name),
            cgroup_root: format!("/skiff-{id}-{name}"),
            id: format!("{id}-{name}"),
        }
    }

    /// The nodes that were ever started in a data directory.
    pub(crate) fn all(data_dir: &Path) -> Result<Vec<Self>, Failure> {
        let dir = data_dir.join("nodes");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::new(format!("{}: {error}", dir.display()))),
        };
        let mut places = Vec::new();
        for entry in entries {
            let entry = entry.because(dir.display())?;
            places.push(Self::new(data_dir, &entry.file_name().to_string_lossy()));
        }
        Ok(places)
    }

    /// Where the agent keeps the volumes and logs of its pods.
    pub(crate) fn agent_data(&self) -> PathBuf {
        self.data.join("agent")
    }

    /// Where the network keeps its address allocations.
    pub(crate) fn network_state(&self) -> PathBuf {
        self.data.join("network")
    }

    /// Where the agent answers the CNI plugin of a runtime of the user's own.
    pub(crate) fn cni_socket(&self) -> PathBuf {
        self.run.join("cni.sock")
    }

    /// The settings of the embedded runtime at this place.
    pub(crate) fn runtime(
        &self,
        network: Arc<dyn runtime::PodNetwork>,
        tasks: Tasks,
        clock: Clock,
    ) -> Result<runtime::Config, Failure> {
        Ok(runtime::Config {
            root: self.data.join("runtime"),
            state: self.run.join("runtime"),
            socket: self.run.join("cri.sock"),
            cgroup_root: self.cgroup_root.clone(),
            network,
            executable: std::env::current_exe().because("this program")?,
            tasks,
            clock,
        })
    }
}
