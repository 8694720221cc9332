//! Where everything lies on disk.
//!
//! Below `root` (survives a reboot): `sandboxes/ID.json`, `containers/ID/{record,started,exit}.json`.
//! Below `state` (does not): `sandboxes/ID/{ns/*,shm,resolv.conf,hostname}` and
//! `containers/ID/{config.json,shim.json,shim.sock,shim.log,lc}`.

use std::path::{Path, PathBuf};

/// The layout below the two directories of [`crate::Config`].
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    root: PathBuf,
    state: PathBuf,
}

impl Paths {
    pub(crate) fn new(root: &Path, state: &Path) -> Self {
        Self { root: root.to_owned(), state: state.to_owned() }
    }

    pub(crate) fn sandbox_records(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    pub(crate) fn sandbox_record(&self, id: &str) -> PathBuf {
        self.sandbox_records().join(format!("{id}.json"))
    }

    pub(crate) fn sandbox_states(&self) -> PathBuf {
        self.state.join("sandboxes")
    }

    /// Namespaces and files of one sandbox.
    pub(crate) fn sandbox_state(&self, id: &str) -> PathBuf {
        self.sandbox_states().join(id)
    }

    /// The file that holds a namespace of a sandbox; `kind` is a name of `/proc/PID/ns`.
    pub(crate) fn namespace(&self, id: &str, kind: &str) -> PathBuf {
        self.sandbox_state(id).join("ns").join(kind)
    }

    pub(crate) fn container_records(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// What must be known of a container after a reboot.
    pub(crate) fn container_root(&self, id: &str) -> PathBuf {
        self.container_records().join(id)
    }

    pub(crate) fn container_record(&self, id: &str) -> PathBuf {
        self.container_root(id).join("record.json")
    }

    pub(crate) fn started(&self, id: &str) -> PathBuf {
        self.container_root(id).join("started.json")
    }

    pub(crate) fn exit(&self, id: &str) -> PathBuf {
        self.container_root(id).join("exit.json")
    }

    pub(crate) fn container_states(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// The bundle of a container and what its shim needs.
    pub(crate) fn container_state(&self, id: &str) -> PathBuf {
        self.container_states().join(id)
    }

    /// Our own executable behind a read-only bind mount: a container that reaches it through
    /// `/proc/PID/exe` can't write to it (CVE-2019-5736).
    pub(crate) fn executable(&self) -> PathBuf {
        self.state.join("skiff")
    }
}
