//! The errors of this crate: each names its subject. Over CRI each becomes the gRPC status that clients expect.

use std::io;
use std::path::{Path, PathBuf};

use tonic::Status;

/// What can go wrong in the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file of our own that can't be understood.
    #[error("read {}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A sandbox or container that doesn't exist.
    #[error("{kind} {id:?} not found")]
    NotFound {
        /// `sandbox`, `container` or `image`.
        kind: &'static str,
        /// What was asked for.
        id: String,
    },
    /// A request that can never succeed.
    #[error("{0}")]
    Invalid(String),
    /// A request that does not fit the state of its object.
    #[error("{0}")]
    Precondition(String),
    /// Something that was not done in time.
    #[error("{0}")]
    Deadline(String),
    /// Something this runtime does not do.
    #[error("{0}")]
    Unimplemented(String),
    /// Any other failure, in words.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    pub(crate) fn sandbox_not_found(id: &str) -> Self {
        Self::NotFound { kind: "sandbox", id: id.to_owned() }
    }

    pub(crate) fn container_not_found(id: &str) -> Self {
        Self::NotFound { kind: "container", id: id.to_owned() }
    }

    /// A failure of something that has only a text.
    pub(crate) fn failed(what: &str, why: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{what}: {why}"))
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotFound { .. } => Self::not_found(text),
            Error::Invalid(_) => Self::invalid_argument(text),
            Error::Precondition(_) => Self::failed_precondition(text),
            Error::Deadline(_) => Self::deadline_exceeded(text),
            Error::Unimplemented(_) => Self::unimplemented(text),
            Error::Io { .. } | Error::Record { .. } | Error::Failed(_) => Self::unknown(text),
        }
    }
}

/// Names the file in an IO error.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action, path: path.as_ref().to_owned(), source: source.into() })
    }
}
