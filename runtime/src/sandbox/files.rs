//! The files and mounts of a sandbox: `resolv.conf`, `hostname`, `/dev/shm`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use cri::DnsConfig;
use nix::mount::{MsFlags, mount};

use crate::error::{Error, IoContext};

/// The size of `/dev/shm`, as containerd makes it.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

/// Writes the files of a sandbox into its directory.
pub(super) fn write(directory: &Path, hostname: &str, dns: Option<&DnsConfig>) -> Result<(), Error> {
    let path = directory.join("hostname");
    fs::write(&path, format!("{hostname}\n")).at("write", &path)?;
    let path = directory.join("resolv.conf");
    match dns {
        Some(dns) => fs::write(&path, resolv_conf(dns)).at("write", &path),
        // A pod without a DNS configuration uses the node's.
        None => match fs::read("/etc/resolv.conf") {
            Ok(text) => fs::write(&path, text).at("write", &path),
            Err(_) => fs::write(&path, "").at("write", &path),
        },
    }
}

/// Mounts the memory the containers of a sandbox share.
pub(super) fn mount_shm(directory: &Path) -> Result<(), Error> {
    let path = directory.join("shm");
    fs::create_dir_all(&path).at("create", &path)?;
    let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("shm"), &path, Some("tmpfs"), flags, Some(SHM_OPTIONS)).at("mount", &path)
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        let _ = writeln!(text, "search {}", dns.searches.join(" "));
    }
    for server in &dns.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !dns.options.is_empty() {
        let _ = writeln!(text, "options {}", dns.options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_search_name_servers_and_options() {
        let dns = DnsConfig {
            servers: vec!["10.96.0.10".to_owned(), "1.1.1.1".to_owned()],
            searches: vec!["default.svc.cluster.local".to_owned(), "svc.cluster.local".to_owned()],
            options: vec!["ndots:5".to_owned()],
        };
        assert_eq!(
            resolv_conf(&dns),
            "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:5\n"
        );
        assert_eq!(resolv_conf(&DnsConfig::default()), "");
    }
}
