//! What every pod's worker shares.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base::{Clock, Random, Tasks};
use client::{Events, Reference};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;

use crate::host::Host;
use crate::images::Images;
use crate::pod::network::DnsSettings;
use crate::pod::{Role, field_path};
use crate::runtime::Runtime;
use crate::source::Source;

/// The node around the pods.
pub(crate) struct Context {
    pub(crate) node_name: String,
    pub(crate) node_ip: IpAddr,
    pub(crate) host_ips: Vec<String>,
    pub(crate) runtime: Arc<dyn Runtime>,
    /// The scheme of container ids in the API.
    pub(crate) runtime_name: String,
    pub(crate) client: client::Client,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) tasks: Tasks,
    pub(crate) events: Events,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) source: Source,
    pub(crate) images: Images,
    pub(crate) dns: DnsSettings,
    /// Whole units, thousandths for CPU.
    pub(crate) allocatable: BTreeMap<String, i64>,
    pub(crate) memory_capacity: i64,
    /// Somebody has started a container: what the runtime has will change soon.
    pub(crate) activity: Notify,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("node_name", &self.node_name).finish_non_exhaustive()
    }
}

/// A pod in events.
pub(crate) fn reference(pod: &Pod) -> Reference {
    Reference::to(pod)
}

/// A container in events.
pub(crate) fn container_reference(pod: &Pod, role: Role, name: &str) -> Reference {
    Reference::to(pod).at(field_path(role, name))
}
