//! What a watch delivers.

use std::fmt;

use crate::error::Error;
use crate::types::{KeyValue, Revision};

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key as it is now. Of a deletion, only the key and `mod_revision` (that of the deletion) are set.
    pub kv: KeyValue,
    /// The key as it was before, if the watch asked for it and the key existed.
    pub prev: Option<KeyValue>,
}

/// What [`Watch::next`] yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMessage {
    /// Everything that happened to the watched keys at one revision.
    Events {
        /// When.
        revision: Revision,
        /// What; never empty, in the order of the transaction.
        events: Vec<Event>,
    },
    /// Every event up to and including this revision has been delivered.
    Progress(Revision),
}

impl WatchMessage {
    /// The revision that the message brings the watcher to.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Events { revision, .. } | Self::Progress(revision) => *revision,
        }
    }
}

/// What stands behind a [`Watch`].
#[async_trait::async_trait]
pub trait WatchSource: Send + 'static {
    /// As [`Watch::next`].
    async fn next(&mut self) -> Option<Result<WatchMessage, Error>>;
    /// As [`Watch::request_progress`].
    fn request_progress(&self);
}

/// A running watch; it ends when dropped.
pub struct Watch(Box<dyn WatchSource>);

impl Watch {
    /// A watch fed by `source`.
    pub fn new(source: impl WatchSource) -> Self {
        Self(Box::new(source))
    }

    /// The next message. An error is the last message; `None` is the end. Resume with a new watch
    /// from the revision after the last one received.
    ///
    /// Cancel safe: dropping the returned future loses nothing.
    pub async fn next(&mut self) -> Option<Result<WatchMessage, Error>> {
        self.0.next().await
    }

    /// Asks for a [`WatchMessage::Progress`] with a revision at or above every write acknowledged before
    /// this call. Several requests may be answered by one message.
    pub fn request_progress(&self) {
        self.0.request_progress();
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
