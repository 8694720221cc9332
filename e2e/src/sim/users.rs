//! What people do to the cluster, from the seed.

use std::time::Duration;

use apiserver::UserInfo;
use base::{Random, Tasks};
use client::Client;
use serde_json::{Value, json};

use super::World;
use super::log::Role;
use super::network::{Gate, Link};

const NAMESPACES: [&str; 3] = ["red", "green", "blue"];
const APPS: [&str; 3] = ["web", "api", "job"];

/// A person with `kubectl`.
pub(crate) struct User {
    client: Client,
    random: Random,
}

/// Starts so many people, who go on until `work` ends.
pub(crate) fn start(world: &World, work: &Tasks, count: u64) {
    for number in 0..count {
        let name = format!("user {number}");
        let user = User { client: client(world, &name), random: world.random(&name) };
        let clock = world.clock.clone();
        work.spawn(&name, async move {
            loop {
                clock.wait(Duration::from_millis(200 + user.random.below(8000))).await;
                // What is refused or lost is not tried again: it may or may not have happened.
                if let Err(failure) = user.act().await {
                    tracing::debug!(%failure, "a person's request failed");
                }
            }
        });
    }
}

fn client(world: &World, name: &str) -> Client {
    let user = UserInfo::new(name, &["system:masters"]);
    let (network, gate) = (world.network.clone(), Gate::new());
    Link { network, gate, role: Role::User, user, server: None }.client()
}

/// Undoes what would keep the cluster from coming to rest: broken images, pauses, bare pods that ask for much.
pub(crate) async fn clean_up(world: &World) {
    let user = User { client: client(world, "cleaner"), random: world.random("cleaner") };
    for path in ["/apis/apps/v1/deployments", "/apis/apps/v1/replicasets", "/api/v1/pods"] {
        let list = loop {
            match user.send("GET", path, &Value::Null).await {
                Ok(list) => break list,
                Err(_) => world.clock.wait(Duration::from_secs(1)).await,
            }
        };
        for item in list["items"].as_array().into_iter().flatten() {
            let text = |field: &str| item["metadata"][field].as_str().unwrap_or_default().to_owned();
            let target = match path.rsplit_once('/') {
                Some((root, plural)) => {
                    format!("{root}/namespaces/{}/{plural}/{}", text("namespace"), text("name"))
                }
                None => continue,
            };
            let is_bare = item["metadata"]["ownerReferences"].is_null();
            let request = match path {
                "/apis/apps/v1/deployments" => (
                    "PATCH",
                    json!({"spec": {
                        "paused": false, "replicas": item["spec"]["replicas"].as_i64().unwrap_or(1).min(4),
                        "template": {"spec": {"containers": [{"name": "c", "image": "app:final", "resources": requests()}]}},
                    }}),
                ),
                "/apis/apps/v1/replicasets" if is_bare => {
                    ("DELETE", json!({"propagationPolicy": "Background"}))
                }
                "/api/v1/pods" if is_bare => ("DELETE", Value::Null),
                _ => continue,
            };
            for _ in 0..20 {
                match user.send(request.0, &target, &request.1).await {
                    Err(client::kube::Error::Api(status)) if matches!(status.code, 404 | 409) => break,
                    Err(_) => world.clock.wait(Duration::from_secs(1)).await,
                    Ok(_) => break,
                }
            }
        }
    }
}

/// What every container of a deployment asks for.
fn requests() -> Value {
    json!({"requests": {"cpu": "100m", "memory": "64Mi"}})
}

impl User {
    fn pick<'a>(&self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.random.below(from.len() as u64)).unwrap_or(0)]
    }

    fn chance(&self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, client::kube::Error> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = http::Request::builder().method(method).uri(path).header("content-type", media);
        let request = request.body(body).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }

    async fn act(&self) -> Result<Value, client::kube::Error> {
        let namespace = self.pick(&NAMESPACES);
        let app = self.pick(&APPS);
        let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
        let deployment = format!("{deployments}/{app}");
        match self.random.below(100) {
            0..=9 => {
                let namespace =
                    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
                self.send("POST", "/api/v1/namespaces", &namespace).await
            }
            10 => self.send("DELETE", &format!("/api/v1/namespaces/{namespace}"), &Value::Null).await,
            11..=30 => self.send("POST", &deployments, &self.deployment(app)).await,
            31..=42 => {
                let replicas = json!({"spec": {"replicas": self.random.below(7)}});
                let target = if self.chance(50) { format!("{deployment}/scale") } else { deployment };
                self.send("PATCH", &target, &replicas).await
            }
            43..=56 => self.send("PATCH", &deployment, &self.image()).await,
            57..=62 => self.replace(&deployment).await,
            63..=65 => {
                let paused = json!({"spec": {"paused": self.chance(40)}});
                self.send("PATCH", &deployment, &paused).await
            }
            66..=69 => {
                let policy = self.pick(&["Orphan", "Background", "Foreground"]);
                self.send("DELETE", &deployment, &json!({"propagationPolicy": policy})).await
            }
            70..=76 => self.service(namespace, app).await,
            77..=80 => {
                let budgets = format!("/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets");
                let limit = if self.chance(50) { "minAvailable" } else { "maxUnavailable" };
                let budget = json!({
                    "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": app},
                    "spec": {"selector": {"matchLabels": {"app": app}}, limit: 1 + self.random.below(2)},
                });
                self.send("POST", &budgets, &budget).await
            }
            81..=84 => self.bare_pod(namespace).await,
            85..=91 => self.evict(namespace).await,
            92..=95 => self.delete_pod(namespace).await,
            96..=97 => {
                let sets = format!("/apis/apps/v1/namespaces/{namespace}/replicasets");
                let Some(name) = self.any(&self.send("GET", &sets, &Value::Null).await?) else {
                    return Ok(Value::Null);
                };
                let path = format!("{sets}/{name}");
                let policy = self.pick(&["Orphan", "Background", "Foreground"]);
                self.send("DELETE", &path, &json!({"propagationPolicy": policy})).await
            }
            _ => self.cordon().await,
        }
    }

    fn any(&self, list: &Value) -> Option<String> {
        let items = list["items"].as_array()?;
        let choice = usize::try_from(self.random.below(items.len() as u64)).ok()?;
        Some(items.get(choice)?["metadata"]["name"].as_str()?.to_owned())
    }

    fn image(&self) -> Value {
        let tag = if self.chance(8) { "broken".to_owned() } else { self.random.below(4).to_string() };
        let container = json!({"name": "c", "image": format!("app:{tag}"), "resources": requests()});
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    }

    fn deployment(&self, app: &str) -> Value {
        let tolerations = ["not-ready", "unreachable"].map(|state| {
            json!({
                "key": format!("node.kubernetes.io/{state}"), "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 10 + self.random.below(60),
            })
        });
        let strategy = match self.chance(25) {
            true => json!({"type": "Recreate"}),
            false => json!({"type": "RollingUpdate", "rollingUpdate": {
                "maxSurge": self.random.below(3), "maxUnavailable": 1 + self.random.below(2),
            }}),
        };
        let mut template = self.image()["spec"]["template"].take();
        template["metadata"] = json!({"labels": {"app": app}});
        template["spec"]["tolerations"] = json!(tolerations);
        if self.chance(30) {
            template["spec"]["terminationGracePeriodSeconds"] = json!(self.random.below(20));
        }
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": app, "labels": {"app": app}},
            "spec": {
                "replicas": self.random.below(6),
                "revisionHistoryLimit": self.random.below(4),
                "minReadySeconds": self.random.below(2) * 5,
                "selector": {"matchLabels": {"app": app}},
                "strategy": strategy,
                "template": template,
            },
        })
    }

    /// Reads, changes and writes back: refused if it was changed in between.
    async fn replace(&self, path: &str) -> Result<Value, client::kube::Error> {
        let mut object = self.send("GET", path, &Value::Null).await?;
        object["metadata"]["annotations"]["example.com/touched"] = json!(self.random.below(1000).to_string());
        object["spec"]["replicas"] = json!(self.random.below(6));
        self.send("PUT", path, &object).await
    }

    async fn service(&self, namespace: &str, app: &str) -> Result<Value, client::kube::Error> {
        let services = format!("/api/v1/namespaces/{namespace}/services");
        if self.chance(25) {
            return self.send("DELETE", &format!("{services}/{app}"), &Value::Null).await;
        }
        let kind = self.pick(&["ClusterIP", "NodePort"]);
        if self.chance(25) {
            let patch = json!({"spec": {"type": kind}});
            return self.send("PATCH", &format!("{services}/{app}"), &patch).await;
        }
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": app},
            "spec": {"type": kind, "selector": {"app": app}, "ports": [{"port": 80, "targetPort": 8080}]},
        });
        // People also ask for the same address or port.
        if self.chance(30) {
            service["spec"]["clusterIP"] = json!(format!("10.96.7.{}", 1 + self.random.below(4)));
        }
        if kind == "NodePort" && self.chance(40) {
            service["spec"]["ports"][0]["nodePort"] = json!(30100 + self.random.below(4));
        }
        self.send("POST", &services, &service).await
    }

    async fn bare_pod(&self, namespace: &str) -> Result<Value, client::kube::Error> {
        let name = format!("bare-{}", self.random.below(4));
        let cpu = format!("{}m", 100 + self.random.below(2500));
        let mut container = json!({"name": "c", "image": "app:1", "resources": {"requests": {"cpu": cpu}}});
        if self.chance(50) {
            container["ports"] = json!([{"containerPort": 80, "hostPort": 8000 + self.random.below(3)}]);
        }
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": self.pick(&["web", "other"])}},
            "spec": {"containers": [container]},
        });
        self.send("POST", &format!("/api/v1/namespaces/{namespace}/pods"), &pod).await
    }

    async fn evict(&self, namespace: &str) -> Result<Value, client::kube::Error> {
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let Some(name) = self.any(&self.send("GET", &pods, &Value::Null).await?) else {
            return Ok(Value::Null);
        };
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        self.send("POST", &format!("{pods}/{name}/eviction"), &eviction).await
    }

    async fn delete_pod(&self, namespace: &str) -> Result<Value, client::kube::Error> {
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let Some(name) = self.any(&self.send("GET", &pods, &Value::Null).await?) else {
            return Ok(Value::Null);
        };
        let options = if self.chance(20) { json!({"gracePeriodSeconds": 0}) } else { Value::Null };
        self.send("DELETE", &format!("{pods}/{name}"), &options).await
    }

    async fn cordon(&self) -> Result<Value, client::kube::Error> {
        let Some(name) = self.any(&self.send("GET", "/api/v1/nodes", &Value::Null).await?) else {
            return Ok(Value::Null);
        };
        let patch = json!({"spec": {"unschedulable": self.chance(30)}});
        self.send("PATCH", &format!("/api/v1/nodes/{name}"), &patch).await
    }
}
