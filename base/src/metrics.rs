//! What the parts of a process count, in Prometheus' text format. Each part keeps its own counters; whoever serves the
//! page asks all of them ([`Source`]) when it is read.

mod histogram;
mod text;

use std::fmt;
use std::sync::Arc;

pub use self::histogram::Histogram;
pub use self::text::{Text, escaped};

/// A part that has something to write on the page.
#[derive(Clone)]
pub struct Source(Arc<dyn Fn(&mut Text) + Send + Sync>);

impl Source {
    /// What `write` writes.
    pub fn new(write: impl Fn(&mut Text) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    /// Writes it.
    pub fn write(&self, text: &mut Text) {
        (self.0)(text);
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}
