//! The verbs on one kind, end to end through the pipeline.

mod common;

use common::api;
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(start_paused = true)]
async fn an_object_can_be_created_read_listed_and_watched() {
    let api = api().await;
    let list = api.get(MAPS).await.ok();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut watch = api.watch(&format!("{MAPS}?watch=true&resourceVersion={version}")).await;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}});
    let created = api.post(MAPS, &body).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let read = api.get(&format!("{MAPS}/a")).await.ok();
    assert_eq!(read, created.value);
    assert_eq!(read["data"]["k"], "v");
    assert_eq!(api.get(&format!("{MAPS}?labelSelector=x%3Dy")).await.names(), ["a"]);
    assert_eq!(api.get(&format!("{MAPS}?labelSelector=x%3Dz")).await.names(), [""; 0]);
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]), (&json!("ADDED"), &read));
}

#[tokio::test(start_paused = true)]
async fn cluster_scoped_objects_are_listed_and_watched() {
    let api = api().await;
    let mut watch = api.watch("/api/v1/nodes?watch=true").await;
    let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}});
    assert_eq!(api.post("/api/v1/nodes", &body).await.code, 201);
    for target in ["/api/v1/nodes", "/api/v1/nodes?limit=5", "/api/v1/nodes?fieldSelector=metadata.name%3Da"]
    {
        assert_eq!(api.get(target).await.names(), ["a"], "{target}");
    }
    assert_eq!(watch.brief().await, "ADDED a");
}
