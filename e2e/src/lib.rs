//! Suites on an in-process cluster, on real processes and on any kubeconfig; simulation; benchmarks.
//!
//! - [`cluster`]: a real cluster for one test, in a [`machine`] of its own; [`lan`]: one on several machines
//! - [`containerd`]: another container runtime for it
//! - [`web`]: who asks its services; [`load`]: who does so all the time
//! - [`transcript`]: command lines with what they print; [`terminal`]: a program that believes to have a user
//! - [`usage`]: what a process takes of the machine
//! - [`sim`]: the whole control plane on virtual time, from a seed

pub mod cluster;
pub mod containerd;
pub mod lan;
pub mod load;
pub mod machine;
pub mod sim;
pub mod terminal;
pub mod transcript;
pub mod usage;
pub mod web;
