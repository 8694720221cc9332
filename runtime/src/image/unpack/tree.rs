//! A layer's directory while it is being filled.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{ffi::OsStr, ffi::OsString};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, fstatat, makedev, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use tracing::debug;

use super::tarball::{Entry, Kind};
use crate::image::error::{At, ImageError};
use crate::image::files::Usage;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names with this beginning are notes of aufs to itself.
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// Attributes by which overlayfs finds files in other layers: an image may not set them.
const FOREIGN_XATTRS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// `openat2` asks to try again when something was renamed anywhere meanwhile.
const RESOLVE_ATTEMPTS: usize = 100;
const BLOCK: u64 = 4096;

/// A layer's directory.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// The layers below, topmost first.
    lowers: Vec<OwnedFd>,
    /// The directory last worked in: archives are mostly in order.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Times of directories are set at the end: each file made in them changes them.
    times: Vec<(PathBuf, TimeSpec)>,
    usage: Usage,
}

impl Tree {
    pub(super) fn open(root: &Path, lowers: &[PathBuf]) -> Result<Self, ImageError> {
        let dir = |path: &Path| {
            open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).at("open", path)
        };
        Ok(Self {
            root: dir(root)?,
            lowers: lowers.iter().map(|lower| dir(lower)).collect::<Result<_, _>>()?,
            parent: None,
            times: Vec::new(),
            usage: Usage::default(),
        })
    }

    /// Makes what an entry says; `data` is its content.
    pub(super) fn apply(&mut self, entry: &Entry, data: &mut impl Read) -> io::Result<()> {
        let path = inner_path(&entry.path)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return match entry.kind {
                Kind::Directory => self.apply_root(entry),
                _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no name")),
            };
        };
        let dir = path.parent().unwrap_or(Path::new(""));
        self.enter(dir)?;
        let Some((_, parent)) = self.parent.take() else { return Err(Errno::ENOENT.into()) };
        let kept = self.make(&parent, dir, &name, entry, data)?;
        // A directory or a link on the way may have been replaced.
        self.parent = kept.then(|| (dir.to_owned(), parent));
        Ok(())
    }

    /// Sets the times of directories and tells what everything takes.
    pub(super) fn finish(self) -> Usage {
        for (path, time) in self.times.iter().rev() {
            // One that a later entry replaced is no directory any more.
            if let Ok(dir) = resolve(&self.root, path, ResolveFlag::RESOLVE_NO_SYMLINKS) {
                let _ = utimensat(AT_FDCWD, &itself(&dir), time, time, UtimensatFlags::FollowSymlink);
            }
        }
        self.usage
    }

    fn apply_root(&mut self, entry: &Entry) -> io::Result<()> {
        let root = itself(&self.root);
        fchownat(AT_FDCWD, &root, Some(entry.uid.into()), Some(entry.gid.into()), AtFlags::empty())?;
        fchmodat(AT_FDCWD, &root, Mode::from_bits_truncate(entry.mode), FchmodatFlags::FollowSymlink)?;
        set_xattrs(&root, &entry.xattrs)?;
        self.times.push((PathBuf::from("."), time(entry.mtime)));
        Ok(())
    }

    /// Makes one entry in an open directory. Tells whether the directory can be used again.
    fn make(
        &mut self,
        parent: &OwnedFd,
        dir: &Path,
        name: &OsStr,
        entry: &Entry,
        data: &mut impl Read,
    ) -> io::Result<bool> {
        if name.as_bytes() == OPAQUE {
            xattr::set(itself(parent), OPAQUE_XATTR, b"y")?;
            return Ok(true);
        }
        if name.as_bytes().starts_with(WHITEOUT_META) {
            return Ok(true);
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(parent, OsStr::from_bytes(hidden));
        }
        let mut reusable = true;
        let mut opaque = false;
        if let Some(existing) = stat_in(parent, name)? {
            let both_directories = is_dir(&existing) && entry.kind == Kind::Directory;
            if !both_directories {
                opaque = is_whiteout(&existing) && entry.kind == Kind::Directory;
                reusable = !is_dir(&existing);
                remove(parent, name, &existing)?;
            }
        }
        let device = || makedev(entry.device.0, entry.device.1);
        match entry.kind {
            Kind::Directory => match mkdirat(parent, name, Mode::from_bits_truncate(0o700)) {
                Err(Errno::EEXIST) => {}
                result => result?,
            },
            Kind::File => self.write_file(parent, name, data)?,
            Kind::Symlink => symlinkat(OsStr::from_bytes(&entry.link), parent, name)?,
            // The target's owner, mode and times are its own entry's.
            Kind::HardLink => return self.hard_link(parent, name, entry).map(|()| reusable),
            Kind::CharDevice => {
                mknodat(parent, name, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), device())?
            }
            Kind::BlockDevice => {
                mknodat(parent, name, SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), device())?
            }
            Kind::Fifo => mknodat(parent, name, SFlag::S_IFIFO, Mode::from_bits_truncate(0o600), 0)?,
            Kind::Other => {
                debug!(path = %dir.join(name).display(), "entry of unknown type passed over");
                return Ok(reusable);
            }
        }
        self.usage.inodes += 1;
        // The owner first: changing it clears set-id bits and file capabilities.
        fchownat(parent, name, Some(entry.uid.into()), Some(entry.gid.into()), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if entry.kind != Kind::Symlink {
            // Not followed: what has this name was just made, and is no link.
            fchmodat(parent, name, Mode::from_bits_truncate(entry.mode), FchmodatFlags::FollowSymlink)?;
        }
        let path = named(parent, name);
        set_xattrs(&path, &entry.xattrs)?;
        if opaque {
            xattr::set(&path, OPAQUE_XATTR, b"y")?;
        }
        let mtime = time(entry.mtime);
        if entry.kind == Kind::Directory {
            self.usage.bytes += BLOCK;
            self.times.push((dir.join(name), mtime));
        } else {
            utimensat(parent, name, &mtime, &mtime, UtimensatFlags::NoFollowSymlink)?;
        }
        Ok(reusable)
    }

    fn write_file(&mut self, parent: &OwnedFd, name: &OsStr, data: &mut impl Read) -> io::Result<()> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(parent, name, flags, Mode::from_bits_truncate(0o600))?);
        let written = io::copy(data, &mut file)?;
        self.usage.bytes += written.div_ceil(BLOCK) * BLOCK;
        Ok(())
    }

    fn hard_link(&self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let target = inner_path(&entry.link)?;
        let Some(target_name) = target.file_name() else { return Err(Errno::EPERM.into()) };
        let dir = target.parent().unwrap_or(Path::new(""));
        let dir = resolve(&self.root, dir, ResolveFlag::RESOLVE_IN_ROOT)?;
        Ok(linkat(&dir, target_name, parent, name, AtFlags::empty())?)
    }

    /// Hides what the layers below have under a name; what this layer has stays visible.
    fn whiteout(&mut self, parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
        if name.is_empty() || name == "." || name == ".." {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "hides no name"));
        }
        match stat_in(parent, name)? {
            None => mknodat(parent, name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?,
            Some(existing) if is_dir(&existing) => xattr::set(named(parent, name), OPAQUE_XATTR, b"y")?,
            Some(_) => {}
        }
        self.usage.inodes += 1;
        Ok(true)
    }

    /// Opens a directory as the one to work in, making those on the way that the archive only implies.
    fn enter(&mut self, dir: &Path) -> io::Result<()> {
        if self.parent.as_ref().is_some_and(|(path, _)| path == dir) {
            return Ok(());
        }
        let fd = match resolve(&self.root, dir, ResolveFlag::RESOLVE_IN_ROOT) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR) => self.make_parents(dir)?,
            Err(errno) => return Err(errno.into()),
        };
        self.parent = Some((dir.to_owned(), fd));
        Ok(())
    }

    fn make_parents(&mut self, dir: &Path) -> io::Result<OwnedFd> {
        let mut path = PathBuf::new();
        let mut current = self.root.try_clone()?;
        for name in dir.iter() {
            path.push(name);
            current = match resolve(&self.root, &path, ResolveFlag::RESOLVE_IN_ROOT) {
                Ok(fd) => fd,
                Err(Errno::ENOENT | Errno::ENOTDIR) => {
                    let existing = stat_in(&current, name)?;
                    let hidden = existing.is_some_and(|existing| is_whiteout(&existing));
                    if hidden {
                        unlinkat(&current, name, UnlinkatFlags::NoRemoveDir)?;
                    }
                    mkdirat(&current, name, Mode::from_bits_truncate(0o755))?;
                    let made = resolve(&self.root, &path, ResolveFlag::RESOLVE_IN_ROOT)?;
                    fchmodat(
                        AT_FDCWD,
                        &itself(&made),
                        Mode::from_bits_truncate(0o755),
                        FchmodatFlags::FollowSymlink,
                    )?;
                    self.usage += Usage { bytes: BLOCK, inodes: 1 };
                    if hidden {
                        xattr::set(itself(&made), OPAQUE_XATTR, b"y")?;
                    } else if let Some(lower) = self.lower_dir(&path)? {
                        copy_attributes(&lower, &made)?;
                        let lower = fstat(&lower)?;
                        self.times.push((path.clone(), TimeSpec::new(lower.st_mtime, lower.st_mtime_nsec)));
                    }
                    made
                }
                Err(errno) => return Err(errno.into()),
            };
        }
        Ok(current)
    }

    /// The directory that would be visible under a path without this layer.
    fn lower_dir(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        for lower in &self.lowers {
            match resolve(lower, path, ResolveFlag::RESOLVE_NO_SYMLINKS) {
                Ok(dir) => return Ok(Some(dir)),
                Err(Errno::ENOENT) => {}
                // A file, link or whiteout here or on the way hides what is further below.
                Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
            for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
                if let Ok(dir) = resolve(lower, above, ResolveFlag::RESOLVE_NO_SYMLINKS)
                    && xattr::get(itself(&dir), OPAQUE_XATTR)?.as_deref() == Some(b"y")
                {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }
}

/// A path of an archive as one below the layer's root, without `.`. One with `..` is refused.
fn inner_path(path: &[u8]) -> io::Result<PathBuf> {
    let mut inner = PathBuf::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(io::Error::new(io::ErrorKind::InvalidData, "a path with \"..\"")),
            name => inner.push(OsString::from(OsStr::from_bytes(name))),
        }
    }
    Ok(inner)
}

/// Opens a directory as if `root` were the root of everything.
fn resolve(root: &OwnedFd, path: &Path, how: ResolveFlag) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // NO_SYMLINKS alone would let an absolute path or ".." out.
    let resolve = how | ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let mut result = Err(Errno::EAGAIN);
    for _ in 0..RESOLVE_ATTEMPTS {
        result = openat2(root, path, OpenHow::new().flags(flags).resolve(resolve));
        if !matches!(result, Err(Errno::EAGAIN | Errno::EINTR)) {
            break;
        }
    }
    result
}

/// A path to an open directory, for calls that take no descriptor.
fn itself(dir: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/.", dir.as_raw_fd()))
}

fn named(dir: &OwnedFd, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)
}

fn stat_in(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<FileStat>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn remove(dir: &OwnedFd, name: &OsStr, existing: &FileStat) -> io::Result<()> {
    if is_dir(existing) {
        return fs::remove_dir_all(named(dir, name));
    }
    Ok(unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?)
}

fn is_dir(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

fn is_whiteout(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits() && stat.st_rdev == 0
}

fn time((seconds, nanoseconds): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, i64::from(nanoseconds))
}

fn set_xattrs(path: &Path, xattrs: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
    for (name, value) in xattrs {
        if FOREIGN_XATTRS.iter().any(|foreign| name.starts_with(foreign)) {
            continue;
        }
        match xattr::set(path, OsStr::from_bytes(name), value) {
            // The filesystem, or this kind of file, has no such attributes.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM)) => {
                debug!(name = %String::from_utf8_lossy(name), error = %e, "attribute passed over");
            }
            result => result?,
        }
    }
    Ok(())
}

fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let stat = fstat(from)?;
    let (source, target) = (itself(from), itself(to));
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(AT_FDCWD, &target, Some(uid), Some(gid), AtFlags::empty())?;
    fchmodat(
        AT_FDCWD,
        &target,
        Mode::from_bits_truncate(stat.st_mode & 0o7777),
        FchmodatFlags::FollowSymlink,
    )?;
    let mut xattrs = Vec::new();
    for name in xattr::list(&source)? {
        if let Some(value) = xattr::get(&source, &name)? {
            xattrs.push((name.as_bytes().to_vec(), value));
        }
    }
    set_xattrs(&target, &xattrs)
}
