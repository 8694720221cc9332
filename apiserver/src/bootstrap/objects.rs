//! The objects that a cluster begins with. Those that are data are in `manifests/bootstrap`.

use std::net::IpAddr;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

const CLUSTER_ROLES: &str = include_str!("../../../manifests/bootstrap/cluster-roles.json");
const CLUSTER_ROLE_BINDINGS: &str = include_str!("../../../manifests/bootstrap/cluster-role-bindings.json");
const ROLES: &str = include_str!("../../../manifests/bootstrap/roles.json");
const ROLE_BINDINGS: &str = include_str!("../../../manifests/bootstrap/role-bindings.json");
const PRIORITY_CLASSES: &str = include_str!("../../../manifests/bootstrap/priority-classes.json");
const FLOW_SCHEMAS: &str = include_str!("../../../manifests/bootstrap/flow-schemas.json");
const PRIORITY_LEVELS: &str = include_str!("../../../manifests/bootstrap/priority-levels.json");

/// How much upstream prefers a group to others, and its version `v1` to other versions.
const GROUP_PRIORITIES: [(&str, i32, i32); 21] = [
    ("", 18000, 1),
    ("apps", 17800, 15),
    ("events.k8s.io", 17750, 15),
    ("authentication.k8s.io", 17700, 15),
    ("authorization.k8s.io", 17600, 15),
    ("autoscaling", 17500, 15),
    ("batch", 17400, 15),
    ("certificates.k8s.io", 17300, 15),
    ("networking.k8s.io", 17200, 15),
    ("policy", 17100, 15),
    ("rbac.authorization.k8s.io", 17000, 15),
    ("storage.k8s.io", 16800, 15),
    ("apiextensions.k8s.io", 16700, 15),
    ("admissionregistration.k8s.io", 16700, 15),
    ("scheduling.k8s.io", 16600, 15),
    ("coordination.k8s.io", 16500, 15),
    ("node.k8s.io", 16300, 15),
    ("discovery.k8s.io", 16200, 15),
    ("flowcontrol.apiserver.k8s.io", 16100, 21),
    ("internal.apiserver.k8s.io", 16000, 9),
    ("resource.k8s.io", 15900, 15),
];
/// A group that has no place of its own.
const OTHER_GROUP: (i32, i32) = (15800, 9);

/// What every node may do alike: the rules of the cluster role `system:node`.
pub fn node_rules() -> Vec<PolicyRule> {
    // The files are part of the binary, and a test reads them.
    let roles: Vec<ClusterRole> = serde_json::from_str(CLUSTER_ROLES).unwrap_or_default();
    let node = roles.into_iter().find(|role| role.metadata.name.as_deref() == Some("system:node"));
    node.and_then(|role| role.rules).unwrap_or_default()
}

/// Roles before the bindings to them.
pub(super) fn rbac() -> [Vec<Value>; 4] {
    [CLUSTER_ROLES, ROLES, CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS].map(read)
}

pub(super) fn priority_classes() -> Vec<Value> {
    read(PRIORITY_CLASSES)
}

/// How requests are sorted, and how many of each sort are served at a time.
pub(super) fn flow_control() -> [Vec<Value>; 2] {
    [PRIORITY_LEVELS, FLOW_SCHEMAS].map(read)
}

/// A version of a group that this server itself serves.
pub(super) fn local_api(group: &str, version: &str) -> Value {
    let known = GROUP_PRIORITIES.iter().find(|(name, ..)| *name == group);
    let (of_group, of_version) =
        known.map_or(OTHER_GROUP, |(_, of_group, of_version)| (*of_group, *of_version));
    // Only one built-in group has another version than v1, and prefers it.
    let of_version = if version == "v2" { 2 * of_version } else { of_version };
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {
            "name": format!("{version}.{group}"),
            "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
        },
        "spec": {
            "group": group, "version": version,
            "groupPriorityMinimum": of_group, "versionPriority": of_version,
        },
    })
}

/// The network of services, which is ready from the start.
pub(super) fn service_network(cidr: &str, now: jiff::Timestamp) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [cidr]},
        "status": {"conditions": [{
            "type": "Ready", "status": "True", "reason": "", "lastTransitionTime": Time(now),
            "message": "Kubernetes default Service CIDR is ready",
        }]},
    })
}

fn read(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap_or_default()
}

/// The namespaces of the system itself.
pub(super) fn namespaces() -> Vec<Value> {
    ["default", "kube-system", "kube-public", "kube-node-lease"]
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
        .into()
}

/// The API server as a service.
pub(super) fn kubernetes_service(address: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    })
}

/// The name service. It has no selector and no endpoints: every node answers for itself.
pub(super) fn dns_service(address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "namespace": "kube-system", "name": "kube-dns",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}

/// Where the API servers are, for clients in pods.
pub(super) fn kubernetes_endpoints(addresses: &[IpAddr], port: u16) -> [Value; 2] {
    let ips: Vec<Value> = addresses.iter().map(|address| json!({"ip": address.to_string()})).collect();
    let family = if addresses.first().is_some_and(IpAddr::is_ipv6) { "IPv6" } else { "IPv4" };
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    [
        json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"namespace": "default", "name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": ips, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": "default", "name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": family,
            "endpoints": [{"addresses": texts, "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }),
    ]
}

/// How extension API servers know the clients of this one.
pub(super) fn authentication_config(authority_pem: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "kube-system", "name": "extension-apiserver-authentication"},
        "data": {"client-ca-file": authority_pem},
    })
}
