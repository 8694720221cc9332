//! One process per data directory: a lock that ends with its process, and tells who holds it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::Failure;
use crate::failure::Because;

/// Held while a role works on a directory.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

fn open(dir: &Path) -> Result<(PathBuf, File), Failure> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .because(path.display())?;
    Ok((path, file))
}

impl Lock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(dir: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir).because(dir.display())?;
        let (path, file) = open(dir)?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, _)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                return Err(Failure::new(format!(
                    "{} is in use by process {}: stop that one first, or take another --data-dir",
                    dir.display(),
                    pid.trim()
                )));
            }
        };
        let wrote = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        wrote.because(path.display())?;
        Ok(Self { _file: file })
    }

    /// The process that holds the lock of `dir`; `None` when nobody does.
    pub(crate) fn holder(dir: &Path) -> Result<Option<i32>, Failure> {
        if !dir.join("lock").exists() {
            return Ok(None);
        }
        let (path, file) = open(dir)?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(None),
            Err((mut file, _)) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).because(path.display())?;
                let pid = pid.trim().parse().because(path.display())?;
                Ok(Some(pid))
            }
        }
    }
}
