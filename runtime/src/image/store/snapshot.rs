//! The images as readers see them: shared, immutable, found by any of their names.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::index::Index;
use crate::image::Image;
use crate::image::files::Usage;
use crate::image::reference::{Reference, is_digest, is_hex};

/// An abbreviated image id has at least so many digits (as `docker images` shows).
const SHORT_ID: usize = 12;

/// One state of the store.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    images: BTreeMap<String, Arc<Image>>,
    names: HashMap<String, String>,
    unpacked: Usage,
    blobs: Usage,
}

impl Snapshot {
    pub(crate) fn new(index: &Index) -> Self {
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        let mut unpacked = Usage::default();
        let mut counted = HashSet::new();
        let mut blobs = Usage::default();
        for (id, record) in &index.images {
            // Layers that images share count for each: an estimate that needs no reading of the disk.
            if record.manifest.is_some() {
                blobs += Usage { bytes: record.size, inodes: 2 + record.layers.len() as u64 };
            }
            for layer in &record.layers {
                if counted.insert(&layer.chain_id) {
                    unpacked += layer.usage;
                }
            }
            images.insert(id.clone(), Image::new(id.clone(), record.clone()));
        }
        // A name of an image that is not there would be a damaged file; it is as if it did not exist.
        for (name, id) in &index.names {
            if let Some(image) = images.get_mut(id) {
                let list = if name.contains('@') { &mut image.repo_digests } else { &mut image.repo_tags };
                list.push(name.clone());
            }
        }
        let names = index.names.iter().map(|(name, id)| (name.clone(), id.clone())).collect();
        Self {
            images: images.into_iter().map(|(id, image)| (id, Arc::new(image))).collect(),
            names,
            unpacked,
            blobs,
        }
    }

    /// All images, by id.
    pub(crate) fn list(&self) -> Vec<Arc<Image>> {
        self.images.values().cloned().collect()
    }

    /// What all unpacked layers take.
    pub(crate) fn unpacked(&self) -> Usage {
        self.unpacked
    }

    /// What the blobs take.
    pub(crate) fn blobs(&self) -> Usage {
        self.blobs
    }

    /// The image with this name, name by digest, id, or unambiguous beginning of an id.
    pub(crate) fn resolve(&self, reference: &str) -> Option<Arc<Image>> {
        if is_digest(reference) {
            return self.images.get(reference).cloned();
        }
        let by_name = Reference::parse(reference).ok().and_then(|name| self.names.get(&name.to_string()));
        if let Some(id) = by_name {
            return self.images.get(id).cloned();
        }
        let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
        if digits.len() < SHORT_ID || !is_hex(digits) {
            return None;
        }
        let start = format!("sha256:{digits}");
        let mut matching = self.images.range(start.clone()..).take_while(|(id, _)| id.starts_with(&start));
        match (matching.next(), matching.next()) {
            (Some((_, image)), None) => Some(image.clone()),
            _ => None,
        }
    }
}
