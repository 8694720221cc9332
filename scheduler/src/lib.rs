//! Decides which node runs a pod.
//!
//! [`engine`] is the pure decision core: it knows no API, no clock and no IO. [`Scheduler`] is the thin
//! driver around it: it feeds the engine from the shared caches and carries its decisions to the API.

mod driver;
pub mod engine;
mod project;

pub use driver::{Scheduler, SchedulerConfig, SharedClient};
