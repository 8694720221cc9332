//! What is counted of one flow schema.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::seats::Reason;
use crate::metrics::Histogram;

/// Upstream's bounds of waiting times, in seconds.
const WAITS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// What is counted of one flow schema. Nothing here takes a lock.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) dispatched: AtomicU64,
    pub(crate) rejected: [AtomicU64; Reason::ALL.len()],
    pub(crate) executing: AtomicI64,
    pub(crate) executing_seats: AtomicI64,
    pub(crate) waiting: AtomicI64,
    pub(crate) waited: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            dispatched: AtomicU64::new(0),
            rejected: Default::default(),
            executing: AtomicI64::new(0),
            executing_seats: AtomicI64::new(0),
            waiting: AtomicI64::new(0),
            waited: Histogram::new(WAITS),
        }
    }
}

impl Counters {
    /// A request takes `width` seats after it has waited for `waited`.
    pub(super) fn started(&self, width: u32, waited: Duration) {
        self.dispatched.fetch_add(1, Relaxed);
        self.executing.fetch_add(1, Relaxed);
        self.executing_seats.fetch_add(i64::from(width), Relaxed);
        self.waited.observe(waited);
    }

    /// A request has given its seats back.
    pub(super) fn finished(&self, width: u32) {
        self.executing.fetch_sub(1, Relaxed);
        self.executing_seats.fetch_sub(i64::from(width), Relaxed);
    }

    /// A request waits until what this returns is dropped.
    pub(super) fn waits(&self) -> Waits<'_> {
        self.waiting.fetch_add(1, Relaxed);
        Waits(&self.waiting)
    }

    /// A request was turned away.
    pub(super) fn rejected(&self, reason: Reason) {
        self.rejected[reason as usize].fetch_add(1, Relaxed);
    }
}

/// Counts a request as waiting.
#[derive(Debug)]
pub(super) struct Waits<'a>(&'a AtomicI64);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
