//! Files of keys and certificates: written whole or not at all, readable by their owner only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::Error;

/// No key or certificate comes near this; a file that does is not ours.
const MOST: u64 = 1 << 20;

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, source }
}

/// Makes the directory, for its owner only.
pub(super) fn make_directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))
}

/// The file's text; `None` if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path)(error)),
    };
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).map_err(failed(path))?;
    Ok(Some(text))
}

/// Replaces the file: after a crash it holds the old or the new text, never a part.
pub(super) fn write(path: &Path, text: &[u8], mode: u32) -> Result<(), Error> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let staged = directory.join(name);
    // A leftover of a crash may have other permissions than a new file would get.
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&staged)(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&staged).map_err(failed(&staged))?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(failed(&staged))?;
    fs::rename(&staged, path).map_err(failed(path))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed(directory))
}
