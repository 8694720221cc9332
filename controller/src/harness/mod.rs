//! The only loops of this crate.
//!
//! A controller says which changes concern which of its objects, and turns one object's situation into a
//! [`Plan`]: the writes that bring the cluster nearer to what is wanted. The harness does the rest: it
//! queues each object at most once, never plans one object twice at a time, carries the plan out, waits until
//! the caches show what was written (so that no plan is made on a state older than the last one's effects),
//! and tries again with growing pauses when something failed.

mod context;
mod metrics;
mod plan;
mod queue;
mod work;

pub use context::{BY_ANY_OWNER, BY_NODE, BY_OWNER, Caches, Context, Metadata, collection};
pub use metrics::Queues;
pub use plan::{Announcement, Plan, What, Write, WriteEvents};
pub use queue::{Figures, WorkQueue};
pub use work::{Error, Reconciler, Worker, start};
