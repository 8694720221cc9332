//! What the agent follows in the API: its pods, its node, and the services that containers are told of.

use std::sync::Arc;

use base::{Clock, Random, Tasks};
use client::{Cache, CacheConfig};
use k8s_openapi::api::core::v1::{Node, Pod, Service};

/// The caches; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) pods: Cache<Pod>,
    pub(crate) nodes: Cache<Node>,
    pub(crate) services: Cache<Service>,
    node_name: Arc<str>,
}

impl Source {
    /// Starts to follow the API.
    pub(crate) fn start(
        tasks: &Tasks,
        client: &client::Client,
        clock: &Clock,
        random: &Random,
        node_name: &str,
    ) -> Self {
        let pods = CacheConfig {
            fields: Some(format!("spec.nodeName={node_name}")),
            trim: Some(|pod: &mut Pod| pod.metadata.managed_fields = None),
            ..CacheConfig::default()
        };
        let nodes = CacheConfig {
            fields: Some(format!("metadata.name={node_name}")),
            trim: Some(|node: &mut Node| node.metadata.managed_fields = None),
            ..CacheConfig::default()
        };
        let services = CacheConfig { trim: Some(trim_service), ..CacheConfig::default() };
        let (client, clock, random) = (client.clone(), clock.clone(), random.clone());
        Self {
            pods: Cache::start(tasks, client.clone(), clock.clone(), random.clone(), pods),
            nodes: Cache::start(tasks, client.clone(), clock.clone(), random.clone(), nodes),
            services: Cache::start(tasks, client, clock, random, services),
            node_name: node_name.into(),
        }
    }

    /// The node's own object.
    pub(crate) fn node(&self) -> Option<Arc<Node>> {
        self.nodes.get("", &self.node_name)
    }

    /// The services that a container of this namespace has variables for: those of its namespace, if it wants
    /// links, and always the API server's.
    pub(crate) async fn services_of(&self, namespace: &str, links: bool) -> Vec<Arc<Service>> {
        self.services.synced().await;
        let mut services = if links { self.services.in_namespace(namespace) } else { Vec::new() };
        let own = |service: &&Arc<Service>| service.metadata.name.as_deref() == Some("kubernetes");
        if services.iter().find(own).is_none() {
            services.extend(self.services.get("default", "kubernetes"));
        }
        services
    }
}

/// Only addresses and ports become variables.
fn trim_service(service: &mut Service) {
    service.metadata.managed_fields = None;
    service.metadata.annotations = None;
    service.metadata.labels = None;
    service.status = None;
}
