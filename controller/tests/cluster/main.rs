//! All controllers on a real API server in memory, in virtual time.

mod basics;
mod common;
mod garbage;
mod kubelet;
mod namespaces;
mod nodes;
mod quotas;
mod rollouts;
mod services;
