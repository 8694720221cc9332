//! Suites on an in-process cluster, on real processes and on any kubeconfig; simulation; benchmarks.

pub mod sim;
