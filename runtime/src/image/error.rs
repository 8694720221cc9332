//! The errors of the image store. Their texts reach users in pod events, so they use containerd's words.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why an image could not be had, kept, mounted or given away. Cheap to clone: waiters of one pull share it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImageError {
    /// A file operation.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// The text is no image name.
    #[error("failed to parse image reference {reference:?}: {reason}")]
    Reference {
        /// The text.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such image, here or at its registry.
    #[error("{0}: not found")]
    NotFound(String),
    /// A pull failed.
    #[error("failed to pull and unpack image {image:?}: {source}")]
    Pull {
        /// The full name.
        image: String,
        /// Why.
        source: Box<ImageError>,
    },
    /// The registry did not say what the name stands for.
    #[error("failed to resolve reference {reference:?}: {source}")]
    Resolve {
        /// The full name.
        reference: String,
        /// Why.
        source: Box<ImageError>,
    },
    /// The registry wants other credentials, or there is no such repository.
    #[error("pull access denied, repository does not exist or may require authorization: {0}")]
    Denied(String),
    /// The registry or the way to it failed.
    #[error("{0}")]
    Registry(String),
    /// Content that is not what it claims to be.
    #[error("invalid {what}: {reason}")]
    Content {
        /// Which content.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Request(String),
}

impl ImageError {
    /// Whether the image does not exist, however deep that is the cause.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound(_) => true,
            Self::Pull { source, .. } | Self::Resolve { source, .. } => source.is_not_found(),
            _ => false,
        }
    }

    /// Whether the request itself is at fault.
    pub fn is_invalid(&self) -> bool {
        match self {
            Self::Reference { .. } | Self::Request(_) => true,
            Self::Pull { source, .. } | Self::Resolve { source, .. } => source.is_invalid(),
            _ => false,
        }
    }

    pub(crate) fn content(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Content { what: what.into(), reason: reason.to_string() }
    }
}

/// Names the file in an IO error.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, ImageError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::Io {
            action,
            path: path.as_ref().to_owned(),
            source: Arc::new(source.into()),
        })
    }
}
