//! The store as the registry sees it: values of rows that are kept secret are sealed below it, and plain above it.
//!
//! Which values these are is in the rows ([`api::resource::Resource::sealed`]); no verb and no cache knows of it. A
//! value that can't be opened is an error of the whole answer, so that nobody takes it for missing or empty; in a watch
//! it stays as it is stored, which is no object, so that the other kinds go on. A server whose keys don't open everything
//! does not start ([`Sealed::check`]). Keys, their file and their change:
//! [`crate::pki::SealingKeys`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::resource::Table;
use base::{Clock, Random};
use bytes::Bytes;
use store::{
    Error, Event, KeyValue, Op, OpResult, Range, RangeResponse, Revision, Store, Txn, TxnResponse, Watch,
    WatchMessage, WatchSource,
};

use crate::pki::Pki;

/// So many values are looked at together.
const PAGE: usize = 500;

/// A store that seals what its rows want sealed.
pub struct Sealed {
    inner: Arc<dyn Store>,
    keys: Keys,
}

/// What is sealed, and how.
#[derive(Clone)]
struct Keys {
    pki: Arc<Pki>,
    random: Random,
    /// Of the places where sealed values are, with a slash at the end.
    prefixes: Arc<[String]>,
}

impl Keys {
    fn applies(&self, key: &str) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
    }

    fn seal(&self, key: &str, value: &Bytes) -> Result<Bytes, Error> {
        if !self.applies(key) {
            return Ok(value.clone());
        }
        let sealed = self.pki.sealing().seal(key, value, &self.random);
        sealed.map_err(|why| Error::TooLarge(format!("{key}: {why}")))
    }

    fn open(&self, kv: &mut KeyValue) -> Result<(), Error> {
        if !self.applies(&kv.key) {
            return Ok(());
        }
        let opened = self.pki.sealing().open(&kv.key, &kv.value);
        kv.value = opened.map_err(|why| Error::Damaged(format!("{} can't be opened: {why}", kv.key)))?;
        Ok(())
    }

    fn open_all(&self, answer: &mut RangeResponse) -> Result<(), Error> {
        answer.kvs.iter_mut().try_for_each(|kv| self.open(kv))
    }

    fn open_event(&self, event: &mut Event) -> Result<(), Error> {
        if let Err(error) = self.open(&mut event.kv) {
            tracing::error!(%error, "a value of the store stays sealed");
        }
        event.prev.as_mut().map_or(Ok(()), |prev| self.open(prev))
    }
}

impl Sealed {
    /// Seals what goes to `inner` with the keys of `pki`.
    pub fn new(inner: Arc<dyn Store>, pki: Arc<Pki>, random: Random) -> Self {
        let table = Table::builtin();
        let places = table.stored().filter(|row| row.sealed).filter_map(|row| row.prefix());
        let prefixes = places.map(|prefix| format!("{prefix}/")).collect();
        Self { inner, keys: Keys { pki, random, prefixes } }
    }

    /// Whether everything that is sealed can be opened. Waits for a store that does not answer.
    pub(crate) async fn check(&self, clock: &Clock) -> Result<(), Error> {
        loop {
            match self.read_everything().await {
                Err(error @ Error::Unavailable(_)) => {
                    tracing::warn!(%error, "what is sealed in the store is not checked yet");
                    clock.wait(self.keys.random.jitter(Duration::from_millis(500), 1.0)).await;
                }
                other => return other,
            }
        }
    }

    async fn read_everything(&self) -> Result<(), Error> {
        for prefix in self.keys.prefixes.iter() {
            let mut range = Range::prefix(prefix.as_str()).limit(PAGE);
            loop {
                let page = self.range(range.clone()).await?;
                match page.kvs.last() {
                    Some(last) if page.more => range = range.after(&last.key),
                    _ => break,
                }
            }
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Store for Sealed {
    async fn range(&self, range: Range) -> Result<RangeResponse, Error> {
        let keys_only = range.keys_only;
        let mut answer = self.inner.range(range).await?;
        if !keys_only {
            self.keys.open_all(&mut answer)?;
        }
        Ok(answer)
    }

    async fn txn(&self, mut txn: Txn) -> Result<TxnResponse, Error> {
        for op in txn.success.iter_mut().chain(&mut txn.failure) {
            if let Op::Put { key, value, .. } = op {
                *value = self.keys.seal(key, value)?;
            }
        }
        let mut answer = self.inner.txn(txn).await?;
        for result in &mut answer.results {
            if let OpResult::Get(found) = result {
                self.keys.open_all(found)?;
            }
        }
        Ok(answer)
    }

    async fn watch(
        &self,
        start: String,
        end: Option<String>,
        from: Revision,
        prev: bool,
    ) -> Result<Watch, Error> {
        let inner = self.inner.watch(start, end, from, prev).await?;
        Ok(Watch::new(SealedWatch { inner, keys: self.keys.clone(), broken: false }))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.compact(revision).await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<i64, Error> {
        self.inner.lease_grant(ttl).await
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<(), Error> {
        self.inner.lease_keep_alive(id).await
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), Error> {
        self.inner.lease_revoke(id).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.inner.revision().await
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("prefixes", &self.keys.prefixes).finish_non_exhaustive()
    }
}

struct SealedWatch {
    inner: Watch,
    keys: Keys,
    broken: bool,
}

#[async_trait::async_trait]
impl WatchSource for SealedWatch {
    async fn next(&mut self) -> Option<Result<WatchMessage, Error>> {
        if self.broken {
            return None;
        }
        let mut message = self.inner.next().await?;
        if let Ok(WatchMessage::Events { events, .. }) = &mut message
            && let Err(error) = events.iter_mut().try_for_each(|event| self.keys.open_event(event))
        {
            message = Err(error);
        }
        self.broken = message.is_err();
        Some(message)
    }

    fn request_progress(&self) {
        self.inner.request_progress();
    }
}
