//! What things are called in the kernel, so that whoever has the id of a network finds them again.

use std::net::Ipv4Addr;

/// How the names of all bridges of pods begin.
pub(crate) const POD_BRIDGE_PREFIX: &str = "sk-";

/// The names that belong to one network. Interface names have at most 15 octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The bridge of the node's pods.
    pub(crate) bridge: String,
    /// The VXLAN device to other nodes.
    pub(crate) overlay: String,
    /// The metric of the routes to other nodes: tells them from those of another network.
    pub(crate) metric: u32,
}

impl Names {
    pub(crate) fn of(id: &str) -> Self {
        let hash = hash(&[id]);
        Self {
            bridge: format!("{POD_BRIDGE_PREFIX}{:08x}", hash as u32),
            overlay: format!("skvx-{:08x}", hash as u32),
            // Routes of the same destination with a lower metric win; ours should yield to what people set.
            metric: (hash >> 32) as u32 | 1 << 16,
        }
    }
}

/// The node's end of a sandbox's pair.
pub(crate) fn host_interface(id: &str, sandbox: &str) -> String {
    format!("skv{:012x}", hash(&[id, sandbox]) & 0xffff_ffff_ffff)
}

/// True for names that [`host_interface`] makes.
pub(crate) fn is_host_interface(name: &str) -> bool {
    name.strip_prefix("skv").is_some_and(|rest| rest.len() == 12)
}

/// A pod's MAC follows from its address, so a reused address never meets an outdated neighbour entry.
pub(crate) fn pod_mac(address: Ipv4Addr) -> [u8; 6] {
    mac(0x58, address)
}

/// The MAC of a node's VXLAN device follows from the node's address: peers need not be told.
pub(crate) fn overlay_mac(node_ip: Ipv4Addr) -> [u8; 6] {
    mac(0x5f, node_ip)
}

/// The MAC of a node's interface on a machine's segment.
pub(crate) fn segment_mac(node_ip: Ipv4Addr) -> [u8; 6] {
    mac(0x5e, node_ip)
}

fn mac(kind: u8, address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    // 0x0a: locally administered, unicast.
    [0x0a, kind, a, b, c, d]
}

/// FNV-1a: the same in every version of this program, which the standard library's hasher does not promise.
pub(crate) fn hash(parts: &[&str]) -> u64 {
    let octets = parts.iter().flat_map(|part| part.bytes().chain([0]));
    octets.fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let (one, two) = (Names::of("one"), Names::of("two"));
        assert_ne!(one, two);
        for name in [&one.bridge, &one.overlay, &host_interface("one", "a"), &host_interface("one", "b")] {
            assert!(name.len() <= 15, "{name}");
        }
        assert_ne!(host_interface("one", "a"), host_interface("two", "a"));
        assert_ne!(host_interface("a", "bc"), host_interface("ab", "c"));
    }

    #[test]
    fn names_never_change() {
        assert_eq!(Names::of("skiff").bridge, Names::of("skiff").bridge);
        assert_eq!(hash(&[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(pod_mac(Ipv4Addr::new(10, 244, 0, 5)), [0x0a, 0x58, 10, 244, 0, 5]);
    }
}
