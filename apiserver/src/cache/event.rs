//! One change of one object, as watchers see it.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use store::Revision;

use super::Entry;
use super::selector::Selector;

/// What a watcher is told of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    /// The word of the watch event's `type`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object. Shared by all watchers; framed at most once per [`Change`].
#[derive(Debug)]
pub struct Event {
    pub revision: Revision,
    /// The state before; `None` if the object is new.
    pub previous: Option<Arc<Entry>>,
    /// The state now; `None` if the object is gone.
    pub current: Option<Arc<Entry>>,
    gone: OnceLock<Arc<Entry>>,
    frames: [OnceLock<Bytes>; 3],
}

impl Event {
    pub(crate) fn new(revision: Revision, previous: Option<Arc<Entry>>, current: Option<Arc<Entry>>) -> Self {
        Self { revision, previous, current, gone: OnceLock::new(), frames: Default::default() }
    }

    /// The object's key within its resource.
    pub fn key(&self) -> &str {
        self.current.as_ref().or(self.previous.as_ref()).map_or("", |entry| entry.key())
    }

    /// What the event is to a watcher with this selector; `None` if it does not concern it.
    pub fn seen_by(&self, selector: &Selector) -> Option<Change> {
        let matches =
            |entry: &Option<Arc<Entry>>| entry.as_ref().is_some_and(|entry| selector.matches(entry));
        match (matches(&self.previous), matches(&self.current)) {
            (false, true) => Some(Change::Added),
            (true, true) => Some(Change::Modified),
            (true, false) => Some(Change::Deleted),
            (false, false) => None,
        }
    }

    /// The object that `change` shows: the state now, or the last state under the event's revision.
    pub fn object(&self, change: Change) -> Option<&Arc<Entry>> {
        match change {
            Change::Added | Change::Modified => self.current.as_ref(),
            Change::Deleted => {
                let previous = self.previous.as_ref()?;
                Some(self.gone.get_or_init(|| Arc::new(previous.at(self.revision))))
            }
        }
    }

    /// The event's line in a watch's JSON.
    pub fn frame(&self, change: Change) -> Bytes {
        self.frames[change as usize]
            .get_or_init(|| {
                self.object(change).map(|object| frame(change, object.bytes())).unwrap_or_default()
            })
            .clone()
    }
}

/// `{"type":"ADDED","object":…}` and a line end.
pub(crate) fn frame(change: Change, object: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + 40);
    put_frame(&mut line, change.word(), object);
    line.freeze()
}

/// Appends `{"type":WORD,"object":…}` and a line end.
pub(crate) fn put_frame(line: &mut BytesMut, word: &str, object: &[u8]) {
    line.put_slice(b"{\"type\":\"");
    line.put_slice(word.as_bytes());
    line.put_slice(b"\",\"object\":");
    line.put_slice(object);
    line.put_slice(b"}\n");
}
