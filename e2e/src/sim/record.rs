//! A store that tells the log what it did, in order, before anybody else hears of it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use apiserver::Sealed;
use apiserver::pki::Pki;
use base::Random;
use futures::FutureExt;
use store::{
    Embedded, Error, EventKind, Range, RangeResponse, Revision, Store, Txn, TxnResponse, Watch, WatchMessage,
};
use tokio::task::unconstrained;

use super::log::Log;

/// The store of the simulated cluster.
pub(crate) struct Recorder {
    inner: Arc<Embedded>,
    everything: Mutex<Watch>,
    log: Log,
}

impl Recorder {
    /// Records what `inner` does. The log sees values as API servers with the keys of `pki` do.
    pub(crate) async fn new(inner: Arc<Embedded>, log: Log, pki: Arc<Pki>) -> Self {
        let plain = Sealed::new(inner.clone(), pki, Random::seeded(0));
        let watch = plain.watch(String::new(), Some(store::TO_THE_END.to_owned()), 0, false).await;
        #[expect(clippy::expect_used, reason = "a new store in memory answers")]
        let everything = Mutex::new(watch.expect("a watch of an empty store"));
        Self { inner, everything, log }
    }

    /// What was committed since the last call. The store in memory publishes before it answers.
    fn drain(&self) {
        let mut watch = self.everything.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(message) = unconstrained(watch.next()).now_or_never() {
            match message {
                Some(Ok(WatchMessage::Events { revision, events })) => {
                    let changes = events.into_iter().map(|event| {
                        let value = (event.kind == EventKind::Put).then_some(event.kv.value);
                        (event.kv.key, value)
                    });
                    self.log.commit(revision, changes.collect());
                }
                Some(Ok(WatchMessage::Progress(_))) => {}
                Some(Err(error)) => {
                    return self.log.report("I3", format!("the log's own watch broke: {error}"));
                }
                None => return self.log.report("I3", "the log's own watch ended".to_owned()),
            }
        }
    }
}

#[async_trait::async_trait]
impl Store for Recorder {
    async fn range(&self, range: Range) -> Result<RangeResponse, Error> {
        self.inner.range(range).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        // Leases may have expired in the meantime; that is nobody's write.
        self.drain();
        let response = self.inner.txn(txn).await;
        self.drain();
        response
    }

    async fn watch(
        &self,
        start: String,
        end: Option<String>,
        from: Revision,
        prev: bool,
    ) -> Result<Watch, Error> {
        self.inner.watch(start, end, from, prev).await
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

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}
