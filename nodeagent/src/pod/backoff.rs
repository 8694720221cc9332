//! Crash-loop backoff: the first restart is at once, then after 10 s, doubling up to 5 minutes; a container
//! that ran for 10 minutes since is forgiven.

use std::time::Duration;

use jiff::Timestamp;

/// The first wait.
pub const START: Duration = Duration::from_secs(10);
/// The longest wait.
pub const LIMIT: Duration = Duration::from_secs(300);
/// A container that ends later than this after its last restart starts over.
pub const FORGIVEN: Duration = Duration::from_secs(600);

/// The restarts of one container so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// How long to wait after the container's next end.
    pub delay: Duration,
    /// When it was restarted last.
    pub updated: Timestamp,
}

/// When a container that ended at `finished` may be started again; `None` means at once.
pub fn restart_at(entry: Option<&Backoff>, finished: Timestamp) -> Option<(Timestamp, Duration)> {
    let entry = entry?;
    if is_forgiven(entry, finished) {
        return None;
    }
    Some((finished + entry.delay, entry.delay))
}

/// The state after a restart, at `now`, of a container that ended at `finished`.
pub fn after_restart(entry: Option<&Backoff>, finished: Timestamp, now: Timestamp) -> Backoff {
    let delay = match entry {
        Some(entry) if !is_forgiven(entry, finished) => (entry.delay * 2).min(LIMIT),
        _ => START,
    };
    Backoff { delay, updated: now }
}

fn is_forgiven(entry: &Backoff, finished: Timestamp) -> bool {
    finished.duration_since(entry.updated) > jiff::SignedDuration::try_from(FORGIVEN).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crashing_container_waits_10_s_doubling_to_5_minutes() {
        let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut entry = None;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let finished = now;
            let at = restart_at(entry.as_ref(), finished).map_or(finished, |(at, _)| at);
            waits.push(at.duration_since(finished).as_secs());
            now = at;
            entry = Some(after_restart(entry.as_ref(), finished, now));
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_container_that_ran_for_more_than_10_minutes_starts_over() {
        let restarted: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let entry = Backoff { delay: LIMIT, updated: restarted };
        let finished = restarted + Duration::from_secs(601);
        assert_eq!(restart_at(Some(&entry), finished), None);
        assert_eq!(after_restart(Some(&entry), finished, finished).delay, START);
    }
}
