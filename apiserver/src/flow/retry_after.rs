//! After how many seconds a rejected client should come again.
//!
//! The time doubles while requests are still rejected, and shrinks by a second at a time when few are. As upstream's.

use std::collections::VecDeque;

const LONGEST: i64 = 32;

/// What was rejected in the last seconds, at one priority level.
#[derive(Debug)]
pub(super) struct RetryAfter {
    seconds: i64,
    /// Second and how many, oldest first; no longer than [`LONGEST`] and one more.
    history: VecDeque<(i64, i64)>,
    doubled: i64,
}

impl Default for RetryAfter {
    fn default() -> Self {
        Self { seconds: 1, history: VecDeque::new(), doubled: i64::MIN / 2 }
    }
}

impl RetryAfter {
    /// Counts a rejection in the second `now`; what to tell the client.
    pub(super) fn rejected(&mut self, now: i64) -> u32 {
        match self.history.back_mut() {
            Some((second, count)) if *second == now => *count += 1,
            _ => {
                self.history.push_back((now, 1));
                while self.history.len() > LONGEST as usize + 1
                    || self.history.front().is_some_and(|(second, _)| now - second > LONGEST)
                {
                    self.history.pop_front();
                }
                self.adapt(now);
            }
        }
        u32::try_from(self.seconds).unwrap_or(1)
    }

    fn adapt(&mut self, now: i64) {
        let recent = self.history.iter().filter(|(second, _)| *second < now && now - second <= self.seconds);
        let rejected: i64 = recent.map(|(_, count)| count).sum();
        if now - self.doubled >= self.seconds && rejected >= 3 * self.seconds {
            self.seconds = (self.seconds * 2).min(LONGEST);
            self.doubled = now;
        } else if rejected < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_grows_while_requests_are_rejected_and_shrinks_afterwards() {
        let mut retry = RetryAfter::default();
        let mut told = Vec::new();
        for now in 0..80 {
            for _ in 0..200 {
                told.push(retry.rejected(now));
            }
        }
        assert_eq!((told[0], told.iter().max()), (1, Some(&32)));
        assert!(retry.history.len() <= 33);
        let later: Vec<u32> = (200..240).map(|now| retry.rejected(now * 40)).collect();
        assert_eq!((later[0], later[39]), (31, 1));
    }
}
