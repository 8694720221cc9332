//! Time as an argument.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Tells wall time and waits.
///
/// Waiting always goes through tokio's timer, so it is virtual in a paused runtime. Wall time is the
/// machine's, or, for [`Clock::simulated`], an epoch plus the runtime's elapsed (virtual) time.
#[derive(Clone, Debug)]
pub struct Clock {
    simulated: Option<Epoch>,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    wall: Timestamp,
    started: Instant,
}

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Self {
        Self { simulated: None }
    }

    /// A clock that shows `epoch` now and advances with tokio's time. Must be called inside a runtime.
    pub fn simulated(epoch: Timestamp) -> Self {
        Self { simulated: Some(Epoch { wall: epoch, started: Instant::now() }) }
    }

    /// Wall time.
    pub fn now(&self) -> Timestamp {
        match self.simulated {
            None => Timestamp::now(),
            Some(epoch) => epoch.wall + epoch.started.elapsed(),
        }
    }

    /// A point on tokio's monotonic time line, for measuring and for deadlines.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Waits until `deadline`. For a deadline or a backoff, never as a poll interval.
    pub async fn wait_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline).await;
    }

    /// Waits for `duration`. For a deadline or a backoff, never as a poll interval.
    pub async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn simulated_wall_time_advances_with_virtual_time() {
        let epoch: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::simulated(epoch);
        clock.wait(Duration::from_secs(3600)).await;
        assert_eq!(clock.now(), "2026-01-01T01:00:00Z".parse().unwrap());
    }
}
