//! The verbs on one kind, end to end through the pipeline.

use crate::common::api;
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

#[tokio::test(start_paused = true)]
async fn an_update_without_resource_version_is_taken_where_the_kind_allows_it() {
    let api = api().await;
    let map = |version: &str, value: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": version},
               "data": {"k": value}})
    };
    api.post(MAPS, &map("", "1")).await.ok();
    let target = format!("{MAPS}/a");
    let updated = api.put(&target, &map("", "2")).await.ok();
    assert_eq!(updated["data"]["k"], "2");
    assert_eq!(api.get(&target).await.value, updated);
    let dry = api.put(&format!("{target}?dryRun=All"), &map("", "3")).await.ok();
    assert_eq!(dry["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"]);
    api.put(&target, &map("1", "4")).await.refused(
        409,
        "Conflict",
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes \
         to the latest version and try again",
    );
    api.put(&target, &map("new", "4")).await.refused(
        500,
        "",
        "strconv.ParseUint: parsing \"new\": invalid syntax",
    );

    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"}});
    api.post(leases, &lease).await.ok();
    api.put(&format!("{leases}/a"), &lease).await.refused(
        422,
        "Invalid",
        "leases.coordination.k8s.io \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified \
         for an update",
    );
}

#[tokio::test(start_paused = true)]
async fn a_resource_version_that_is_none_is_a_bad_request_of_a_list() {
    let api = api().await;
    let why = "resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax";
    let list = api.get(&format!("{MAPS}?resourceVersion=abc")).await;
    list.refused(400, "BadRequest", &format!("invalid resource version: {why}"));
    api.get(&format!("{MAPS}/a?resourceVersion=abc")).await.refused(500, "", why);
}

#[tokio::test(start_paused = true)]
async fn what_go_writes_as_null_is_written_as_null() {
    let api = api().await;
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
    });
    let created = api.post("/api/v1/namespaces/default/events", &event).await.ok();
    let shown = created.as_object().unwrap();
    for field in ["eventTime", "firstTimestamp", "lastTimestamp"] {
        assert_eq!(shown.get(field), Some(&json!(null)), "{field}");
    }
    let other = api.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.ok();
    let shown = other.as_object().unwrap();
    for field in ["eventTime", "deprecatedFirstTimestamp", "deprecatedLastTimestamp"] {
        assert_eq!(shown.get(field), Some(&json!(null)), "{field}");
    }
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": [],
    });
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    let created = api.post(roles, &role).await.ok();
    assert_eq!(created.as_object().unwrap().get("rules"), Some(&json!(null)));
    assert_eq!(api.put(&format!("{roles}/r"), &role).await.ok(), created);
}

#[tokio::test(start_paused = true)]
async fn the_dependents_of_a_job_stay_unless_the_client_says_otherwise() {
    let api = api().await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let job = |name: &str| json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template}});
    for name in ["a", "b"] {
        api.post(jobs, &job(name)).await.ok();
    }
    let answer = api.delete(&format!("{jobs}/a"), None).await;
    let warning = answer.headers.get("warning").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(warning.contains("child pods are preserved by default when jobs are deleted"), "{warning}");
    assert_eq!(answer.ok()["metadata"]["finalizers"], json!(["orphan"]));
    let answer = api.delete(&format!("{jobs}/b"), Some(&json!({"propagationPolicy": "Background"}))).await;
    assert_eq!(answer.headers.get("warning"), None);
    assert_eq!(answer.ok()["status"], "Success");
}
