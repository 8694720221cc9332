//! Layer archives to directories as overlayfs wants them.
//!
//! The input is hostile. Every path is resolved by the kernel inside the layer's directory (`openat2` with
//! `RESOLVE_IN_ROOT`), so neither `..` nor a symlink made by an earlier entry leads out of it; nothing is ever
//! opened for writing that was there before; numbers of bytes and entries are bounded.
//!
//! Whiteouts become character devices 0:0, opaque directories get `trusted.overlay.opaque`. Directories that
//! an archive only implies take owner, mode and attributes from the layers below, which they would hide.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use self::tarball::Tarball;
use self::tree::Tree;
use super::document::digest_text;
use super::error::{At, ImageError};
use super::files::Usage;

pub(crate) mod tarball;
mod tree;

/// How much an archive may unpack to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of the uncompressed archive.
    pub(crate) bytes: u64,
    /// Files, directories and so on.
    pub(crate) entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000 }
    }
}

/// Unpacks a layer into the existing, empty directory `into`, and checks that the uncompressed archive has the
/// digest `diff_id`. `lowers` are the layers below, the topmost first.
pub(crate) fn unpack(
    blob: &Path,
    diff_id: &str,
    into: &Path,
    lowers: &[PathBuf],
    limits: Limits,
) -> Result<Usage, ImageError> {
    let what = || format!("layer {diff_id}");
    let file = File::open(blob).at("open", blob)?;
    let decoded = decode(file).map_err(|e| ImageError::content(what(), e))?;
    let measured = Measured { input: decoded, hash: Sha256::new(), left: limits.bytes };
    let mut archive = Tarball::new(measured);
    let mut tree = Tree::open(into, lowers)?;
    let mut entries = 0;
    while let Some(entry) = archive.next_entry().map_err(|e| ImageError::content(what(), e))? {
        entries += 1;
        if entries > limits.entries {
            let limit = limits.entries;
            return Err(ImageError::content(what(), format!("more than {limit} entries")));
        }
        tree.apply(&entry, &mut archive).map_err(|e| {
            ImageError::content(what(), format!("{}: {e}", String::from_utf8_lossy(&entry.path)))
        })?;
    }
    let usage = tree.finish();
    let mut measured = archive.into_inner();
    // Some tools pad more than tar needs; that belongs to the digest too.
    io::copy(&mut measured, &mut io::sink()).map_err(|e| ImageError::content(what(), e))?;
    let actual = digest_text(measured.hash.finalize());
    if actual != diff_id {
        return Err(ImageError::content(what(), format!("its content has the digest {actual}")));
    }
    Ok(usage)
}

/// The content of a file that may be compressed with gzip or zstd: told by how it starts, because media types
/// and file names are wrong too often.
pub(crate) fn decode(file: File) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(256 << 10, file);
    let start = io::BufRead::fill_buf(&mut file)?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(file)));
    }
    // A zstd frame, or a skippable one, as chunked layers have.
    let skippable = start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18];
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable {
        return Ok(Box::new(zstd::stream::read::Decoder::with_buffer(file)?));
    }
    Ok(Box::new(file))
}

/// Hashes and bounds what is read.
struct Measured<R> {
    input: R,
    hash: Sha256,
    left: u64,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other("it unpacks to more than is allowed"))?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
