//! What waits for the applier: which services changed, and the host ports of sandboxes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::Key;
use tokio::sync::{Notify, watch};

use crate::config::HostPort;
use crate::error::Error;

/// The ports of the node that lead to its pods. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HostPorts(pub(super) Arc<Inbox>);

/// Bounded by the number of services and sandboxes.
#[derive(Debug)]
pub(super) struct Inbox {
    dirty: Mutex<Dirty>,
    changed: Notify,
    applied: watch::Sender<Applied>,
}

/// All that changed since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) services: BTreeSet<Key>,
    /// Each with its ports now; none when the sandbox is gone.
    pub(super) sandboxes: BTreeMap<String, Vec<(Ipv4Addr, HostPort)>>,
    /// The zone of this node, if it is news.
    pub(super) zone: Option<Option<String>>,
    pub(super) sequence: u64,
}

#[derive(Clone, Debug, Default)]
struct Applied {
    sequence: u64,
    error: Option<String>,
}

impl HostPorts {
    /// No host ports yet. Hand it to [`super::Proxy::start`], which programs them.
    pub fn new() -> Self {
        let inbox =
            Inbox { dirty: Mutex::default(), changed: Notify::new(), applied: watch::Sender::default() };
        Self(Arc::new(inbox))
    }

    /// Replaces the host ports of a sandbox; returns when they are programmed. After a restart that is when the
    /// services are known, too, so that nothing of the earlier ruleset is lost in between.
    pub async fn set(&self, sandbox: &str, address: Ipv4Addr, ports: Vec<HostPort>) -> Result<(), Error> {
        let ports = ports.into_iter().map(|port| (address, port)).collect();
        self.0.program(sandbox, ports).await
    }

    /// Forgets the host ports of a sandbox; returns when they are closed.
    pub async fn remove(&self, sandbox: &str) -> Result<(), Error> {
        self.0.program(sandbox, Vec::new()).await
    }
}

impl Default for HostPorts {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    pub(super) fn service_changed(&self, key: Key) {
        let mut dirty = self.lock();
        dirty.services.insert(key);
        dirty.sequence += 1;
        drop(dirty);
        self.changed.notify_one();
    }

    pub(super) fn zone_is(&self, zone: Option<String>) {
        self.lock().zone = Some(zone);
        self.changed.notify_one();
    }

    /// Returns when something may have changed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn take(&self) -> Dirty {
        let mut dirty = self.lock();
        let next = Dirty { sequence: dirty.sequence, ..Dirty::default() };
        mem::replace(&mut dirty, next)
    }

    /// Everything up to this sequence number is in the kernel, or refused by it.
    pub(super) fn applied(&self, sequence: u64, error: Option<String>) {
        self.applied.send_replace(Applied { sequence, error });
    }

    async fn program(&self, sandbox: &str, ports: Vec<(Ipv4Addr, HostPort)>) -> Result<(), Error> {
        let mut applied = self.applied.subscribe();
        let sequence = {
            let mut dirty = self.lock();
            dirty.sandboxes.insert(sandbox.to_owned(), ports);
            dirty.sequence += 1;
            dirty.sequence
        };
        self.changed.notify_one();
        // The sender lives in `self`, so waiting can't fail.
        let Ok(applied) = applied.wait_for(|applied| applied.sequence >= sequence).await else {
            return Ok(());
        };
        match &applied.error {
            None => Ok(()),
            Some(error) => Err(Error::kernel(format!("host ports of sandbox {sandbox}"))(io::Error::other(
                error.clone(),
            ))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
