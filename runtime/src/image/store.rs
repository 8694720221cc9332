//! The content-addressed store below `root/images`:
//!
//! ```text
//! images.json            every image and name; replaced as a whole
//! blobs/sha256/HEX       manifests, configs and compressed layers, as they came
//! layers/HEX/fs          unpacked layers, by chain id: a layer's directory depends on those below it, because
//!                        directories that its archive only implies take owner and mode from there
//! ingest/                what is being written; nothing in it is referred to
//! trash/                 what is being deleted
//! images.lock, use.lock  locks between processes
//! ```
//!
//! Whoever adds content, or mounts it, holds `use.lock` shared until it is referred to; the collection of
//! garbage takes it exclusively, and goes away when it can't have it. `images.lock` is held only while
//! `images.json` is read, changed and written. Lock order: `use.lock`, then `images.lock`.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use nix::fcntl::FlockArg;
use tempfile::TempDir;
use tracing::{debug, warn};

use self::index::Index;
pub(crate) use self::index::{Layer, Record};
use self::snapshot::Snapshot;
use super::error::{At, ImageError};
use super::files::{Lock, found, lock, replace, sync_dir};
use super::rootfs;

pub(crate) mod index;
pub(crate) mod snapshot;

/// The store of one node. All methods block.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    containers: PathBuf,
    cache: RwLock<(Stamp, Arc<Snapshot>)>,
}

/// Tells one `images.json` from another: it is replaced by a rename, so its inode changes.
type Stamp = Option<(u64, i64, i64, u64)>;

/// The right to add content or to use a layer that may become garbage.
#[derive(Debug)]
pub(crate) struct InUse {
    _lock: Lock,
}

impl Store {
    /// Opens the store of a node, making it if there is none. `containers` is where root filesystems are.
    pub(crate) fn open(root: &Path, containers: &Path) -> Result<Self, ImageError> {
        for dir in ["blobs/sha256", "layers", "ingest", "trash"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).at("create", &dir)?;
        }
        fs::create_dir_all(containers).at("create", containers)?;
        // Layers hold set-uid programs that are none of this machine's users' business. Processes of containers
        // in user namespaces must get to their own directory, though.
        for (dir, mode) in [(root, 0o700), (containers, 0o711)] {
            fs::set_permissions(dir, fs::Permissions::from_mode(mode)).at("change the mode of", dir)?;
        }
        let store =
            Self { root: root.to_owned(), containers: containers.to_owned(), cache: RwLock::default() };
        store.snapshot()?;
        Ok(store)
    }

    /// The directory of the store.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the root filesystems.
    pub(crate) fn containers(&self) -> &Path {
        &self.containers
    }

    fn index_path(&self) -> PathBuf {
        self.root.join("images.json")
    }

    /// The file of a blob. The digest must have been checked for its form.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        self.root.join("blobs/sha256").join(hex(digest))
    }

    /// The directory of an unpacked layer, which holds `fs`.
    pub(crate) fn layer(&self, chain_id: &str) -> PathBuf {
        self.root.join("layers").join(hex(chain_id))
    }

    /// The images as they are now, also when another process changed them.
    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>, ImageError> {
        let path = self.index_path();
        let stamp = found(fs::metadata(&path)).at("read", &path)?;
        let stamp = stamp.map(|m| (m.ino(), m.mtime(), m.mtime_nsec(), m.size()));
        {
            let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
            if stamp.is_some() && cache.0 == stamp {
                return Ok(cache.1.clone());
            }
        }
        let snapshot = Arc::new(Snapshot::new(&self.read_index()?));
        *self.cache.write().unwrap_or_else(PoisonError::into_inner) = (stamp, snapshot.clone());
        Ok(snapshot)
    }

    /// The images as last seen: for when they can't be read.
    pub(crate) fn last_snapshot(&self) -> Arc<Snapshot> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    fn read_index(&self) -> Result<Index, ImageError> {
        let path = self.index_path();
        match found(fs::read(&path)).at("read", &path)? {
            None => Ok(Index::default()),
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|e| ImageError::content(path.display().to_string(), e))
            }
        }
    }

    /// Changes the images: all of `change` or, when it or the disk fails, nothing.
    pub(crate) fn update<T>(
        &self,
        change: impl FnOnce(&mut Index) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let _lock = lock(&self.root.join("images.lock"), FlockArg::LockExclusive)?;
        let mut index = self.read_index()?;
        let result = change(&mut index)?;
        let json = serde_json::to_vec_pretty(&index).map_err(|e| ImageError::content("image index", e))?;
        replace(&self.index_path(), &json)?;
        Ok(result)
    }

    /// Keeps what is added or used from being collected until it is dropped.
    pub(crate) fn in_use(&self) -> Result<InUse, ImageError> {
        let path = self.root.join("use.lock");
        match lock(&path, FlockArg::LockShared)? {
            Some(lock) => Ok(InUse { _lock: lock }),
            None => Err(nix::errno::Errno::EWOULDBLOCK).at("lock", path),
        }
    }

    /// A directory for what is being written, on the store's filesystem.
    pub(crate) fn ingest(&self) -> Result<TempDir, ImageError> {
        let dir = self.root.join("ingest");
        TempDir::new_in(&dir).at("create a directory in", dir)
    }

    /// Whether a blob is here.
    pub(crate) fn has_blob(&self, digest: &str) -> bool {
        self.blob(digest).exists()
    }

    /// Keeps a file that is known to have this digest. Its content must be synced.
    pub(crate) fn add_blob(&self, digest: &str, file: &Path) -> Result<(), ImageError> {
        let path = self.blob(digest);
        fs::rename(file, &path).at("write", &path)?;
        sync_dir(&self.root.join("blobs/sha256"))
    }

    /// Keeps bytes that are known to have this digest.
    pub(crate) fn add_blob_bytes(&self, digest: &str, bytes: &[u8]) -> Result<(), ImageError> {
        if self.has_blob(digest) {
            return Ok(());
        }
        replace(&self.blob(digest), bytes)
    }

    /// Whether a layer is unpacked here.
    pub(crate) fn has_layer(&self, chain_id: &str) -> bool {
        self.layer(chain_id).join("fs").exists()
    }

    /// Keeps a layer, unpacked in `dir/fs` and synced. One that is already here stays.
    pub(crate) fn add_layer(&self, chain_id: &str, dir: TempDir) -> Result<(), ImageError> {
        let path = self.layer(chain_id);
        match fs::rename(dir.path(), &path) {
            Ok(()) => {
                let _moved = dir.keep();
                Ok(())
            }
            Err(_) if self.has_layer(chain_id) => Ok(()),
            Err(e) => Err(e).at("write", path),
        }
    }

    /// Deletes what neither an image nor a container refers to. Does nothing while content is being added:
    /// whoever changes the images next, or the next start, collects again.
    pub(crate) fn collect_garbage(&self) -> Result<(), ImageError> {
        let Some(use_lock) = lock(&self.root.join("use.lock"), FlockArg::LockExclusiveNonblock)? else {
            debug!("images are in use, garbage is left for later");
            return Ok(());
        };
        let index = self.read_index()?;
        let mut layers: HashSet<OsString> = HashSet::new();
        let mut blobs: HashSet<OsString> = HashSet::new();
        for (id, record) in &index.images {
            blobs.insert(hex(id).into());
            blobs.extend(record.manifest.iter().map(|digest| hex(digest).into()));
            for layer in &record.layers {
                layers.insert(hex(&layer.chain_id).into());
                blobs.extend(layer.blob.iter().map(|digest| hex(digest).into()));
            }
        }
        for used in rootfs::records(&self.containers)? {
            layers.extend(used.layers.iter().map(|chain_id| hex(chain_id).into()));
        }
        for name in names(&self.root.join("blobs/sha256"))?.filter(|name| !blobs.contains(name)) {
            let path = self.root.join("blobs/sha256").join(name);
            found(fs::remove_file(&path)).at("remove", path)?;
        }
        // Renamed under the lock, deleted without it: a mount waits for the lock.
        for name in names(&self.root.join("layers"))?.filter(|name| !layers.contains(name)) {
            self.discard(&self.root.join("layers").join(name))?;
        }
        for name in names(&self.root.join("ingest"))? {
            self.discard(&self.root.join("ingest").join(name))?;
        }
        drop(use_lock);
        for name in names(&self.root.join("trash"))? {
            let path = self.root.join("trash").join(name);
            // Another process may be deleting the same.
            if let Err(error) = found(fs::remove_dir_all(&path)) {
                warn!(path = %path.display(), %error, "garbage can't be deleted");
            }
        }
        Ok(())
    }

    /// Takes a layer away that is found to be damaged.
    pub(crate) fn discard_layer(&self, chain_id: &str) -> Result<(), ImageError> {
        self.discard(&self.layer(chain_id))
    }

    fn discard(&self, path: &Path) -> Result<(), ImageError> {
        let trash = self.root.join("trash");
        let place = TempDir::new_in(&trash).at("create a directory in", &trash)?.keep();
        found(fs::rename(path, place.join("discarded"))).at("remove", path)?;
        Ok(())
    }
}

/// The names in a directory.
fn names(dir: &Path) -> Result<impl Iterator<Item = OsString>, ImageError> {
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>).at("list", dir)?;
    Ok(entries.into_iter().map(|entry| entry.file_name()))
}

/// The file name of a digest.
fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

#[cfg(test)]
mod tests;
