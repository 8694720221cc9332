//! `hostPath` volumes: the kinds of file that they may ask for.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Checks, or makes, the file behind a `hostPath` volume. Errors are in the kubelet's words.
pub(super) fn prepare(path: &Path, kind: &str) -> Result<(), String> {
    let failed = |what: &str| format!("hostPath type check failed: {} is not {what}", path.display());
    let found = fs::metadata(path).ok().map(|found| found.file_type());
    let made = |made: io::Result<()>| made.map_err(|error| format!("{}: {error}", path.display()));
    match (kind, found) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", None) => made(make_directory(path)),
        ("FileOrCreate", None) => made(make_file(path)),
        ("Directory" | "DirectoryOrCreate", found) => {
            found.filter(fs::FileType::is_dir).map(drop).ok_or_else(|| failed("a directory"))
        }
        ("File" | "FileOrCreate", found) => {
            found.filter(fs::FileType::is_file).map(drop).ok_or_else(|| failed("a file"))
        }
        ("Socket", found) => {
            found.filter(FileTypeExt::is_socket).map(drop).ok_or_else(|| failed("a socket file"))
        }
        ("CharDevice", found) => {
            found.filter(FileTypeExt::is_char_device).map(drop).ok_or_else(|| failed("a character device"))
        }
        ("BlockDevice", found) => {
            found.filter(FileTypeExt::is_block_device).map(drop).ok_or_else(|| failed("a block device"))
        }
        (other, _) => Err(format!("{other} is an invalid volume type")),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// The directories above are not made.
fn make_file(path: &Path) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_accepts_only_its_own() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let _socket = std::os::unix::net::UnixListener::bind(base.join("socket")).unwrap();
        fs::write(base.join("file"), "").unwrap();
        fs::create_dir(base.join("directory")).unwrap();
        std::os::unix::fs::symlink("directory", base.join("link")).unwrap();
        for (kind, path, fits) in [
            ("", "missing", true),
            ("Directory", "directory", true),
            ("Directory", "link", true),
            ("Directory", "file", false),
            ("Directory", "missing", false),
            ("File", "file", true),
            ("File", "directory", false),
            ("Socket", "socket", true),
            ("Socket", "file", false),
            ("CharDevice", "/dev/null", true),
            ("CharDevice", "file", false),
            ("BlockDevice", "/dev/null", false),
            ("DirectoryOrCreate", "file", false),
            ("DirectoryOrCreate", "new/directory", true),
            ("FileOrCreate", "new/file", true),
            ("FileOrCreate", "nowhere/file", false),
            ("FileOrCreate", "directory", false),
            ("Nonsense", "file", false),
        ] {
            assert_eq!(prepare(&base.join(path), kind).is_ok(), fits, "{kind} {path}");
        }
        assert!(base.join("new/directory").is_dir() && base.join("new/file").is_file());
        let words = prepare(Path::new("/nope"), "Directory").unwrap_err();
        assert_eq!(words, "hostPath type check failed: /nope is not a directory");
    }
}
