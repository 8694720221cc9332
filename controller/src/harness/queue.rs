//! The queue of objects to look at.
//!
//! Promises: a key that is added several times before it is taken is taken once; a key is never held by two
//! workers; a key added while it is held is taken again after it was returned; a delayed key is due no
//! earlier than asked. The state is pure; [`WorkQueue`] adds the lock and the waiting.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::Clock;
use client::Key;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::metrics::Counters;

const BACKOFF_START: Duration = Duration::from_millis(20);
const BACKOFF_LIMIT: Duration = Duration::from_secs(60);

/// Keys to look at, shared by those who notice changes and the workers.
#[derive(Debug)]
pub struct WorkQueue {
    state: Mutex<State>,
    arrived: Notify,
    clock: Clock,
    counters: Arc<Counters>,
}

/// How a queue is right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The keys that wait for a worker.
    pub depth: usize,
    /// How long the workers have held the keys that they hold, all together.
    pub unfinished: Duration,
    /// How long the longest of them.
    pub longest: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// Ready, in order of arrival. No key twice.
    ready: VecDeque<Key>,
    /// What is in `ready`, or was added while it was held; since when.
    wanted: HashMap<Key, Instant>,
    /// Held by a worker, since when. Disjoint from `ready`.
    held: BTreeMap<Key, Instant>,
    /// Due later; may hold a key several times.
    delayed: BinaryHeap<Reverse<(Instant, Key)>>,
    failures: HashMap<Key, u32>,
}

impl WorkQueue {
    /// An empty queue, which counts here.
    pub(super) fn new(clock: Clock, counters: Arc<Counters>) -> Self {
        Self { state: Mutex::default(), arrived: Notify::new(), clock, counters }
    }

    /// Asks for `key` to be looked at.
    pub fn add(&self, key: Key) {
        let now = self.clock.instant();
        if self.lock().add(key, now, &self.counters) {
            self.arrived.notify_one();
        }
    }

    /// Asks for `key` to be looked at after `delay`.
    pub fn add_after(&self, key: Key, delay: Duration) {
        self.counters.retries.fetch_add(1, Relaxed);
        self.lock().delayed.push(Reverse((self.clock.instant() + delay, key)));
        self.arrived.notify_one();
    }

    /// Waits for a key. It must be given back by [`WorkQueue::done`] or [`WorkQueue::failed`].
    pub async fn take(&self) -> Key {
        loop {
            let next_due = {
                let mut state = self.lock();
                if let Some(key) = state.take(self.clock.instant(), &self.counters) {
                    if !state.ready.is_empty() {
                        self.arrived.notify_one();
                    }
                    return key;
                }
                state.delayed.peek().map(|Reverse((at, _))| *at)
            };
            tokio::select! {
                biased;
                () = self.arrived.notified() => {}
                () = wait_until(&self.clock, next_due) => {}
            }
        }
    }

    /// Gives a key back that was dealt with.
    pub fn done(&self, key: &Key) {
        let mut state = self.lock();
        state.failures.remove(key);
        if state.give_back(key, self.clock.instant(), &self.counters) {
            self.arrived.notify_one();
        }
    }

    /// Gives a key back that could not be dealt with; it is due again after a pause that grows each time.
    /// Returns the pause.
    pub fn failed(&self, key: &Key) -> Duration {
        let mut state = self.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        let pause = (BACKOFF_START * 2_u32.pow((*failures).min(16))).min(BACKOFF_LIMIT);
        *failures += 1;
        state.delayed.push(Reverse((self.clock.instant() + pause, key.clone())));
        state.give_back(key, self.clock.instant(), &self.counters);
        self.counters.retries.fetch_add(1, Relaxed);
        self.arrived.notify_one();
        pause
    }

    /// How many keys wait, are held, and are delayed.
    pub fn lengths(&self) -> [usize; 3] {
        let state = self.lock();
        [state.ready.len(), state.held.len(), state.delayed.len()]
    }

    /// How it is now.
    pub fn figures(&self) -> Figures {
        let (state, now) = (self.lock(), self.clock.instant());
        let held = state.held.values().map(|since| now.saturating_duration_since(*since));
        let (depth, unfinished) = (state.ready.len(), held.clone().sum());
        Figures { depth, unfinished, longest: held.max().unwrap_or_default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// True if a worker may now find something that it could not before.
    fn add(&mut self, key: Key, now: Instant, counters: &Counters) -> bool {
        if self.wanted.contains_key(&key) {
            return false;
        }
        counters.adds.fetch_add(1, Relaxed);
        self.wanted.insert(key.clone(), now);
        if self.held.contains_key(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn take(&mut self, now: Instant, counters: &Counters) -> Option<Key> {
        while self.delayed.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            if let Some(Reverse((_, key))) = self.delayed.pop() {
                self.add(key, now, counters);
            }
        }
        let key = self.ready.pop_front()?;
        if let Some(since) = self.wanted.remove(&key) {
            counters.waited.observe(now.saturating_duration_since(since));
        }
        self.held.insert(key.clone(), now);
        Some(key)
    }

    fn give_back(&mut self, key: &Key, now: Instant, counters: &Counters) -> bool {
        if let Some(since) = self.held.remove(key) {
            counters.worked.observe(now.saturating_duration_since(since));
        }
        let wanted = self.wanted.contains_key(key);
        if wanted {
            self.ready.push_back(key.clone());
        }
        wanted
    }
}

async fn wait_until(clock: &Clock, at: Option<Instant>) {
    match at {
        Some(at) => clock.wait_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("default", name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_several_times_is_taken_once() {
        let queue = WorkQueue::new(Clock::system(), Arc::default());
        for name in ["a", "b", "a"] {
            queue.add(key(name));
        }
        assert_eq!((queue.take().await, queue.take().await), (key("a"), key("b")));
        assert_eq!(queue.lengths(), [0, 2, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_it_is_held_is_taken_again_after_its_return() {
        let queue = WorkQueue::new(Clock::system(), Arc::default());
        queue.add(key("a"));
        let held = queue.take().await;
        queue.add(key("a"));
        assert_eq!(queue.lengths(), [0, 1, 0], "not given to a second worker");
        queue.done(&held);
        assert_eq!(queue.take().await, key("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_after_failures_doubles_up_to_a_minute_and_success_forgets_it() {
        let queue = WorkQueue::new(Clock::system(), Arc::default());
        queue.add(key("a"));
        let mut pauses = Vec::new();
        for _ in 0..13 {
            let held = queue.take().await;
            pauses.push(queue.failed(&held).as_millis());
        }
        assert_eq!(pauses[..4], [20, 40, 80, 160]);
        assert_eq!(pauses[12], 60_000);
        let held = queue.take().await;
        queue.done(&held);
        queue.add(key("a"));
        let held = queue.take().await;
        assert_eq!(queue.failed(&held), BACKOFF_START);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_key_is_due_when_asked() {
        let queue = WorkQueue::new(Clock::system(), Arc::default());
        let start = Instant::now();
        queue.add_after(key("late"), Duration::from_secs(30));
        queue.add_after(key("soon"), Duration::from_secs(10));
        assert_eq!((queue.take().await, start.elapsed()), (key("soon"), Duration::from_secs(10)));
        assert_eq!((queue.take().await, start.elapsed()), (key("late"), Duration::from_secs(30)));
    }
}
