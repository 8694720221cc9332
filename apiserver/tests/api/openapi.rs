//! The OpenAPI documents as clients fetch them.

use std::io::Read;

use crate::common::api;
use http_body_util::BodyExt;
use serde_json::Value;

#[tokio::test]
async fn a_document_is_compressed_for_who_takes_it() {
    let api = api().await;
    let plain = api.get("/openapi/v2").await;
    assert!(plain.headers.get("content-encoding").is_none());
    let response = api.raw("GET", "/openapi/v2", &[("accept-encoding", "deflate, gzip")], "").await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert_eq!(response.headers()["etag"], plain.headers["etag"]);
    let compressed = response.into_body().collect().await.unwrap().to_bytes();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&compressed[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, plain.text);
}

#[tokio::test]
async fn who_has_a_document_is_told_so() {
    let api = api().await;
    let first = api.get("/openapi/v2").await;
    let tag = first.headers["etag"].to_str().unwrap();
    let again = api.send("GET", "/openapi/v2", &[("if-none-match", tag)], "").await;
    assert_eq!((again.code, again.text.as_str()), (304, ""));
    let media = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let protobuf = api.send("GET", "/openapi/v2", &[("accept", media), ("if-none-match", tag)], "").await;
    assert_eq!(protobuf.code, 200, "another form is another content");
    assert_ne!(protobuf.headers["etag"], first.headers["etag"]);
}

#[tokio::test]
async fn the_index_leads_to_documents_that_can_be_kept_for_good() {
    let api = api().await;
    let index = api.get("/openapi/v3").await.ok();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = api.get(url).await;
    assert_eq!(document.headers["cache-control"], "public, immutable");
    assert_eq!(document.value["openapi"], "3.0.0");
    let description = |document: &Value| {
        let deployment = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
        deployment["description"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(
        description(&document.value),
        "Deployment enables declarative updates for Pods and ReplicaSets."
    );
    let stale = api.get("/openapi/v3/apis/apps/v1?hash=0").await;
    assert_eq!((stale.code, stale.headers["location"].to_str().unwrap()), (301, url));
    assert_eq!(api.get("/openapi/v3/apis/nothing/v1").await.code, 404);
}
