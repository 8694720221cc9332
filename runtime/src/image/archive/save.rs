//! Writing an archive that containerd, Docker, Podman and skopeo read.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::{DockerImage, NAME_ANNOTATION, REF_ANNOTATION};
use crate::image::Image;
use crate::image::demo;
use crate::image::document::{
    CONFIG, DOCUMENT_LIMIT, Descriptor, INDEX, LAYER, MANIFEST, Manifest, digest_text, sha256,
};
use crate::image::error::{At, ImageError};
use crate::image::files::{read_limited, sync_dir};
use crate::image::reference::Reference;
use crate::image::store::Store;

/// Writes images, each under the name it was asked for by, or all its names when that was an id.
pub(crate) fn save(
    store: &Store,
    executable: &Path,
    images: &[(String, Arc<Image>)],
    to: &Path,
) -> Result<(), ImageError> {
    let in_use = store.in_use()?;
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(dir).at("create a file in", dir)?;
    let mut archive =
        Archive { tar: Builder::new(BufWriter::new(file.as_file())), to, blobs: HashSet::new() };
    archive.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let (mut index, mut docker) = (Vec::new(), Vec::new());
    for (reference, image) in images {
        // Built-in images have no blobs: theirs are made here, and are gone afterwards.
        let made = store.ingest()?;
        let source = match &image.manifest {
            Some(_) => Source::stored(store, image)?,
            None => Source::built_in(store, executable, image, made.path())?,
        };
        let mut layers = Vec::new();
        for (descriptor, path) in &source.layers {
            archive.blob_file(&descriptor.digest, path)?;
            layers.push(blob_path(&descriptor.digest));
        }
        archive.blob_bytes(&source.config.0, &source.config.1)?;
        archive.blob_bytes(&source.manifest.0, &source.manifest.1)?;
        let names = names(reference, image);
        let entry = |annotations| Descriptor {
            annotations,
            ..Descriptor::new(&source.media_type, source.manifest.0.clone(), source.manifest.1.len() as u64)
        };
        for name in &names {
            let tag = name.rsplit_once(':').map_or(name.as_str(), |(_, tag)| tag).to_owned();
            let annotations = BTreeMap::from([
                (NAME_ANNOTATION.to_owned(), name.clone()),
                (REF_ANNOTATION.to_owned(), tag),
            ]);
            index.push(entry(Some(annotations)));
        }
        if names.is_empty() {
            index.push(entry(None));
        }
        docker.push(DockerImage { config: blob_path(&source.config.0), repo_tags: Some(names), layers });
    }
    let index = Manifest {
        schema_version: 2,
        media_type: Some(INDEX.to_owned()),
        manifests: Some(index),
        ..Manifest::default()
    };
    archive.json("index.json", &index)?;
    archive.json("manifest.json", &docker)?;
    archive.finish()?;
    drop(in_use);
    file.as_file().sync_all().at("sync", to)?;
    file.persist(to).map_err(|e| e.error).at("write", to)?;
    sync_dir(dir)
}

fn names(reference: &str, image: &Image) -> Vec<String> {
    let asked = Reference::parse(reference).map(|name| name.to_string()).ok();
    match asked.filter(|name| image.repo_tags.contains(name)) {
        Some(name) => vec![name],
        None => image.repo_tags.clone(),
    }
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// What is written of an image: digests with content.
struct Source {
    media_type: String,
    manifest: (String, Vec<u8>),
    config: (String, Vec<u8>),
    layers: Vec<(Descriptor, PathBuf)>,
}

impl Source {
    fn stored(store: &Store, image: &Image) -> Result<Self, ImageError> {
        let digest = image.manifest.clone().unwrap_or_default();
        let bytes = read_limited(&store.blob(&digest), DOCUMENT_LIMIT)?;
        let manifest = Manifest::parse(&format!("manifest {digest}"), &bytes)?;
        let config = read_limited(&store.blob(&image.id), DOCUMENT_LIMIT)?;
        let layers = manifest.layers.unwrap_or_default().into_iter();
        Ok(Self {
            media_type: manifest.media_type.unwrap_or_else(|| MANIFEST.to_owned()),
            manifest: (digest, bytes),
            config: (image.id.clone(), config),
            layers: layers.map(|layer| (layer.clone(), store.blob(&layer.digest))).collect(),
        })
    }

    fn built_in(store: &Store, executable: &Path, image: &Image, made: &Path) -> Result<Self, ImageError> {
        let mut layers = Vec::new();
        for (number, layer) in image.layers.iter().enumerate() {
            if !store.has_layer(&layer.chain_id) {
                demo::materialize(store, executable, &layer.chain_id)?;
            }
            let path = made.join(number.to_string());
            let descriptor = pack(&store.layer(&layer.chain_id).join("fs"), &path)?;
            layers.push((descriptor, path));
        }
        let config = read_limited(&store.blob(&image.id), DOCUMENT_LIMIT)?;
        let mut config: Value =
            serde_json::from_slice(&config).map_err(|e| ImageError::content(&image.id, e))?;
        // Nothing was compressed, so the digests of the archives are those of the blobs.
        let diff_ids: Vec<&String> = layers.iter().map(|(layer, _)| &layer.digest).collect();
        config["rootfs"]["diff_ids"] = json!(diff_ids);
        let config = config.to_string().into_bytes();
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            config: Some(Descriptor::new(CONFIG, sha256(&config), config.len() as u64)),
            layers: Some(layers.iter().map(|(layer, _)| layer.clone()).collect()),
            manifests: None,
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|e| ImageError::content(&image.id, e))?;
        Ok(Self {
            media_type: MANIFEST.to_owned(),
            manifest: (sha256(&manifest), manifest),
            config: (sha256(&config), config),
            layers,
        })
    }
}

/// Packs a layer's directory, which holds nothing but directories, files and symlinks.
fn pack(root: &Path, to: &Path) -> Result<Descriptor, ImageError> {
    let output = File::create(to).at("create", to)?;
    let mut tar = Builder::new(Hashing { output: BufWriter::new(output), hash: Sha256::new(), size: 0 });
    pack_dir(&mut tar, root, Path::new(""))?;
    let mut hashing = tar.into_inner().at("write", to)?;
    hashing.output.flush().at("write", to)?;
    Ok(Descriptor::new(LAYER, digest_text(hashing.hash.finalize()), hashing.size))
}

fn pack_dir(tar: &mut Builder<impl Write>, root: &Path, dir: &Path) -> Result<(), ImageError> {
    let full = root.join(dir);
    let entries = fs::read_dir(&full).and_then(Iterator::collect::<Result<Vec<_>, _>>).at("list", &full)?;
    let mut names: Vec<_> = entries.into_iter().map(|entry| entry.file_name()).collect();
    names.sort();
    for name in names {
        let (inner, full) = (dir.join(&name), full.join(&name));
        let metadata = fs::symlink_metadata(&full).at("read", &full)?;
        let mut header = Header::new_gnu();
        header.set_metadata(&metadata);
        // The same binary makes the same layer everywhere.
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        if metadata.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            let target = fs::read_link(&full).at("read", &full)?;
            tar.append_link(&mut header, &inner, target).at("pack", &full)?;
        } else if metadata.is_dir() {
            header.set_size(0);
            tar.append_data(&mut header, &inner, io::empty()).at("pack", &full)?;
            pack_dir(tar, root, &inner)?;
        } else {
            let file = File::open(&full).at("open", &full)?;
            tar.append_data(&mut header, &inner, file).at("pack", &full)?;
        }
    }
    Ok(())
}

struct Hashing<W> {
    output: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// The archive being written.
struct Archive<'a, W: Write> {
    tar: Builder<W>,
    to: &'a Path,
    /// Content that images share is written once.
    blobs: HashSet<String>,
}

impl<W: Write> Archive<'_, W> {
    fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<(), ImageError> {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        self.tar.append_data(&mut header, path, bytes).at("write", self.to)
    }

    fn json(&mut self, path: &str, value: &impl serde::Serialize) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(value).map_err(|e| ImageError::content(path, e))?;
        self.bytes(path, &bytes)
    }

    fn blob_bytes(&mut self, digest: &str, bytes: &[u8]) -> Result<(), ImageError> {
        match self.blobs.insert(digest.to_owned()) {
            true => self.bytes(&blob_path(digest), bytes),
            false => Ok(()),
        }
    }

    fn blob_file(&mut self, digest: &str, path: &Path) -> Result<(), ImageError> {
        if !self.blobs.insert(digest.to_owned()) {
            return Ok(());
        }
        let file = File::open(path).at("open", path)?;
        let mut header = Header::new_gnu();
        header.set_size(file.metadata().at("read", path)?.len());
        header.set_mode(0o644);
        self.tar.append_data(&mut header, blob_path(digest), file).at("write", self.to)
    }

    fn finish(self) -> Result<(), ImageError> {
        let mut output = self.tar.into_inner().at("write", self.to)?;
        output.flush().at("write", self.to)
    }
}
