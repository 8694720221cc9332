//! CBOR, as Go's clients send and read it, end to end through the pipeline.

use api::cbor;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::common::{Answer, Api, api};

const MEDIA: &str = "application/cbor";

async fn send(api: &Api, method: &str, target: &str, media: &str, object: &Value) -> Answer {
    api.send(method, target, &[("content-type", media)], cbor::object(object)).await
}

/// Code, media type and value of an answer to a client that reads nothing but CBOR.
async fn read(api: &Api, target: &str, accept: &str) -> (u16, String, Value) {
    let response = api.raw("GET", target, &[("accept", accept)], "").await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let media = parts.headers["content-type"].to_str().unwrap().to_owned();
    assert!(media != MEDIA || bytes.starts_with(&[0xd9, 0xd9, 0xf7]), "the tag of CBOR comes first");
    let value = cbor::decode(&bytes).unwrap_or_else(|_| serde_json::from_slice(&bytes).unwrap());
    (parts.status.as_u16(), media, value)
}

#[tokio::test(start_paused = true)]
async fn objects_are_written_and_deleted_in_cbor() {
    let api = api().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let mut map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "v"},
        "binaryData": {"b": "AP8="},
    });
    let created = send(&api, "POST", maps, MEDIA, &map).await.ok();
    assert_eq!((&created["data"]["k"], &created["binaryData"]["b"]), (&json!("v"), &json!("AP8=")));
    map["data"]["k"] = json!("w");
    assert_eq!(send(&api, "PUT", &format!("{maps}/m"), MEDIA, &map).await.ok()["data"]["k"], "w");
    let applied = "application/apply-patch+cbor";
    let target = format!("{maps}/a?fieldManager=me");
    map["metadata"]["name"] = json!("a");
    let answer = send(&api, "PATCH", &target, applied, &map).await;
    assert_eq!(answer.code, 201);
    let manager = &answer.ok()["metadata"]["managedFields"][0];
    assert_eq!((&manager["manager"], &manager["operation"]), (&json!("me"), &json!("Apply")));
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "another"}});
    let answer = send(&api, "DELETE", &format!("{maps}/m"), MEDIA, &options).await;
    assert_eq!((answer.code, answer.reason()), (409, "Conflict"));
}

#[tokio::test(start_paused = true)]
async fn bytes_for_base64_become_the_data_of_a_secret() {
    let api = api().await;
    let mut body = cbor::object(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}));
    // One more field: data: {k: 22(h'00ff')}
    body[3] += 1;
    body.extend(b"\x44data\xa1\x41k\xd6\x42\x00\xff");
    let headers = [("content-type", MEDIA)];
    let secret = api.send("POST", "/api/v1/namespaces/default/secrets", &headers, body).await.ok();
    assert_eq!(secret["data"]["k"], "AP8=");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_cbor_is_refused_in_upstreams_words() {
    let api = api().await;
    let post =
        async |body: Vec<u8>| api.send("POST", "/api/v1/namespaces", &[("content-type", MEDIA)], body).await;
    post(b"\xa1\x61".to_vec()).await.refused(
        400,
        "BadRequest",
        "the object provided is unrecognized (must be of type Namespace): unable to determine group/version/kind: \
         unexpected EOF (a161)",
    );
    post(b"\xa1\x44spec\xa2\x41a\x01\x41a\x02".to_vec()).await.refused(
        400,
        "BadRequest",
        "Namespace in version \"v1\" cannot be handled as a Namespace: cbor: found duplicate map key \"a\" at map \
         element index 1",
    );
    let target = "/api/v1/namespaces/default/configmaps/a?fieldManager=me";
    let headers = [("content-type", "application/apply-patch+cbor")];
    api.send("PATCH", target, &headers, b"\x80".to_vec()).await.refused(
        400,
        "BadRequest",
        "error decoding patch: cbor: cannot unmarshal array into Go value of type map[string]interface {}",
    );
}

#[tokio::test(start_paused = true)]
async fn answers_of_all_forms_are_those_of_json() {
    let api = api().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for name in ["a", "b"] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        api.post(maps, &map).await.ok();
    }
    let meta = ";g=meta.k8s.io;v=v1;as=";
    for (target, form) in [
        (format!("{maps}/a"), ""),
        (maps.to_owned(), ""),
        (format!("{maps}?limit=1"), ""),
        (format!("{maps}/a"), "PartialObjectMetadata"),
        (maps.to_owned(), "PartialObjectMetadataList"),
        (maps.to_owned(), "Table"),
        ("/api/v1/nodes".to_owned(), ""),
        (format!("{maps}/none"), ""),
    ] {
        let form = if form.is_empty() { String::new() } else { format!("{meta}{form}") };
        let accept = format!("application/json{form}");
        let text = api.send("GET", &target, &[("accept", &accept)], "").await;
        let (code, media, value) = read(&api, &target, &format!("{MEDIA}{form}")).await;
        assert_eq!((code, media.as_str()), (text.code, MEDIA), "{target} {form}");
        assert_eq!(value, text.value, "{target} {form}");
    }
}

#[tokio::test(start_paused = true)]
async fn watches_are_sequences_of_items() {
    let api = api().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let a = api.post(maps, &map).await.ok();
    for accept in ["application/cbor", "application/cbor-seq", "application/cbor;stream=watch"] {
        let response = api.raw("GET", &format!("{maps}?watch=1"), &[("accept", accept)], "").await;
        assert_eq!(response.headers()["content-type"], "application/cbor-seq");
        let frame = response.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(cbor::decode(&frame), Ok(json!({"type": "ADDED", "object": a})));
    }
}
