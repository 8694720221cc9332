//! What becomes of dependents when owners go.

use crate::common::{Cluster, cluster};
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps?labelSelector=test";

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/configmaps/{name}")
}

/// Creates a map owned by others, by name and UID; returns its UID.
async fn map(cluster: &Cluster, namespace: &str, name: &str, owners: &[(&str, &str)]) -> String {
    let owners: Vec<Value> = owners
        .iter()
        .map(|(name, uid)| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": true}))
        .collect();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"test": ""}, "ownerReferences": owners},
    });
    let created = cluster.create(&format!("/api/v1/namespaces/{namespace}/configmaps"), map).await;
    created["metadata"]["uid"].as_str().unwrap().to_owned()
}

async fn delete(cluster: &Cluster, name: &str, policy: &str) {
    Cluster::ok(cluster.send("DELETE", &path(name), &json!({"propagationPolicy": policy})).await);
}

fn names(maps: &[ConfigMap]) -> Vec<&str> {
    maps.iter().filter_map(|map| map.metadata.name.as_deref()).collect()
}

#[tokio::test(start_paused = true)]
async fn dependents_go_when_their_last_owner_is_gone() {
    let cluster = cluster().await;
    let (a, b) = (map(&cluster, "default", "a", &[]).await, map(&cluster, "default", "b", &[]).await);
    let child = map(&cluster, "default", "child", &[("a", &a), ("b", &b)]).await;
    map(&cluster, "default", "grandchild", &[("child", &child)]).await;
    map(&cluster, "default", "stray", &[("never", "no-such-uid")]).await;
    map(&cluster, "default", "impostor", &[("a", "another-uid")]).await;
    cluster.until::<ConfigMap>(MAPS, |maps| names(maps) == ["a", "b", "child", "grandchild"]).await;
    delete(&cluster, "a", "Background").await;
    let released = |maps: &[ConfigMap]| {
        let child = maps.iter().find(|map| map.metadata.name.as_deref() == Some("child"));
        child.is_some_and(|child| {
            child.metadata.owner_references.as_ref().is_some_and(|owners| owners.len() == 1)
        })
    };
    cluster.until::<ConfigMap>(MAPS, released).await;
    delete(&cluster, "b", "Background").await;
    cluster.until::<ConfigMap>(MAPS, |maps| maps.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_deleted_in_the_foreground_goes_last() {
    let cluster = cluster().await;
    let owner = map(&cluster, "default", "owner", &[]).await;
    let child = map(&cluster, "default", "child", &[("owner", &owner)]).await;
    map(&cluster, "default", "grandchild", &[("child", &child)]).await;
    let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
    Cluster::ok(cluster.send("PATCH", &path("grandchild"), &held).await);
    delete(&cluster, "owner", "Foreground").await;
    let going = |maps: &[ConfigMap]| {
        maps.len() == 3 && maps.iter().all(|map| map.metadata.deletion_timestamp.is_some())
    };
    cluster.until::<ConfigMap>(MAPS, going).await;
    cluster.settle().await;
    cluster.until::<ConfigMap>(MAPS, going).await;
    let free = json!({"metadata": {"finalizers": null}});
    Cluster::ok(cluster.send("PATCH", &path("grandchild"), &free).await);
    cluster.until::<ConfigMap>(MAPS, |maps| maps.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn orphans_stay_without_a_reference() {
    let cluster = cluster().await;
    let owner = map(&cluster, "default", "owner", &[]).await;
    for name in ["x", "y"] {
        map(&cluster, "default", name, &[("owner", &owner)]).await;
    }
    cluster.settle().await;
    delete(&cluster, "owner", "Orphan").await;
    let free = |maps: &[ConfigMap]| {
        names(maps) == ["x", "y"] && maps.iter().all(|map| map.metadata.owner_references.is_none())
    };
    cluster.until::<ConfigMap>(MAPS, free).await;
    cluster.settle().await;
    cluster.until::<ConfigMap>(MAPS, free).await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_in_another_namespace_is_none_and_that_is_told() {
    let cluster = cluster().await;
    let other = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    cluster.create("/api/v1/namespaces", other).await;
    let owner = map(&cluster, "other", "owner", &[]).await;
    cluster.settle().await;
    map(&cluster, "default", "child", &[("owner", &owner)]).await;
    cluster.until::<ConfigMap>(MAPS, |maps| maps.is_empty()).await;
    let message = format!(
        "ownerRef [v1/ConfigMap, namespace: default, name: owner, uid: {owner}] does not exist in namespace \"default\""
    );
    let told = |events: &[Event]| {
        events.iter().any(|event| {
            event.reason.as_deref() == Some("OwnerRefInvalidNamespace")
                && event.message.as_ref() == Some(&message)
        })
    };
    cluster.until::<Event>("/api/v1/namespaces/default/events", told).await;
    let path = "/api/v1/namespaces/other/configmaps?labelSelector=test";
    cluster.until::<ConfigMap>(path, |maps| names(maps) == ["owner"]).await;
}
