//! A number that only grows, and waiting for it.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;

/// How far something has got. Whoever waits is woken in the order in which it began to wait, also in a simulation:
/// tokio's `watch` channel wakes its receivers in an order that chance decides.
#[derive(Debug)]
pub struct Progress {
    reached: AtomicI64,
    moved: Notify,
}

impl Progress {
    /// Begins at `start`.
    pub fn new(start: i64) -> Self {
        Self { reached: AtomicI64::new(start), moved: Notify::new() }
    }

    /// How far it has got.
    pub fn get(&self) -> i64 {
        self.reached.load(Ordering::Acquire)
    }

    /// It has got to `to`; nothing happens if it was there already.
    pub fn advance(&self, to: i64) {
        if self.reached.fetch_max(to, Ordering::AcqRel) < to {
            self.moved.notify_waiters();
        }
    }

    /// Returns once it has got to `wanted`.
    pub async fn reached(&self, wanted: i64) {
        loop {
            // Waits from here on, so that no move between the look and the wait is missed.
            let moved = self.moved.notified();
            if self.get() >= wanted {
                return;
            }
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Tasks;

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_woken_in_order_when_the_number_is_reached() {
        let (progress, tasks) = (Arc::new(Progress::new(0)), Tasks::new("test"));
        let (woken, mut order) = tokio::sync::mpsc::channel(8);
        for (waiter, wanted) in [(1, 5), (2, 9), (3, 5)] {
            let (progress, woken) = (progress.clone(), woken.clone());
            tasks.spawn("waiter", async move {
                progress.reached(wanted).await;
                let _ = woken.send(waiter).await;
            });
        }
        tokio::task::yield_now().await;
        progress.advance(5);
        progress.advance(3);
        assert_eq!((order.recv().await, order.recv().await), (Some(1), Some(3)));
        assert_eq!(progress.get(), 5);
        progress.advance(9);
        assert_eq!(order.recv().await, Some(2));
    }
}
