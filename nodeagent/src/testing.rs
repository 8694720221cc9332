//! A node with a runtime and a disk in memory, on a real API server in this process, in virtual time.

mod host;
mod runtime;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use apiserver::pki::Pki;
use apiserver::{ApiServer, UserInfo};
use base::{Clock, Random, Tasks};
use client::Client;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use store::Embedded;

use crate::node::machine::Resources;
use crate::runtime::Runtime;
use crate::{Agent, Config};
pub(crate) use host::FakeHost;
pub(crate) use runtime::FakeRuntime;

/// How long, in virtual time, anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(200);

/// A cluster of one node.
pub(crate) struct Cluster {
    /// An administrator.
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    pub(crate) runtime: Arc<FakeRuntime>,
    pub(crate) host: Arc<FakeHost>,
    server: ApiServer,
    tasks: Tasks,
}

impl Cluster {
    /// An API server and a machine; no agent yet.
    pub(crate) async fn new() -> Self {
        // RUST_LOG=debug tells what happened in a test that fails.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
        let (random, tasks) = (Random::seeded(1), Tasks::new("test"));
        let store = Arc::new(Embedded::in_memory(clock.clone(), tasks.clone()));
        let pki = Arc::new(Pki::in_memory(clock.clone(), random.clone()).unwrap());
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let config = apiserver::Config::new(clock.clone(), random, tasks.clone(), pki, localhost);
        let server = ApiServer::start(store, config).await.unwrap();
        let client = client::in_process(server.in_process(UserInfo::new("admin", &["system:masters"])));
        let runtime = Arc::new(FakeRuntime::new(clock.clone(), tasks.clone()));
        let host = Arc::new(FakeHost::default());
        let cluster = Self { client, clock, runtime, host, server, tasks };
        let account = json!({ "metadata": { "name": "default" } });
        cluster.create("/api/v1/namespaces/default/serviceaccounts", account).await;
        cluster
    }

    /// Starts an agent for the node, as after a restart of the last.
    pub(crate) async fn agent(&self) -> Agent {
        let user = UserInfo::new("system:node:n1", &["system:nodes"]);
        let tls = rustls::ServerConfig::builder_with_provider(base::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
        let config = Config {
            node_name: "n1".into(),
            node_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            data_dir: "/nonexistent".into(),
            runtime_endpoint: String::new(),
            owner: "test".into(),
            client: client::in_process(self.server.in_process(user)),
            clock: self.clock.clone(),
            random: Random::seeded(3),
            tasks: self.tasks.clone(),
            server_tls: Arc::new(tls),
            port: 0,
            cluster_dns: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)),
            cluster_domain: "cluster.local".into(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            max_pods: 110,
            cgroup_root: "/test".into(),
        };
        let amounts = BTreeMap::from([
            ("cpu".to_owned(), 4000),
            ("memory".to_owned(), 8 << 30),
            ("pods".to_owned(), 110),
            ("ephemeral-storage".to_owned(), 100 << 30),
        ]);
        let resources = Resources { capacity: amounts.clone(), allocatable: amounts };
        let tasks = self.tasks.child("agent");
        let runtime: Arc<dyn Runtime> = self.runtime.clone();
        Agent::on(config, runtime, self.host.clone(), resources, tasks).await.unwrap()
    }

    pub(crate) async fn create(&self, path: &str, body: Value) -> Value {
        let request = http::Request::post(path).header("content-type", "application/json");
        self.client.request(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates a pod on the node. `spec` is completed where every pod is alike.
    pub(crate) async fn pod(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!("n1");
        spec["automountServiceAccountToken"] = json!(false);
        let pod = json!({ "metadata": { "name": name }, "spec": spec });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap();
    }

    pub(crate) async fn delete(&self, name: &str, grace: Option<u32>) {
        let parameters = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        self.pods().delete(name, &parameters).await.unwrap();
    }

    /// Waits until `question` about the pod has an answer.
    #[track_caller]
    pub(crate) fn until<T>(
        &self,
        name: &str,
        question: impl Fn(&Pod) -> Option<T>,
    ) -> impl Future<Output = T> {
        let caller = std::panic::Location::caller();
        async move {
            let deadline = self.clock.instant() + PATIENCE;
            let mut pause = Duration::from_millis(10);
            loop {
                let pod = self.pods().get_opt(name).await.unwrap();
                if let Some(answer) = pod.as_ref().and_then(&question) {
                    return answer;
                }
                assert!(
                    self.clock.instant() < deadline,
                    "{caller}: {:#?} {:?}",
                    pod.map(|pod| pod.status),
                    self.runtime.calls()
                );
                self.clock.wait(pause).await;
                pause = pause.mul_f64(1.2).min(Duration::from_millis(500));
            }
        }
    }

    /// Waits until the pod's containers are said to be in these states, as `phase c=running#0`.
    #[track_caller]
    pub(crate) fn until_is(&self, name: &str, expected: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let deadline = self.clock.instant() + PATIENCE;
            let mut pause = Duration::from_millis(10);
            loop {
                let pod = self.pods().get_opt(name).await.unwrap();
                let found = pod.as_ref().map_or_else(|| "gone".to_owned(), brief);
                if found == expected {
                    return;
                }
                assert!(
                    self.clock.instant() < deadline,
                    "{caller}: {expected:?} is wanted, it is {found:?}; calls: {:?}",
                    self.runtime.calls()
                );
                self.clock.wait(pause).await;
                pause = pause.mul_f64(1.2).min(Duration::from_millis(500));
            }
        }
    }

    /// The events about a pod, as `reason: message`, in the order of their making.
    pub(crate) async fn events(&self, name: &str) -> Vec<String> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let mut events = api.list(&ListParams::default()).await.unwrap().items;
        events.retain(|event| event.involved_object.name.as_deref() == Some(name));
        events.sort_by_key(|event| {
            let version = event.metadata.resource_version.clone().unwrap_or_default();
            (event.first_timestamp.clone(), version.parse::<u64>().unwrap_or_default())
        });
        let told = |event: Event| {
            format!("{}: {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default())
        };
        events.into_iter().map(told).collect()
    }
}

/// `phase a=running#0 b=waiting:CrashLoopBackOff#2`, with `+ready` on the phase of a ready pod.
pub(crate) fn brief(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let mut text = status.phase.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        text.push_str("+ready");
    }
    let containers = status.init_container_statuses.into_iter().chain(status.container_statuses).flatten();
    for container in containers {
        let state = container.state.unwrap_or_default();
        let state = if state.running.is_some() {
            "running".to_owned()
        } else if let Some(ended) = state.terminated {
            format!("{}:{}", ended.exit_code, ended.reason.unwrap_or_default())
        } else {
            state.waiting.and_then(|waiting| waiting.reason).unwrap_or_default()
        };
        text.push_str(&format!(" {}={state}#{}", container.name, container.restart_count));
    }
    text
}
