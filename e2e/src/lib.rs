//! Suites on an in-process cluster, on real processes and on any kubeconfig; simulation; benchmarks.
//!
//! - [`cluster`]: a real cluster for one test, in a [`machine`] of its own; [`web`]: who asks its services
//! - [`sim`]: the whole control plane on virtual time, from a seed

pub mod cluster;
pub mod machine;
pub mod sim;
pub mod web;
