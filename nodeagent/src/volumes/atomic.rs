//! Writes all files of a volume in one step, as the kubelet's atomic writer: a reader sees all old files or all
//! new ones.
//!
//! ```text
//! ..2026_01_02_03_04_05.k7x2p/key   the files
//! ..data -> ..2026_01_02_03_04_05.k7x2p   changed by a rename: the one step
//! key -> ..data/key                  what the containers open
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

use super::payload::{File, Payload};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// The points between which the machine may stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Directory,
    File,
    Link,
    Switched,
    Shown,
    Hidden,
}

/// Makes `volume` show `payload`. `name` is the name of a new directory, beginning with `..`. With a `group`, files
/// belong to it and it can read them. Returns whether anything had to be written.
pub(super) fn write(
    volume: &Path,
    payload: &Payload,
    group: Option<u32>,
    name: &str,
    mut step: impl FnMut(Step) -> io::Result<()>,
) -> io::Result<bool> {
    let current = fs::read_link(volume.join(DATA)).ok();
    if current.as_ref().is_some_and(|current| shows(&volume.join(current), payload, group)) {
        // A stop between two steps may have left the links or an old directory.
        show(volume, payload, &mut step)?;
        sweep(volume, payload, &mut step)?;
        return Ok(false);
    }
    let directory = volume.join(name);
    make(&directory, group)?;
    step(Step::Directory)?;
    for (path, file) in payload {
        let mut above = directory.clone();
        let parts: Vec<&str> = path.split('/').collect();
        for part in parts.iter().take(parts.len().saturating_sub(1)) {
            above.push(part);
            if !above.is_dir() {
                make(&above, group)?;
            }
        }
        create(&directory.join(path), file, group)?;
        step(Step::File)?;
    }
    let link = volume.join(NEW_DATA);
    remove_file(&link)?;
    symlink(name, &link)?;
    step(Step::Link)?;
    fs::rename(&link, volume.join(DATA))?;
    step(Step::Switched)?;
    show(volume, payload, &mut step)?;
    sweep(volume, payload, &mut step)?;
    Ok(true)
}

/// The names that are to be seen in the volume: the first part of every path.
fn shown(payload: &Payload) -> BTreeSet<&str> {
    payload.keys().filter_map(|path| path.split('/').next()).collect()
}

/// Makes the links through `..data`.
fn show(volume: &Path, payload: &Payload, step: &mut impl FnMut(Step) -> io::Result<()>) -> io::Result<()> {
    for name in shown(payload) {
        match symlink(Path::new(DATA).join(name), volume.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    step(Step::Shown)
}

/// Removes what is no longer shown: links of ours, and directories that `..data` doesn't name.
fn sweep(volume: &Path, payload: &Payload, step: &mut impl FnMut(Step) -> io::Result<()>) -> io::Result<()> {
    let current = fs::read_link(volume.join(DATA))?;
    let shown = shown(payload);
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let is_ours = |name: &str| kind.is_symlink() && !name.starts_with("..");
        match name.to_str() {
            Some(name) if is_ours(name) && !shown.contains(name) => remove_file(&entry.path())?,
            Some(NEW_DATA) => remove_file(&entry.path())?,
            Some(name) if kind.is_dir() && name.starts_with("..") && current.as_os_str() != name => {
                fs::remove_dir_all(entry.path())?;
            }
            _ => {}
        }
    }
    step(Step::Hidden)
}

fn make(directory: &Path, group: Option<u32>) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(directory)?;
    let mode = if group.is_some() { 0o2755 } else { 0o755 };
    if group.is_some() {
        chown(directory, None, group)?;
    }
    // After the owner, whose change clears bits; and the umask has no say.
    fs::set_permissions(directory, fs::Permissions::from_mode(mode))
}

fn file_mode(file: &File, group: Option<u32>) -> u32 {
    if group.is_some() { file.mode | 0o440 } else { file.mode }
}

fn create(path: &Path, file: &File, group: Option<u32>) -> io::Result<()> {
    let mut opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut opened, &file.data)?;
    if file.user.is_some() || group.is_some() {
        chown(path, file.user, group)?;
    }
    opened.set_permissions(fs::Permissions::from_mode(file_mode(file, group)))
}

/// True if the directory holds exactly these files.
fn shows(directory: &Path, payload: &Payload, group: Option<u32>) -> bool {
    let mut count = 0;
    if !count_files(directory, &mut count) || count != payload.len() {
        return false;
    }
    payload.iter().all(|(path, file)| {
        let path = directory.join(path);
        fs::symlink_metadata(&path).is_ok_and(|found| {
            found.is_file()
                && found.len() == file.data.len() as u64
                && found.mode() & 0o7777 == file_mode(file, group)
                && found.uid() == file.user.unwrap_or(0)
                && group.is_none_or(|group| found.gid() == group)
        }) && fs::read(&path).is_ok_and(|data| data == file.data)
    })
}

/// Directories that hold nothing don't come from us: false.
fn count_files(directory: &Path, count: &mut usize) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    for entry in entries {
        let Ok(entry) = entry else { return false };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if !count_files(&entry.path(), count) {
                return false;
            }
        } else {
            *count += 1;
        }
    }
    true
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { data: text.as_bytes().to_vec(), mode: 0o644, user: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    /// What a container finds in the volume.
    fn seen(volume: &Path) -> Vec<String> {
        fn walk(directory: &Path, prefix: &str, found: &mut Vec<String>) {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                let name = entry.file_name().into_string().unwrap();
                if name.starts_with("..") {
                    continue;
                }
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, &format!("{prefix}{name}/"), found);
                } else if let Ok(text) = fs::read_to_string(&path) {
                    found.push(format!("{prefix}{name}={text}"));
                }
            }
        }
        let mut found = Vec::new();
        walk(volume, "", &mut found);
        found.sort();
        found
    }

    fn hidden(volume: &Path) -> usize {
        let names = fs::read_dir(volume).unwrap().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_str().unwrap().starts_with("..")).count()
    }

    #[test]
    fn files_appear_change_and_vanish() {
        let volume = tempfile::tempdir().unwrap();
        let volume = volume.path();
        let no_stop = |_: Step| Ok(());
        assert!(write(volume, &payload(&[("a", "1"), ("d/b", "2")]), None, "..1", no_stop).unwrap());
        assert_eq!(seen(volume), ["a=1", "d/b=2"]);
        assert!(!write(volume, &payload(&[("a", "1"), ("d/b", "2")]), None, "..2", no_stop).unwrap());
        assert!(write(volume, &payload(&[("a", "3")]), None, "..3", no_stop).unwrap());
        assert_eq!(seen(volume), ["a=3"]);
        assert_eq!(hidden(volume), 2, "..data and one directory");
        assert!(write(volume, &payload(&[]), None, "..4", no_stop).unwrap());
        assert!(seen(volume).is_empty());
    }

    #[test]
    fn a_stop_at_any_point_leaves_all_old_or_all_new_files() {
        let old = payload(&[("a", "old"), ("d/b", "old"), ("gone", "old")]);
        let new = payload(&[("a", "new"), ("d/b", "new"), ("more", "new")]);
        let mut steps = 0;
        write(tempfile::tempdir().unwrap().path(), &new, None, "..n", |_| {
            steps += 1;
            Ok(())
        })
        .unwrap();
        for stop in 0..steps {
            let volume = tempfile::tempdir().unwrap();
            let volume = volume.path();
            write(volume, &old, None, "..old", |_| Ok(())).unwrap();
            let mut reached = 0;
            write(volume, &new, None, "..new", |_| {
                reached += 1;
                if reached > stop { Err(io::Error::other("stopped")) } else { Ok(()) }
            })
            .unwrap_err();
            let files = seen(volume);
            let mixed = files.iter().any(|file| file.ends_with("=old"))
                && files.iter().any(|file| file.ends_with("=new"));
            assert!(!mixed && files.len() >= 2, "after step {stop}: {files:?}");
            write(volume, &new, None, "..again", |_| Ok(())).unwrap();
            assert_eq!(seen(volume), ["a=new", "d/b=new", "more=new"], "after step {stop}");
            assert_eq!(hidden(volume), 2, "after step {stop}: nothing is left over");
        }
    }

    #[test]
    fn owner_group_and_mode_are_set() {
        let volume = tempfile::tempdir().unwrap();
        let volume = volume.path();
        let file = File { data: b"t".to_vec(), mode: 0o600, user: Some(1000) };
        let files = Payload::from([("d/token".to_owned(), file)]);
        write(volume, &files, Some(2000), "..1", |_| Ok(())).unwrap();
        let found = fs::metadata(volume.join("d/token")).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (1000, 2000, 0o640));
        let above = fs::metadata(volume.join("d")).unwrap();
        assert_eq!((above.gid(), above.mode() & 0o7777), (2000, 0o2755));
        assert!(!write(volume, &files, Some(2000), "..2", |_| Ok(())).unwrap());
    }
}
