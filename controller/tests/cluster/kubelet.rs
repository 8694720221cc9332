//! A scheduler and node agents for tests: each pod gets a node at once and is ready two seconds later.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::{Clock, Random, Tasks};
use client::{Cache, CacheConfig, Change, Client};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::common::Cluster;

/// How long a pod needs to get ready.
const START: Duration = Duration::from_secs(2);

/// The nodes that are alive, and what they see.
#[derive(Clone)]
pub struct Kubelets {
    client: Client,
    clock: Clock,
    pub tasks: Tasks,
    pub pods: Cache<Pod>,
    alive: Arc<Mutex<BTreeSet<String>>>,
    /// Images that never get ready.
    pub broken: Arc<Mutex<BTreeSet<String>>>,
    next: Arc<Mutex<usize>>,
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub fn image(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref().unwrap();
    spec.containers[0].image.as_deref().unwrap_or_default()
}

impl Kubelets {
    /// Registers these nodes and starts their agents.
    pub async fn start(cluster: &Cluster, nodes: &[&str]) -> Self {
        let tasks = cluster.tasks.child("kubelets");
        let client = cluster.client.clone();
        let pods = Cache::start(
            &tasks,
            client.clone(),
            cluster.clock.clone(),
            Random::seeded(3),
            CacheConfig::default(),
        );
        let kubelets = Self {
            client,
            clock: cluster.clock.clone(),
            tasks,
            pods,
            alive: Arc::new(Mutex::new(nodes.iter().map(|node| (*node).to_owned()).collect())),
            broken: Arc::default(),
            next: Arc::default(),
        };
        for node in nodes {
            let created = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
            cluster.create("/api/v1/nodes", created).await;
            kubelets.revive(node);
        }
        let mut changes = kubelets.pods.subscribe();
        let own = kubelets.clone();
        kubelets.tasks.spawn("kubelets", async move {
            while let Some(change) = changes.next().await {
                let pods = match change {
                    Change::Applied(pod, _) => vec![pod],
                    Change::Deleted(_) => Vec::new(),
                    Change::Missed => own.pods.list(),
                };
                for pod in pods {
                    own.see((*pod).clone()).await;
                }
            }
        });
        kubelets
    }

    fn is_alive(&self, node: &str) -> bool {
        self.alive.lock().unwrap().contains(node)
    }

    /// The node stops doing anything.
    pub fn kill(&self, node: &str) {
        self.alive.lock().unwrap().remove(node);
    }

    /// The node posts its status every ten seconds from now on, and looks at its pods.
    pub fn revive(&self, node: &str) {
        self.alive.lock().unwrap().insert(node.to_owned());
        let (own, node) = (self.clone(), node.to_owned());
        self.tasks.spawn("heartbeat", async move {
            for pod in own.pods.list() {
                own.see((*pod).clone()).await;
            }
            while own.is_alive(&node) {
                let conditions = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"].map(|kind| {
                    json!({
                        "type": kind,
                        "status": if kind == "Ready" { "True" } else { "False" },
                        "lastHeartbeatTime": own.clock.now().to_string(),
                    })
                });
                let api: Api<Node> = Api::all(own.client.clone());
                let patch = json!({"status": {"conditions": conditions}});
                api.patch_status(&node, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
                own.clock.wait(Duration::from_secs(10)).await;
            }
        });
    }

    async fn see(&self, pod: Pod) {
        let meta = pod.metadata.clone();
        let (namespace, name) = (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else {
            let Some(node) = self.pick() else { return };
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            });
            let params = PostParams::default();
            let bound = api.create_subresource::<Value, Value>("binding", &name, &params, &binding).await;
            if let Err(failure) = bound {
                tracing::warn!(name, %failure, "not bound");
            }
            return;
        };
        if !self.is_alive(&node) {
            return;
        }
        if meta.deletion_timestamp.is_some() {
            let _ = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
            return;
        }
        if is_ready(&pod) || self.broken.lock().unwrap().contains(image(&pod)) {
            return;
        }
        let own = self.clone();
        self.tasks.spawn("pod", async move {
            own.clock.wait(START).await;
            if own.is_alive(&node) {
                let ready = json!({"type": "Ready", "status": "True",
                    "lastTransitionTime": own.clock.now().to_string()});
                let patch = json!({"status": {"phase": "Running", "conditions": [ready]}});
                if let Err(failure) =
                    api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await
                {
                    tracing::warn!(name, %failure, "status not written");
                }
            }
        });
    }

    /// The living nodes in turn.
    fn pick(&self) -> Option<String> {
        let alive = self.alive.lock().unwrap();
        let mut next = self.next.lock().unwrap();
        *next += 1;
        alive.iter().nth(*next % alive.len().max(1)).cloned()
    }
}
