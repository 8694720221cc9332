//! What can go wrong with a store.

use crate::types::Revision;

/// Why an operation was not answered. An error is never an empty answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The history before (for a watch: up to) `revision` is gone.
    #[error("the requested revision has been compacted; history starts at revision {revision}")]
    Compacted {
        /// The compacted revision: the oldest one that can still be read.
        revision: Revision,
    },
    /// A revision was asked for that the store has not reached.
    #[error("revision {requested} is in the future; the store is at revision {current}")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// Where the store is; 0 when it did not say.
        current: Revision,
    },
    /// A key, a value or the whole request is over the limit. Nothing was written.
    #[error("request is too large: {0}")]
    TooLarge(String),
    /// There is no room for the write. Nothing was written; reads go on.
    #[error("no space left for writes: {0}")]
    NoSpace(String),
    /// No answer could be had. A write may or may not have been applied (whole or never).
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The lease does not exist, or no longer.
    #[error("lease {0} not found")]
    LeaseNotFound(i64),
    /// The request makes no sense. Nothing was written.
    #[error("invalid store request: {0}")]
    Invalid(String),
    /// The store can't be opened; the text says what to do.
    #[error("{0}")]
    Open(String),
    /// What is stored can't be read.
    #[error("store is damaged: {0}")]
    Damaged(String),
}

impl Error {
    /// Whether the failed write may have been applied all the same.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
