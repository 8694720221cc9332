//! What each namespace and each node is given.

use crate::common::{Cluster, cluster, cluster_with};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, ServiceAccount};
use serde_json::{Value, json};

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

fn ranges(nodes: &[Node]) -> Vec<String> {
    nodes.iter().filter_map(|node| node.spec.clone()?.pod_cidr).collect()
}

#[tokio::test(start_paused = true)]
async fn each_namespace_gets_its_account_and_certificate_and_gets_them_back() {
    let cluster = cluster().await;
    let created = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}});
    cluster.create("/api/v1/namespaces", created).await;
    let accounts = "/api/v1/namespaces/web/serviceaccounts";
    let maps = "/api/v1/namespaces/web/configmaps";
    cluster.until::<ServiceAccount>(accounts, |found| found.len() == 1).await;
    let found = cluster.until::<ConfigMap>(maps, |found| found.len() == 1).await;
    assert_eq!(found[0].data.as_ref().unwrap()["ca.crt"], "PEM");

    Cluster::ok(cluster.send("DELETE", &format!("{accounts}/default"), &Value::Null).await);
    cluster.until::<ServiceAccount>(accounts, |found| found.len() == 1).await;
    let spoiled = json!({"data": {"ca.crt": "other"}});
    Cluster::ok(cluster.send("PATCH", &format!("{maps}/kube-root-ca.crt"), &spoiled).await);
    cluster.until::<ConfigMap>(maps, |found| found[0].data.as_ref().unwrap()["ca.crt"] == "PEM").await;
}

#[tokio::test(start_paused = true)]
async fn nodes_get_ranges_of_their_own_and_a_deleted_ones_is_given_again() {
    let cluster = cluster_with("10.244.0.0/22").await;
    for name in ["a", "b", "c", "d", "e"] {
        cluster.create("/api/v1/nodes", node(name)).await;
    }
    let nodes = cluster.until::<Node>("/api/v1/nodes", |nodes| ranges(nodes).len() == 4).await;
    assert_eq!(ranges(&nodes), ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"]);
    let told = |events: &[Event]| {
        let reasons = events.iter().map(|event| (event.reason.as_deref(), event.message.as_deref()));
        let wanted = (Some("CIDRNotAvailable"), Some("Node e status is now: CIDRNotAvailable"));
        reasons.filter(|event| *event == wanted).count() == 1
    };
    cluster.until::<Event>("/api/v1/events", told).await;
    Cluster::ok(cluster.send("DELETE", "/api/v1/nodes/b", &Value::Null).await);
    let nodes = cluster.until::<Node>("/api/v1/nodes", |nodes| ranges(nodes).len() == 4).await;
    assert_eq!(ranges(&nodes)[3], "10.244.1.0/24");
}

#[tokio::test(start_paused = true)]
async fn a_bootstrap_token_goes_when_it_expires() {
    let cluster = cluster().await;
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let expires = json!({"token-id": "abcdef", "token-secret": "0123456789abcdef", "expiration": "2026-01-01T00:01:00Z"});
    let token = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-abcdef"}, "stringData": expires,
    });
    cluster.create(secrets, token).await;
    cluster.settle().await;
    assert_eq!(cluster.until::<Value>(secrets, |_| true).await.len(), 1);
    cluster.until::<Value>(secrets, |found| found.is_empty()).await;
    assert!(cluster.clock.now() >= "2026-01-01T00:01:00Z".parse().unwrap());
}
