//! The logs of containers, which the runtime writes in CRI's format: where they are, how they are read, followed
//! and rotated.
//!
//! ```text
//! <data>/logs/<namespace>_<name>_<uid>/<container>/<attempt>.log
//! <data>/logs/<namespace>_<name>_<uid>/<container>/<attempt>.log.20260102-030405   rotated
//! ```
//!
//! - [`line`]: PURE, from the lines of a file to what a client gets;
//! - [`files`]: a log with its rotated files, read from either end;
//! - [`read`]: the stream of a log for a client, which may follow it to the container's end;
//! - [`rotate`]: keeps logs at a bounded size.

mod files;
pub(crate) mod line;
mod notify;
mod read;
mod rotate;

use std::path::{Path, PathBuf};

use jiff::Timestamp;

pub use read::{Ended, LogStream, read};
pub use rotate::{Limits, Rotator};

/// What of a log is wanted.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Go on until the container has ended.
    pub follow: bool,
    /// So many lines from the end.
    pub tail: Option<u64>,
    /// The most to send.
    pub limit_bytes: Option<u64>,
    /// Only what is not older.
    pub since: Option<Timestamp>,
    /// Each line begins with its time.
    pub timestamps: bool,
    pub stream: Option<Stream>,
}

/// One of a container's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A log can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("failed to try resolving symlinks in path \"{path}\": {source}", path = path.display())]
    Missing { path: PathBuf, source: std::io::Error },
    #[error("failed to open log file \"{path}\": {source}", path = path.display())]
    Open { path: PathBuf, source: std::io::Error },
}

/// The directory of all logs of a pod.
pub fn log_directory(data_dir: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    data_dir.join("logs").join(format!("{namespace}_{name}_{uid}"))
}

/// The log of one attempt to run a container, below the pod's directory.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}
