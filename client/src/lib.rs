//! The one way in to the API for every component, in the same process or not.
//!
//! - [`connect`]: a [`kube::Client`] over TLS with dead-peer detection, or over an in-process service;
//! - [`Cache`]: a shared, indexed copy of one kind that follows the API by list and watch;
//! - [`LeaderElection`]: one acting instance among several, by Lease;
//! - [`Events`]: the recorder behind `kubectl describe`'s Events;
//! - [`error`]: questions about API errors.

mod cache;
pub mod connect;
mod election;
pub mod error;
mod events;
mod reflector;

pub use cache::{Cache, CacheConfig, Cached, Change, Changes, Index, Key, Source};
pub use connect::{ConnectError, in_process};
pub use election::{ElectionConfig, LeaderElection};
pub use events::{EventKind, Events, Reference};
pub use kube;
pub use kube::Client;
