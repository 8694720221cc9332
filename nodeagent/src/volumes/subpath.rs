//! Parts of volumes as mounts of their own.
//!
//! What is in a volume may be changed by its containers at any moment. A path in it is therefore resolved once, by
//! the kernel and never out of the volume, to an open file; that file, not its path, is bound to a place which no
//! container can reach, and the runtime mounts from there.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use super::disk;
use super::payload::checked;

/// How often a path is resolved anew when the kernel saw it change on the way.
const TRIES: usize = 32;

/// Binds `path` inside `volume` to `target`. A missing directory is made with the mode of the volume.
pub(super) fn bind(volume: &Path, path: &str, target: &Path) -> io::Result<()> {
    let opened = open(volume, path)?;
    let found = fstat(&opened)?;
    let is_directory = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    if let Ok(bound) = fs::symlink_metadata(target) {
        if (bound.dev(), bound.ino()) == (found.st_dev, found.st_ino) {
            return Ok(());
        }
        // The file was replaced since an earlier container was started.
        disk::unmount(target)?;
        let is_other = fs::symlink_metadata(target).is_ok_and(|left| left.is_dir() != is_directory);
        if is_other {
            fs::remove_dir(target).or_else(|_| fs::remove_file(target))?;
        }
    }
    if is_directory {
        fs::create_dir_all(target)?;
    } else {
        if let Some(above) = target.parent() {
            fs::create_dir_all(above)?;
        }
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(target)?;
    }
    disk::bind(opened.as_fd(), target)
}

/// Opens `path` inside `volume`, links in it followed as long as they stay in it.
fn open(volume: &Path, path: &str) -> io::Result<OwnedFd> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let path = checked_sub_path(path).map_err(invalid)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = openat2(AT_FDCWD, volume, OpenHow::new().flags(flags)).map_err(|e| disk::at(volume, e))?;
    match beneath(&root, &path) {
        Err(Errno::ENOENT) => {}
        other => return other.map_err(|error| disk::at(&volume.join(&path), error)),
    }
    let mode = Mode::from_bits_truncate(fstat(&root)?.st_mode & 0o7777);
    let mut above = root.try_clone()?;
    let mut so_far = String::new();
    for part in path.split('/') {
        so_far = if so_far.is_empty() { part.to_owned() } else { format!("{so_far}/{part}") };
        let opened = match beneath(&root, &so_far) {
            Err(Errno::ENOENT) => {
                match mkdirat(&above, part, mode) {
                    Ok(()) => {
                        // The umask had its say. What is there now may be a link already: it is not followed.
                        let here = nix::fcntl::openat(
                            &above,
                            part,
                            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                            Mode::empty(),
                        )?;
                        nix::sys::stat::fchmod(&here, mode)?;
                    }
                    Err(Errno::EEXIST) => {}
                    Err(error) => return Err(disk::at(&volume.join(&so_far), error)),
                }
                beneath(&root, &so_far)
            }
            other => other,
        };
        above = opened.map_err(|error| disk::at(&volume.join(&so_far), error))?;
    }
    Ok(above)
}

fn beneath(root: &OwnedFd, path: &str) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
    // EAGAIN: a rename went on meanwhile, so the kernel can't tell whether the path left the volume.
    for _ in 1..TRIES {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    openat2(root, path, how)
}

/// A `subPath` in its shortest form. Other than in the files of a volume, names may begin with two dots.
fn checked_sub_path(path: &str) -> Result<String, String> {
    if path.starts_with('/') {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    let cleaned = checked(&format!("x/{path}"))
        .map_err(|_| format!("unable to provision SubPath `{path}`: must not contain '..'"))?;
    match cleaned.strip_prefix("x/") {
        Some(path) => Ok(path.to_owned()),
        // The volume itself.
        None => Ok(".".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Base(tempfile::TempDir);

    impl Drop for Base {
        fn drop(&mut self) {
            let _ = disk::remove(&self.0.path().join("pod"));
        }
    }

    fn base() -> Base {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("pod/volume/inside/deep")).unwrap();
        fs::write(base.path().join("pod/volume/inside/file"), "in").unwrap();
        fs::write(base.path().join("secret"), "out").unwrap();
        Base(base)
    }

    #[test]
    fn links_are_followed_inside_the_volume_and_never_out_of_it() {
        let base = base();
        let volume = base.0.path().join("pod/volume");
        symlink("inside", volume.join("good")).unwrap();
        symlink("../../secret", volume.join("bad")).unwrap();
        symlink("/etc", volume.join("absolute")).unwrap();
        symlink("../..", volume.join("inside/up")).unwrap();
        for (path, fits) in [
            ("inside", true),
            ("good/file", true),
            ("good/deep", true),
            ("bad", false),
            ("absolute/passwd", false),
            ("absolute/new", false),
            ("inside/up/secret", false),
            ("inside/up/new", false),
            ("../secret", false),
            ("/etc/passwd", false),
        ] {
            let target = base.0.path().join("pod/target");
            assert_eq!(bind(&volume, path, &target).is_ok(), fits, "{path}");
        }
        assert!(!Path::new("/etc/new").exists() && !base.0.path().join("new").exists());
    }

    #[test]
    fn a_bound_file_stays_what_it_was_and_is_bound_anew_when_replaced() {
        let base = base();
        let (volume, target) = (base.0.path().join("pod/volume"), base.0.path().join("pod/sub/0"));
        bind(&volume, "inside/file", &target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "in");
        fs::remove_file(volume.join("inside/file")).unwrap();
        symlink("/etc/passwd", volume.join("inside/file")).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "in");
        bind(&volume, "inside/file", &target).unwrap_err();
        fs::remove_file(volume.join("inside/file")).unwrap();
        fs::create_dir(volume.join("inside/file")).unwrap();
        bind(&volume, "inside/file", &target).unwrap();
        assert!(target.is_dir());
        bind(&volume, "inside/file", &target).unwrap();
        assert_eq!(disk::mounts_below(&target).unwrap().len(), 1, "bound once");
    }

    #[test]
    fn a_missing_directory_is_made_like_its_volume() {
        use std::os::unix::fs::PermissionsExt;
        let base = base();
        let volume = base.0.path().join("pod/volume");
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
        bind(&volume, "a/b", &base.0.path().join("pod/sub/1")).unwrap();
        assert_eq!(fs::metadata(volume.join("a/b")).unwrap().mode() & 0o7777, 0o777);
    }
}
