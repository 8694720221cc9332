//! Containers: made from a configuration and an image, run by a shim each.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cri::{ContainerConfig, LinuxContainerResources};
use tokio::sync::watch;

use crate::error::Error;
use crate::sandbox::by_prefix;
use crate::shim::protocol::{Exited, Started};
use user::User;

pub(crate) use record::Record;

mod adopt;
mod capabilities;
mod create;
mod devices;
mod mounts;
mod record;
mod remove;
mod resources;
mod rootfs;
mod seccomp;
mod signal;
mod spec;
mod start;
mod stats;
mod status;
mod stop;
pub(crate) mod user;

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) sandbox_id: String,
    pub(crate) config: ContainerConfig,
    /// The image as it was when the container was made: it may be gone now.
    pub(crate) image: ImageNames,
    /// Empty for no log.
    pub(crate) log_path: PathBuf,
    pub(crate) cgroup: String,
    /// Nanoseconds of Unix time.
    pub(crate) created_at: i64,
    pub(crate) user: User,
    /// The number of the signal that asks it to end.
    pub(crate) stop_signal: i32,
    /// Whether its processes end with its init.
    pub(crate) own_pid: bool,
    pub(crate) phase: watch::Sender<Phase>,
    /// Whether its shim is gone, with all that it clears away.
    pub(crate) shim_gone: watch::Sender<bool>,
    /// The limits now.
    resources: Mutex<LinuxContainerResources>,
    /// Held while the container is being started or removed.
    changing: tokio::sync::Mutex<()>,
}

/// What CRI shows of an image.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct ImageNames {
    pub(crate) id: String,
    /// A digest, or the id.
    pub(crate) reference: String,
    /// A tag.
    pub(crate) name: String,
}

/// How far a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Created,
    Running(Started),
    Exited {
        /// `None` when it never ran.
        started: Option<Started>,
        exited: Exited,
    },
}

impl Container {
    pub(crate) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Waits for a start that is under way: what stops the container then sees it run.
    pub(crate) async fn settled(&self) {
        drop(self.changing.lock().await);
    }

    /// The start of a container that runs.
    pub(crate) fn running(&self) -> Option<Started> {
        match *self.phase.borrow() {
            Phase::Running(started) => Some(started),
            Phase::Created | Phase::Exited { .. } => None,
        }
    }

    /// The start of a container that runs, or an error that says that it doesn't.
    pub(crate) fn must_run(&self) -> Result<Started, Error> {
        self.running().ok_or_else(|| Error::Precondition(format!("container {:?} is not running", self.id)))
    }

    pub(crate) fn resources(&self) -> MutexGuard<'_, LinuxContainerResources> {
        self.resources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All containers, by id.
#[derive(Debug, Default)]
pub(crate) struct Containers(Mutex<HashMap<String, Arc<Container>>>);

impl Containers {
    fn map(&self) -> MutexGuard<'_, HashMap<String, Arc<Container>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, container: Arc<Container>) {
        self.map().insert(container.id.clone(), container);
    }

    pub(crate) fn take(&self, id: &str) {
        self.map().remove(id);
    }

    /// The container with this id or with the only id that begins so.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Container>, Error> {
        by_prefix(&self.map(), id).ok_or_else(|| Error::container_not_found(id))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.map().values().cloned().collect()
    }

    pub(crate) fn of_sandbox(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.map().values().filter(|each| each.sandbox_id == sandbox).cloned().collect()
    }
}
