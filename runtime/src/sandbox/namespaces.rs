//! Makes, checks and ends the namespaces of a sandbox.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Error, IoContext};

/// What is to be made.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) net: bool,
    pub(super) ipc: bool,
    pub(super) uts: bool,
    pub(super) hostname: String,
    pub(super) sysctls: BTreeMap<String, String>,
}

impl Wanted {
    fn kinds(&self) -> Vec<(&'static str, CloneFlags)> {
        [
            (self.net, "net", CloneFlags::CLONE_NEWNET),
            (self.ipc, "ipc", CloneFlags::CLONE_NEWIPC),
            (self.uts, "uts", CloneFlags::CLONE_NEWUTS),
        ]
        .into_iter()
        .filter(|(wanted, ..)| *wanted)
        .map(|(_, name, flag)| (name, flag))
        .collect()
    }
}

/// Makes namespaces and mounts each as a file named by its kind in `directory`. Blocks.
pub(super) fn make(wanted: Wanted, directory: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).at("create", directory)?;
    let directory = directory.to_owned();
    // A thread of its own: it leaves this process' namespaces and can't come back into the pool.
    std::thread::scope(|scope| {
        let maker = std::thread::Builder::new()
            .name("namespaces".to_owned())
            .spawn_scoped(scope, || enter_and_hold(&wanted, &directory))
            .at("start a thread for", &directory)?;
        maker.join().unwrap_or_else(|_| Err(Error::Failed("the namespace maker panicked".to_owned())))
    })
}

fn enter_and_hold(wanted: &Wanted, directory: &Path) -> Result<(), Error> {
    let kinds = wanted.kinds();
    let flags = kinds.iter().fold(CloneFlags::empty(), |flags, (_, flag)| flags | *flag);
    unshare(flags).at("unshare for", directory)?;
    if wanted.uts {
        nix::unistd::sethostname(&wanted.hostname).at("set the host name for", directory)?;
    }
    if wanted.net {
        loopback_up().at("bring up loopback for", directory)?;
    }
    for (name, value) in &wanted.sysctls {
        // `/proc/sys` shows the namespaces of the thread that opens it.
        let path = sysctl_path(name)?;
        fs::write(&path, value).at("write", &path)?;
    }
    for (kind, _) in kinds {
        let target = directory.join(kind);
        File::create(&target).at("create", &target)?;
        let source = Path::new("/proc/thread-self/ns").join(kind);
        mount(Some(&source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>).at("mount", &target)?;
    }
    Ok(())
}

/// Whether a sysctl belongs to a namespace of the sandbox's own; any other would change the node.
pub(super) fn is_own(wanted: &Wanted, name: &str) -> bool {
    let name = name.replace('/', ".");
    let ipc = ["kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"];
    match () {
        () if name.starts_with("net.") => wanted.net,
        () if name.starts_with("kernel.msg")
            || name.starts_with("fs.mqueue.")
            || ipc.contains(&name.as_str()) =>
        {
            wanted.ipc
        }
        () => name == "kernel.domainname" && wanted.uts,
    }
}

/// The file of a sysctl, in dotted or slashed form.
fn sysctl_path(name: &str) -> Result<std::path::PathBuf, Error> {
    let invalid = || Error::Invalid(format!("invalid sysctl {name:?}"));
    // The first separator decides, as in sysctl(8): `net/ipv4/conf/eth0.1/forwarding`.
    let slashed = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let relative = if slashed { name.to_owned() } else { name.replace('.', "/") };
    if relative.is_empty() || relative.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(invalid());
    }
    Ok(Path::new("/proc/sys").join(relative))
}

fn loopback_up() -> io::Result<()> {
    // SAFETY: socket takes integers and returns a new descriptor or -1.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: ifreq is plain data for which all zeros is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads the name and the flags of the ifreq, which outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A socket in a network namespace, from where it connects to wherever it is told, whichever thread uses it. Blocks.
pub(crate) fn connect_socket(namespace: &Path, v6: bool) -> io::Result<tokio::net::TcpSocket> {
    let file = File::open(namespace)?;
    std::thread::scope(|scope| {
        // The namespace belongs to the thread; the socket keeps the one it was made in.
        let inside = || {
            nix::sched::setns(&file, CloneFlags::CLONE_NEWNET)?;
            if v6 { tokio::net::TcpSocket::new_v6() } else { tokio::net::TcpSocket::new_v4() }
        };
        let maker = std::thread::Builder::new().name("socket".to_owned()).spawn_scoped(scope, inside)?;
        maker.join().unwrap_or_else(|_| Err(io::Error::other("the socket maker panicked")))
    })
}

/// Whether a file still holds a namespace: after a reboot it is an ordinary file or gone.
pub(super) fn holds(file: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    nix::sys::statfs::statfs(file).is_ok_and(|found| found.filesystem_type().0 == NSFS_MAGIC)
}

/// Unmounts whatever is mounted on a path; a path that is no mount point or gone is no error.
pub(crate) fn unmount(path: &Path) -> Result<(), Error> {
    // Mounted twice is possible after a crash between two steps.
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            Err(error) => return Err(error).at("unmount", path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_is_found_in_both_notations_and_stays_below_proc_sys() {
        for (name, expected) in [
            ("net.ipv4.ip_forward", Some("/proc/sys/net/ipv4/ip_forward")),
            ("net/ipv4/conf/eth0.1/forwarding", Some("/proc/sys/net/ipv4/conf/eth0.1/forwarding")),
            ("../../etc/passwd", None),
            ("kernel/../../x", None),
            ("", None),
        ] {
            assert_eq!(sysctl_path(name).ok().as_deref(), expected.map(Path::new), "{name}");
        }
    }

    #[test]
    fn a_sysctl_of_the_node_is_not_the_sandboxs() {
        let all = Wanted { net: true, ipc: true, uts: true, ..Wanted::default() };
        let none = Wanted::default();
        for (name, expected) in [
            ("net.core.somaxconn", true),
            ("net/core/somaxconn", true),
            ("kernel.msgmax", true),
            ("kernel.shm_rmid_forced", true),
            ("vm.overcommit_memory", false),
            ("kernel.panic", false),
            ("net/../vm/swappiness", true),
        ] {
            assert_eq!(is_own(&all, name), expected, "{name}");
            assert!(!is_own(&none, name), "{name}");
        }
        // What climbs out of its directory is refused by its path.
        assert!(sysctl_path("net/../vm/swappiness").is_err());
    }

    #[test]
    fn namespaces_are_held_without_a_process_and_end_with_their_mounts() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = Wanted {
            net: true,
            ipc: true,
            uts: true,
            hostname: "box".to_owned(),
            sysctls: BTreeMap::from([("net.ipv4.ip_forward".to_owned(), "1".to_owned())]),
        };
        make(wanted, directory.path()).unwrap();
        for kind in ["net", "ipc", "uts"] {
            let file = directory.path().join(kind);
            assert!(holds(&file), "{kind}");
            let own = fs::metadata(format!("/proc/self/ns/{kind}")).unwrap();
            assert_ne!(
                std::os::unix::fs::MetadataExt::ino(&fs::metadata(&file).unwrap()),
                std::os::unix::fs::MetadataExt::ino(&own)
            );
        }
        for kind in ["net", "ipc", "uts"] {
            let file = directory.path().join(kind);
            unmount(&file).unwrap();
            assert!(!holds(&file), "{kind}");
        }
    }
}
