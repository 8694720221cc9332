//! Files that are whole or absent, locks between processes, and how much a tree takes.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::error::{At, ImageError};

/// What a tree of files takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// Replaces a file: after a crash it holds the old or the new content, never a part.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), ImageError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(dir).at("create a file in", dir)?;
    file.write_all(content).at("write", file.path())?;
    file.as_file().sync_all().at("sync", file.path())?;
    file.persist(path).map_err(|e| e.error).at("write", path)?;
    sync_dir(dir)
}

/// Makes what was renamed in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), ImageError> {
    File::open(dir).and_then(|dir| dir.sync_all()).at("sync", dir)
}

/// Makes a whole tree durable, with all else on its filesystem: far cheaper than file by file.
pub(crate) fn sync_tree(dir: &Path) -> Result<(), ImageError> {
    File::open(dir).and_then(|dir| Ok(nix::unistd::syncfs(&dir)?)).at("sync", dir)
}

/// The content of a file, refused when it is larger than allowed.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let file = File::open(path).at("open", path)?;
    file.take(limit + 1).read_to_end(&mut bytes).at("read", path)?;
    match bytes.len() as u64 > limit {
        true => Err(ImageError::content(path.display().to_string(), "it is too large")),
        false => Ok(bytes),
    }
}

/// `None` for a file that does not exist.
pub(crate) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A lock that also holds between processes; released when dropped or when the process dies.
pub(crate) type Lock = Flock<File>;

/// Takes a lock file, waiting unless `mode` says not to; `None` when it is held and `mode` does not wait.
pub(crate) fn lock(path: &Path, mode: FlockArg) -> Result<Option<Lock>, ImageError> {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(path).at("open", path)?;
    let mut file = file;
    loop {
        match Flock::lock(file, mode) {
            Ok(lock) => return Ok(Some(lock)),
            Err((back, nix::errno::Errno::EINTR)) => file = back,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno).at("lock", path),
        }
    }
}

/// What the tree at `path` takes on disk; a hard-linked file counts once. What vanishes meanwhile, or can't
/// be read, is not counted.
pub(crate) fn usage(path: &Path) -> Usage {
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    let mut pending = vec![path.to_owned()];
    while let Some(dir) = pending.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if metadata.nlink() > 1 && !linked.insert(metadata.ino()) {
                continue;
            }
            usage += Usage { bytes: metadata.blocks() * 512, inodes: 1 };
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hard_linked_file_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), vec![1; 10_000]).unwrap();
        let one = usage(dir.path());
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert_eq!(usage(dir.path()), one);
        assert_eq!(one.inodes, 1);
        assert!(one.bytes >= 10_000);
    }

    #[test]
    fn an_exclusive_lock_that_does_not_wait_says_that_it_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = lock(&path, FlockArg::LockShared).unwrap();
        assert!(held.is_some());
        assert!(lock(&path, FlockArg::LockExclusiveNonblock).unwrap().is_none());
        assert!(lock(&path, FlockArg::LockSharedNonblock).unwrap().is_some());
        drop(held);
        assert!(lock(&path, FlockArg::LockExclusiveNonblock).unwrap().is_some());
    }
}
