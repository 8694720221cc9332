//! The built-in images `skiff.local/hello:1` and `:2`: the running binary in an otherwise nearly empty root
//! filesystem, so that a first deployment needs no registry. `skiff.local/pause:1` is what other runtimes want a
//! sandbox to be made of.
//!
//! Their one layer holds the binary as a hard link, or as a copy where a link can't be or would not do. It is
//! named by the binary's size, time and inode instead of its digest, which would take longer than a start
//! may: [`super::archive`] makes a proper layer when such an image is saved.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use serde_json::json;
use tracing::{debug, warn};

use super::ImageConfig;
use super::document::{ConfigFile, architecture, chain_ids, sha256};
use super::error::{At, ImageError};
use super::files::Usage;
use super::reference::Reference;
use super::store::{Layer, Record, Store};

/// The host part of names that never go to a network.
pub(crate) const DOMAIN: &str = "skiff.local";
/// Names the layer that the images share, with what the executable is known by.
const LAYER_OF: &str = "skiff.local/hello";
const HELLO_1: &str = "skiff.local/hello:1";
const HELLO_2: &str = "skiff.local/hello:2";
const PAUSE: &str = "skiff.local/pause:1";
const IMAGES: [&str; 3] = [HELLO_1, HELLO_2, PAUSE];

const PASSWD: &str = "root:x:0:0:root:/:/skiff\nnobody:x:65534:65534:nobody:/:/skiff\n";
const GROUP: &str = "root:x:0:\nnobody:x:65534:\n";

/// Whether a name is one that never goes to a network.
pub(crate) fn is_local(reference: &Reference) -> bool {
    reference.domain == DOMAIN
}

/// Makes the built-in images those of this executable. Cheap: nothing is written when they are.
pub(crate) fn refresh(store: &Store, executable: &Path) -> Result<(), ImageError> {
    let metadata = fs::metadata(executable).at("read", executable)?;
    let identity = format!(
        "{LAYER_OF} {} {}.{:09} {}:{}",
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.dev(),
        metadata.ino()
    );
    let diff_id = sha256(identity);
    let layer = Layer {
        chain_id: chain_ids(std::slice::from_ref(&diff_id)).remove(0),
        diff_id: diff_id.clone(),
        blob: None,
        usage: Usage { bytes: metadata.blocks() * 512, inodes: 12 },
    };
    let images: Vec<(String, String, Vec<u8>)> = IMAGES
        .iter()
        .map(|name| {
            let config = config(name, &diff_id);
            ((*name).to_owned(), sha256(&config), config)
        })
        .collect();
    let guard = store.in_use()?;
    if !intact(store, &layer.chain_id, metadata.size())
        && let Err(error) = materialize(store, executable, &layer.chain_id)
    {
        // The images can still be listed; mounting one tries again and gives the reason.
        warn!(%error, "the layer of the built-in images can't be made yet");
    }
    let snapshot = store.snapshot()?;
    let current =
        images.iter().all(|(name, id, _)| snapshot.resolve(name).is_some_and(|image| image.id == *id));
    if !current {
        for (_, id, config) in &images {
            let path = store.blob(id);
            fs::write(&path, config).at("write", path)?;
        }
        store.update(|index| {
            let outdated = |record: &Record| record.manifest.is_none() && record.pinned;
            let old: Vec<String> = index
                .images
                .iter()
                .filter(|(id, record)| outdated(record) && !images.iter().any(|(_, new, _)| new == *id))
                .map(|(id, _)| id.clone())
                .collect();
            for id in old {
                index.remove(&id);
            }
            for (name, id, bytes) in &images {
                let config = ImageConfig::from(&ConfigFile::parse("built-in config", bytes)?);
                let record = Record {
                    manifest: None,
                    size: metadata.size(),
                    pinned: true,
                    config,
                    layers: vec![layer.clone()],
                };
                index.images.insert(id.clone(), record);
                index.names.insert(name.clone(), id.clone());
            }
            Ok(())
        })?;
        debug!(executable = %executable.display(), "made the built-in images");
    }
    drop(guard);
    Ok(())
}

/// Whether the layer is here and whole. It is made without waiting for the disk, which a start can't afford, so
/// a power failure may have emptied its files.
fn intact(store: &Store, chain_id: &str, size: u64) -> bool {
    let root = store.layer(chain_id).join("fs");
    let whole = fs::read(root.join("etc/passwd")).is_ok_and(|passwd| passwd == PASSWD.as_bytes())
        && fs::read(root.join("etc/group")).is_ok_and(|group| group == GROUP.as_bytes())
        && fs::metadata(root.join("skiff")).is_ok_and(|binary| binary.size() == size);
    if !whole && store.has_layer(chain_id) {
        // A container that still runs on it keeps what it has open.
        if let Err(error) = store.discard_layer(chain_id) {
            warn!(%error, "the damaged layer of the built-in images can't be taken away");
        }
    }
    whole
}

/// The config document of one of the images, with the layer's digest.
fn config(name: &str, diff_id: &str) -> Vec<u8> {
    let hello = |tag: &str| {
        json!({
            "Env": ["PATH=/", format!("HELLO_TAG={tag}")],
            "Entrypoint": ["/skiff", "hello"],
            "WorkingDir": "/",
            "ExposedPorts": {"8080/tcp": {}},
        })
    };
    let config = match name {
        HELLO_1 => hello("1"),
        HELLO_2 => hello("2"),
        _ => json!({"Env": ["PATH=/"], "Entrypoint": ["/skiff", "pause", "--here"], "WorkingDir": "/"}),
    };
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "skiff", "comment": "made from the running binary"}],
    })
    .to_string()
    .into_bytes()
}

/// Writes the layer from the executable as it is now. The caller holds the store in use.
pub(crate) fn materialize(store: &Store, executable: &Path, chain_id: &str) -> Result<(), ImageError> {
    let ingest = store.ingest()?;
    let root = ingest.path().join("fs");
    for dir in ["", "etc", "tmp", "proc", "sys", "dev", "run", "var"] {
        let dir = root.join(dir);
        fs::create_dir(&dir).at("create", &dir)?;
    }
    let modes = [("", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("run", 0o755), ("var", 0o755)];
    for (dir, mode) in modes {
        let dir = root.join(dir);
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).at("change the mode of", &dir)?;
    }
    // The runtime mounts over the last three: that they exist spares it from creating them in each container.
    let files = [("passwd", PASSWD), ("group", GROUP), ("hosts", ""), ("hostname", ""), ("resolv.conf", "")];
    for (name, content) in files {
        let file = root.join("etc").join(name);
        fs::write(&file, content).at("write", &file)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).at("change the mode of", &file)?;
    }
    let link = root.join("var/run");
    symlink("/run", &link).at("create", link)?;
    place_binary(executable, &root.join("skiff"))?;
    store.add_layer(chain_id, ingest)
}

/// A hard link costs nothing, but every user must be able to execute what it shows.
fn place_binary(executable: &Path, to: &Path) -> Result<(), ImageError> {
    let executable = fs::canonicalize(executable).at("read", executable)?;
    let mode = fs::metadata(&executable).at("read", &executable)?.permissions().mode();
    if mode & 0o555 == 0o555 && mode & 0o6022 == 0 && fs::hard_link(&executable, to).is_ok() {
        return Ok(());
    }
    fs::copy(&executable, to).at("copy", &executable)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).at("change the mode of", to)
}

#[cfg(test)]
mod tests;
