//! What others tell a worker: a slot for each thing to know, in which the newest replaces what was there, so
//! that it stays small whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;

use crate::pod::{ObservedContainer, ObservedSandbox, ProbeResults};

/// What is new since the worker looked last.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// The pod in the API.
    pub(crate) pod: Option<Arc<Pod>>,
    /// The pod is no longer in the API.
    pub(crate) gone: bool,
    pub(crate) sandboxes: BTreeMap<String, ObservedSandbox>,
    pub(crate) containers: BTreeMap<String, ObservedContainer>,
    /// Ids of sandboxes and containers that the runtime no longer has.
    pub(crate) removed: BTreeSet<String>,
    /// By container id.
    pub(crate) probes: BTreeMap<String, ProbeResults>,
}

/// The mailbox of one worker.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    news: Mutex<News>,
    changed: Notify,
}

impl Inbox {
    /// Adds news and wakes the worker.
    pub(crate) fn tell(&self, add: impl FnOnce(&mut News)) {
        add(&mut self.lock());
        self.changed.notify_one();
    }

    /// Everything since the last call.
    pub(crate) fn take(&self) -> News {
        std::mem::take(&mut *self.lock())
    }

    /// Returns when there is something to take, also if it was told before.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl News {
    pub(crate) fn add_sandbox(&mut self, sandbox: ObservedSandbox) {
        self.sandboxes.insert(sandbox.id.clone(), sandbox);
    }

    /// A report may be older than one that waits here already.
    pub(crate) fn add_container(&mut self, container: ObservedContainer) {
        match self.containers.get(&container.id) {
            Some(known) if known.state > container.state => {}
            _ => {
                self.containers.insert(container.id.clone(), container);
            }
        }
    }
}
