//! Nodes that fall silent, come back or go away, and what becomes of their pods.

use crate::common::{Cluster, cluster};
use crate::kubelet::{Kubelets, is_ready};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const PODS: &str = "/api/v1/namespaces/default/pods";
const NODES: &str = "/api/v1/nodes";

fn web(replicas: i32) -> Value {
    let tolerations = ["not-ready", "unreachable"].map(|state| {
        json!({
            "key": format!("node.kubernetes.io/{state}"), "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 30,
        })
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{"name": "web", "image": "hello:1"}],
                    "tolerations": tolerations,
                },
            },
        },
    })
}

async fn start(nodes: &[&str], replicas: i32) -> (Cluster, Kubelets) {
    let cluster = cluster().await;
    let kubelets = Kubelets::start(&cluster, nodes).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.until::<Value>(accounts, |found| !found.is_empty()).await;
    cluster.create(DEPLOYMENTS, web(replicas)).await;
    let wanted = usize::try_from(replicas).unwrap();
    cluster.until::<Pod>(PODS, |pods| ready(pods) == wanted).await;
    (cluster, kubelets)
}

fn ready(pods: &[Pod]) -> usize {
    pods.iter().filter(|pod| is_ready(pod)).count()
}

fn on(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn taints(nodes: &[Node], name: &str) -> Vec<String> {
    let node = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name)).unwrap();
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut taints: Vec<String> =
        taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect();
    taints.sort();
    taints
}

const UNREACHABLE: [&str; 2] =
    ["node.kubernetes.io/unreachable:NoExecute", "node.kubernetes.io/unreachable:NoSchedule"];

#[tokio::test(start_paused = true)]
async fn pods_of_a_dead_node_are_replaced_and_go_with_it() {
    let (cluster, kubelets) = start(&["a", "b", "c"], 6).await;
    let died = cluster.clock.instant();
    kubelets.kill("b");
    cluster.until::<Node>(NODES, |nodes| taints(nodes, "b") == UNREACHABLE).await;
    assert!((cluster.clock.instant() - died).as_secs() >= 40);
    // Its pods do not serve any more, but stay for as long as they tolerate that.
    cluster.until::<Pod>(PODS, |pods| ready(pods) == 4 && pods.len() == 6).await;
    cluster
        .until::<Event>("/api/v1/namespaces/default/events", |events| {
            events.iter().any(|event| event.message.as_deref() == Some("Node b status is now: NodeNotReady"))
        })
        .await;
    let tainted = cluster.clock.instant();
    let pods = cluster.until::<Pod>(PODS, |pods| ready(pods) == 6).await;
    let waited = (cluster.clock.instant() - tainted).as_secs();
    assert!((25..40).contains(&waited), "{waited}");
    // Nobody can tell whether they have ended, until the node is given up.
    let left: Vec<&Pod> = pods.iter().filter(|pod| on(pod) == "b").collect();
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()));
    Cluster::ok(cluster.send("DELETE", "/api/v1/nodes/b", &Value::Null).await);
    cluster.until::<Pod>(PODS, |pods| pods.len() == 6 && pods.iter().all(|pod| on(pod) != "b")).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_in_time_keeps_its_pods() {
    let (cluster, kubelets) = start(&["a", "b"], 2).await;
    let before = cluster.until::<Pod>(PODS, |pods| ready(pods) == 2).await;
    kubelets.kill("b");
    cluster.until::<Node>(NODES, |nodes| taints(nodes, "b") == UNREACHABLE).await;
    cluster.until::<Pod>(PODS, |pods| ready(pods) == 1).await;
    kubelets.revive("b");
    cluster.until::<Node>(NODES, |nodes| taints(nodes, "b").is_empty()).await;
    let after = cluster.until::<Pod>(PODS, |pods| ready(pods) == 2).await;
    let names = |pods: &[Pod]| pods.iter().map(|pod| pod.metadata.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    let later = cluster.until::<Pod>(PODS, |pods| ready(pods) == 2).await;
    assert_eq!(names(&before), names(&later));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_evicted_when_all_nodes_fall_silent() {
    let (cluster, kubelets) = start(&["a", "b"], 2).await;
    kubelets.kill("a");
    kubelets.kill("b");
    let silent = |nodes: &[Node]| {
        ["a", "b"].iter().all(|name| taints(nodes, name) == ["node.kubernetes.io/unreachable:NoSchedule"])
    };
    cluster.until::<Node>(NODES, silent).await;
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    let pods = cluster.until::<Pod>(PODS, |pods| pods.len() == 2).await;
    assert!(pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_budget_allows_evictions_as_far_as_enough_pods_serve() {
    let (cluster, kubelets) = start(&["a", "b"], 3).await;
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    cluster.create(BUDGETS, budget).await;
    let allows = |count| {
        move |budgets: &[PodDisruptionBudget]| {
            let status = budgets[0].status.clone().unwrap_or_default();
            status.disruptions_allowed == Some(count) && status.expected_pods == Some(3)
        }
    };
    cluster.until(BUDGETS, allows(1)).await;
    let pods = cluster.until::<Pod>(PODS, |pods| ready(pods) == 3).await;
    let evict = |pod: &Pod| {
        let name = pod.metadata.name.clone().unwrap();
        let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        let path = format!("{PODS}/{name}/eviction");
        let cluster = &cluster;
        async move { cluster.send("POST", &path, &body).await }
    };
    Cluster::ok(evict(&pods[0]).await);
    let refused = evict(&pods[1]).await.unwrap_err();
    assert_eq!(client::error::code(&refused), Some(429), "{refused}");
    cluster.until::<Pod>(PODS, |pods| ready(pods) == 3).await;
    cluster.until(BUDGETS, allows(1)).await;
    let deployments: Vec<Deployment> = cluster.until(DEPLOYMENTS, |found| found.len() == 1).await;
    assert_eq!(deployments[0].status.as_ref().unwrap().replicas, Some(3));
    drop(kubelets);
}
