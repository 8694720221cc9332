//! Bringing images from registries: one pull per image and credentials at a time, shared by all who want it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::{StreamExt, TryStreamExt};
use nix::sys::statvfs::statvfs;
use tokio::sync::{mpsc, watch};
use tracing::info;

use self::registry::{Registry, STALL};
use super::demo;
use super::document::{Descriptor, Manifest};
use super::error::{At, ImageError};
use super::ingest::Plan;
use super::reference::{Object, Reference};
use super::store::{InUse, Store};
use super::{Image, Images};

mod auth;
mod registry;

/// Layers of one image on their way at a time.
const DOWNLOADS_AT_A_TIME: usize = 3;
/// How often a caller joins a pull that ends without a result because all others left.
const JOIN_ATTEMPTS: usize = 5;

type Outcome = Result<Arc<Image>, ImageError>;
type Sender = watch::Sender<Option<Outcome>>;
/// The image, and a digest of the credentials: whoever has worse ones must not profit from a better pull.
type Key = (String, String);

/// The pulls under way. The pull's task owns the sender; it ends when the last receiver is gone.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulls(Arc<Mutex<HashMap<Key, Weak<Sender>>>>);

/// Takes the pull out of the table however its task ends.
struct Registration {
    pulls: Pulls,
    key: Key,
    sender: Arc<Sender>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut pulls = self.pulls.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pulls.get(&self.key).is_some_and(|weak| weak.as_ptr() == Arc::as_ptr(&self.sender)) {
            pulls.remove(&self.key);
        }
    }
}

/// See [`Images::pull`].
pub(super) async fn pull(images: &Images, reference: &str, auth: Option<cri::AuthConfig>) -> Outcome {
    let name = Reference::parse(reference)?;
    if demo::is_local(&name) {
        return images.resolve(reference).ok_or_else(|| {
            let text = name.to_string();
            in_pull(&name, in_resolve(&name, ImageError::NotFound(text)))
        });
    }
    let credentials = auth::credentials(&name, auth).map_err(|e| in_pull(&name, e))?;
    let key = (name.to_string(), auth::fingerprint(&credentials));
    for _ in 0..JOIN_ATTEMPTS {
        let mut receiver = join(images, &key, &name, &credentials);
        if let Ok(outcome) = receiver.wait_for(Option::is_some).await
            && let Some(outcome) = outcome.clone()
        {
            return outcome;
        }
    }
    Err(in_pull(&name, ImageError::Registry("the pull was cancelled".to_owned())))
}

fn join(
    images: &Images,
    key: &Key,
    name: &Reference,
    credentials: &auth::Credentials,
) -> watch::Receiver<Option<Outcome>> {
    let inner = &images.inner;
    let mut pulls = inner.pulls.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sender) = pulls.get(key).and_then(Weak::upgrade) {
        return sender.subscribe();
    }
    let (sender, receiver) = watch::channel(None);
    let sender = Arc::new(sender);
    pulls.insert(key.clone(), Arc::downgrade(&sender));
    drop(pulls);
    let registration = Registration { pulls: inner.pulls.clone(), key: key.clone(), sender };
    let (images, name, credentials) = (images.clone(), name.clone(), credentials.clone());
    inner.tasks.spawn("pull", async move {
        tokio::select! {
            outcome = run(&images, &name, credentials) => {
                let outcome = outcome.map_err(|e| in_pull(&name, e));
                let _ = registration.sender.send(Some(outcome));
            }
            // Dropping the work takes its downloads with it.
            () = registration.sender.closed() => {}
        }
        drop(registration);
    });
    receiver
}

fn in_pull(name: &Reference, source: ImageError) -> ImageError {
    ImageError::Pull { image: name.to_string(), source: Box::new(source) }
}

fn in_resolve(name: &Reference, source: ImageError) -> ImageError {
    ImageError::Resolve { reference: name.to_string(), source: Box::new(source) }
}

async fn run(images: &Images, name: &Reference, credentials: auth::Credentials) -> Outcome {
    let started = images.inner.clock.instant();
    let plain = {
        let configured = images.inner.plain_http.read().unwrap_or_else(PoisonError::into_inner);
        registry::is_plain_http(&name.domain, &configured)
    };
    let registry =
        Registry::connect(name, credentials, plain, STALL).await.map_err(|e| in_resolve(name, e))?;
    let (mut digest, mut bytes) = registry.manifest(name).await.map_err(|e| in_resolve(name, e))?;
    let by_digest = format!("{}@{digest}", name.repository());
    let mut manifest = Manifest::parse(&format!("manifest {digest}"), &bytes)?;
    if manifest.manifests.is_some() {
        let entry = manifest.for_this_machine().cloned();
        let entry =
            entry.ok_or_else(|| ImageError::NotFound("no match for platform in manifest".to_owned()))?;
        let object = Object::Digest(entry.digest.clone());
        (digest, bytes) = registry.manifest(&Reference { object, ..name.clone() }).await?;
        manifest = Manifest::parse(&format!("manifest {digest}"), &bytes)?;
    }
    let registry = Arc::new(registry);
    let in_use = images.blocking(|store| store.in_use()).await?;
    let config = manifest.config.clone().unwrap_or_default();
    let config = registry.document(&config).await?;
    let plan = Arc::new(Plan::new(digest, bytes, &manifest, config)?);
    let in_use = Arc::new(in_use);
    let (announced, space) = (plan.clone(), images.inner.store.clone());
    images.inner.tasks.blocking(move || check_space(&space, announced.layers())).await?;
    layers(images, &registry, &plan, &in_use).await?;

    let mut names = vec![by_digest];
    if matches!(name.object, Object::Tag(_)) {
        names.push(name.to_string());
    }
    let id = images.blocking(move |store| plan.register(store, &in_use, &names)).await?;
    info!(image = %name, %id, took = ?started.elapsed(), "pulled");
    images.resolve(&id).ok_or(ImageError::NotFound(id))
}

/// Says early that the disk is too small, before it is full.
fn check_space(store: &Store, layers: &[Descriptor]) -> Result<(), ImageError> {
    let missing = layers.iter().filter(|layer| !store.has_blob(&layer.digest));
    let needed = missing.fold(0, |sum: u64, layer| sum.saturating_add(layer.size));
    let disk = statvfs(store.root()).at("read the free space of", store.root())?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    match needed > free {
        true => Err(ImageError::Registry(format!(
            "no space left on device: the layers take {needed} bytes, and {free} are free"
        ))),
        false => Ok(()),
    }
}

/// Downloads layers, a few at a time, while those that are here are unpacked in order.
async fn layers(
    images: &Images,
    registry: &Arc<Registry>,
    plan: &Arc<Plan>,
    in_use: &Arc<InUse>,
) -> Result<(), ImageError> {
    // Never full: downloads must go on while a large layer is unpacked, or their registry would seem silent.
    let (here, mut arrived) = mpsc::channel(plan.layers().len().max(1));
    let download = async {
        let downloads =
            plan.layers().iter().cloned().map(|layer| download(images.clone(), registry.clone(), layer));
        let downloads = futures::stream::iter(downloads.collect::<Vec<_>>());
        let mut downloads = downloads.buffered(DOWNLOADS_AT_A_TIME);
        while let Some(()) = downloads.try_next().await? {
            // Nobody listens any more when unpacking failed: its error ends both.
            if here.send(()).await.is_err() {
                break;
            }
        }
        drop(here);
        Ok::<(), ImageError>(())
    };
    let unpack = async {
        for number in 0..plan.layers().len() {
            if arrived.recv().await.is_none() {
                return Ok(());
            }
            let (plan, in_use) = (plan.clone(), in_use.clone());
            images.blocking(move |store| plan.unpack(store, &in_use, number)).await?;
        }
        drop(arrived);
        Ok(())
    };
    tokio::try_join!(download, unpack).map(|_| ())
}

async fn download(images: Images, registry: Arc<Registry>, layer: Descriptor) -> Result<(), ImageError> {
    if images.inner.store.has_blob(&layer.digest) {
        return Ok(());
    }
    let ingest = images.blocking(|store| store.ingest()).await?;
    let path = ingest.path().join("blob");
    registry.download(&layer, &path).await?;
    let digest = layer.digest;
    images
        .blocking(move |store| {
            let _removed_afterwards = ingest;
            sync(&path)?;
            store.add_blob(&digest, &path)
        })
        .await
}

fn sync(path: &Path) -> Result<(), ImageError> {
    std::fs::File::open(path).and_then(|file| file.sync_all()).at("sync", path)
}

#[cfg(test)]
mod tests;
