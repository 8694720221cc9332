//! Brings the kernel to what the table wants: one batch at a time, each with all that changed meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Clock, Tasks};
use tracing::{debug, info, warn};

use super::caches::ServiceCaches;
use super::compile::{self, Location};
use super::inbox::{Dirty, HostPorts};
use super::model::Owner;
use super::rules::{self, Place};
use super::table::{Changes, Retie, Table};
use crate::conntrack;
use crate::nft::{Batch, CommitError, Element, Socket, Watch};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
const RETIE_ATTEMPTS: usize = 3;

/// The kernel's side of the proxy: a table and the socket to it.
#[derive(Debug)]
pub(super) struct Kernel {
    socket: Socket,
    table: String,
    place: Place,
}

pub(super) struct Applier {
    pub(super) kernel: Option<Kernel>,
    pub(super) watch: Watch,
    pub(super) table: Table,
    pub(super) caches: ServiceCaches,
    pub(super) host_ports: HostPorts,
    pub(super) here: Location,
    pub(super) clock: Clock,
    pub(super) tasks: Tasks,
}

impl Kernel {
    pub(super) fn new(socket: Socket, table: String, place: Place) -> Self {
        Self { socket, table, place }
    }

    /// True if a table of this name is there already.
    pub(super) fn adopts(&mut self) -> bool {
        self.socket.elements(&self.table, rules::HAIRPINS).is_ok()
    }

    /// Makes these changes, or everything anew, and then ends what still uses endpoints that are gone.
    pub(super) fn apply(&mut self, changes: &Changes, anew: bool) -> Result<(), CommitError> {
        let batch = if anew {
            rules::replace(&self.table, &self.place, changes)
        } else {
            rules::update(&self.table, changes)
        };
        self.socket.commit(batch)?;
        match conntrack::delete_stale(&mut self.socket, &changes.stale) {
            Ok(0) => {}
            Ok(count) => debug!(count, "deleted stale UDP connection tracking entries"),
            Err(error) => warn!(%error, "can't delete stale UDP connection tracking entries"),
        }
        if let Err(error) = self.retie(&changes.reties) {
            warn!(%error, "can't keep clients with their endpoints");
        }
        Ok(())
    }

    /// Clients stick to numbers: when endpoints get others, the clients must.
    fn retie(&mut self, reties: &[Retie]) -> Result<(), CommitError> {
        if reties.is_empty() {
            return Ok(());
        }
        let mut attempt = 1;
        loop {
            let ties = self.socket.elements(&self.table, rules::AFFINITY).map_err(|source| CommitError {
                table: self.table.clone(),
                change: "list affinity".into(),
                source,
            })?;
            let changed: Vec<_> =
                ties.iter().filter_map(|tie| Some((tie, rules::retied(tie, reties)?))).collect();
            let old: Vec<Element> = changed.iter().map(|(tie, _)| Element::Key(tie.key().to_vec())).collect();
            let new: Vec<Element> = changed.into_iter().filter_map(|(_, new)| new).collect();
            let mut batch = Batch::new(&self.table);
            batch.delete_elements(rules::AFFINITY, &old);
            batch.add_elements(rules::AFFINITY, &new);
            match self.socket.commit(batch) {
                // One of them timed out meanwhile.
                Err(error)
                    if error.source.raw_os_error() == Some(libc::ENOENT) && attempt < RETIE_ATTEMPTS =>
                {
                    attempt += 1;
                }
                other => return other,
            }
        }
    }
}

impl Applier {
    pub(super) async fn run(mut self) {
        let fresh = match self.kernel.as_mut().map(Kernel::adopts) {
            Some(adopts) => !adopts,
            None => return,
        };
        // An earlier run's rules go on working until all of them can be replaced.
        if !fresh {
            self.caches.synced().await;
        }
        let inbox = self.host_ports.0.clone();
        let from_caches = inbox.clone();
        self.caches.on_change(move |key| from_caches.service_changed(key));
        let mut anew = true;
        let mut retry = FIRST_RETRY;
        loop {
            let dirty = inbox.take();
            let sequence = dirty.sequence;
            self.compile(dirty);
            let changes = if anew { self.table.everything() } else { self.table.changes() };
            match self.apply(changes, anew).await {
                Ok(()) => {
                    anew = false;
                    retry = FIRST_RETRY;
                    inbox.applied(sequence, None);
                    tokio::select! {
                        () = inbox.changed() => {}
                        () = self.lost() => {
                            warn!("somebody deleted the service rules, making them anew");
                            anew = true;
                        }
                    }
                }
                // The table isn't what we think: somebody else changed it.
                Err(error) if !anew => {
                    warn!(%error, "can't update services, making them anew");
                    anew = true;
                }
                Err(error) => {
                    warn!(%error, "can't program services, trying again in {retry:?}");
                    inbox.applied(sequence, Some(error.to_string()));
                    tokio::select! {
                        () = self.clock.wait(retry) => {}
                        () = inbox.changed() => {}
                    }
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    }

    /// Returns when our table is gone.
    async fn lost(&mut self) {
        loop {
            if let Err(error) = self.watch.deleted().await {
                warn!(%error, "can't watch the service rules");
                std::future::pending::<()>().await;
            }
            if self.kernel.as_mut().is_some_and(|kernel| !kernel.adopts()) {
                return;
            }
        }
    }

    fn compile(&mut self, mut dirty: Dirty) {
        if let Some(zone) = dirty.zone.filter(|zone| *zone != self.here.zone) {
            self.here.zone = zone;
            let service =
                |owner: &Owner| if let Owner::Service(key) = owner { Some(key.clone()) } else { None };
            dirty.services.extend(self.table.owners().filter_map(service));
        }
        for key in dirty.services {
            let frontends = match self.caches.services.get_key(&key) {
                Some(service) => compile::service(&service, &self.caches.slices_of(&key), &self.here),
                None => BTreeMap::new(),
            };
            self.table.set(&Owner::Service(key), frontends);
        }
        for (sandbox, ports) in dirty.sandboxes {
            let frontends =
                ports.iter().flat_map(|(pod, port)| compile::host_ports(*pod, std::slice::from_ref(port)));
            let frontends = frontends.collect();
            self.table.set(&Owner::Sandbox(sandbox), frontends);
        }
    }

    async fn apply(&mut self, changes: Changes, anew: bool) -> Result<(), CommitError> {
        if changes.is_empty() && !anew {
            return Ok(());
        }
        let Some(mut kernel) = self.kernel.take() else { return Ok(()) };
        let (added, deleted) = changes.len();
        let (kernel, result) = self
            .tasks
            .blocking(move || {
                let result = kernel.apply(&changes, anew);
                (kernel, result)
            })
            .await;
        self.kernel = Some(kernel);
        if result.is_ok() && anew {
            info!(added, "service rules programmed");
        } else if result.is_ok() {
            debug!(added, deleted, "service rules updated");
        }
        result
    }
}
