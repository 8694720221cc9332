//! How long the store takes to answer for the objects of one resource.

use std::sync::OnceLock;
use std::time::Duration;

use base::metrics::Histogram;

/// Upstream's bounds, in seconds.
const BOUNDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// What the store was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Get,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Create, Self::Update, Self::Delete, Self::Get];

    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Get => "get",
        }
    }
}

/// The times of the store's answers, by operation. Those that never happened take no room.
#[derive(Debug, Default)]
pub(crate) struct StoreTimes([OnceLock<Histogram>; Operation::ALL.len()]);

impl StoreTimes {
    /// Counts an answer.
    pub(crate) fn observe(&self, operation: Operation, time: Duration) {
        self.0[operation as usize].get_or_init(|| Histogram::new(BOUNDS)).observe(time);
    }

    /// The operations that happened, by upstream's words.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        Operation::ALL
            .into_iter()
            .filter_map(|operation| Some((operation.word(), self.0[operation as usize].get()?)))
    }
}
