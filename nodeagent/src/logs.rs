//! The logs of containers: where they are, and in which form the runtime writes them.

use std::path::{Path, PathBuf};

/// The directory of all logs of a pod.
pub fn log_directory(data_dir: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    data_dir.join("logs").join(format!("{namespace}_{name}_{uid}"))
}

/// The log of one attempt to run a container, below the pod's directory.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}
