//! Settings under `/proc/sys/net`. They are those of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Sets `/proc/sys/net/<name>`, unless it has the value already (it may be mounted read-only).
pub(crate) fn set(name: &str, value: &str) -> io::Result<()> {
    let path = path(name);
    if fs::read_to_string(&path).is_ok_and(|current| current.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(name)
}

/// Lets the namespace forward packets, and keeps it from teaching pods shortcuts past it: all pods of a node
/// share one link, so the kernel would tell them by ICMP redirect to talk directly.
pub(crate) fn router() -> io::Result<()> {
    // Turning forwarding on resets the settings of interfaces to a router's, so it comes first.
    set("ipv4/ip_forward", "1")?;
    set("ipv4/conf/all/send_redirects", "0")
}

/// Settings of the bridge that pods hang on.
pub(crate) fn bridge(name: &str) -> io::Result<()> {
    set(&format!("ipv4/conf/{name}/forwarding"), "1")?;
    set(&format!("ipv4/conf/{name}/send_redirects"), "0")?;
    // Pods can't pretend to have addresses of elsewhere.
    set(&format!("ipv4/conf/{name}/rp_filter"), "1")?;
    no_ipv6(name)
}

/// Settings of the bridge that the nodes of a machine hang on. Packets of their pods come in here.
pub(crate) fn segment(name: &str) -> io::Result<()> {
    set(&format!("ipv4/conf/{name}/forwarding"), "1")?;
    set(&format!("ipv4/conf/{name}/send_redirects"), "0")?;
    no_ipv6(name)
}

/// Settings of the VXLAN device.
pub(crate) fn overlay(name: &str) -> io::Result<()> {
    set(&format!("ipv4/conf/{name}/forwarding"), "1")?;
    // A peer may send over the overlay what we send it directly, when our subnets differ.
    set(&format!("ipv4/conf/{name}/rp_filter"), "2")?;
    no_ipv6(name)
}

/// Pods have IPv4; link-local chatter on each port would only cost.
pub(crate) fn no_ipv6(name: &str) -> io::Result<()> {
    match set(&format!("ipv6/conf/{name}/disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
