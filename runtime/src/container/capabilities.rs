//! Which capabilities a container gets.

use std::collections::BTreeSet;
use std::fs;

use cri::Capability;

use crate::error::{Error, IoContext};

/// What a container has if nothing is said: the set of Docker and containerd.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// All capabilities by their number.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capabilities of one container, with the prefix `CAP_`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Bounding, effective and permitted.
    pub(crate) held: BTreeSet<String>,
    /// Inheritable and ambient: kept by a user that is not root.
    pub(crate) ambient: BTreeSet<String>,
}

/// What the container asked for, as far as this process may give it: the kernel refuses to raise a
/// capability that we do not have ourselves.
pub(crate) fn capabilities(wanted: Option<&Capability>, privileged: bool) -> Result<Capabilities, Error> {
    chosen(wanted, privileged, &own()?)
}

fn chosen(
    wanted: Option<&Capability>,
    privileged: bool,
    own: &BTreeSet<String>,
) -> Result<Capabilities, Error> {
    let default = Capability::default();
    let wanted = wanted.unwrap_or(&default);
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut held: BTreeSet<String> = match () {
        () if privileged || wanted.add_capabilities.iter().any(is_all) => {
            ALL.iter().map(|name| prefixed(name)).collect()
        }
        () => DEFAULT.iter().map(|name| prefixed(name)).collect(),
    };
    if !privileged {
        if wanted.drop_capabilities.iter().any(is_all) {
            held.clear();
        }
        for name in wanted.add_capabilities.iter().filter(|name| !is_all(name)) {
            held.insert(known(name)?);
        }
        for name in wanted.drop_capabilities.iter().filter(|name| !is_all(name)) {
            held.remove(&known(name)?);
        }
    }
    let mut ambient: BTreeSet<String> =
        wanted.add_ambient_capabilities.iter().map(|name| known(name)).collect::<Result<_, _>>()?;
    held.extend(ambient.iter().cloned());
    held.retain(|name| own.contains(name));
    ambient.retain(|name| own.contains(name));
    Ok(Capabilities { held, ambient })
}

fn prefixed(name: &str) -> String {
    format!("CAP_{name}")
}

fn known(name: &str) -> Result<String, Error> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    match ALL.contains(&short) {
        true => Ok(prefixed(short)),
        false => Err(Error::Invalid(format!("unknown capability {name:?}"))),
    }
}

/// The bounding set of this process.
fn own() -> Result<BTreeSet<String>, Error> {
    let path = "/proc/self/status";
    let status = fs::read_to_string(path).at("read", path)?;
    let mask = status_mask(&status, "CapBnd:");
    Ok((0..ALL.len()).filter(|bit| mask >> bit & 1 == 1).map(|bit| prefixed(ALL[bit])).collect())
}

/// Whether this process may lower its own OOM score and raise limits.
pub(crate) fn has_sys_resource() -> bool {
    const SYS_RESOURCE: u32 = 24;
    fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status_mask(&status, "CapEff:") >> SYS_RESOURCE & 1 == 1)
}

fn status_mask(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    u64::from_str_radix(value.trim(), 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn adding_and_dropping_follow_the_usual_order() {
        let own: BTreeSet<String> = ALL.iter().map(|name| prefixed(name)).collect();
        for (add, drop, expected) in [
            (vec![], vec![], 14),
            (vec!["NET_ADMIN"], vec![], 15),
            (vec!["CAP_NET_ADMIN"], vec!["all"], 1),
            (vec!["ALL"], vec!["NET_ADMIN"], 40),
            (vec![], vec!["ALL"], 0),
        ] {
            let wanted = Capability {
                add_capabilities: names(&add),
                drop_capabilities: names(&drop),
                ..Capability::default()
            };
            assert_eq!(chosen(Some(&wanted), false, &own).unwrap().held.len(), expected, "{add:?} {drop:?}");
        }
        let unknown = Capability { add_capabilities: names(&["FLY"]), ..Capability::default() };
        assert!(chosen(Some(&unknown), false, &own).is_err());
    }

    #[test]
    fn nothing_is_given_that_we_do_not_have() {
        let own = BTreeSet::from(["CAP_CHOWN".to_owned()]);
        assert_eq!(chosen(None, true, &own).unwrap().held, own);
    }
}
