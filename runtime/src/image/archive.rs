//! Images from and to files: OCI layouts and the archives of `docker save`.

use serde::{Deserialize, Serialize};

pub(super) use self::load::load;
pub(super) use self::save::save;

mod load;
mod save;

/// The full name of an image in an index.
const NAME_ANNOTATION: &str = "io.containerd.image.name";
/// Its tag, or, as some write, its name.
const REF_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// An image in Docker's `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[cfg(test)]
mod tests;
