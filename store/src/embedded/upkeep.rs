//! What the embedded store does by the clock: leases expire, old history is compacted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::Clock;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::embedded::core::Request;
use crate::embedded::{Options, WeakWriter};
use crate::error::Error;
use crate::types::Revision;

/// The longest lease, as in etcd.
pub(crate) const MAX_LEASE_SECONDS: i64 = 9_000_000_000;
/// How long to wait before a failed expiry or compaction is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// When leases end. As in etcd only the leases are stored, not their deadlines: after a restart each
/// starts anew.
#[derive(Debug)]
pub(crate) struct Leases {
    clock: Clock,
    deadlines: Mutex<BTreeMap<i64, Lease>>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    seconds: i64,
    deadline: Instant,
}

impl Leases {
    pub(crate) fn new(clock: Clock, leases: Vec<(i64, i64)>) -> Self {
        let this = Self { clock, deadlines: Mutex::default(), changed: Notify::new() };
        for (id, seconds) in leases {
            this.add(id, seconds);
        }
        this
    }

    fn deadlines(&self) -> MutexGuard<'_, BTreeMap<i64, Lease>> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deadline(&self, seconds: i64) -> Instant {
        self.clock.instant() + Duration::from_secs(seconds.clamp(1, MAX_LEASE_SECONDS) as u64)
    }

    pub(crate) fn add(&self, id: i64, seconds: i64) {
        let deadline = self.deadline(seconds);
        self.deadlines().insert(id, Lease { seconds, deadline });
        self.changed.notify_one();
    }

    pub(crate) fn renew(&self, id: i64) -> Result<(), Error> {
        let mut deadlines = self.deadlines();
        let lease = deadlines.get_mut(&id).ok_or(Error::LeaseNotFound(id))?;
        // Later only, so the expiry task need not be woken.
        lease.deadline = self.deadline(lease.seconds);
        Ok(())
    }

    pub(crate) fn remove(&self, id: i64) {
        self.deadlines().remove(&id);
    }

    /// The leases that are over, taken out, or when to look again.
    fn take_expired(&self) -> Result<Vec<(i64, Lease)>, Option<Instant>> {
        let now = self.clock.instant();
        let mut deadlines = self.deadlines();
        let over: Vec<_> = deadlines
            .iter()
            .filter(|(_, lease)| lease.deadline <= now)
            .map(|(id, lease)| (*id, *lease))
            .collect();
        if over.is_empty() {
            return Err(deadlines.values().map(|lease| lease.deadline).min());
        }
        for (id, _) in &over {
            deadlines.remove(id);
        }
        Ok(over)
    }
}

/// Revokes leases when their time is over, until the store is closed.
pub(crate) async fn expire(leases: std::sync::Arc<Leases>, writer: WeakWriter) {
    loop {
        let over = match leases.take_expired() {
            Ok(over) => over,
            Err(None) => {
                leases.changed.notified().await;
                continue;
            }
            Err(Some(deadline)) => {
                tokio::select! {
                    () = leases.clock.wait_until(deadline) => {}
                    () = leases.changed.notified() => {}
                }
                continue;
            }
        };
        for (id, lease) in over {
            match writer.submit(Request::LeaseRevoke(id)).await {
                None => return,
                Some(Ok(_) | Err(Error::LeaseNotFound(_))) => {}
                Some(Err(error)) => {
                    tracing::warn!(lease = id, %error, "a lease can't expire; it is tried again soon");
                    let deadline = leases.clock.instant() + RETRY;
                    leases.deadlines().insert(id, Lease { deadline, ..lease });
                }
            }
        }
    }
}

/// How far back history goes.
#[derive(Debug)]
pub(crate) struct Retention {
    clock: Clock,
    options: Options,
    state: Mutex<History>,
    /// There is history to wait for, or too much of it.
    changed: Notify,
}

#[derive(Debug)]
struct History {
    /// When which revision was reached: one entry per [`Retention::step`] at most.
    reached: VecDeque<(Instant, Revision)>,
    latest: Revision,
    compacted: Revision,
}

impl Retention {
    pub(crate) fn new(clock: Clock, options: Options, latest: Revision) -> Self {
        // What was there before counts from now on.
        let reached = VecDeque::from([(clock.instant(), latest)]);
        Self {
            clock,
            options,
            state: Mutex::new(History { reached, latest, compacted: 0 }),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, History> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How exactly time is kept.
    fn step(&self) -> Duration {
        self.options.history / 8
    }

    /// Notes that the store has reached `revision`.
    pub(crate) fn observe(&self, revision: Revision) {
        let now = self.clock.instant();
        let mut state = self.state();
        if revision <= state.latest {
            return;
        }
        let was_idle = state.reached.is_empty();
        // The time noted for a revision is never earlier than when it was reached.
        match state.reached.back() {
            Some((at, _)) if *at > now => {}
            _ => state.reached.push_back((now + self.step(), revision)),
        }
        if let Some(last) = state.reached.back_mut() {
            last.1 = revision;
        }
        let (before, limit) = (state.latest, self.options.revisions);
        state.latest = revision;
        let crossed = before - state.compacted <= limit && revision - state.compacted > limit;
        drop(state);
        if was_idle || crossed {
            self.changed.notify_one();
        }
    }

    /// The revision to compact to now, or when to look again (`None`: when there is something new).
    fn due(&self) -> Result<Revision, Option<Instant>> {
        let now = self.clock.instant();
        let mut state = self.state();
        let mut due = 0;
        while let Some((at, revision)) = state.reached.front().copied() {
            if at + self.options.history > now {
                break;
            }
            due = revision;
            state.reached.pop_front();
        }
        if state.latest - state.compacted > self.options.revisions {
            // A quarter at once, so that it is not done for every revision.
            due = due.max(state.latest - self.options.revisions / 4 * 3);
        }
        // The latest revision's own history is nothing yet, and the very first revision has none.
        if due > state.compacted.max(1) {
            state.compacted = due;
            return Ok(due);
        }
        Err(state.reached.front().map(|(at, _)| *at + self.options.history))
    }
}

/// Compacts history that is old enough or too much, until the store is closed.
pub(crate) async fn compact(retention: std::sync::Arc<Retention>, writer: WeakWriter) {
    loop {
        match retention.due() {
            Ok(revision) => match writer.submit(Request::Compact(revision)).await {
                None => return,
                Some(Ok(_) | Err(Error::Compacted { .. })) => {}
                Some(Err(error)) => {
                    tracing::warn!(revision, %error, "history can't be compacted; it is tried again");
                    retention.clock.wait(RETRY).await;
                    retention.state().compacted = 0;
                    retention
                        .state()
                        .reached
                        .push_front((retention.clock.instant() - retention.options.history, revision));
                }
            },
            Err(None) => retention.changed.notified().await,
            Err(Some(deadline)) => {
                tokio::select! {
                    () = retention.clock.wait_until(deadline) => {}
                    () = retention.changed.notified() => {}
                }
            }
        }
    }
}
