//! Devices: those the pod asked for, or all of the node for a privileged container.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use cri::Device;
use serde_json::{Value, json};

use crate::error::{Error, IoContext};

/// Device nodes to be made, and the rules of the device cgroup.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    pub(crate) nodes: Vec<Value>,
    pub(crate) rules: Vec<Value>,
}

/// The devices of a container.
pub(crate) fn devices(wanted: &[Device], privileged: bool) -> Result<Devices, Error> {
    let mut devices = Devices::default();
    if privileged {
        devices.rules.push(json!({ "allow": true, "access": "rwm" }));
        devices.add_tree(Path::new("/dev"), Path::new("/dev"), "rwm", true)?;
        return Ok(devices);
    }
    devices.rules.push(json!({ "allow": false, "access": "rwm" }));
    for device in wanted {
        let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        if access.chars().any(|letter| !"rwm".contains(letter)) {
            return Err(Error::Invalid(format!("permissions {access:?} of device {}", device.host_path)));
        }
        devices.add_tree(Path::new(&device.host_path), Path::new(&device.container_path), access, false)?;
    }
    Ok(devices)
}

impl Devices {
    /// Adds a device, or all devices in a directory.
    fn add_tree(
        &mut self,
        host: &Path,
        container: &Path,
        access: &str,
        allowed_already: bool,
    ) -> Result<(), Error> {
        let metadata = fs::metadata(host).at("inspect device", host)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            for entry in fs::read_dir(host).at("list", host)?.flatten() {
                let name = entry.file_name();
                // Made anew in each container, or no devices at all.
                let own = [
                    "pts", "shm", "fd", "mqueue", "console", "ptmx", "tty", "null", "zero", "full", "random",
                    "urandom",
                ];
                let is_own = host == Path::new("/dev") && own.iter().any(|own| name == *own);
                let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
                if !is_own && !is_link {
                    // A device may vanish between the listing and here.
                    let _ = self.add_tree(&entry.path(), &container.join(&name), access, allowed_already);
                }
            }
            return Ok(());
        }
        let letter = match () {
            () if kind.is_char_device() => "c",
            () if kind.is_block_device() => "b",
            () if allowed_already => return Ok(()),
            () => return Err(Error::Invalid(format!("{} is not a device", host.display()))),
        };
        let (major, minor) = (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev()));
        self.nodes.push(json!({
            "path": container, "type": letter, "major": major, "minor": minor,
            "fileMode": metadata.mode() & 0o7777, "uid": metadata.uid(), "gid": metadata.gid(),
        }));
        if !allowed_already {
            self.rules.push(
                json!({ "allow": true, "type": letter, "major": major, "minor": minor, "access": access }),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_made_and_allowed_and_nothing_else() {
        let device = Device {
            container_path: "/dev/nothing".to_owned(),
            host_path: "/dev/null".to_owned(),
            permissions: "rw".to_owned(),
        };
        let devices = devices(std::slice::from_ref(&device), false).unwrap();
        assert_eq!(devices.nodes[0]["path"], "/dev/nothing");
        assert_eq!(devices.nodes[0]["major"], 1);
        assert_eq!(devices.rules.len(), 2);
        assert_eq!(devices.rules[1]["access"], "rw");
        let file = Device { host_path: "/proc/version".to_owned(), ..device };
        assert!(super::devices(&[file], false).is_err());
    }
}
