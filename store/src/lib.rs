//! Revisioned key-value store with watch (etcd v3 semantics): trait, embedded and etcd implementations.
//!
//! The contract of [`Store`] is etcd's, word by word: completed operations are durable; reads never
//! return what is not durable (except the writes marked volatile, see [`Op::Put`]); operations are strictly
//! serializable; a watch is ordered, unique, reliable (no gap inside the history window), atomic per
//! revision, resumable and bookmarkable. An operation that failed is an [`Error`], never an empty answer.
//!
//! # Layout
//! - [`types`]: keys, ranges, transactions and their answers.
//! - [`watch`]: what a watch delivers.
//! - [`embedded`]: the default store, SQLite in one directory ([`Embedded`]).
//! - [`etcd`]: etcd 3.4 or newer ([`Etcd`]).
//! - [`faulty`]: any store with faults injected from a seed ([`Faulty`]).

pub mod embedded;
pub mod error;
pub mod etcd;
pub mod faulty;
pub mod types;
pub mod watch;

use std::time::Duration;

pub use embedded::{Embedded, Options};
pub use error::Error;
pub use etcd::{Etcd, EtcdConfig};
pub use faulty::{Faults, Faulty};
pub use types::{
    Compare, KeyValue, MAX_KEY_BYTES, MAX_OPS, MAX_REQUEST_BYTES, Op, OpResult, Range, RangeResponse,
    Revision, TO_THE_END, Txn, TxnResponse, VOLATILE_PREFIX,
};
pub use watch::{Event, EventKind, Watch, WatchMessage, WatchSource};

/// A revisioned key-value store. See the crate's documentation for what it promises.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads a key or a range of keys, now or at an earlier revision.
    async fn range(&self, range: Range) -> Result<RangeResponse, Error>;

    /// Compares, then runs one of two lists of operations, all at one revision, whole or not at all.
    ///
    /// After [`Error::Unavailable`] the transaction may or may not have been applied (whole or never);
    /// after every other error it has not.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error>;

    /// Watches the keys in `start..end` (`end` as in [`Range::end`]) from revision `from`, the first one wanted;
    /// 0 is whatever comes after the call's return. A revision in the future is waited for.
    ///
    /// History is needed from the revision *before* `from`, so that every event, its `prev` included, is
    /// known: `from` at or below the compacted revision is [`Error::Compacted`]. With `prev`, events carry
    /// the value that they replaced.
    async fn watch(
        &self,
        start: String,
        end: Option<String>,
        from: Revision,
        prev: bool,
    ) -> Result<Watch, Error>;

    /// Forgets history before `revision`: afterwards reads at `revision` and later are answered, and
    /// watches from `revision + 1`.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    /// Grants a lease. Keys put under it are deleted when it expires or is revoked.
    /// The time is rounded up to whole seconds.
    async fn lease_grant(&self, ttl: Duration) -> Result<i64, Error>;

    /// Starts the lease's time anew.
    async fn lease_keep_alive(&self, id: i64) -> Result<(), Error>;

    /// Ends the lease and deletes its keys, all at one revision.
    async fn lease_revoke(&self, id: i64) -> Result<(), Error>;

    /// The latest revision; everything acknowledged before the call is at or below it.
    async fn revision(&self) -> Result<Revision, Error>;
}
