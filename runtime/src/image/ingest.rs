//! From blobs to an image: unpacks the layers that are not here yet and gives the image its names.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::ImageConfig;
use super::document::{ConfigFile, Descriptor, Manifest, chain_ids};
use super::error::{At, ImageError};
use super::files::{self, Usage};
use super::store::{InUse, Layer, Record, Store};
use super::unpack::{Limits, unpack};

/// A manifest and its config, checked against each other.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    manifest_digest: String,
    manifest_bytes: Vec<u8>,
    config_digest: String,
    config_bytes: Vec<u8>,
    config: ConfigFile,
    layers: Vec<Descriptor>,
    chain: Vec<String>,
}

impl Plan {
    /// `manifest_digest` and the digest in the manifest must be those of the bytes.
    pub(crate) fn new(
        manifest_digest: String,
        manifest_bytes: Vec<u8>,
        manifest: &Manifest,
        config_bytes: Vec<u8>,
    ) -> Result<Self, ImageError> {
        let what = || format!("manifest {manifest_digest}");
        let (Some(config), Some(layers)) = (&manifest.config, &manifest.layers) else {
            return Err(ImageError::content(what(), "it describes no image"));
        };
        let config_digest = config.digest.clone();
        let config = ConfigFile::parse(&format!("config {config_digest}"), &config_bytes)?;
        if config.rootfs.diff_ids.len() != layers.len() {
            return Err(ImageError::content(what(), "mismatched image rootfs and manifest layers"));
        }
        let chain = chain_ids(&config.rootfs.diff_ids);
        Ok(Self {
            manifest_bytes,
            config_digest,
            config_bytes,
            layers: layers.clone(),
            chain,
            config,
            manifest_digest,
        })
    }

    /// The layers' blobs, bottom first.
    pub(crate) fn layers(&self) -> &[Descriptor] {
        &self.layers
    }

    /// Unpacks a layer, whose blob and whose layers below must be here, unless it is.
    pub(crate) fn unpack(&self, store: &Store, _in_use: &InUse, number: usize) -> Result<(), ImageError> {
        let chain_id = &self.chain[number];
        if store.has_layer(chain_id) {
            return Ok(());
        }
        let lowers: Vec<PathBuf> =
            self.chain[..number].iter().rev().map(|chain_id| store.layer(chain_id).join("fs")).collect();
        let ingest = store.ingest()?;
        let root = ingest.path().join("fs");
        fs::create_dir(&root).at("create", &root)?;
        // An archive need not say what the root directory is like, and the umask must not.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).at("change the mode of", &root)?;
        let diff_id = &self.config.rootfs.diff_ids[number];
        unpack(&store.blob(&self.layers[number].digest), diff_id, &root, &lowers, Limits::default())?;
        // The rename must not become durable before the files.
        files::sync_tree(ingest.path())?;
        store.add_layer(chain_id, ingest)
    }

    /// Makes the image known under these names (`repository:tag`, `repository@digest`); returns its id.
    pub(crate) fn register(
        &self,
        store: &Store,
        _in_use: &InUse,
        names: &[String],
    ) -> Result<String, ImageError> {
        store.add_blob_bytes(&self.manifest_digest, &self.manifest_bytes)?;
        store.add_blob_bytes(&self.config_digest, &self.config_bytes)?;
        let documents = self.manifest_bytes.len() + self.config_bytes.len();
        let usages: Vec<Usage> =
            self.chain.iter().map(|chain_id| files::usage(&store.layer(chain_id).join("fs"))).collect();
        let layers = self.chain.iter().zip(&self.layers).zip(&self.config.rootfs.diff_ids).zip(usages);
        let record = Record {
            manifest: Some(self.manifest_digest.clone()),
            size: self.layers.iter().fold(documents as u64, |size, layer| size.saturating_add(layer.size)),
            pinned: false,
            config: ImageConfig::from(&self.config),
            layers: layers
                .map(|(((chain_id, blob), diff_id), usage)| Layer {
                    chain_id: chain_id.clone(),
                    diff_id: diff_id.clone(),
                    blob: Some(blob.digest.clone()),
                    usage,
                })
                .collect(),
        };
        store.update(|index| {
            let id = self.config_digest.clone();
            // The same config with other compression is another manifest of the same image: the one that is
            // here has all it needs.
            index.images.entry(id.clone()).or_insert(record);
            for name in names {
                index.names.insert(name.clone(), id.clone());
            }
            Ok(id)
        })
    }
}
