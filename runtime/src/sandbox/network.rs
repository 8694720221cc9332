//! A sandbox as the pod network sees it.

use cri::{PortMapping, Protocol};

use super::Sandbox;
use crate::error::Error;
use crate::network::{HostPort, SandboxNetwork};
use crate::paths::Paths;

impl Sandbox {
    /// What attach and detach are told.
    pub(super) fn network(&self, paths: &Paths) -> SandboxNetwork {
        let metadata = self.config.metadata.clone().unwrap_or_default();
        SandboxNetwork {
            sandbox_id: self.id.clone(),
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            netns: paths.namespace(&self.id, "net"),
            // What can't be understood was refused when the sandbox was made.
            host_ports: host_ports(&self.config.port_mappings).unwrap_or_default(),
        }
    }
}

/// The ports of the node among the port mappings; those without a host port are only information.
pub(super) fn host_ports(mappings: &[PortMapping]) -> Result<Vec<HostPort>, Error> {
    mappings.iter().filter(|mapping| mapping.host_port > 0).map(host_port).collect()
}

fn host_port(mapping: &PortMapping) -> Result<HostPort, Error> {
    let port = |port: i32| u16::try_from(port).map_err(|_| Error::Invalid(format!("invalid port {port}")));
    let host_ip = match mapping.host_ip.as_str() {
        "" | "0.0.0.0" | "::" => None,
        text => Some(text.parse().map_err(|_| Error::Invalid(format!("invalid host IP {text:?}")))?),
    };
    Ok(HostPort {
        protocol: match mapping.protocol() {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        },
        host_ip,
        host_port: port(mapping.host_port)?,
        container_port: port(mapping.container_port)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_with_a_host_port_are_forwarded() {
        let mapping = |host_port, host_ip: &str| PortMapping {
            protocol: Protocol::Udp as i32,
            container_port: 53,
            host_port,
            host_ip: host_ip.to_owned(),
        };
        let expected = HostPort { protocol: "udp", host_ip: None, host_port: 5353, container_port: 53 };
        assert_eq!(
            host_ports(&[mapping(0, ""), mapping(5353, "")]).unwrap(),
            std::slice::from_ref(&expected)
        );
        let local = HostPort { host_ip: Some([127, 0, 0, 1].into()), ..expected };
        assert_eq!(host_ports(&[mapping(5353, "127.0.0.1")]).unwrap(), [local]);
        assert!(host_ports(&[mapping(70_000, "")]).is_err());
        assert!(host_ports(&[mapping(1, "x")]).is_err());
    }
}
