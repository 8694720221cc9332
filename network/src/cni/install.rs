//! The files by which a runtime finds the plugin: a configuration, and links to this binary.
//!
//! A configuration that is there already is somebody's decision for another network: it is honoured, and nothing is
//! written beside it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::spec::LOOPBACK;
use crate::error::Error;

const FILE: &str = "10-skiff.conflist";
/// The version that every living runtime reads.
const VERSION: &str = "0.4.0";
/// How the plugin's names begin.
const PREFIX: &str = "skiff-";

/// One node's files.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Where the runtime looks for configurations, for example `/etc/cni/net.d`.
    pub conf_dir: PathBuf,
    /// Where it looks for plugins, for example `/opt/cni/bin`.
    pub bin_dir: PathBuf,
    /// Names the node among all of this machine.
    pub id: String,
    /// Where its agent serves plugins.
    pub socket: PathBuf,
    /// This binary.
    pub executable: PathBuf,
}

/// Whose network the runtime uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The node's own.
    Ours,
    /// That of a configuration that somebody else has put there.
    Foreign(PathBuf),
}

impl Installation {
    /// Makes sure that the runtime finds the plugin, unless it has a network of somebody else's. Writes nothing that is
    /// there already.
    pub fn install(&self) -> Result<Found, Error> {
        for dir in [&self.conf_dir, &self.bin_dir] {
            fs::create_dir_all(dir).map_err(Error::file(dir))?;
        }
        if let Some(path) = self.foreign()? {
            self.remove()?;
            return Ok(Found::Foreign(path));
        }
        let file = self.file();
        let other = self.written()?.filter(|kind| *kind != self.plugin());
        if let Some(other) = other {
            let why = format!(
                "another cluster uses this runtime ({other}): end it with `skiff down`, or remove the file"
            );
            return Err(Error::file(file)(io::Error::new(ErrorKind::AlreadyExists, why)));
        }
        self.link(&self.plugin(), &self.executable)?;
        // Runtimes set the loopback interface up by a plugin too, which may be missing with all the others.
        if !self.bin_dir.join(LOOPBACK).exists() {
            self.link(LOOPBACK, Path::new(&self.plugin()))?;
        }
        let text = self.configuration().to_string();
        if fs::read_to_string(&file).is_ok_and(|found| found == text) {
            return Ok(Found::Ours);
        }
        // In the same directory, and by a name that is none of a configuration: runtimes watch for the renaming.
        let temporary = self.conf_dir.join(format!(".{FILE}.new"));
        let write = || fs::write(&temporary, &text).and_then(|()| fs::rename(&temporary, &file));
        write().map_err(Error::file(&file))?;
        Ok(Found::Ours)
    }

    /// Removes what [`Installation::install`] has written. Succeeds when nothing is there.
    pub fn remove(&self) -> Result<(), Error> {
        if self.written()?.is_some_and(|kind| kind == self.plugin()) {
            remove_file(&self.file())?;
        }
        let loopback = self.bin_dir.join(LOOPBACK);
        if fs::read_link(&loopback).is_ok_and(|target| target == Path::new(&self.plugin())) {
            remove_file(&loopback)?;
        }
        remove_file(&self.bin_dir.join(self.plugin()))
    }

    fn plugin(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    fn file(&self) -> PathBuf {
        self.conf_dir.join(FILE)
    }

    fn configuration(&self) -> Value {
        json!({
            "cniVersion": VERSION,
            "name": "skiff",
            "plugins": [{
                "type": self.plugin(),
                "socket": self.socket,
                "capabilities": { "portMappings": true },
            }],
        })
    }

    /// The type of the plugin in our file, if the file is there.
    fn written(&self) -> Result<Option<String>, Error> {
        let file = self.file();
        let text = match fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(Error::file(&file))?,
        };
        let found: Value = serde_json::from_slice(&text).unwrap_or_default();
        Ok(Some(found["plugins"][0]["type"].as_str().unwrap_or("unreadable").to_owned()))
    }

    /// The first configuration that is not ours, in the order in which runtimes look.
    fn foreign(&self) -> Result<Option<PathBuf>, Error> {
        let entries = fs::read_dir(&self.conf_dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(Error::file(&self.conf_dir))?;
        let mut found: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        found.retain(|path| {
            let configuration = path.extension().and_then(|extension| extension.to_str());
            matches!(configuration, Some("conf" | "conflist" | "json")) && *path != self.file()
        });
        Ok(found.into_iter().min())
    }

    /// Makes a link, or leads an existing one here.
    fn link(&self, name: &str, target: &Path) -> Result<(), Error> {
        let path = self.bin_dir.join(name);
        if fs::read_link(&path).is_ok_and(|found| found == target) {
            return Ok(());
        }
        let temporary = self.bin_dir.join(format!(".{name}.new"));
        remove_file(&temporary)?;
        let make = || symlink(target, &temporary).and_then(|()| fs::rename(&temporary, &path));
        make().map_err(Error::file(&path))
    }
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(dir: &tempfile::TempDir, id: &str) -> Installation {
        Installation {
            conf_dir: dir.path().join("net.d"),
            bin_dir: dir.path().join("bin"),
            id: id.into(),
            socket: "/run/skiff/x/cni.sock".into(),
            executable: "/usr/bin/env".into(),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_installed_is_removed_again() {
        let dir = tempfile::tempdir().unwrap();
        let ours = installation(&dir, "a");
        for _ in 0..2 {
            assert_eq!(ours.install().unwrap(), Found::Ours);
            assert_eq!(names(&ours.conf_dir), [FILE]);
            assert_eq!(names(&ours.bin_dir), ["loopback", "skiff-a"]);
        }
        assert!(ours.bin_dir.join("loopback").exists(), "the links lead somewhere");
        let written: Value = serde_json::from_slice(&fs::read(ours.file()).unwrap()).unwrap();
        assert_eq!(written["plugins"][0]["socket"], "/run/skiff/x/cni.sock");
        for _ in 0..2 {
            ours.remove().unwrap();
            assert!(names(&ours.conf_dir).is_empty() && names(&ours.bin_dir).is_empty());
        }
    }

    #[test]
    fn another_network_and_other_plugins_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let ours = installation(&dir, "a");
        fs::create_dir_all(&ours.bin_dir).unwrap();
        fs::write(ours.bin_dir.join(LOOPBACK), "another's").unwrap();
        assert_eq!(ours.install().unwrap(), Found::Ours);
        let theirs = ours.conf_dir.join("20-flannel.conflist");
        fs::write(&theirs, "{}").unwrap();
        fs::write(ours.conf_dir.join("README"), "").unwrap();
        assert_eq!(ours.install().unwrap(), Found::Foreign(theirs));
        assert_eq!(names(&ours.conf_dir), ["20-flannel.conflist", "README"]);
        assert_eq!(names(&ours.bin_dir), ["loopback"]);
    }

    #[test]
    fn two_clusters_do_not_share_a_runtime() {
        let dir = tempfile::tempdir().unwrap();
        installation(&dir, "a").install().unwrap();
        let error = installation(&dir, "b").install().unwrap_err().to_string();
        assert!(error.contains("another cluster uses this runtime (skiff-a)"), "{error}");
        installation(&dir, "b").remove().unwrap();
        assert_eq!(names(&dir.path().join("net.d")), [FILE]);
        assert_eq!(names(&dir.path().join("bin")), ["loopback", "skiff-a"]);
    }
}
