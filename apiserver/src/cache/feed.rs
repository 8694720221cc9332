//! What keeps the caches in step with the store: one watch over everything.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base::{Clock, Progress, Random};
use store::{Error, Event as StoreEvent, EventKind, Range, Revision, Store, Watch, WatchMessage};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::{Cache, Entry, Fields};

/// Everything that is cached lies below this prefix.
pub(super) const ROOT: &str = "/registry/";
/// Objects read at once when a cache is filled.
const PAGE: usize = 500;
/// So many revisions before the present the caches begin, so that clients that watched the process before
/// this one can resume.
const REPLAY: Revision = 1000;

/// The caches did not get to a revision in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the watch cache is at revision {current} and did not reach {wanted} in time")]
pub struct NotReached {
    pub wanted: Revision,
    pub current: Revision,
}

/// An object that is stored and can't be read.
struct Unread {
    cache: Arc<Cache>,
    key: String,
    why: String,
}

/// All caches, fed by one watch.
pub struct Caches {
    store: Arc<dyn Store>,
    clock: Clock,
    random: Random,
    by_prefix: RwLock<BTreeMap<String, Arc<Cache>>>,
    /// What every cache has reached; the same number, for reading without waiting.
    global: Arc<AtomicI64>,
    reached: Progress,
    /// Asks the feed to prove progress.
    ask: Notify,
}

impl Caches {
    /// No caches yet.
    pub fn new(store: Arc<dyn Store>, clock: Clock, random: Random) -> Self {
        Self {
            store,
            clock,
            random,
            by_prefix: RwLock::default(),
            global: Arc::new(AtomicI64::new(-1)),
            reached: Progress::new(-1),
            ask: Notify::new(),
        }
    }

    /// Adds a cache for the objects below `prefix`, before [`Caches::run`].
    pub fn add(&self, prefix: &str, fields: Fields) -> Arc<Cache> {
        let cache = Arc::new(Cache::new(prefix.to_owned(), fields, self.global.clone()));
        let mut caches = self.by_prefix.write().unwrap_or_else(PoisonError::into_inner);
        caches.entry(prefix.to_owned()).or_insert(cache).clone()
    }

    /// The cache of the objects below `prefix`.
    pub fn get(&self, prefix: &str) -> Option<Arc<Cache>> {
        self.by_prefix.read().unwrap_or_else(PoisonError::into_inner).get(prefix).cloned()
    }

    /// All caches.
    pub fn all(&self) -> Vec<Arc<Cache>> {
        self.by_prefix.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// What every cache has reached.
    pub fn revision(&self) -> Revision {
        self.global.load(Ordering::Acquire)
    }

    /// Waits until the caches show everything that was acknowledged before this call.
    pub async fn fresh(&self) -> Result<Revision, FreshError> {
        let wanted = self.store.revision().await?;
        self.reach(wanted, Duration::from_secs(10)).await?;
        Ok(wanted)
    }

    /// Waits until the caches show `wanted`.
    pub async fn reach(&self, wanted: Revision, patience: Duration) -> Result<(), NotReached> {
        if self.revision() >= wanted {
            return Ok(());
        }
        self.ask.notify_one();
        let reached = tokio::time::timeout(patience, self.reached.reached(wanted)).await;
        reached.map_err(|_| NotReached { wanted, current: self.revision() })
    }

    /// Waits until the caches have been filled for the first time.
    pub async fn filled(&self) {
        self.reached.reached(0).await;
    }

    /// Fills the caches and keeps them in step, for ever.
    pub async fn run(self: Arc<Self>) {
        let mut failures = 0u32;
        let mut position: Option<Revision> = None;
        loop {
            let started = self.clock.instant();
            let result = self.follow(&mut position).await;
            if started.elapsed() > Duration::from_secs(60) {
                failures = 0;
            }
            match result {
                Ok(()) => {}
                Err(Error::Compacted { .. } | Error::FutureRevision { .. }) if position.is_some() => {
                    warn!("the watch cache fell behind the store's history and is filled anew");
                    position = None;
                }
                // What is there now may be readable all the same; what was before need not be.
                Err(error @ Error::Damaged(_)) => {
                    error!(%error, "the watch cache can't follow the store and is filled anew");
                    position = None;
                }
                Err(error) => warn!(%error, "the watch of the store failed and is resumed"),
            }
            let backoff = Duration::from_millis(10 << failures.min(8));
            failures += 1;
            self.clock.wait(self.random.jitter(backoff, 0.5)).await;
        }
    }

    /// Follows the store from `position`, which it moves; fills the caches first if there is none.
    async fn follow(&self, position: &mut Option<Revision>) -> Result<(), Error> {
        let from = match *position {
            Some(position) => position,
            None => {
                let filled = self.fill().await?;
                *position = Some(filled);
                filled
            }
        };
        let end = store::types::prefix_end(ROOT);
        let mut watch = self.store.watch(ROOT.to_owned(), Some(end), from + 1, false).await?;
        // Whoever waits for a revision gets it also if nothing happens.
        watch.request_progress();
        loop {
            let Some(message) = self.next(&mut watch).await else { return Ok(()) };
            let message = message?;
            let revision = message.revision();
            if let WatchMessage::Events { events, .. } = message {
                for unread in self.apply(revision, &events) {
                    self.damage(unread, revision).await;
                }
            }
            *position = Some(revision.max(position.unwrap_or(0)));
            self.move_on(revision);
        }
    }

    async fn next(&self, watch: &mut Watch) -> Option<Result<WatchMessage, Error>> {
        loop {
            tokio::select! {
                biased;
                message = watch.next() => return message,
                () = self.ask.notified() => watch.request_progress(),
            }
        }
    }

    /// Everything up to `revision` is in the caches and in the watchers' queues.
    fn move_on(&self, revision: Revision) {
        if revision > self.global.load(Ordering::Acquire) {
            self.global.store(revision, Ordering::Release);
            self.reached.advance(revision);
        }
    }

    /// Reads everything as of a revision a little before the present; returns that revision.
    async fn fill(&self) -> Result<Revision, Error> {
        let present = self.store.revision().await?;
        let mut at = if present > REPLAY { present - REPLAY } else { present };
        // A cache that was filled before must not go back in time.
        at = at.max(self.revision()).max(0);
        let (mut entries, unread) = loop {
            match self.read_all(at).await {
                Err(Error::Compacted { revision }) if revision > at => at = revision.min(present),
                other => break other?,
            }
        };
        let total: usize = entries.values().map(Vec::len).sum();
        for cache in self.all() {
            cache.replace(entries.remove(cache.prefix()).unwrap_or_default(), at);
        }
        for unread in unread {
            self.damage(unread, at).await;
        }
        info!(objects = total, revision = at, "watch cache filled");
        // The present may be the very revision that was read: then no event comes to say so.
        if at == present {
            self.move_on(at);
        }
        Ok(at)
    }

    /// Everything as of a revision, by the prefixes of the caches; and what can't be read.
    async fn read_all(
        &self,
        at: Revision,
    ) -> Result<(BTreeMap<String, Vec<Arc<Entry>>>, Vec<Unread>), Error> {
        let mut all: BTreeMap<String, Vec<Arc<Entry>>> = BTreeMap::new();
        let mut unread = Vec::new();
        let mut range = Range::prefix(ROOT).limit(PAGE).at(at);
        // After a page with a value that the store can't give, so many are read one by one.
        let mut singly = 0;
        loop {
            let limit = if singly > 0 { 1 } else { PAGE };
            singly = usize::saturating_sub(singly, 1);
            let page = match self.store.range(range.clone().limit(limit)).await {
                Err(Error::Damaged(_)) if limit > 1 => {
                    singly = PAGE;
                    continue;
                }
                // Its key is known all the same.
                Err(Error::Damaged(why)) => {
                    let page = self.store.range(range.clone().limit(1).keys_only()).await?;
                    let routed = page.kvs.first().and_then(|kv| self.route(&kv.key));
                    unread.extend(routed.map(|(cache, key)| Unread { cache, key: key.to_owned(), why }));
                    range = match page.kvs.last() {
                        Some(last) if page.more => range.after(&last.key),
                        _ => return Ok((all, unread)),
                    };
                    continue;
                }
                other => other?,
            };
            for kv in &page.kvs {
                let Some((cache, key)) = self.route(&kv.key) else { continue };
                match cache.entry(key, &kv.value, kv.mod_revision) {
                    Ok(entry) => all.entry(cache.prefix().to_owned()).or_default().push(entry),
                    Err(error) => {
                        unread.push(Unread { cache, key: key.to_owned(), why: error.to_string() });
                    }
                }
            }
            match page.kvs.last() {
                Some(last) if page.more => range = range.after(&last.key),
                _ => return Ok((all, unread)),
            }
        }
    }

    /// Notes that an object can't be read, and tells whoever runs the cluster: with the words of the store, if it is the
    /// store that can't.
    async fn damage(&self, unread: Unread, revision: Revision) {
        let Unread { cache, key, why } = unread;
        let stored = format!("{}{key}", cache.prefix());
        let why = match self.store.range(Range::key(stored)).await {
            Err(error @ Error::Damaged(_)) => error.to_string(),
            _ => why,
        };
        error!(
            resource = cache.prefix(),
            key, why, "a stored object can't be read, so its kind can't be listed"
        );
        cache.damage(&key, why, revision);
    }

    /// Applies what happened; what of it can't be read.
    fn apply(&self, revision: Revision, events: &[StoreEvent]) -> Vec<Unread> {
        let mut unread = Vec::new();
        let now = self.clock.instant();
        let mut grouped: Vec<(Arc<Cache>, Vec<(String, Option<Arc<Entry>>)>)> = Vec::with_capacity(1);
        for event in events {
            let Some((cache, key)) = self.route(&event.kv.key) else { continue };
            let entry = match event.kind {
                EventKind::Delete => None,
                EventKind::Put => match cache.entry(key, &event.kv.value, event.kv.mod_revision) {
                    Ok(entry) => Some(entry),
                    Err(error) => {
                        unread.push(Unread { cache, key: key.to_owned(), why: error.to_string() });
                        continue;
                    }
                },
            };
            let change = (key.to_owned(), entry);
            match grouped.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &cache)) {
                Some((_, changes)) => changes.push(change),
                None => grouped.push((cache, vec![change])),
            }
        }
        for (cache, changes) in grouped {
            cache.apply(revision, changes, now);
        }
        unread
    }

    /// The cache that a store key belongs to, and the key within it.
    fn route<'k>(&self, key: &'k str) -> Option<(Arc<Cache>, &'k str)> {
        let caches = self.by_prefix.read().unwrap_or_else(PoisonError::into_inner);
        let (prefix, cache) = caches.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        Some((cache.clone(), key.strip_prefix(prefix.as_str())?))
    }
}

/// Why a consistent read could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FreshError {
    #[error(transparent)]
    Store(#[from] Error),
    #[error(transparent)]
    NotReached(#[from] NotReached),
}

impl std::fmt::Debug for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caches").field("revision", &self.revision()).finish_non_exhaustive()
    }
}
