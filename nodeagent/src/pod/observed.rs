//! What the runtime says of one pod.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// All sandboxes and containers of a pod, dead ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    sandboxes: BTreeMap<String, ObservedSandbox>,
    containers: BTreeMap<String, ObservedContainer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedSandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: Timestamp,
    pub ips: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedContainer {
    pub id: String,
    pub sandbox: String,
    pub name: String,
    /// How often this container was started before.
    pub attempt: u32,
    pub state: ContainerState,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    /// The termination message once it was read.
    pub message: String,
    pub image: String,
    pub image_id: String,
    /// See [`super::container_hash`].
    pub hash: String,
    pub user: Option<User>,
}

/// The identity that the first process of a container runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: i64,
    pub gid: i64,
    pub groups: Vec<i64>,
}

/// A container only ever moves forward through these.
///
/// ```text
/// Created ─► Running ─► Exited
///     └───────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
}

impl Observed {
    /// Takes over what is told of a sandbox. What is known and newer stays: reports may arrive out of order.
    pub fn merge_sandbox(&mut self, sandbox: ObservedSandbox) {
        match self.sandboxes.get_mut(&sandbox.id) {
            Some(known) => {
                known.ready &= sandbox.ready;
                if !sandbox.ips.is_empty() {
                    known.ips = sandbox.ips;
                }
            }
            None => {
                self.sandboxes.insert(sandbox.id.clone(), sandbox);
            }
        }
    }

    /// Takes over what is told of a container, unless it is older than what is known.
    pub fn merge_container(&mut self, container: ObservedContainer) {
        match self.containers.get_mut(&container.id) {
            Some(known) if container.state < known.state => {}
            Some(known) => {
                let message = std::mem::take(&mut known.message);
                *known = container;
                if known.message.is_empty() {
                    known.message = message;
                }
            }
            None => {
                self.containers.insert(container.id.clone(), container);
            }
        }
    }

    pub fn remove_sandbox(&mut self, id: &str) {
        self.sandboxes.remove(id);
    }

    pub fn remove_container(&mut self, id: &str) {
        self.containers.remove(id);
    }

    /// Forgets what a full listing doesn't show.
    pub fn retain(&mut self, sandboxes: &[String], containers: &[String]) {
        self.sandboxes.retain(|id, _| sandboxes.contains(id));
        self.containers.retain(|id, _| containers.contains(id));
    }

    /// Sets the termination message of a container.
    pub fn set_message(&mut self, id: &str, message: String) {
        if let Some(container) = self.containers.get_mut(id) {
            container.message = message;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    pub fn sandboxes(&self) -> impl Iterator<Item = &ObservedSandbox> {
        self.sandboxes.values()
    }

    pub fn containers(&self) -> impl Iterator<Item = &ObservedContainer> {
        self.containers.values()
    }

    pub fn container(&self, id: &str) -> Option<&ObservedContainer> {
        self.containers.get(id)
    }

    /// The newest sandbox, ready or not.
    pub fn sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandboxes.values().max_by_key(|sandbox| (sandbox.attempt, sandbox.created_at))
    }

    /// The newest sandbox if containers can run in it.
    pub fn ready_sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandbox().filter(|sandbox| sandbox.ready)
    }

    /// The newest container of this name.
    pub fn latest(&self, name: &str) -> Option<&ObservedContainer> {
        self.attempts(name).pop()
    }

    /// The containers of this name, oldest first.
    pub fn attempts(&self, name: &str) -> Vec<&ObservedContainer> {
        let mut found: Vec<_> = self.containers.values().filter(|container| container.name == name).collect();
        found.sort_by_key(|container| (container.attempt, container.created_at));
        found
    }

    pub fn running(&self) -> impl Iterator<Item = &ObservedContainer> {
        self.containers.values().filter(|container| container.state == ContainerState::Running)
    }

    /// Nothing of the pod runs, and no sandbox holds a network for it.
    pub fn is_stopped(&self) -> bool {
        self.running().next().is_none() && self.sandboxes.values().all(|sandbox| !sandbox.ready)
    }
}
