//! What can go wrong; every error names its subject.

use std::io;
use std::path::PathBuf;

/// An operation on the node's network failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error("{what}: {source}")]
    Kernel { what: String, source: io::Error },
    /// A file of the state directory or of `/proc/sys` can't be used.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The node has no free pod address.
    #[error("no free address left in {cidr}")]
    Exhausted { cidr: crate::Cidr },
    /// The network can't serve yet; the text says what it waits for.
    #[error("pod network is not ready: {0}")]
    NotReady(String),
}

impl Error {
    pub(crate) fn kernel(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Kernel { what, source }
    }

    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
