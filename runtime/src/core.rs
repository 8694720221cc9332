//! The server's shared state.

use base::{Random, Tasks};
use cri::{ContainerEventResponse, ContainerEventType};
use tokio::sync::broadcast;

use crate::Config;
use crate::cgroup::Cgroups;
use crate::container::Containers;
use crate::image::Images;
use crate::paths::Paths;
use crate::sandbox::{Sandbox, Sandboxes};

/// How many events a subscriber may be behind before it loses some.
const EVENTS: usize = 1024;

/// Everything the calls of the service work on. No lock in it is held across IO.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) paths: Paths,
    pub(crate) cgroups: Cgroups,
    pub(crate) images: Images,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) containers: Containers,
    pub(crate) tasks: Tasks,
    random: Random,
    events: broadcast::Sender<ContainerEventResponse>,
}

impl Core {
    pub(crate) fn new(config: Config, cgroups: Cgroups, images: Images) -> Self {
        Self {
            paths: Paths::new(&config.root, &config.state),
            cgroups,
            images,
            sandboxes: Sandboxes::default(),
            containers: Containers::default(),
            tasks: config.tasks.child("runtime"),
            random: Random::system(),
            events: broadcast::Sender::new(EVENTS),
            config,
        }
    }

    /// Nanoseconds of Unix time.
    pub(crate) fn now(&self) -> i64 {
        i64::try_from(self.config.clock.now().as_nanosecond()).unwrap_or(i64::MAX)
    }

    /// A fresh id of a sandbox or container.
    pub(crate) fn new_id(&self) -> String {
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The cgroup of a sandbox that was given none.
    pub(crate) fn own_cgroup(&self, id: &str) -> String {
        format!("/{}/{id}", self.config.cgroup_root.trim_matches('/'))
    }

    /// Where the shims live: outside of every limit of a pod, and not in the server's own cgroup.
    pub(crate) fn shim_cgroup(&self) -> String {
        format!("/{}/shims", self.config.cgroup_root.trim_matches('/'))
    }

    /// Tells the subscribers what happened to a container or sandbox.
    pub(crate) fn emit(&self, id: &str, sandbox: &Sandbox, what: ContainerEventType) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let containers = self.containers.of_sandbox(&sandbox.id);
        let event = ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: what as i32,
            created_at: self.now(),
            pod_sandbox_status: Some(sandbox.status()),
            containers_statuses: containers.iter().map(|each| each.status()).collect(),
        };
        // Fails only when the last subscriber left just now.
        let _ = self.events.send(event);
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<ContainerEventResponse> {
        self.events.subscribe()
    }
}
