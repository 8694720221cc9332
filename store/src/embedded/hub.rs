//! Watches on the embedded store: the hub that every commit is published to, and the watcher.
//!
//! A watcher is *live* while its bounded buffer keeps up. When the buffer is full the hub lets go of it: the
//! watcher delivers what it has, then reads on from the log, and goes live again at the point where the log
//! ends. So a slow watcher costs memory up to its bound, never blocks the writer and never misses an event.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::embedded::read;
use crate::embedded::reader::Reader;
use crate::error::Error;
use crate::types::{KeyValue, Revision, contains};
use crate::watch::{Event, EventKind, WatchMessage, WatchSource};

/// The most revisions waiting for a live watcher.
const BUFFER: usize = 1024;
/// The most bytes of values waiting for a live watcher.
const BUFFER_BYTES: usize = 8 << 20;

/// What one revision changed.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) revision: Revision,
    pub(crate) changes: Vec<Change>,
}

#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) deleted: bool,
    pub(crate) kv: KeyValue,
    pub(crate) prev: Prev,
}

/// What a change replaced. Loading it costs a read, so it is done only if a watcher wants it.
#[derive(Debug)]
pub(crate) enum Prev {
    Loaded(Option<KeyValue>),
    Unloaded,
}

#[derive(Clone, Debug)]
enum Item {
    Batch(Arc<Batch>, usize),
    Progress(Revision),
}

/// Where commits are published.
#[derive(Debug, Default)]
pub(crate) struct Hub(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    published: Revision,
    compacted: Revision,
    closed: bool,
    next_id: u64,
    /// Ordered, so that watchers are woken in the same order in every run.
    live: BTreeMap<u64, Live>,
}

#[derive(Debug)]
struct Live {
    range: Arc<KeyRange>,
    prev: bool,
    sender: mpsc::Sender<Item>,
    waiting: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct KeyRange {
    start: String,
    end: Option<String>,
}

impl KeyRange {
    fn contains(&self, key: &str) -> bool {
        contains(&self.start, self.end.as_deref(), key)
    }
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revision up to which everything was published.
    pub(crate) fn published(&self) -> Revision {
        self.state().published
    }

    /// Whether a live watcher wants to know what a change of `key` replaced.
    pub(crate) fn wants_prev(&self, key: &str) -> bool {
        self.state().live.values().any(|live| live.prev && live.range.contains(key))
    }

    /// Hands a commit's revisions to the watchers. Called after the commit, before it is acknowledged.
    pub(crate) fn publish(&self, batches: Vec<Batch>, revision: Revision, compacted: Revision) {
        let mut state = self.state();
        for batch in batches {
            let batch = Arc::new(batch);
            let bytes = batch.changes.iter().map(|change| change.kv.key.len() + change.kv.value.len()).sum();
            state.live.retain(|_, live| {
                if !batch.changes.iter().any(|change| live.range.contains(&change.kv.key)) {
                    return true;
                }
                let waiting = live.waiting.fetch_add(bytes, Ordering::Relaxed);
                if waiting > 0 && waiting + bytes > BUFFER_BYTES {
                    return false;
                }
                live.sender.try_send(Item::Batch(batch.clone(), bytes)).is_ok()
            });
        }
        state.published = state.published.max(revision);
        state.compacted = state.compacted.max(compacted);
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.live.clear();
    }

    /// A watcher from revision `from` (0 = after now).
    pub(crate) fn watch(
        self: &Arc<Self>,
        reader: Reader,
        (start, end): (String, Option<String>),
        from: Revision,
        prev: bool,
    ) -> Result<Watcher, Error> {
        let position = {
            let state = self.state();
            match from {
                0 => state.published,
                from if from <= state.compacted => {
                    return Err(Error::Compacted { revision: state.compacted });
                }
                from => from - 1,
            }
        };
        let mut watcher = Watcher {
            hub: self.clone(),
            reader,
            range: Arc::new(KeyRange { start, end }),
            prev,
            position,
            queue: VecDeque::new(),
            live: None,
            progress: AtomicBool::new(false),
            ended: false,
        };
        watcher.go_live();
        Ok(watcher)
    }
}

/// The source of one watch.
#[derive(Debug)]
pub(crate) struct Watcher {
    hub: Arc<Hub>,
    reader: Reader,
    range: Arc<KeyRange>,
    prev: bool,
    /// Everything up to here was delivered or is in `queue`.
    position: Revision,
    queue: VecDeque<WatchMessage>,
    live: Option<Receiver>,
    /// A progress message was asked for while not live.
    progress: AtomicBool,
    ended: bool,
}

#[derive(Debug)]
struct Receiver {
    id: u64,
    items: mpsc::Receiver<Item>,
    waiting: Arc<AtomicUsize>,
}

impl Watcher {
    /// Registers with the hub if there is nothing to catch up with. Returns whether it did.
    fn go_live(&mut self) -> bool {
        let mut state = self.hub.state();
        if state.closed || self.position < state.published {
            return false;
        }
        let (sender, items) = mpsc::channel(BUFFER);
        let waiting = Arc::new(AtomicUsize::new(0));
        let id = state.next_id;
        state.next_id += 1;
        let live = Live { range: self.range.clone(), prev: self.prev, sender, waiting: waiting.clone() };
        state.live.insert(id, live);
        self.live = Some(Receiver { id, items, waiting });
        if self.progress.swap(false, Ordering::Relaxed) {
            self.queue.push_back(WatchMessage::Progress(state.published));
        }
        true
    }

    fn leave(&mut self) {
        if let Some(live) = self.live.take() {
            self.hub.state().live.remove(&live.id);
        }
    }

    /// The watcher's part of a batch; `None` if something must be read from the log for it.
    fn select(&self, batch: &Batch) -> Option<WatchMessage> {
        let mut events = Vec::new();
        for change in batch.changes.iter().filter(|change| self.range.contains(&change.kv.key)) {
            let prev = match &change.prev {
                _ if !self.prev => None,
                Prev::Loaded(prev) => prev.clone(),
                Prev::Unloaded => return None,
            };
            let kind = if change.deleted { EventKind::Delete } else { EventKind::Put };
            events.push(Event { kind, kv: change.kv.clone(), prev });
        }
        Some(WatchMessage::Events { revision: batch.revision, events })
    }

    /// Takes one item of the live buffer.
    fn take(&mut self, item: Item) {
        match item {
            Item::Batch(batch, bytes) => {
                if let Some(live) = &self.live {
                    live.waiting.fetch_sub(bytes, Ordering::Relaxed);
                }
                if batch.revision <= self.position {
                    return;
                }
                match self.select(&batch) {
                    Some(message) => {
                        self.position = batch.revision;
                        self.queue.push_back(message);
                    }
                    // Committed before this watcher, the first to want previous values, came: read them.
                    None => self.leave(),
                }
            }
            Item::Progress(revision) => {
                self.position = self.position.max(revision);
                self.queue.push_back(WatchMessage::Progress(revision));
            }
        }
    }

    async fn catch_up(&mut self) -> Result<(), Error> {
        if self.hub.state().closed {
            return Err(Error::Unavailable("the store was closed".to_owned()));
        }
        let (range, position, until, prev) =
            (self.range.clone(), self.position, self.hub.published(), self.prev);
        let chunk = self
            .reader
            .read(move |connection, now| {
                read::log(connection, now, (&range.start, range.end.as_deref()), position, until, prev)
            })
            .await?;
        self.position = chunk.through;
        for batch in &chunk.batches {
            self.queue.extend(self.select(batch));
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl WatchSource for Watcher {
    async fn next(&mut self) -> Option<Result<WatchMessage, Error>> {
        loop {
            if let Some(message) = self.queue.pop_front() {
                return Some(Ok(message));
            }
            if self.ended {
                return None;
            }
            if let Some(live) = &mut self.live {
                match live.items.recv().await {
                    Some(item) => self.take(item),
                    None => self.live = None,
                }
            } else if !self.go_live()
                && let Err(error) = self.catch_up().await
            {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    fn request_progress(&self) {
        let mut state = self.hub.state();
        let published = state.published;
        if let Some(id) = self.live.as_ref().map(|live| live.id)
            && let Some(live) = state.live.get(&id)
        {
            if live.sender.try_send(Item::Progress(published)).is_ok() {
                return;
            }
            // Full: it will catch up from the log, and answer then.
            state.live.remove(&id);
        }
        self.progress.store(true, Ordering::Relaxed);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.leave();
    }
}
