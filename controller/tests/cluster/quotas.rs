//! Quotas, and what is protected while it is used.

use crate::common::{Cluster, cluster};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, ResourceQuota};
use serde_json::{Value, json};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
        }
    })
}

async fn until_used(cluster: &Cluster, wanted: Value) {
    let is = |quotas: &[ResourceQuota]| {
        let used = quotas.first().and_then(|quota| quota.status.as_ref()?.used.clone());
        serde_json::to_value(used).unwrap() == wanted
    };
    cluster.until::<ResourceQuota>(QUOTAS, is).await;
}

async fn delete(cluster: &Cluster, path: &str) {
    let now = json!({"gracePeriodSeconds": 0});
    Cluster::ok(cluster.send("DELETE", path, &now).await);
}

#[tokio::test(start_paused = true)]
async fn quotas_are_counted_charged_and_given_back() {
    let cluster = cluster().await;
    // The root certificate is there without anybody's doing.
    cluster.until::<Value>(MAPS, |maps| !maps.is_empty()).await;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"configmaps": "2", "pods": "2", "requests.cpu": "1", "count/deployments.apps": "0"}}
    });
    cluster.create(QUOTAS, quota).await;
    let zero = json!({"configmaps": "1", "pods": "0", "requests.cpu": "0", "count/deployments.apps": "0"});
    until_used(&cluster, zero.clone()).await;
    cluster.create(MAPS, map("a")).await;
    cluster.create(PODS, pod("p", "600m")).await;
    let full = json!({"configmaps": "2", "pods": "1", "requests.cpu": "600m", "count/deployments.apps": "0"});
    until_used(&cluster, full.clone()).await;
    cluster.settle().await;
    until_used(&cluster, full).await;
    for (path, body) in [(MAPS, map("b")), (PODS, pod("r", "600m"))] {
        let refused = cluster.send("POST", path, &body).await.unwrap_err().to_string();
        assert!(refused.contains("exceeded quota: q"), "{refused}");
    }
    delete(&cluster, &format!("{MAPS}/a")).await;
    delete(&cluster, &format!("{PODS}/p")).await;
    until_used(&cluster, zero).await;
    cluster.create(MAPS, map("b")).await;
    // New limits hold, and the names that are not limited any more go.
    let limits = json!({"spec": {"hard": {"configmaps": "3", "pods": null, "requests.cpu": null, "count/deployments.apps": null}}});
    Cluster::ok(cluster.send("PATCH", &format!("{QUOTAS}/q"), &limits).await);
    until_used(&cluster, json!({"configmaps": "2"})).await;
    cluster.settle().await;
    cluster.create(MAPS, map("c")).await;
}

#[tokio::test(start_paused = true)]
async fn claims_and_volumes_stay_while_they_are_used() {
    let cluster = cluster().await;
    cluster.settle().await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claim =
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": spec});
    cluster.create(CLAIMS, claim.clone()).await;
    cluster.create(PODS, pod("p", "1")).await;
    delete(&cluster, &format!("{CLAIMS}/c")).await;
    cluster.settle().await;
    let claims = cluster.until::<PersistentVolumeClaim>(CLAIMS, |_| true).await;
    assert!(claims[0].metadata.deletion_timestamp.is_some());
    delete(&cluster, &format!("{PODS}/p")).await;
    cluster.until::<PersistentVolumeClaim>(CLAIMS, |claims| claims.is_empty()).await;

    let volumes = "/api/v1/persistentvolumes";
    let spec = json!({
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/a"},
        "persistentVolumeReclaimPolicy": "Retain"
    });
    let volume =
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": spec});
    cluster.create(volumes, volume).await;
    let path = format!("{volumes}/v");
    let phase = |phase: &str| json!({"status": {"phase": phase}});
    Cluster::ok(cluster.send("PATCH", &format!("{path}/status"), &phase("Bound")).await);
    delete(&cluster, &path).await;
    cluster.settle().await;
    assert_eq!(cluster.until::<PersistentVolume>(volumes, |_| true).await.len(), 1);
    Cluster::ok(cluster.send("PATCH", &format!("{path}/status"), &phase("Released")).await);
    cluster.until::<PersistentVolume>(volumes, |volumes| volumes.is_empty()).await;
}
