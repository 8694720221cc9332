//! What an API server is started with.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Random, Tasks};

use crate::audit;
use crate::pki::Pki;

/// What an API server is started with. Every field has a sensible value from [`Config::new`].
#[derive(Clone, Debug)]
pub struct Config {
    pub clock: Clock,
    pub random: Random,
    pub tasks: Tasks,
    /// The cluster's certificate authority, the service account keys and the certificate towards node agents.
    pub pki: Arc<Pki>,
    /// Where cluster IPs come from, as `ADDRESS/PREFIX`; IPv4.
    pub service_cidr: String,
    /// Where pod addresses come from; told to nodes that join.
    pub cluster_cidr: String,
    /// First and last port of NodePort services.
    pub node_ports: (u16, u16),
    pub cluster_domain: String,
    /// The address under which clients reach this server; endpoint of the service `kubernetes`.
    pub advertise_address: IpAddr,
    pub advertise_port: u16,
    /// Further addresses and host names under which clients reach this server.
    pub server_names: Vec<String>,
    /// The port of the node agents' own API.
    pub node_agent_port: u16,
    /// How long a request that is neither a watch nor a stream may take.
    pub request_timeout: Duration,
    /// How long events live.
    pub event_ttl: Duration,
    /// The most that a request body may hold.
    pub max_body: usize,
    /// How many requests are answered at a time; those that last do not count.
    pub max_requests: u32,
    /// How long the server goes on serving after it began to say that it ends.
    pub shutdown_delay: Duration,
    /// What is recorded of requests, and where.
    pub audit: Option<audit::Settings>,
    /// What other parts of the process write at `/metrics`.
    pub more_metrics: Vec<base::metrics::Source>,
    /// Admission plugins that are asked though they are off by default, by name.
    pub enabled_admission: Vec<String>,
    /// Admission plugins that are left out, by name.
    pub disabled_admission: Vec<String>,
}

impl Config {
    /// The defaults, with what has no default as arguments.
    pub fn new(clock: Clock, random: Random, tasks: Tasks, pki: Arc<Pki>, advertise_address: IpAddr) -> Self {
        Self {
            clock,
            random,
            tasks,
            pki,
            service_cidr: "10.96.0.0/16".to_owned(),
            cluster_cidr: "10.244.0.0/16".to_owned(),
            node_ports: (30000, 32767),
            cluster_domain: "cluster.local".to_owned(),
            advertise_address,
            advertise_port: 6443,
            server_names: vec![advertise_address.to_string()],
            node_agent_port: 10250,
            request_timeout: Duration::from_secs(60),
            event_ttl: Duration::from_secs(3600),
            max_body: 3 * 1024 * 1024,
            max_requests: 600,
            shutdown_delay: Duration::ZERO,
            audit: None,
            more_metrics: Vec::new(),
            enabled_admission: Vec::new(),
            disabled_admission: Vec::new(),
        }
    }
}
