//! Directories and mounts of volumes on the node, and how to be rid of them without touching anything else.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Deeper directories are moved up before they are removed: a container may nest them without end, and each level
/// on the way down costs an open file.
const DEEPEST: usize = 64;

/// An error that names the path.
pub(super) fn at(path: &Path, error: impl Into<io::Error>) -> io::Error {
    let error: io::Error = error.into();
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Makes a directory that appears with its mode and group or not at all. One that is there stays as it is.
pub(super) fn make_directory(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o750).create(above).map_err(|error| at(above, error))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = above.join(format!(".new-{name}"));
    let made = || -> io::Result<()> {
        match fs::create_dir(&new) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if group.is_some() {
            chown(&new, None, group)?;
        }
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        fs::rename(&new, path)
    };
    made().map_err(|error| at(path, error))
}

/// Mounts a tmpfs on a directory that isn't one yet. Nothing in it is executed as another user or as a device.
pub(super) fn make_tmpfs(path: &Path, mode: u32, group: Option<u32>, size: Option<u64>) -> io::Result<()> {
    make_directory(path, 0o750, None)?;
    if is_mounted(path)? {
        return Ok(());
    }
    let mut options = format!("mode={mode:o},gid={}", group.unwrap_or(0));
    if let Some(size) = size {
        options.push_str(&format!(",size={size}"));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str())).map_err(|error| at(path, error))
}

/// True if something is mounted on a directory that we made. A tmpfs is another device than what is above it.
pub(super) fn is_mounted(path: &Path) -> io::Result<bool> {
    let own = fs::symlink_metadata(path).map_err(|error| at(path, error))?;
    let above = path.parent().unwrap_or(Path::new("/"));
    let above = fs::symlink_metadata(above).map_err(|error| at(above, error))?;
    Ok(own.dev() != above.dev())
}

/// Makes what `source` refers to appear at `target`, which must be of its kind.
pub(super) fn bind(source: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    let none = None::<&str>;
    mount(Some(source.as_str()), target, none, MsFlags::MS_BIND, none).map_err(|error| at(target, error))
}

/// Takes away what is mounted at a path; nothing need be.
pub(super) fn unmount(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(at(path, error)),
    }
}

/// The mount points below a directory, innermost last.
pub(super) fn mounts_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let text = fs::read("/proc/self/mountinfo")?;
    let points = text.split(|byte| *byte == b'\n').filter_map(mount_point);
    Ok(points.filter(|point| point.starts_with(directory)).collect())
}

/// The fifth field of a line of mountinfo, where blanks are written as octal escapes.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| after.get(..3)).flatten();
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    Some(std::ffi::OsString::from_vec(path).into())
}

/// Unmounts and removes a directory of ours with all that is in it. It never goes through a link or into another
/// filesystem: a mount that can't be taken away is an error, not a directory to empty.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    let directory = match fs::canonicalize(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| at(directory, error))?,
    };
    for point in mounts_below(&directory)?.iter().rev() {
        unmount(point)?;
    }
    let top = open_directory(AT_FDCWD, directory.as_os_str(), ResolveFlag::empty())
        .map_err(|error| at(&directory, error))?;
    let mut moved = 0;
    // Each round removes all but what was too deep, and that is on top in the next.
    while clear(&top, &top, 0, &mut moved).map_err(|error| at(&directory, error))? {}
    fs::remove_dir(&directory).map_err(|error| at(&directory, error))
}

fn open_directory<P: nix::NixPath + ?Sized>(
    above: impl AsFd,
    name: &P,
    resolve: ResolveFlag,
) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat2(above, name, OpenHow::new().flags(flags).resolve(resolve))
}

/// Empties a directory; true if something was moved up to `top`.
fn clear(directory: &OwnedFd, top: &OwnedFd, depth: usize, moved: &mut usize) -> nix::Result<bool> {
    let mut entries = Dir::from_fd(open_directory(directory, c".", ResolveFlag::empty())?)?;
    let entries: Vec<(CString, Option<Type>)> = entries
        .iter()
        .map(|entry| entry.map(|entry| (entry.file_name().to_owned(), entry.file_type())))
        .collect::<nix::Result<_>>()?;
    let mut postponed = false;
    for (name, kind) in entries {
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if kind != Some(Type::Directory) {
            match unlinkat(directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => continue,
                // A filesystem that doesn't say what an entry is.
                Err(Errno::EISDIR) if kind.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        if depth == DEEPEST {
            *moved += 1;
            renameat(directory, name.as_c_str(), top, format!(".deep-{moved}").as_str())?;
            postponed = true;
            continue;
        }
        postponed |= remove_directory(directory, &name, top, depth, moved)?;
    }
    Ok(postponed)
}

fn remove_directory(
    above: &OwnedFd,
    name: &CStr,
    top: &OwnedFd,
    depth: usize,
    moved: &mut usize,
) -> nix::Result<bool> {
    let only_here =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let directory = open_directory(above, name, only_here)?;
    let postponed = clear(&directory, top, depth + 1, moved)?;
    unlinkat(above, name, UnlinkatFlags::RemoveDir)?;
    Ok(postponed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tmpfs_has_its_size_and_is_gone_after_removal() {
        let base = tempfile::tempdir().unwrap();
        let pod = base.path().join("pod");
        let volume = pod.join("volumes/cache");
        make_tmpfs(&volume, 0o777, Some(3000), Some(1 << 20)).unwrap();
        make_tmpfs(&volume, 0o777, Some(3000), Some(1 << 20)).unwrap();
        assert_eq!(mounts_below(&pod).unwrap(), std::slice::from_ref(&volume));
        let found = fs::metadata(&volume).unwrap();
        assert_eq!((found.gid(), found.mode() & 0o7777), (3000, 0o777));
        let full = fs::write(volume.join("big"), vec![0; 2 << 20]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        remove(&pod).unwrap();
        assert!(!pod.exists() && mounts_below(&pod).unwrap().is_empty());
        remove(&pod).unwrap();
    }

    #[test]
    fn removal_leaves_bound_directories_and_link_targets_alone() {
        let base = tempfile::tempdir().unwrap();
        let (pod, host) = (base.path().join("pod"), base.path().join("host"));
        for directory in [pod.join("bound"), pod.join("volumes"), host.clone()] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(host.join("precious"), "x").unwrap();
        std::os::unix::fs::symlink(&host, pod.join("volumes/link")).unwrap();
        let source = fs::File::open(&host).unwrap();
        bind(source.as_fd(), &pod.join("bound")).unwrap();
        assert!(pod.join("bound/precious").exists());
        // Even if nothing were unmounted, the walk stops at the mount.
        let top = open_directory(AT_FDCWD, pod.as_os_str(), ResolveFlag::empty()).unwrap();
        assert_eq!(remove_directory(&top, c"bound", &top, 0, &mut 0), Err(Errno::EXDEV));
        remove(&pod).unwrap();
        assert!(host.join("precious").exists() && !pod.exists());
    }

    #[test]
    fn directories_of_any_depth_are_removed() {
        let base = tempfile::tempdir().unwrap();
        let pod = base.path().join("pod");
        fs::create_dir(&pod).unwrap();
        let mut directory = open_directory(AT_FDCWD, pod.as_os_str(), ResolveFlag::empty()).unwrap();
        for _ in 0..400 {
            nix::sys::stat::mkdirat(&directory, "d", nix::sys::stat::Mode::S_IRWXU).unwrap();
            directory = open_directory(&directory, c"d", ResolveFlag::empty()).unwrap();
        }
        remove(&pod).unwrap();
        assert!(!pod.exists());
    }

    #[test]
    fn blanks_in_a_mount_point_are_read() {
        let line = b"36 35 98:0 / /a\\040b\\134c rw master:1 - ext4 /dev/root rw";
        assert_eq!(mount_point(line).unwrap(), Path::new("/a b\\c"));
    }
}
