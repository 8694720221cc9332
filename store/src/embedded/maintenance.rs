//! Backup and restore of the embedded store.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::embedded::core::RESTORED;
use crate::embedded::database::{self, Failure};
use crate::embedded::{Embedded, lock, name};
use crate::error::Error;

impl Embedded {
    /// Writes a consistent copy of the store to the file `path`, while it is in use.
    /// The file appears whole or not at all; one that exists is replaced.
    pub async fn backup(&self, path: &Path) -> Result<(), Error> {
        let Some(dir) = &self.directory else {
            return Err(Error::Invalid("a store in memory has no backup".to_owned()));
        };
        let (source, target) = (dir.join(database::FILE), path.to_owned());
        self.tasks.blocking(move || write_backup(&source, &target)).await
    }

    /// Makes a store in `dir`, where there must be none yet, from a backup.
    ///
    /// It goes on at a higher revision than the original can have reached, and calls what was before
    /// compacted, so that clients that saw later writes list anew.
    pub fn restore(backup: &Path, dir: &Path) -> Result<(), Error> {
        let _lock = lock(dir)?;
        let target = dir.join(database::FILE);
        if target.exists() {
            return Err(Error::Open(format!(
                "{} already holds a store; restore into an empty directory",
                dir.display()
            )));
        }
        let partial = dir.join("restore.partial");
        let restored = || -> Result<(), Error> {
            std::fs::copy(backup, &partial).map_err(|error| io(backup, "copying", &error))?;
            mark_restored(&partial).map_err(Error::from)?;
            settle(&partial, &target)
        };
        restored().map_err(|error| name(dir, Error::Open(format!("restoring {}: {error}", backup.display()))))
    }
}

fn write_backup(source: &Path, target: &Path) -> Result<(), Error> {
    let mut partial = target.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    if partial.exists() {
        std::fs::remove_file(&partial).map_err(|error| io(&partial, "removing", &error))?;
    }
    let Some(text) = partial.to_str() else {
        return Err(Error::Invalid(format!("{} is not UTF-8", partial.display())));
    };
    let written = database::open_reader(source)
        .and_then(|connection| Ok(connection.execute("VACUUM INTO ?1", [text])?))
        .map_err(|failure| Error::from(failure).in_file(&partial))
        .and_then(|_| settle(&partial, target));
    if written.is_err() {
        // What can't be removed is replaced by the next backup.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

/// Checks that a file is a store in our format, and marks it for [`Core::open`](super::core::Core::open).
fn mark_restored(path: &Path) -> Result<(), Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    let check: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(Error::Damaged(check).into());
    }
    database::verify(&connection)?;
    connection.execute("UPDATE meta SET boot = ?1", [RESTORED])?;
    Ok(())
}

/// Makes a finished file durable under its final name.
fn settle(partial: &Path, target: &Path) -> Result<(), Error> {
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    sync(partial).map_err(|error| io(partial, "syncing", &error))?;
    std::fs::rename(partial, target).map_err(|error| io(target, "renaming to", &error))?;
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sync(parent).map_err(|error| io(parent, "syncing", &error))
}

fn io(path: &Path, what: &str, error: &std::io::Error) -> Error {
    let text = format!("{what} {}: {error}", path.display());
    if error.kind() == std::io::ErrorKind::StorageFull {
        Error::NoSpace(text)
    } else {
        Error::Unavailable(text)
    }
}

impl Error {
    fn in_file(self, path: &Path) -> Self {
        match self {
            Self::NoSpace(text) => Self::NoSpace(format!("{}: {text}", path.display())),
            Self::Unavailable(text) => Self::Unavailable(format!("{}: {text}", path.display())),
            other => other,
        }
    }
}
