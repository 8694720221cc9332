//! Where the files of pods are.
//!
//! ```text
//! <data>/pods/<uid>/etc-hosts
//! <data>/pods/<uid>/volumes/<volume>
//! <data>/pods/<uid>/volume-subpaths/<volume>/<container>/<n>
//! <data>/pods/<uid>/containers/<container>/<attempt>        the last message
//! ```

use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pods: PathBuf,
}

impl Layout {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { pods: data_dir.join("pods") }
    }

    pub(super) fn pods(&self) -> &Path {
        &self.pods
    }

    pub(super) fn pod(&self, uid: &str) -> PathBuf {
        self.pods.join(uid)
    }

    pub(super) fn hosts(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }

    pub(super) fn volume(&self, uid: &str, volume: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(volume)
    }

    pub(super) fn sub_path(&self, uid: &str, volume: &str, container: &str, position: usize) -> PathBuf {
        let base = self.pod(uid).join("volume-subpaths");
        base.join(volume).join(container).join(position.to_string())
    }

    pub(super) fn termination_log(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod(uid).join("containers").join(container).join(attempt.to_string())
    }
}
