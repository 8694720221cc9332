//! The mounts of a container: what every container has, the sandbox's files, and what the pod asked for.

use std::fs;
use std::path::{Component, Path, PathBuf};

use cri::{Mount, MountPropagation};
use serde_json::{Value, json};

use crate::error::{Error, IoContext};

/// What the mounts depend on besides the request.
pub(crate) struct Surroundings<'a> {
    /// The sandbox's directory with `resolv.conf`, `hostname`, `shm`.
    pub(crate) sandbox: &'a Path,
    pub(crate) host_ipc: bool,
    pub(crate) privileged: bool,
}

/// The mounts in the order they are made: a parent before what lies in it.
pub(crate) fn mounts(wanted: &[Mount], around: &Surroundings<'_>) -> Result<Vec<Value>, Error> {
    let mut requested = Vec::new();
    for mount in wanted {
        requested.push((normal(&mount.container_path)?, bind(mount)?));
    }
    let mut mounts: Vec<(PathBuf, Value)> = Vec::new();
    for (path, value) in defaults(around) {
        // What the pod mounts itself is not made twice.
        if !requested.iter().any(|(requested, _)| *requested == path) {
            mounts.push((path, value));
        }
    }
    mounts.extend(requested);
    // Stable: of two mounts on one path the later one stays on top.
    mounts.sort_by_key(|(path, _)| path.components().count());
    Ok(mounts.into_iter().map(|(_, value)| value).collect())
}

fn defaults(around: &Surroundings<'_>) -> Vec<(PathBuf, Value)> {
    let access = if around.privileged { "rw" } else { "ro" };
    let special = |path: &str, kind: &str, source: &str, options: &[&str]| {
        let value = json!({ "destination": path, "type": kind, "source": source, "options": options });
        (PathBuf::from(path), value)
    };
    let mut mounts = vec![
        special("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        special("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        special(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        special("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        special("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        special("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
    ];
    let shm = if around.host_ipc { PathBuf::from("/dev/shm") } else { around.sandbox.join("shm") };
    let own = |path: &str, source: PathBuf, options: &[&str]| {
        let value = json!({ "destination": path, "type": "bind", "source": source, "options": options });
        (PathBuf::from(path), value)
    };
    mounts.push(own("/dev/shm", shm, &["rbind", "rw", "nosuid", "nodev", "noexec"]));
    mounts.push(own("/etc/resolv.conf", around.sandbox.join("resolv.conf"), &["rbind", "rprivate", "rw"]));
    mounts.push(own("/etc/hostname", around.sandbox.join("hostname"), &["rbind", "rprivate", "rw"]));
    mounts
}

fn bind(mount: &Mount) -> Result<Value, Error> {
    if mount.image.as_ref().is_some_and(|image| !image.image.is_empty()) {
        return Err(Error::Unimplemented(format!(
            "image volume at {}: not supported by this runtime",
            mount.container_path
        )));
    }
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return Err(Error::Unimplemented(format!(
            "id-mapped mount at {}: not supported by this runtime",
            mount.container_path
        )));
    }
    let source = Path::new(&mount.host_path);
    if !source.is_absolute() {
        return Err(Error::Invalid(format!(
            "host path {:?} of mount {} is not absolute",
            mount.host_path, mount.container_path
        )));
    }
    if !source.exists() {
        fs::create_dir_all(source).at("create", source)?;
    }
    // libcontainer mounts what the last link points at only if it is resolved here.
    let source = fs::canonicalize(source).at("resolve", source)?;
    let access = match (mount.readonly, mount.recursive_read_only) {
        (true, true) => "rro",
        (true, false) => "ro",
        (false, true) => {
            return Err(Error::Invalid(format!(
                "mount {} is recursively read-only but not read-only",
                mount.container_path
            )));
        }
        (false, false) => "rw",
    };
    Ok(
        json!({ "destination": normal(&mount.container_path)?, "type": "bind", "source": source, "options": ["rbind", access] }),
    )
}

/// A path in the container without `.`, `..` and doubled slashes.
fn normal(path: &str) -> Result<PathBuf, Error> {
    let mut normal = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    match normal.parent() {
        Some(_) => Ok(normal),
        None => Err(Error::Invalid(format!("can't mount on {path:?}"))),
    }
}

/// How mounts made after the start travel. libcontainer 0.7 ignores the propagation of single mounts, so the
/// whole tree gets the strongest one that is asked for; sharing back to the node is for privileged containers
/// only, as in Kubernetes.
pub(crate) fn root_propagation(wanted: &[Mount], privileged: bool) -> Result<&'static str, Error> {
    let asked = |propagation| wanted.iter().any(|mount| mount.propagation() == propagation);
    match () {
        () if asked(MountPropagation::PropagationBidirectional) && !privileged => Err(Error::Invalid(
            "bidirectional mount propagation is available only to privileged containers".to_owned(),
        )),
        () if asked(MountPropagation::PropagationBidirectional) => Ok("shared"),
        () if asked(MountPropagation::PropagationHostToContainer) => Ok("slave"),
        () => Ok("private"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(path: &str, propagation: MountPropagation) -> Mount {
        Mount {
            container_path: path.to_owned(),
            host_path: "/".to_owned(),
            propagation: propagation as i32,
            ..Mount::default()
        }
    }

    #[test]
    fn parents_come_first_and_the_pods_own_mounts_replace_the_defaults() {
        let around = Surroundings { sandbox: Path::new("/s"), host_ipc: false, privileged: false };
        let wanted = [
            mount("/data/a/b", MountPropagation::PropagationPrivate),
            mount("/data//./x/..", MountPropagation::PropagationPrivate),
            mount("/dev/shm", MountPropagation::PropagationPrivate),
        ];
        let mounts = mounts(&wanted, &around).unwrap();
        let at = |path: &str| {
            let mut found = mounts.iter().enumerate().filter(|(_, mount)| mount["destination"] == path);
            let first = found.next().map(|(index, mount)| (index, mount["source"].clone()));
            assert!(found.next().is_none(), "{path} twice");
            first
        };
        assert!(at("/data").unwrap().0 < at("/data/a/b").unwrap().0);
        assert!(at("/sys").unwrap().0 < at("/sys/fs/cgroup").unwrap().0);
        assert_eq!(at("/dev/shm").unwrap().1, "/");
        assert_eq!(at("/etc/hostname").unwrap().1, "/s/hostname");
    }

    #[test]
    fn the_root_is_not_mounted_over() {
        for path in ["/", "", "/a/.."] {
            assert!(normal(path).is_err(), "{path}");
        }
    }

    #[test]
    fn propagation_is_the_strongest_asked_for() {
        let private = mount("/a", MountPropagation::PropagationPrivate);
        let slave = mount("/b", MountPropagation::PropagationHostToContainer);
        let shared = mount("/c", MountPropagation::PropagationBidirectional);
        assert_eq!(root_propagation(std::slice::from_ref(&private), false).unwrap(), "private");
        assert_eq!(root_propagation(&[private.clone(), slave.clone()], false).unwrap(), "slave");
        assert_eq!(root_propagation(&[shared.clone(), slave], true).unwrap(), "shared");
        assert!(root_propagation(&[shared], false).is_err());
    }
}
