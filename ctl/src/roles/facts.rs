//! What a role finds out about its machine and its place on it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::Failure;
use crate::failure::Because;

/// The address from which this machine would talk to others: that of its default route, else loopback.
pub(crate) fn main_address() -> Ipv4Addr {
    // A datagram socket that is connected sends nothing; the kernel picks the source address.
    let chosen = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    match chosen.map(|address| address.ip()) {
        Ok(IpAddr::V4(address)) => address,
        _ => Ipv4Addr::LOCALHOST,
    }
}

/// The machine's name as a node name.
pub(crate) fn host_name() -> Result<String, Failure> {
    let name = nix::unistd::gethostname().because("host name")?;
    Ok(name.to_string_lossy().to_ascii_lowercase())
}

/// The directory with links resolved, made if it is missing.
pub(crate) fn data_dir(dir: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(dir).because(dir.display())?;
    dir.canonicalize().because(dir.display())
}

/// A short name for what belongs to a data directory, in the kernel and below `/run`. Always the same for the
/// same directory, so that a later start finds it again.
pub(crate) fn id(data_dir: &Path) -> String {
    let hash = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Where sockets, namespaces and mounts of a data directory are.
pub(crate) fn run_dir(id: &str) -> PathBuf {
    Path::new("/run/skiff").join(id)
}

/// Where the network namespaces of further nodes are.
pub(crate) fn namespaces_dir(id: &str) -> PathBuf {
    run_dir(id).join("netns")
}
