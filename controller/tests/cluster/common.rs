//! An API server in this process, with all controllers on it, in virtual time.
#![allow(dead_code, unreachable_pub)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use apiserver::pki::Pki;
use apiserver::{ApiServer, UserInfo};
use base::{Clock, Random, Tasks};
use client::Client;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use store::Embedded;

/// How long, in virtual time, anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Cluster {
    /// An administrator.
    pub client: Client,
    pub clock: Clock,
    pub tasks: Tasks,
    server: ApiServer,
}

/// A server on a new store in memory with all controllers.
pub async fn cluster() -> Cluster {
    cluster_with("10.244.0.0/16").await
}

pub async fn cluster_with(cluster_cidr: &str) -> Cluster {
    let cluster = without_controllers().await;
    cluster.start_controllers(cluster_cidr);
    cluster
}

pub async fn without_controllers() -> Cluster {
    // RUST_LOG=debug tells what happened in a test that fails.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
    let (random, tasks) = (Random::seeded(1), Tasks::new("test"));
    let store = Arc::new(Embedded::in_memory(clock.clone(), tasks.clone()));
    let pki = Arc::new(Pki::in_memory(clock.clone(), random.clone()).unwrap());
    let config =
        apiserver::Config::new(clock.clone(), random, tasks.clone(), pki, IpAddr::V4(Ipv4Addr::LOCALHOST));
    let server = ApiServer::start(store, config).await.unwrap();
    let client = client::in_process(server.in_process(UserInfo::new("admin", &["system:masters"])));
    Cluster { client, clock, tasks, server }
}

impl Cluster {
    pub fn start_controllers(&self, cluster_cidr: &str) {
        let server = self.server.clone();
        let config = controller::Config {
            caches: self.client_of(UserInfo::new("system:kube-controller-manager", &[])),
            client_as: Arc::new(move |account| {
                let name = format!("system:serviceaccount:kube-system:{account}");
                let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
                client::in_process(server.in_process(UserInfo::new(name, &groups)))
            }),
            clock: self.clock.clone(),
            random: Random::seeded(2),
            root_ca: "PEM".to_owned(),
            queues: controller::Queues::default(),
            cluster_cidr: cluster_cidr.to_owned(),
        };
        controller::start(&self.tasks, config);
    }

    pub fn client_of(&self, user: UserInfo) -> Client {
        client::in_process(self.server.in_process(user))
    }

    /// A request as a person would type it: the answer or the failure.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, client::kube::Error> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = http::Request::builder().method(method).uri(path).header("content-type", media);
        self.client.request(request.body(body).unwrap()).await
    }

    #[track_caller]
    pub fn ok(answer: Result<Value, client::kube::Error>) -> Value {
        answer.unwrap_or_else(|failure| panic!("{failure}"))
    }

    pub async fn create(&self, path: &str, body: Value) -> Value {
        Self::ok(self.send("POST", path, &body).await)
    }

    /// Waits until `wanted` holds of the objects of a collection.
    pub async fn until<K>(&self, path: &str, wanted: impl Fn(&[K]) -> bool) -> Vec<K>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let deadline = self.clock.instant() + PATIENCE;
        let query = if path.contains('?') { '&' } else { '?' };
        loop {
            let list: Value = Self::ok(self.send("GET", path, &Value::Null).await);
            let objects: Vec<K> = serde_json::from_value(list["items"].clone()).unwrap();
            if wanted(&objects) {
                return objects;
            }
            let version = list["metadata"]["resourceVersion"].as_str().unwrap();
            let target = format!("{path}{query}watch=true&resourceVersion={version}");
            let watch = http::Request::get(target).body(Vec::new()).unwrap();
            let events = self.client.request_events::<Value>(watch).await.unwrap();
            let mut events = std::pin::pin!(events);
            if tokio::time::timeout_at(deadline, events.next()).await.is_err() {
                panic!("{path} stays at {objects:#?}");
            }
        }
    }

    /// Lets everything that is due now happen: nothing that waits for time.
    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}
