//! Any store with faults injected from a seed, for simulation.
//!
//! What it does is what a real store may do: fail before or after a transaction was applied, answer late,
//! break a watch, deliver events late, compact early. It never lies.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{Clock, Random};
use futures::FutureExt;

use crate::Store;
use crate::error::Error;
use crate::types::{Range, RangeResponse, Revision, Txn, TxnResponse};
use crate::watch::{Watch, WatchMessage, WatchSource};

/// How often each fault happens, per thousand opportunities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A read fails.
    pub read_fails: u64,
    /// A transaction fails before it is applied.
    pub fails_before: u64,
    /// A transaction is applied, but its answer is lost.
    pub fails_after: u64,
    /// An operation takes up to `delay` longer.
    pub delays: u64,
    /// A watch ends with an error instead of its next message.
    pub watch_breaks: u64,
    /// A watch message comes up to `delay` later (and with it all that follow it).
    pub event_delays: u64,
    /// A transaction is followed by the compaction of all history before it.
    pub compacts: u64,
    /// The longest delay.
    pub delay: Duration,
}

impl Faults {
    /// A mix that finds bugs.
    pub fn some() -> Self {
        Self {
            read_fails: 5,
            fails_before: 5,
            fails_after: 5,
            delays: 50,
            watch_breaks: 5,
            event_delays: 50,
            compacts: 2,
            delay: Duration::from_secs(2),
        }
    }
}

/// A store with injected faults.
pub struct Faulty {
    inner: Arc<dyn Store>,
    injector: Injector,
}

#[derive(Clone)]
struct Injector {
    clock: Clock,
    random: Random,
    faults: Arc<Mutex<Faults>>,
    injected: Arc<AtomicU64>,
}

impl Injector {
    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happens(&self, per_thousand: u64) -> bool {
        // Drawn also when it can't happen, so that changing one rate leaves the others' draws alone.
        let happens = self.random.below(1000) < per_thousand;
        if happens {
            self.injected.fetch_add(1, Ordering::Relaxed);
        }
        happens
    }

    fn fail(&self, per_thousand: u64, what: &str) -> Result<(), Error> {
        if self.happens(per_thousand) {
            Err(Error::Unavailable(format!("injected fault: {what}")))
        } else {
            Ok(())
        }
    }

    fn delay(&self, per_thousand: u64) -> Option<Duration> {
        let length = self.random.below(u64::try_from(self.faults().delay.as_micros()).unwrap_or(u64::MAX));
        self.happens(per_thousand).then(|| Duration::from_micros(length))
    }

    async fn pause(&self) {
        if let Some(delay) = self.delay(self.faults().delays) {
            self.clock.wait(delay).await;
        }
    }
}

impl Faulty {
    /// Wraps `inner`. The same `random` and the same calls give the same faults.
    pub fn new(inner: Arc<dyn Store>, clock: Clock, random: Random, faults: Faults) -> Self {
        Self {
            inner,
            injector: Injector {
                clock,
                random,
                faults: Arc::new(Mutex::new(faults)),
                injected: Arc::default(),
            },
        }
    }

    /// Changes how often faults happen, also to watches that run.
    pub fn set(&self, faults: Faults) {
        *self.injector.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// How many faults were injected.
    pub fn injected(&self) -> u64 {
        self.injector.injected.load(Ordering::Relaxed)
    }
}

#[async_trait::async_trait]
impl Store for Faulty {
    async fn range(&self, range: Range) -> Result<RangeResponse, Error> {
        self.injector.pause().await;
        self.injector.fail(self.injector.faults().read_fails, "a read failed")?;
        self.inner.range(range).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        let faults = self.injector.faults();
        self.injector.pause().await;
        self.injector.fail(faults.fails_before, "a transaction failed before it was applied")?;
        let response = self.inner.txn(txn).await?;
        if self.injector.happens(faults.compacts) {
            match self.inner.compact(response.revision).await {
                Ok(()) | Err(Error::Compacted { .. }) => {}
                Err(error) => tracing::debug!(%error, "injected compaction"),
            }
        }
        self.injector.pause().await;
        self.injector.fail(faults.fails_after, "the answer to a transaction was lost")?;
        Ok(response)
    }

    async fn watch(
        &self,
        start: String,
        end: Option<String>,
        from: Revision,
        prev: bool,
    ) -> Result<Watch, Error> {
        self.injector.pause().await;
        self.injector.fail(self.injector.faults().read_fails, "a watch could not start")?;
        let inner = self.inner.watch(start, end, from, prev).await?;
        Ok(Watch::new(FaultyWatch { inner, injector: self.injector.clone(), held: None, broken: false }))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.compact(revision).await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<i64, Error> {
        self.injector.fail(self.injector.faults().fails_before, "a lease was not granted")?;
        self.inner.lease_grant(ttl).await
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<(), Error> {
        self.injector.fail(self.injector.faults().fails_before, "a lease was not kept alive")?;
        self.inner.lease_keep_alive(id).await
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), Error> {
        self.inner.lease_revoke(id).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.injector.fail(self.injector.faults().read_fails, "a read failed")?;
        self.inner.revision().await
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("faults", &self.injector.faults()).finish_non_exhaustive()
    }
}

struct FaultyWatch {
    inner: Watch,
    injector: Injector,
    /// Received, and to be delivered from then on: kept here so that `next` stays cancel safe.
    held: Option<(tokio::time::Instant, Result<WatchMessage, Error>)>,
    broken: bool,
}

#[async_trait::async_trait]
impl WatchSource for FaultyWatch {
    async fn next(&mut self) -> Option<Result<WatchMessage, Error>> {
        if self.broken {
            return None;
        }
        if self.held.is_none() {
            // What had arrived already follows at once: a delay holds up everything behind it, it does not add up.
            let (message, waited) = match self.inner.next().now_or_never() {
                Some(message) => (message?, false),
                None => (self.inner.next().await?, true),
            };
            let faults = self.injector.faults();
            let message = self.injector.fail(faults.watch_breaks, "a watch broke").and(message);
            let delay = self.injector.delay(faults.event_delays).filter(|_| waited).unwrap_or_default();
            self.held = Some((self.injector.clock.instant() + delay, message));
        }
        let until = self.held.as_ref().map(|(until, _)| *until)?;
        if until > self.injector.clock.instant() {
            self.injector.clock.wait_until(until).await;
        }
        let (_, message) = self.held.take()?;
        self.broken = message.is_err();
        Some(message)
    }

    fn request_progress(&self) {
        self.inner.request_progress();
    }
}
