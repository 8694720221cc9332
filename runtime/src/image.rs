//! The image half of the runtime: pulls, keeps, unpacks and mounts images, and serves the CRI ImageService.
//!
//! | module | holds |
//! |---|---|
//! | `reference` | names |
//! | `document` | manifests, indexes and configs |
//! | `store` | what is on disk, and who may touch it when |
//! | `unpack` | layer archives to directories; the input is hostile |
//! | `ingest` | from blobs to an image |
//! | `rootfs` | overlay mounts for containers |
//! | `pull`, `archive`, `demo` | the three sources of images |
//! | `service` | CRI |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use base::{Clock, Tasks};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tracing::warn;

pub use self::error::ImageError;
use self::reference::Reference;
pub use self::service::ImageService;
use self::store::{Layer, Record, Store};

mod archive;
mod demo;
pub(crate) mod document;
mod error;
mod files;
mod ingest;
mod pull;
pub(crate) mod reference;
mod rootfs;
mod service;
mod store;
pub(crate) mod unpack;

/// Each mount opens a descriptor per layer; so many may do so at a time.
const MOUNTS_AT_A_TIME: usize = 16;

/// The images of one node. A cheap handle.
#[derive(Clone, Debug)]
pub struct Images {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    executable: PathBuf,
    clock: Clock,
    tasks: Tasks,
    mounts: Semaphore,
    pulls: pull::Pulls,
    /// Registries spoken to without TLS, besides those of this machine.
    plain_http: RwLock<Vec<String>>,
}

/// An image that is here. Immutable: a change of its names makes a new one.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of its config, `sha256:...`.
    pub id: String,
    /// Full names, `repository:tag`.
    pub repo_tags: Vec<String>,
    /// Full names by digest, `repository@sha256:...`.
    pub repo_digests: Vec<String>,
    /// Bytes of its blobs.
    pub size: u64,
    /// How to run it.
    pub config: ImageConfig,
    /// Not to be removed to make room.
    pub pinned: bool,
    manifest: Option<String>,
    layers: Vec<Layer>,
}

/// What an image's author wants run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, or the program when there is no entrypoint.
    pub cmd: Vec<String>,
    /// Empty means `/`.
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means root.
    pub user: String,
    /// The signal that asks it to end.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Paths that want volumes.
    pub volumes: Vec<String>,
}

impl Image {
    fn new(id: String, record: Record) -> Self {
        let Record { manifest, size, pinned, config, layers } = record;
        Self { id, repo_tags: Vec::new(), repo_digests: Vec::new(), size, config, pinned, manifest, layers }
    }
}

impl Images {
    /// Opens the images of the node whose data is below `root`, making the store and the built-in images of
    /// `executable` if needed. Blocks, shortly.
    pub fn open(root: &Path, executable: &Path, clock: Clock, tasks: Tasks) -> Result<Self, ImageError> {
        let store = Store::open(&root.join("images"), &root.join("containers"))?;
        if let Err(error) = demo::refresh(&store, executable) {
            warn!(%error, "there are no built-in images");
        }
        store.collect_garbage()?;
        Ok(Self {
            inner: Arc::new(Inner {
                store: Arc::new(store),
                executable: executable.to_owned(),
                clock,
                tasks,
                mounts: Semaphore::new(MOUNTS_AT_A_TIME),
                pulls: pull::Pulls::default(),
                plain_http: RwLock::default(),
            }),
        })
    }

    /// Names registries (`host` or `host:port`) to speak to without TLS. `localhost`, loopback addresses and
    /// names below `.local` always are.
    pub fn set_plain_http(&self, registries: Vec<String>) {
        *self.inner.plain_http.write().unwrap_or_else(PoisonError::into_inner) = registries;
    }

    /// The image with this name, name by digest, or id.
    pub fn resolve(&self, reference: &str) -> Option<Arc<Image>> {
        match self.inner.store.snapshot() {
            Ok(snapshot) => snapshot.resolve(reference),
            Err(error) => {
                warn!(%error, "the images can't be read");
                self.inner.store.last_snapshot().resolve(reference)
            }
        }
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Arc<Image>> {
        match self.inner.store.snapshot() {
            Ok(snapshot) => snapshot.list(),
            Err(error) => {
                warn!(%error, "the images can't be read");
                self.inner.store.last_snapshot().list()
            }
        }
    }

    /// Brings an image here from its registry and returns it. Callers that want the same image with the same
    /// credentials share one pull; it ends when the last of them is gone.
    pub async fn pull(
        &self,
        reference: &str,
        auth: Option<cri::AuthConfig>,
    ) -> Result<Arc<Image>, ImageError> {
        pull::pull(self, reference, auth).await
    }

    /// Brings in the images of an archive: an OCI layout or `docker save`, compressed or not.
    pub async fn load(&self, archive: &Path) -> Result<Vec<Arc<Image>>, ImageError> {
        let archive = archive.to_owned();
        let ids = self.blocking(move |store| archive::load(store, &archive)).await?;
        Ok(ids.iter().filter_map(|id| self.resolve(id)).collect())
    }

    /// Writes images as an archive that other tools read too: an OCI layout with Docker's `manifest.json`.
    pub async fn save(&self, references: &[String], to: &Path) -> Result<(), ImageError> {
        let mut images = Vec::with_capacity(references.len());
        for reference in references {
            let image = self.resolve(reference).ok_or_else(|| ImageError::NotFound(reference.clone()))?;
            images.push((reference.clone(), image));
        }
        let (to, executable) = (to.to_owned(), self.inner.executable.clone());
        self.blocking(move |store| archive::save(store, &executable, &images, &to)).await
    }

    /// Gives an image one more name. A name that another image has moves.
    pub async fn tag(&self, source: &str, target: &str) -> Result<(), ImageError> {
        let image = self.resolve(source).ok_or_else(|| ImageError::NotFound(source.to_owned()))?;
        let target = Reference::parse(target)?;
        if matches!(target.object, reference::Object::Digest(_)) {
            return Err(ImageError::Request(format!("{target}: a digest can't be given as a name")));
        }
        self.blocking(move |store| {
            store.update(|index| {
                if !index.images.contains_key(&image.id) {
                    return Err(ImageError::NotFound(image.id.clone()));
                }
                index.names.insert(target.to_string(), image.id.clone());
                Ok(())
            })
        })
        .await
    }

    /// Removes an image with all its names; containers that use it keep its layers. Unknown is fine.
    pub async fn remove(&self, reference: &str) -> Result<(), ImageError> {
        let Some(image) = self.resolve(reference) else { return Ok(()) };
        self.blocking(move |store| {
            store.update(|index| {
                index.remove(&image.id);
                Ok(())
            })?;
            store.collect_garbage()
        })
        .await
    }

    /// Removes every image that no container uses, except pinned ones, and returns their ids.
    pub async fn prune(&self) -> Result<Vec<String>, ImageError> {
        self.blocking(|store| {
            let used = rootfs::records(store.containers())?;
            let removed = store.update(|index| {
                let unused = |id: &str| !used.iter().any(|used| used.image == id);
                let removed: Vec<String> = index
                    .images
                    .iter()
                    .filter(|(id, record)| !record.pinned && unused(id))
                    .map(|(id, _)| id.clone())
                    .collect();
                for id in &removed {
                    index.remove(id);
                }
                Ok(removed)
            })?;
            store.collect_garbage()?;
            Ok(removed)
        })
        .await
    }

    /// Mounts a writable root filesystem for a container and returns its directory. What is mounted already
    /// stays as it is.
    pub async fn mount_rootfs(&self, image: &Image, container_id: &str) -> Result<PathBuf, ImageError> {
        let dir = rootfs::container_dir(self.inner.store.containers(), container_id)?;
        let used = rootfs::Used {
            image: image.id.clone(),
            layers: image.layers.iter().map(|layer| layer.chain_id.clone()).collect(),
        };
        let built_in = image.manifest.is_none();
        let executable = self.inner.executable.clone();
        let _permit = self.inner.mounts.acquire().await;
        self.blocking(move |store| {
            let _in_use = store.in_use()?;
            for chain_id in &used.layers {
                if store.has_layer(chain_id) {
                    continue;
                }
                if !built_in {
                    return Err(ImageError::NotFound(used.image.clone()));
                }
                demo::materialize(store, &executable, chain_id)?;
            }
            let layers: Vec<PathBuf> = used.layers.iter().map(|id| store.layer(id).join("fs")).collect();
            rootfs::mount(&dir, &used, &layers)
        })
        .await
    }

    /// Unmounts a container's root filesystem and deletes what the container wrote. Unknown is fine.
    pub async fn unmount_rootfs(&self, container_id: &str) -> Result<(), ImageError> {
        let dir = rootfs::container_dir(self.inner.store.containers(), container_id)?;
        self.blocking(move |store| {
            let used = rootfs::used(&dir)?;
            rootfs::unmount(&dir)?;
            // The last container of an image that is gone: its layers can go too.
            match used {
                Some(used) if store.snapshot()?.resolve(&used.image).is_none() => store.collect_garbage(),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Bytes and inodes that a container wrote to its root filesystem.
    pub fn rootfs_usage(&self, container_id: &str) -> (u64, u64) {
        match rootfs::container_dir(self.inner.store.containers(), container_id) {
            Ok(dir) => {
                let usage = files::usage(&dir.join("upper"));
                (usage.bytes, usage.inodes)
            }
            Err(_) => (0, 0),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let store = self.inner.store.clone();
        self.inner.tasks.blocking(move || work(&store)).await
    }
}
