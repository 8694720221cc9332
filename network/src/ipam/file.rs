//! The file that address allocations survive a restart in.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::Ipam;
use crate::error::Error;

const NAME: &str = "addresses.json";

/// Where the allocations are, inside of a state directory.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// What an earlier start left, if anything.
///
/// Only a power failure can leave a broken file, and no sandbox survives one: so a broken file counts as none.
pub(crate) fn load(state_dir: &Path) -> Result<Option<Ipam>, Error> {
    let path = path(state_dir);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(Error::file(&path))?,
    };
    match serde_json::from_slice(&text) {
        Ok(ipam) => Ok(Some(ipam)),
        Err(error) => {
            warn!(path = %path.display(), %error, "address allocations can't be read, starting without");
            Ok(None)
        }
    }
}

/// Replaces the file in one step.
pub(crate) fn save(state_dir: &Path, ipam: &Ipam) -> Result<(), Error> {
    let path = path(state_dir);
    let temporary = state_dir.join(format!(".{NAME}.tmp"));
    let write = || -> io::Result<()> {
        let text = serde_json::to_vec(ipam)?;
        fs::File::create(&temporary)?.write_all(&text)?;
        fs::rename(&temporary, &path)
    };
    write().map_err(Error::file(&path))
}

/// Forgets all allocations.
pub(crate) fn remove(state_dir: &Path) -> Result<(), Error> {
    let path = path(state_dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_a_broken_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), None);
        let ipam = Ipam::new("10.1.2.0/24".parse().unwrap());
        save(dir.path(), &ipam).unwrap();
        assert_eq!(load(dir.path()).unwrap(), Some(ipam));
        fs::write(path(dir.path()), "{").unwrap();
        assert_eq!(load(dir.path()).unwrap(), None);
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
