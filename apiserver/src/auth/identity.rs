//! The identities under which the components of the same process call the API.
//!
//! Each has the roles that upstream gives it ([`crate::bootstrap`]); none is an administrator.

use crate::UserInfo;

/// The scheduler.
pub fn scheduler() -> UserInfo {
    UserInfo::new("system:kube-scheduler", &[])
}

/// The controllers' common part: leader election, and the shared caches, which list and watch for all of them.
pub fn controller_manager() -> UserInfo {
    UserInfo::new("system:kube-controller-manager", &[])
}

/// One controller, by the name of its service account such as `deployment-controller`: its writes.
pub fn controller(name: &str) -> UserInfo {
    UserInfo::service_account("kube-system", name)
}

/// The agent of a node, with its pod network.
pub fn node(name: &str) -> UserInfo {
    UserInfo::node(name)
}

/// The administrator.
pub fn admin() -> UserInfo {
    UserInfo::new("kubernetes-admin", &[crate::MASTERS])
}

/// The service accounts that have a role of their own, as `system:controller:<name>`.
pub const CONTROLLERS: &[&str] = &[
    "attachdetach-controller",
    "certificate-controller",
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemon-set-controller",
    "deployment-controller",
    "device-taint-eviction-controller",
    "disruption-controller",
    "endpoint-controller",
    "endpointslice-controller",
    "endpointslicemirroring-controller",
    "ephemeral-volume-controller",
    "expand-controller",
    "generic-garbage-collector",
    "horizontal-pod-autoscaler",
    "job-controller",
    "legacy-service-account-token-cleaner",
    "namespace-controller",
    "node-controller",
    "persistent-volume-binder",
    "pod-garbage-collector",
    "pv-protection-controller",
    "pvc-protection-controller",
    "replicaset-controller",
    "replication-controller",
    "resource-claim-controller",
    "resourcequota-controller",
    "root-ca-cert-publisher",
    "route-controller",
    "selinux-warning-controller",
    "service-account-controller",
    "service-cidrs-controller",
    "service-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
    "ttl-controller",
    "validatingadmissionpolicy-status-controller",
    "volumeattributesclass-protection-controller",
];
