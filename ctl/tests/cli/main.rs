//! The user's verbs against a real API server in memory.

mod common;
mod explain;
mod objects;
mod workloads;
