//! Protobuf, as Go's clients send and read it, end to end through the pipeline.

use crate::common::{Answer, Api, api};
use api::schema::{TypeRef, protobuf};
use http_body_util::BodyExt;
use serde_json::{Value, json};

const MEDIA: &str = "application/vnd.kubernetes.protobuf";

async fn send(api: &Api, method: &str, target: &str, object: &Value) -> Answer {
    let body = protobuf::object(object).unwrap();
    api.send(method, target, &[("content-type", MEDIA)], body).await
}

#[tokio::test(start_paused = true)]
async fn objects_are_created_and_updated_from_protobuf() {
    let api = api().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    let created = send(&api, "POST", "/api/v1/namespaces", &namespace).await.ok();
    assert_eq!(created["metadata"]["name"], "n");
    assert_eq!(created["status"]["phase"], "Active");
    let maps = "/api/v1/namespaces/n/configmaps";
    let mut map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "labels": {"x": ""}},
        "data": {"k": "v"}, "binaryData": {"b": "AP8="},
    });
    let created = send(&api, "POST", maps, &map).await.ok();
    assert_eq!((&created["data"]["k"], &created["binaryData"]["b"]), (&json!("v"), &json!("AP8=")));
    assert_eq!(created["metadata"]["labels"], json!({"x": ""}));
    map["data"]["k"] = json!("w");
    map["metadata"]["resourceVersion"] = created["metadata"]["resourceVersion"].clone();
    assert_eq!(send(&api, "PUT", &format!("{maps}/m"), &map).await.ok()["data"]["k"], "w");
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "another"}});
    let answer = send(&api, "DELETE", &format!("{maps}/m"), &options).await;
    assert_eq!((answer.code, answer.reason()), (409, "Conflict"));
    let options = json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    send(&api, "DELETE", &format!("{maps}/m"), &options).await.ok();
    assert_eq!(api.get(&format!("{maps}/m")).await.code, 404);
}

#[tokio::test(start_paused = true)]
async fn subresources_and_reviews_speak_protobuf() {
    let api = api().await;
    let pods = "/api/v1/namespaces/default/pods";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    send(&api, "POST", "/api/v1/namespaces/default/serviceaccounts", &account).await.ok();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1500m"}}}]},
    });
    let created = send(&api, "POST", pods, &pod).await.ok();
    assert_eq!(created["spec"]["containers"][0]["resources"]["limits"]["cpu"], "1500m");
    assert_eq!(created["spec"]["terminationGracePeriodSeconds"], 30);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "node"},
    });
    assert_eq!(send(&api, "POST", &format!("{pods}/p/binding"), &binding).await.code, 201);
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": "default"},
        "deleteOptions": {"gracePeriodSeconds": 7},
    });
    assert_eq!(send(&api, "POST", &format!("{pods}/p/eviction"), &eviction).await.code, 201);
    let pod = api.get(&format!("{pods}/p")).await.ok();
    assert_eq!(
        (&pod["spec"]["nodeName"], &pod["metadata"]["deletionGracePeriodSeconds"]),
        (&json!("node"), &json!(7))
    );
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}},
    });
    let target = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(send(&api, "POST", target, &review).await.ok()["status"]["allowed"], true);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_protobuf_or_of_another_kind_is_refused() {
    let api = api().await;
    let post =
        async |body: Vec<u8>| api.send("POST", "/api/v1/namespaces", &[("content-type", MEDIA)], body).await;
    let unrecognized = "the object provided is unrecognized (must be of type Namespace): ";
    post(b"\0\x01x".to_vec()).await.refused(400, "BadRequest", &format!(
        "{unrecognized}provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (000178)"
    ));
    post(b"k8s\0\x12\x7f".to_vec()).await.refused(
        400,
        "BadRequest",
        &format!("{unrecognized}unexpected EOF (6b387300127f)"),
    );
    post(protobuf::seal("v1", "Namespace", b"\x08\x01")).await.refused(
        400,
        "BadRequest",
        "Namespace in version \"v1\" cannot be handled as a Namespace: proto: wrong wireType = 0 for field Metadata",
    );
    post(protobuf::seal("v1", "Nonsense", b"\x08\x01")).await.refused(
        400,
        "BadRequest",
        "Nonsense in version \"v1\" cannot be handled as a Namespace: no kind \"Nonsense\" is registered for version \
         \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
    );
    post(protobuf::seal("v1", "Pod", b"")).await.refused(
        400,
        "BadRequest",
        "Pod in version \"v1\" cannot be handled as a Namespace: converting (v1.Pod) to (core.Namespace): unknown conversion",
    );
}

/// The answer to a request by a client that reads protobuf before anything else.
async fn read(api: &Api, target: &str, accept: &str) -> (u16, String, Value) {
    let response = api.raw("GET", target, &[("accept", accept)], "").await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let media = parts.headers["content-type"].to_str().unwrap().to_owned();
    let value = if media == MEDIA { opened(&bytes) } else { serde_json::from_slice(&bytes).unwrap() };
    (parts.status.as_u16(), media, value)
}

/// Without empty structs, which are always on the wire, and without empty lists and nulls, which never are.
fn whole(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let parts = map.into_iter().map(|(name, part)| (name, whole(part)));
            parts.filter(|(_, part)| ![json!({}), json!([]), Value::Null].contains(part)).collect()
        }
        Value::Array(list) => list.into_iter().map(whole).collect(),
        other => other,
    }
}

fn opened(bytes: &[u8]) -> Value {
    let envelope = protobuf::open(bytes).unwrap();
    protobuf::unseal(&envelope, &protobuf::kind(&envelope.api_version, &envelope.kind).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn objects_lists_and_failures_are_answered_in_protobuf() {
    let api = api().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for name in ["a", "b"] {
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": name}});
        api.post(maps, &map).await.ok();
    }
    let both = "application/vnd.kubernetes.protobuf,application/json";
    for target in [
        format!("{maps}/a"),
        maps.to_owned(),
        format!("{maps}?limit=1"),
        format!("{maps}?fieldSelector=metadata.name%3Db"),
        "/api/v1/nodes".to_owned(),
        "/api/v1/namespaces/default".to_owned(),
        "/apis/rbac.authorization.k8s.io/v1/clusterroles".to_owned(),
        "/api/v1/namespaces/default/services".to_owned(),
    ] {
        let json = whole(api.get(&target).await.ok());
        let (code, media, value) = read(&api, &target, both).await;
        assert_eq!((code, media.as_str()), (200, MEDIA), "{target}");
        assert_eq!(whole(value), json, "{target}");
    }
    let (code, media, value) = read(&api, &format!("{maps}/none"), both).await;
    assert_eq!((code, media.as_str(), &value["reason"]), (404, MEDIA, &json!("NotFound")));
    assert_eq!(value["details"], json!({"name": "none", "kind": "configmaps"}));
    let (_, media, value) = read(
        &api,
        maps,
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    )
    .await;
    assert_eq!((media.as_str(), &value["items"][1]["metadata"]["name"]), (MEDIA, &json!("b")));
    let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1";
    let (_, media, value) =
        read(&api, maps, &format!("{table},application/json;as=Table;g=meta.k8s.io;v=v1")).await;
    assert_eq!((media.as_str(), &value["kind"]), ("application/json", &json!("Table")));
    assert_eq!(read(&api, maps, table).await.0, 406);
}

#[tokio::test(start_paused = true)]
async fn watches_are_framed_in_protobuf() {
    let api = api().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let a = api.post(maps, &map("a")).await.ok();
    let target = format!(
        "{maps}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let response = api.raw("GET", &target, &[("accept", MEDIA)], "").await;
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let (mut body, mut buffer) = (response.into_body(), Vec::new());
    let event = TypeRef::builtin("meta.k8s.io", "v1", "WatchEvent").unwrap();
    let mut next = async || loop {
        let length = buffer.get(..4).map(|head: &[u8]| u32::from_be_bytes(head.try_into().unwrap()) as usize);
        if let Some(length) = length
            && buffer.len() >= 4 + length
        {
            let frame: Vec<u8> = buffer.drain(..4 + length).collect();
            break protobuf::decode(&event, &frame[4..]).unwrap();
        }
        buffer.extend_from_slice(body.frame().await.unwrap().unwrap().data_ref().unwrap());
    };
    assert_eq!(next().await, json!({"type": "ADDED", "object": a}));
    let bookmark = next().await;
    assert_eq!((&bookmark["type"], &bookmark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let b = api.post(maps, &map("b")).await.ok();
    assert_eq!(next().await, json!({"type": "ADDED", "object": b}));
    api.delete(&format!("{maps}/a"), None).await.ok();
    let gone = next().await;
    assert_eq!((&gone["type"], &gone["object"]["metadata"]["name"]), (&json!("DELETED"), &json!("a")));
}
