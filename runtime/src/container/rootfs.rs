//! Directories in a root file system that the image made: links in it are followed only inside.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

use crate::error::{Error, IoContext};

/// Makes a directory with all its parents, as runc does for the working directory.
pub(super) fn make_directory(rootfs: &Path, path: &str) -> Result<(), Error> {
    let root = File::open(rootfs).at("open", rootfs)?;
    let mut walked = PathBuf::from("/");
    for component in Path::new(path).components() {
        let Component::Normal(name) = component else { continue };
        let parent = walked.clone();
        walked.push(name);
        match open(&root, &walked) {
            Ok(_) => {}
            Err(Errno::ENOENT) => {
                let parent = open(&root, &parent).at("open", &parent)?;
                match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                    // A link that leads nowhere: what is mounted there later decides.
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error).at("create", &walked),
                }
            }
            // A file in the way is reported by the one who enters it.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

fn open(root: &File, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_inside_also_through_a_link_that_points_out() {
        let rootfs = tempfile::tempdir().unwrap();
        std::fs::create_dir(rootfs.path().join("inner")).unwrap();
        std::os::unix::fs::symlink("/inner", rootfs.path().join("link")).unwrap();
        make_directory(rootfs.path(), "/link/a/b").unwrap();
        assert!(rootfs.path().join("inner/a/b").is_dir());
        make_directory(rootfs.path(), "/../../x").unwrap();
        assert!(rootfs.path().join("x").is_dir());
        make_directory(rootfs.path(), "/").unwrap();
    }
}
