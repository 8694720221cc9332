//! Reading an archive: everything in it is first written beside the store, then checked, then moved.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{DockerImage, NAME_ANNOTATION, REF_ANNOTATION};
use crate::image::document::{
    CONFIG, DOCUMENT_LIMIT, Descriptor, LAYER, MANIFEST, Manifest, digest_text, sha256,
};
use crate::image::error::{At, ImageError};
use crate::image::files::read_limited;
use crate::image::ingest::Plan;
use crate::image::reference::Reference;
use crate::image::store::{InUse, Store};
use crate::image::unpack::tarball::{Kind, Tarball};
use crate::image::unpack::{Limits, decode};

/// An archive holds so many files at most.
const ENTRIES: usize = 100_000;
/// So deep may one index point to another.
const INDEX_DEPTH: usize = 4;
/// So long may a chain of links in the archive be.
const LINK_DEPTH: usize = 8;

/// Brings in the images of an archive and returns their ids.
pub(crate) fn load(store: &Store, archive: &Path) -> Result<Vec<String>, ImageError> {
    let in_use = store.in_use()?;
    let content = Content::read(store, archive)?;
    let images = if content.find("index.json").is_some() {
        content.oci_images()?
    } else if content.find("manifest.json").is_some() {
        content.docker_images()?
    } else {
        let reason = "neither an OCI layout nor made by docker save";
        return Err(ImageError::content(archive.display().to_string(), reason));
    };
    let mut ids = Vec::new();
    for image in images {
        let id = content.commit(store, &in_use, &image)?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

struct Found {
    manifest: Manifest,
    digest: String,
    bytes: Vec<u8>,
    config: Vec<u8>,
    names: Vec<String>,
}

/// A regular file of the archive.
struct Stored {
    file: PathBuf,
    digest: String,
    size: u64,
    /// As the bytes show, not the name.
    compression: &'static str,
}

/// What is in an archive.
struct Content {
    archive: PathBuf,
    files: HashMap<PathBuf, Stored>,
    links: HashMap<PathBuf, PathBuf>,
    /// Where the files are until they are moved.
    _dir: TempDir,
}

impl Content {
    fn read(store: &Store, archive: &Path) -> Result<Self, ImageError> {
        let fail = |e: std::io::Error| ImageError::content(archive.display().to_string(), e);
        let dir = store.ingest()?;
        let input = decode(File::open(archive).at("open", archive)?).map_err(fail)?;
        let mut tarball = Tarball::new(input.take(Limits::default().bytes));
        let mut content =
            Self { archive: archive.to_owned(), files: HashMap::new(), links: HashMap::new(), _dir: dir };
        let mut number = 0;
        while let Some(entry) = tarball.next_entry().map_err(fail)? {
            number += 1;
            if number > ENTRIES {
                return Err(content.error("it holds too many files"));
            }
            // Only a key in a map: no path of the archive reaches the disk.
            let path = clean(Path::new(""), &entry.path);
            match entry.kind {
                Kind::File => {
                    let file = content._dir.path().join(number.to_string());
                    let stored = write(&mut tarball, &file, fail)?;
                    content.files.insert(path, stored);
                }
                Kind::Symlink => {
                    let target = clean(path.parent().unwrap_or(Path::new("")), &entry.link);
                    content.links.insert(path, target);
                }
                Kind::HardLink => {
                    content.links.insert(path, clean(Path::new(""), &entry.link));
                }
                _ => {}
            }
        }
        Ok(content)
    }

    fn error(&self, reason: impl ToString) -> ImageError {
        ImageError::content(self.archive.display().to_string(), reason)
    }

    fn find(&self, path: impl AsRef<Path>) -> Option<&Stored> {
        let mut path = clean(Path::new(""), path.as_ref().as_os_str().as_encoded_bytes());
        for _ in 0..LINK_DEPTH {
            if let Some(stored) = self.files.get(&path) {
                return Some(stored);
            }
            path = self.links.get(&path)?.clone();
        }
        None
    }

    fn document(&self, path: &str) -> Result<Vec<u8>, ImageError> {
        let stored = self.find(path).ok_or_else(|| self.error(format!("{path} is missing")))?;
        read_limited(&stored.file, DOCUMENT_LIMIT)
    }

    /// The file with this digest, wherever it is.
    fn by_digest(&self, digest: &str) -> Option<&Stored> {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.find(Path::new("blobs/sha256").join(hex)).filter(|stored| stored.digest == digest)
    }

    fn blob_document(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let stored = self.by_digest(digest);
        let stored = stored.ok_or_else(|| self.error(format!("blob {digest} is missing or damaged")))?;
        read_limited(&stored.file, DOCUMENT_LIMIT)
    }

    fn oci_images(&self) -> Result<Vec<Found>, ImageError> {
        let index = Manifest::parse("index.json", &self.document("index.json")?)?;
        let entries = index.manifests.as_deref().unwrap_or_default();
        let mut images = Vec::new();
        for entry in entries {
            // Each entry is an image of its own; one for another machine is passed over.
            let alone = Manifest { manifests: Some(vec![entry.clone()]), ..Manifest::default() };
            if alone.for_this_machine().is_some()
                && let Some(image) = self.oci_image(entry, 0)?
            {
                images.push(image);
            }
        }
        match images.is_empty() {
            true => Err(self.error("it has no image for this platform")),
            false => Ok(images),
        }
    }

    fn oci_image(&self, entry: &Descriptor, depth: usize) -> Result<Option<Found>, ImageError> {
        if depth == INDEX_DEPTH {
            return Err(self.error("its indexes are nested too deep"));
        }
        let bytes = self.blob_document(&entry.digest)?;
        let manifest = Manifest::parse(&format!("manifest {}", entry.digest), &bytes)?;
        let mut names = Vec::new();
        let annotation = |name: &str| entry.annotations.as_ref().and_then(|all| all.get(name));
        let full = annotation(NAME_ANNOTATION);
        // A bare tag names no image.
        let short = annotation(REF_ANNOTATION).filter(|name| name.contains(['/', ':']));
        if let Some(name) = full.or(short).and_then(|name| Reference::parse(name).ok()) {
            names.push(name.to_string());
        }
        if manifest.manifests.is_some() {
            let Some(ours) = manifest.for_this_machine() else { return Ok(None) };
            let inner = self.oci_image(ours, depth + 1)?;
            return Ok(inner.map(|inner| Found { names, ..inner }));
        }
        let config = manifest.config.clone().unwrap_or_default();
        let config = self.blob_document(&config.digest)?;
        Ok(Some(Found { manifest, digest: entry.digest.clone(), bytes, config, names }))
    }

    fn docker_images(&self) -> Result<Vec<Found>, ImageError> {
        let images: Vec<DockerImage> = serde_json::from_slice(&self.document("manifest.json")?)
            .map_err(|e| self.error(format!("manifest.json: {e}")))?;
        images.iter().map(|image| self.docker_image(image)).collect()
    }

    /// Docker's archives have no manifests: this makes the one that such an image would have.
    fn docker_image(&self, image: &DockerImage) -> Result<Found, ImageError> {
        let config = self.document(&image.config)?;
        let layers = image.layers.iter().map(|path| {
            let stored = self.find(path).ok_or_else(|| self.error(format!("{path} is missing")))?;
            let media_type = format!("{LAYER}{}", stored.compression);
            Ok(Descriptor::new(&media_type, stored.digest.clone(), stored.size))
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            config: Some(Descriptor::new(CONFIG, sha256(&config), config.len() as u64)),
            layers: Some(layers.collect::<Result<_, ImageError>>()?),
            manifests: None,
        };
        let bytes = serde_json::to_vec(&manifest).map_err(|e| self.error(e))?;
        let names = image.repo_tags.iter().flatten();
        let names = names.map(|name| Ok(Reference::parse(name)?.to_string()));
        Ok(Found {
            manifest,
            digest: sha256(&bytes),
            bytes,
            config,
            names: names.collect::<Result<_, ImageError>>()?,
        })
    }

    fn commit(&self, store: &Store, in_use: &InUse, image: &Found) -> Result<String, ImageError> {
        let plan =
            Plan::new(image.digest.clone(), image.bytes.clone(), &image.manifest, image.config.clone())?;
        for layer in plan.layers() {
            if store.has_blob(&layer.digest) {
                continue;
            }
            let stored = self.files.values().find(|stored| stored.digest == layer.digest);
            let stored =
                stored.ok_or_else(|| self.error(format!("blob {} is missing or damaged", layer.digest)))?;
            File::open(&stored.file).and_then(|file| file.sync_all()).at("sync", &stored.file)?;
            store.add_blob(&layer.digest, &stored.file)?;
        }
        for number in 0..plan.layers().len() {
            plan.unpack(store, in_use, number)?;
        }
        plan.register(store, in_use, &image.names)
    }
}

fn write(
    input: &mut impl Read,
    file: &Path,
    fail: impl Fn(std::io::Error) -> ImageError,
) -> Result<Stored, ImageError> {
    let mut output = File::create(file).at("create", file)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    let mut compression = "";
    loop {
        let read = input.read(&mut buffer).map_err(&fail)?;
        if read == 0 {
            break;
        }
        if size == 0 {
            compression = match &buffer[..read] {
                [0x1f, 0x8b, ..] => "+gzip",
                [0x28, 0xb5, 0x2f, 0xfd, ..] => "+zstd",
                _ => "",
            };
        }
        size += read as u64;
        hash.update(&buffer[..read]);
        output.write_all(&buffer[..read]).at("write", file)?;
    }
    Ok(Stored { file: file.to_owned(), digest: digest_text(hash.finalize()), size, compression })
}

/// A path of the archive, from `base`, without `.` and `..`.
fn clean(base: &Path, path: &[u8]) -> PathBuf {
    let mut cleaned = base.to_owned();
    for component in Path::new(String::from_utf8_lossy(path).as_ref()).components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            _ => {}
        }
    }
    cleaned
}
