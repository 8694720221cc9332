//! Volumes against a real API server, under the identity of a node.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;

use apiserver::pki::Pki;
use apiserver::{ApiServer, UserInfo};
use serde_json::{Value, json};
use store::Embedded;

use super::*;

struct Cluster {
    server: ApiServer,
    volumes: Volumes,
    base: tempfile::TempDir,
    tasks: Tasks,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Mounts don't go by themselves when a test fails.
        for uid in self.volumes.pods_on_disk() {
            let _ = disk::remove(&self.base.path().join("pods").join(uid));
        }
    }
}

impl Cluster {
    async fn new() -> Self {
        let (clock, random, tasks) = (Clock::system(), Random::seeded(1), Tasks::new("test"));
        let pki = Arc::new(Pki::in_memory(clock.clone(), random.clone()).unwrap());
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let config = apiserver::Config::new(clock.clone(), random.clone(), tasks.clone(), pki, address);
        let store = Arc::new(Embedded::in_memory(clock.clone(), tasks.clone()));
        let server = ApiServer::start(store, config).await.unwrap();
        let node = UserInfo::new("system:node:n1", &["system:nodes"]);
        let client = client::in_process(server.in_process(node));
        let base = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(base.path(), client, "n1", address, clock, random, &tasks);
        let this = Self { server, volumes, base, tasks };
        let account =
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
        this.call("POST", "/api/v1/namespaces/default/serviceaccounts", Some(account)).await;
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } });
        this.call("POST", "/api/v1/nodes", Some(node)).await;
        this
    }

    async fn call(&self, method: &str, target: &str, body: Option<Value>) -> Value {
        let admin = UserInfo::new("admin", &["system:masters"]);
        self.server.call(&admin, method, target, body.as_ref()).await.unwrap()
    }

    async fn create(&self, plural: &str, object: Value) -> Value {
        self.call("POST", &format!("/api/v1/namespaces/default/{plural}"), Some(object)).await
    }

    /// A pod on the node whose container mounts all volumes below `/v`.
    async fn pod(&self, name: &str, volumes: Value, context: Value) -> Arc<Pod> {
        let names = volumes.as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap());
        let mounts: Vec<Value> =
            names.map(|name| json!({ "name": name, "mountPath": format!("/v/{name}") })).collect();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": "x" } },
            "spec": {
                "nodeName": "n1",
                "serviceAccountName": "default",
                "automountServiceAccountToken": false,
                "securityContext": context,
                "volumes": volumes,
                "containers": [{ "name": "c", "image": "i", "volumeMounts": mounts }],
            }
        });
        Arc::new(serde_json::from_value(self.create("pods", pod).await).unwrap())
    }

    fn path(&self, pod: &Pod, path: &str) -> PathBuf {
        self.base.path().join("pods").join(uid(pod)).join("volumes").join(path)
    }

    fn read(&self, pod: &Pod, path: &str) -> String {
        std::fs::read_to_string(self.path(pod, path)).unwrap_or_else(|error| format!("{path}: {error}"))
    }

    /// Returns once a file has this content.
    async fn shows(&self, pod: &Pod, path: &str, expected: &str) {
        let shown = async {
            while self.read(pod, path) != expected {
                tokio::task::yield_now().await;
            }
        };
        let shown = tokio::time::timeout(Duration::from_secs(20), shown).await;
        assert!(shown.is_ok(), "{path}: {}", self.read(pod, path));
    }
}

fn config_map(name: &str, value: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "key": value } })
}

#[tokio::test]
async fn volumes_are_made_follow_their_objects_and_go_without_a_trace() {
    let cluster = Cluster::new().await;
    cluster.create("configmaps", config_map("m", "one")).await;
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "stringData": { "p": "w" } });
    cluster.create("secrets", secret).await;
    let volumes = json!([
        { "name": "map", "configMap": { "name": "m" } },
        { "name": "secret", "secret": { "secretName": "s", "defaultMode": 256 } },
        { "name": "cache", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
        { "name": "data", "emptyDir": {} },
        { "name": "all", "projected": { "sources": [
            { "serviceAccountToken": { "path": "token", "expirationSeconds": 3600 } },
            { "configMap": { "name": "m", "items": [{ "key": "key", "path": "a/b" }] } },
            { "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
            { "configMap": { "name": "later", "optional": true } },
        ] } },
    ]);
    let pod = cluster.pod("web", volumes, json!({ "fsGroup": 2000 })).await;
    cluster.volumes.set_up(&pod, &["10.0.0.9".to_owned()]).await.unwrap();

    assert_eq!(cluster.read(&pod, "map/key"), "one");
    assert_eq!(cluster.read(&pod, "secret/p"), "w");
    assert_eq!(cluster.read(&pod, "all/a/b"), "one");
    assert_eq!(cluster.read(&pod, "all/labels"), "app=\"x\"");
    assert_eq!(cluster.read(&pod, "all/token").split('.').count(), 3, "a token");
    let of_secret = std::fs::metadata(cluster.path(&pod, "secret/p")).unwrap();
    assert_eq!((of_secret.mode() & 0o7777, of_secret.gid()), (0o440, 2000));
    let of_data = std::fs::metadata(cluster.path(&pod, "data")).unwrap();
    assert_eq!((of_data.mode() & 0o7777, of_data.gid()), (0o2777, 2000));
    let mounted: Vec<PathBuf> = disk::mounts_below(cluster.base.path()).unwrap();
    assert_eq!(mounted.len(), 3, "secrets, tokens and memory are on no disk: {mounted:?}");

    // One file alone, bound as it is now.
    let mut container = crate::pod::main_containers(&pod)[0].clone();
    let mount = json!([{ "name": "map", "mountPath": "/key", "subPath": "key" }]);
    container.volume_mounts = serde_json::from_value(mount).unwrap();
    let mounts = cluster.volumes.mounts(&pod, &container, 0).unwrap();
    let of = |path: &str| mounts.iter().find(|mount| mount.container_path == path).unwrap().host_path.clone();
    assert!(std::fs::read_to_string(of("/etc/hosts")).unwrap().ends_with("10.0.0.9\tweb\n"));
    let log = cluster.volumes.termination_log(uid(&pod), "c", 0);
    assert_eq!(of("/dev/termination-log"), log.to_str().unwrap());

    let token = cluster.read(&pod, "all/token");
    let change = json!({ "data": { "key": "two" } });
    cluster.call("PATCH", "/api/v1/namespaces/default/configmaps/m", Some(change)).await;
    cluster.shows(&pod, "map/key", "two").await;
    cluster.shows(&pod, "all/a/b", "two").await;
    assert_eq!(cluster.read(&pod, "all/token"), token, "a good token is kept");
    assert_eq!(std::fs::read_to_string(of("/key")).unwrap(), "one", "a part that is mounted doesn't change");
    let later = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "later" }, "data": { "new": "1" } });
    cluster.create("configmaps", later).await;
    cluster.shows(&pod, "all/new", "1").await;

    assert_eq!(cluster.volumes.pods_on_disk(), [uid(&pod)]);
    cluster.volumes.tear_down(uid(&pod)).await.unwrap();
    assert!(cluster.volumes.pods_on_disk().is_empty());
    assert!(disk::mounts_below(cluster.base.path()).unwrap().is_empty());
}

#[tokio::test]
async fn what_is_missing_is_named_in_the_kubelets_words() {
    let cluster = Cluster::new().await;
    cluster.create("configmaps", config_map("m", "one")).await;
    for (name, volume, expected) in [
        ("map", json!({ "configMap": { "name": "none" } }), "configmap \"none\" not found"),
        ("secret", json!({ "secret": { "secretName": "none" } }), "secret \"none\" not found"),
        (
            "key",
            json!({ "configMap": { "name": "m", "items": [{ "key": "k", "path": "k" }] } }),
            "configmap references non-existent config key: k",
        ),
        (
            "type",
            json!({ "nfs": { "server": "s", "path": "/" } }),
            "volumes of type nfs are not supported on this node",
        ),
        (
            "path",
            json!({ "hostPath": { "path": "/none", "type": "Directory" } }),
            "hostPath type check failed: /none is not a directory",
        ),
    ] {
        let mut volume = volume;
        volume["name"] = json!(name);
        let pod = cluster.pod(name, json!([volume]), json!({})).await;
        let error = cluster.volumes.set_up(&pod, &[]).await.unwrap_err().to_string();
        assert_eq!(error, format!("MountVolume.SetUp failed for volume \"{name}\" : {expected}"));
        cluster.volumes.tear_down(uid(&pod)).await.unwrap();
    }
    // What was missing is found once it is there.
    let pod = cluster.pod("late", json!([{ "name": "v", "configMap": { "name": "none" } }]), json!({})).await;
    cluster.volumes.set_up(&pod, &[]).await.unwrap_err();
    cluster.create("configmaps", config_map("none", "here")).await;
    tokio::time::timeout(Duration::from_secs(20), async {
        while cluster.volumes.set_up(&pod, &[]).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(cluster.read(&pod, "v/key"), "here");
}

#[tokio::test]
async fn another_process_takes_over_the_volumes_of_the_one_before() {
    let cluster = Cluster::new().await;
    let volumes =
        json!([{ "name": "cache", "emptyDir": { "medium": "Memory" } }, { "name": "data", "emptyDir": {} }]);
    let pod = cluster.pod("web", volumes, json!({})).await;
    cluster.volumes.set_up(&pod, &[]).await.unwrap();
    for volume in ["cache", "data"] {
        std::fs::write(cluster.path(&pod, volume).join("kept"), "x").unwrap();
    }
    let node = UserInfo::new("system:node:n1", &["system:nodes"]);
    let client = client::in_process(cluster.server.in_process(node));
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (clock, random) = (Clock::system(), Random::seeded(2));
    let next = Volumes::new(cluster.base.path(), client, "n1", address, clock, random, &cluster.tasks);
    next.set_up(&pod, &[]).await.unwrap();
    assert_eq!((cluster.read(&pod, "cache/kept"), cluster.read(&pod, "data/kept")), ("x".into(), "x".into()));
    assert_eq!(disk::mounts_below(cluster.base.path()).unwrap().len(), 1);
    next.tear_down(uid(&pod)).await.unwrap();
    assert!(next.pods_on_disk().is_empty());
}

#[tokio::test]
async fn objects_for_the_environment_are_read_without_a_watch() {
    let cluster = Cluster::new().await;
    cluster.create("configmaps", config_map("m", "one")).await;
    let pod = cluster.pod("web", json!([{ "name": "v", "configMap": { "name": "m" } }]), json!({})).await;
    let found = cluster.volumes.config_map("default", "m").await.unwrap().unwrap();
    assert_eq!(found.data.as_ref().unwrap()["key"], "one");
    // Nothing else of this node's pods names it: the API says that it is none of the node's business.
    cluster.volumes.config_map("default", "other").await.unwrap_err();
    cluster.volumes.set_up(&pod, &[]).await.unwrap();
    assert!(cluster.volumes.config_map("default", "m").await.unwrap().is_some());
}
