//! The last events of a resource, for watches that resume and lists of the recent past.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use store::Revision;
use tokio::time::Instant;

use super::Event;

/// The most events kept, whatever their age.
const MOST: usize = 16 * 1024;
/// So many are kept, whatever their age.
const LEAST: usize = 128;
/// Beyond [`LEAST`], older events are let go.
const AGE: Duration = Duration::from_secs(90);

/// The last events of a resource, without a gap.
#[derive(Default)]
pub(super) struct Window {
    events: VecDeque<(Instant, Arc<Event>)>,
    /// Every event after this revision is here.
    oldest: Revision,
}

impl Window {
    /// An empty window: everything up to `revision` is in the objects already.
    pub(super) fn starting(revision: Revision) -> Self {
        Self { events: VecDeque::new(), oldest: revision }
    }

    /// Adds the newest event.
    pub(super) fn push(&mut self, event: Arc<Event>, now: Instant) {
        self.events.push_back((now, event));
        while self.events.len() > LEAST {
            let overdue =
                self.events.front().is_some_and(|(when, _)| now.saturating_duration_since(*when) > AGE);
            if !overdue && self.events.len() <= MOST {
                break;
            }
            if let Some((_, event)) = self.events.pop_front() {
                self.oldest = event.revision;
            }
        }
        if self.events.capacity() > 4 * self.events.len().max(LEAST) {
            self.events.shrink_to_fit();
        }
    }

    /// Every event after this revision is here.
    pub(super) fn oldest(&self) -> Revision {
        self.oldest
    }

    /// The events after `revision`, oldest first; `None` if some of them are gone.
    pub(super) fn since(&self, revision: Revision) -> Option<impl DoubleEndedIterator<Item = &Arc<Event>>> {
        (revision >= self.oldest).then(|| {
            let start = self.events.partition_point(|(_, event)| event.revision <= revision);
            self.events.range(start..).map(|(_, event)| event)
        })
    }
}
