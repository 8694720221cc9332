//! The end of namespaces.

use crate::common::{Cluster, cluster};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use serde_json::{Value, json};

const WEB: &str = "/api/v1/namespaces?fieldSelector=metadata.name%3Dweb";

async fn with_namespace() -> Cluster {
    let cluster = cluster().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}});
    cluster.create("/api/v1/namespaces", namespace).await;
    let accounts = "/api/v1/namespaces/web/serviceaccounts";
    cluster.until::<ServiceAccount>(accounts, |accounts| !accounts.is_empty()).await;
    cluster
}

async fn delete(cluster: &Cluster, path: &str) -> Value {
    Cluster::ok(cluster.send("DELETE", path, &Value::Null).await)
}

#[tokio::test(start_paused = true)]
async fn a_deleted_namespace_goes_with_all_that_is_in_it() {
    let cluster = with_namespace().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    cluster.create("/api/v1/namespaces/web/configmaps", map.clone()).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    cluster.create("/api/v1/namespaces/web/pods", pod).await;
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "R",
        "involvedObject": {"kind": "Pod", "namespace": "web", "name": "p"},
    });
    cluster.create("/api/v1/namespaces/web/events", event).await;
    let answer = delete(&cluster, "/api/v1/namespaces/web").await;
    assert_eq!(answer["status"]["phase"], "Terminating");
    cluster.until::<Namespace>(WEB, |found| found.is_empty()).await;
    for resource in ["configmaps", "pods", "events", "serviceaccounts"] {
        let path = format!("/api/v1/namespaces/web/{resource}");
        assert!(cluster.until::<Value>(&path, |_| true).await.is_empty(), "{resource}");
    }
    cluster
        .create(
            "/api/v1/namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}}),
        )
        .await;
    cluster
        .until::<ServiceAccount>("/api/v1/namespaces/web/serviceaccounts", |accounts| !accounts.is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_waits_for_what_holds_its_content_and_for_its_pods() {
    let cluster = with_namespace().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.com/held"]}});
    cluster.create("/api/v1/namespaces/web/configmaps", map).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    cluster.create("/api/v1/namespaces/web/pods", pod).await;
    let says = |words: &'static str| {
        move |found: &[Namespace]| {
            let conditions = found.first().and_then(|found| found.status.as_ref()?.conditions.as_ref());
            conditions.into_iter().flatten().any(|condition| condition.message.as_deref() == Some(words))
        }
    };
    delete(&cluster, "/api/v1/namespaces/web").await;
    cluster
        .until::<Namespace>(WEB, says("Some resources are remaining: pods. has 1 resource instances"))
        .await;
    let kept = cluster.until::<Value>("/api/v1/namespaces/web/serviceaccounts", |_| true).await;
    assert_eq!(kept.len(), 1, "the rest stays while a pod runs");
    delete(&cluster, "/api/v1/namespaces/web/pods/p?gracePeriodSeconds=0").await;
    cluster
        .until::<Namespace>(
            WEB,
            says("Some finalizers are remaining: example.com/held in 1 resource instances"),
        )
        .await;
    let refused = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}});
    assert!(cluster.send("POST", "/api/v1/namespaces/web/configmaps", &refused).await.is_err());
    let free = json!({"metadata": {"finalizers": null}});
    Cluster::ok(cluster.send("PATCH", "/api/v1/namespaces/web/configmaps/held", &free).await);
    cluster.until::<Namespace>(WEB, |found| found.is_empty()).await;
}
