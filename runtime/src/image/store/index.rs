//! `images.json`: what images there are and what they are called.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::image::ImageConfig;
use crate::image::document::{ConfigFile, Process};
use crate::image::files::Usage;

/// All images and names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Image id (digest of its config) to image.
    pub(crate) images: BTreeMap<String, Record>,
    /// `repository:tag` and `repository@digest` to image id.
    pub(crate) names: BTreeMap<String, String>,
}

/// An image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Digest of its manifest; a built-in image has none.
    pub(crate) manifest: Option<String>,
    /// Bytes of its blobs.
    pub(crate) size: u64,
    /// Not to be removed to make room.
    #[serde(default)]
    pub(crate) pinned: bool,
    /// What its author wrote.
    pub(crate) config: ImageConfig,
    /// Bottom first.
    pub(crate) layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// Digest of this layer and those below.
    pub(crate) chain_id: String,
    /// Digest of its uncompressed archive.
    pub(crate) diff_id: String,
    /// Digest of its archive as it came; a built-in image has none.
    pub(crate) blob: Option<String>,
    /// What it takes unpacked.
    pub(crate) usage: Usage,
}

impl Index {
    /// Drops an image and all its names.
    pub(crate) fn remove(&mut self, id: &str) {
        self.images.remove(id);
        self.names.retain(|_, named| named != id);
    }
}

impl From<&ConfigFile> for ImageConfig {
    fn from(file: &ConfigFile) -> Self {
        let Process { user, env, entrypoint, cmd, working_dir, labels, volumes, stop_signal } =
            file.config.clone().unwrap_or_default();
        Self {
            env: env.unwrap_or_default(),
            entrypoint: entrypoint.unwrap_or_default(),
            cmd: cmd.unwrap_or_default(),
            working_dir: working_dir.unwrap_or_default(),
            user: user.unwrap_or_default(),
            stop_signal: stop_signal.filter(|signal| !signal.is_empty()),
            labels: labels.unwrap_or_default(),
            volumes: volumes.unwrap_or_default().into_keys().collect(),
        }
    }
}
