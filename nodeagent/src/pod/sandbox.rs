//! What the runtime is told of a pod: names, labels and annotations as every kubelet sets them, so that the
//! next agent, and every tool that reads them, finds its pods again.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::network::{self, DnsSettings};
use super::{
    container_hash, grace_seconds, init_containers, is_sidecar, main_containers, name, namespace, resources,
    security, spec, uid, uses_host_network,
};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = crate::runtime::POD_UID_LABEL;
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";

/// The directory of a pod's logs below the agent's log directory.
pub fn log_directory(pod: &Pod) -> String {
    format!("{}_{}_{}", namespace(pod), name(pod), uid(pod))
}

/// The log of one container below its pod's log directory.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// The labels by which a pod's sandboxes are found.
fn identity(pod: &Pod) -> HashMap<String, String> {
    HashMap::from([
        (POD_NAME.to_owned(), name(pod).to_owned()),
        (POD_NAMESPACE.to_owned(), namespace(pod).to_owned()),
        (POD_UID.to_owned(), uid(pod).to_owned()),
    ])
}

/// The sandbox of a pod. `log_root` and `cgroup_parent` are absolute.
pub fn sandbox_config(
    pod: &Pod,
    attempt: u32,
    dns: &DnsSettings,
    node_name: &str,
    log_root: &str,
    cgroup_parent: &str,
) -> cri::PodSandboxConfig {
    let (short, domain) = network::hostname(pod, &dns.cluster_domain);
    let hostname = if uses_host_network(pod) && spec(pod).hostname_override.is_none() {
        node_name.to_owned()
    } else if spec(pod).set_hostname_as_fqdn == Some(true) {
        domain.map_or(short.clone(), |domain| format!("{short}.{domain}"))
    } else {
        short
    };
    let resolver = network::dns(pod, dns);
    let mut labels: HashMap<String, String> =
        pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(identity(pod));
    let mut annotations: HashMap<String, String> =
        pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect();
    annotations.insert("kubernetes.io/config.source".to_owned(), "api".to_owned());
    let limits = resources::pod_limits(pod);
    let sysctls = spec(pod).security_context.as_ref().and_then(|context| context.sysctls.clone());
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name(pod).to_owned(),
            uid: uid(pod).to_owned(),
            namespace: namespace(pod).to_owned(),
            attempt,
        }),
        hostname,
        log_directory: format!("{log_root}/{}", log_directory(pod)),
        dns_config: Some(cri::DnsConfig {
            servers: resolver.servers,
            searches: resolver.searches,
            options: resolver.options,
        }),
        port_mappings: port_mappings(pod),
        labels,
        annotations,
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent.to_owned(),
            security_context: Some(security::sandbox_context(pod)),
            sysctls: sysctls.into_iter().flatten().map(|sysctl| (sysctl.name, sysctl.value)).collect(),
            resources: Some(linux_resources(&limits, 0)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    if uses_host_network(pod) {
        return Vec::new();
    }
    let sidecars = init_containers(pod).iter().filter(|container| is_sidecar(container));
    let ports =
        main_containers(pod).iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let mapping = |port: &k8s_openapi::api::core::v1::ContainerPort| cri::PortMapping {
        protocol: match port.protocol.as_deref() {
            Some("UDP") => cri::Protocol::Udp,
            Some("SCTP") => cri::Protocol::Sctp,
            _ => cri::Protocol::Tcp,
        }
        .into(),
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or(0),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    };
    ports.map(mapping).collect()
}

/// Limits in the runtime's form.
pub fn linux_resources(limits: &resources::CgroupLimits, oom_score_adj: i64) -> cri::LinuxContainerResources {
    cri::LinuxContainerResources {
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota.unwrap_or(-1),
        cpu_shares: limits.cpu_shares,
        memory_limit_in_bytes: limits.memory.unwrap_or(0),
        oom_score_adj,
        ..Default::default()
    }
}

/// The labels of a container.
pub fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let mut labels = identity(pod);
    labels.insert(CONTAINER_NAME.to_owned(), container.name.clone());
    labels
}

/// The annotations of a container.
pub fn container_annotations(pod: &Pod, container: &Container, attempt: u32) -> HashMap<String, String> {
    let mut annotations = HashMap::from([
        (HASH.to_owned(), container_hash(container)),
        (RESTART_COUNT.to_owned(), attempt.to_string()),
        (MESSAGE_PATH.to_owned(), container.termination_message_path.clone().unwrap_or_default()),
        (MESSAGE_POLICY.to_owned(), container.termination_message_policy.clone().unwrap_or_default()),
        (POD_GRACE.to_owned(), grace_seconds(pod).to_string()),
    ]);
    let pre_stop = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(text) = pre_stop.and_then(|hook| serde_json::to_string(hook).ok()) {
        annotations.insert(PRE_STOP.to_owned(), text);
    }
    annotations
}
