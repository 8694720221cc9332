//! Root filesystems of containers: an overlay of an image's layers with a writable directory on top.
//!
//! ```text
//! root/containers/ID/image.json   which layers it uses (they are no garbage while this exists)
//! root/containers/ID/upper        what the container wrote
//! root/containers/ID/work         overlayfs' own
//! root/containers/ID/rootfs       where it is mounted
//! ```
//! The runtime keeps other files of the container in the same directory.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount as mount_syscall, umount2};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::error::{At, ImageError};
use super::files::found;

/// `mount` takes one page of options, with the zero at its end.
const OPTIONS_LIMIT: usize = 4095;

/// Ways to mount, the best first; a kernel that does not know an option refuses all. `volatile` spares the
/// sync of a filesystem whose content ends with its container; `index=off` lets a layer serve many.
const FLAVOURS: [&str; 3] = ["volatile,index=off,", "index=off,", ""];

/// What a container's root filesystem is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Used {
    /// Id of the image.
    pub(crate) image: String,
    /// Chain ids of its layers.
    pub(crate) layers: Vec<String>,
}

/// The directory of a container.
pub(crate) fn container_dir(containers: &Path, id: &str) -> Result<PathBuf, ImageError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty() || id.starts_with('.') || !id.chars().all(plain) {
        return Err(ImageError::Request(format!("invalid container id {id:?}")));
    }
    Ok(containers.join(id))
}

/// Mounts layer directories (bottom first) for a container and returns the merged directory. What is mounted
/// stays so.
pub(crate) fn mount(dir: &Path, used: &Used, layers: &[PathBuf]) -> Result<PathBuf, ImageError> {
    let merged = dir.join("rootfs");
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    if found(is_mounted(&merged)).at("stat", &merged)? == Some(true) {
        return Ok(merged);
    }
    // Lower directories are named by descriptor: short, whatever the path, and safe for any letter in it.
    let mut lowers = Vec::with_capacity(layers.len());
    for layer in layers.iter().rev() {
        lowers.push(open_dir(layer)?);
    }
    fs::create_dir_all(&merged).at("create", &merged)?;
    record(dir, used)?;
    // Left by a volatile mount that a crash ended, it would forbid the next mount.
    found(fs::remove_dir_all(&work)).at("remove", &work)?;
    fs::create_dir(&work).at("create", &work)?;
    if found(fs::symlink_metadata(&upper)).at("stat", &upper)?.is_none() {
        create_upper(&upper, layers.last())?;
    }
    let empty = dir.join("empty");
    if lowers.is_empty() {
        fs::create_dir_all(&empty).at("create", &empty)?;
        lowers.push(open_dir(&empty)?);
    }
    let (upper_fd, work_fd) = (open_dir(&upper)?, open_dir(&work)?);
    let lower: Vec<String> = lowers.iter().map(by_descriptor).collect();
    let directories = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        by_descriptor(&upper_fd),
        by_descriptor(&work_fd)
    );
    let mut result = Err(Errno::EINVAL);
    for flavour in FLAVOURS {
        let options = format!("{flavour}{directories}");
        if options.len() > OPTIONS_LIMIT {
            let count = layers.len();
            return Err(ImageError::content("image", format!("{count} layers are more than can be mounted")));
        }
        result = mount_syscall(
            Some("overlay"),
            &merged,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        );
        if result != Err(Errno::EINVAL) {
            break;
        }
    }
    match result {
        Ok(()) => Ok(merged),
        Err(Errno::EINVAL) => Err(ImageError::Request(format!(
            "overlayfs can't write to the filesystem of {}: move the data directory to another one (ext4, xfs, tmpfs)",
            dir.display()
        ))),
        Err(errno) => Err(errno).at("mount an overlay on", &merged),
    }
}

/// Unmounts a container's root filesystem and deletes what the container wrote. Nothing there is fine.
pub(crate) fn unmount(dir: &Path) -> Result<(), ImageError> {
    let merged = dir.join("rootfs");
    // More than one mount can lie here: a container's own mounts with shared propagation, or an earlier fault.
    while found(is_mounted(&merged)).at("stat", &merged)? == Some(true) {
        match umount2(&merged, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(errno) => return Err(errno).at("unmount", &merged),
        }
    }
    for name in ["upper", "work", "empty"] {
        let path = dir.join(name);
        found(fs::remove_dir_all(&path)).at("remove", path)?;
    }
    // Only an empty directory: a mount that is still there must not be emptied through its mount point.
    found(fs::remove_dir(&merged)).at("remove", &merged)?;
    let record = dir.join("image.json");
    found(fs::remove_file(&record)).at("remove", record)?;
    match fs::remove_dir(dir) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(e).at("remove", dir)
        }
        _ => Ok(()),
    }
}

/// What the containers' root filesystems use.
pub(crate) fn records(containers: &Path) -> Result<Vec<Used>, ImageError> {
    let mut records = Vec::new();
    for entry in fs::read_dir(containers).at("list", containers)? {
        let path = entry.at("list", containers)?.path().join("image.json");
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(e) => return Err(e).at("read", path),
        };
        match serde_json::from_slice(&content) {
            Ok(used) => records.push(used),
            // Not synced when written: this is one that a power failure cut, and with it went the mount.
            Err(error) => warn!(path = %path.display(), %error, "not a record of a container's image"),
        }
    }
    Ok(records)
}

/// What a container's root filesystem uses, if it has one.
pub(crate) fn used(dir: &Path) -> Result<Option<Used>, ImageError> {
    let path = dir.join("image.json");
    let content = found(fs::read(&path)).at("read", path)?;
    Ok(content.and_then(|content| serde_json::from_slice(&content).ok()))
}

/// Not synced: it protects a mount, and what outlives the mount is only worth deleting.
fn record(dir: &Path, used: &Used) -> Result<(), ImageError> {
    let (path, new) = (dir.join("image.json"), dir.join("image.json.new"));
    let json = serde_json::to_vec(used).map_err(|e| ImageError::content("container record", e))?;
    fs::write(&new, json).at("write", &new)?;
    fs::rename(&new, &path).at("write", path)
}

/// The root directory of the overlay shows the owner and mode of its upper directory.
fn create_upper(upper: &Path, top: Option<&PathBuf>) -> Result<(), ImageError> {
    let new = upper.with_extension("new");
    found(fs::remove_dir_all(&new)).at("remove", &new)?;
    fs::create_dir(&new).at("create", &new)?;
    let (mode, owner) = match top {
        None => (0o755, (0, 0)),
        Some(top) => {
            let metadata = fs::metadata(top).at("stat", top)?;
            (metadata.permissions().mode() & 0o7777, (metadata.uid(), metadata.gid()))
        }
    };
    chown(&new, Some(owner.0), Some(owner.1)).at("change the owner of", &new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).at("change the mode of", &new)?;
    fs::rename(&new, upper).at("create", upper)
}

fn open_dir(path: &Path) -> Result<OwnedFd, ImageError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    open(path, flags, Mode::empty()).at("open", path)
}

fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Whether something is mounted on a directory: it is on another device than its parent.
fn is_mounted(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok(fs::symlink_metadata(path)?.dev() != fs::symlink_metadata(parent)?.dev())
}

#[cfg(test)]
mod tests;
