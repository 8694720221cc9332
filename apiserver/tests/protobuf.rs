//! Protobuf, as Go's clients send and read it, end to end through the pipeline.

mod common;

use api::schema::protobuf;
use common::{Answer, Api, api};
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
