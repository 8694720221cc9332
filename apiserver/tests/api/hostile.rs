//! Input that wants more than it brings: refused with a plain 4xx, at a cost in proportion to its size.

use api::cbor;
use serde_json::{Value, json};

use crate::common::{Api, api};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// A little below what a body may hold.
const LARGE: usize = 3 * 1000 * 1000;

/// The name of a configuration map, and then this.
fn map(rest: &str) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"m"}},{rest}}}"#)
}

/// Lists of lists by reference: nine levels of nine.
fn laughs() -> String {
    let mut text = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n".to_owned();
    for level in 1..20 {
        let before = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![before; 9].join(", "));
    }
    text
}

async fn post(api: &Api, media: &str, body: impl Into<bytes::Bytes>) -> (u16, String) {
    let answer = api.send("POST", MAPS, &[("content-type", media)], body).await;
    assert!(answer.value["kind"] != "Status" || answer.text.len() < 3 * LARGE, "{}", answer.text.len());
    (answer.code, answer.message().to_owned())
}

#[tokio::test(start_paused = true)]
async fn what_is_nested_too_deeply_is_refused() {
    let api = api().await;
    let (json, yaml, cbor) = ("application/json", "application/yaml", "application/cbor");
    let protobuf = "application/vnd.kubernetes.protobuf";
    for (media, body) in [
        (json, map(&format!("\"data\":{}", "[".repeat(LARGE)))),
        (json, map(&format!("\"data\":{}", "{\"a\":".repeat(LARGE / 5)))),
        (json, map(&format!("\"data\":{}1{}", "[".repeat(LARGE / 2), "]".repeat(LARGE / 2)))),
        (yaml, "[".repeat(LARGE)),
        (yaml, "{a: ".repeat(LARGE / 4)),
        (yaml, "- ".repeat(LARGE / 2)),
        (yaml, "? ".repeat(LARGE / 2)),
        (yaml, laughs()),
    ] {
        let (code, message) = post(&api, media, body.clone()).await;
        assert_eq!(code, 400, "{media} {:.40}: {message:.300}", body);
    }
    for (media, body) in [
        (cbor, b"\x81".repeat(LARGE)),
        (cbor, b"\xbf\x41a".repeat(LARGE / 3)),
        (cbor, b"\xd9\xd9\xf7".repeat(LARGE / 3)),
        (cbor, [b"\x9f".to_vec(), b"\x80".repeat(LARGE)].concat()),
        (protobuf, [b"k8s\0".to_vec(), b"\x0b".repeat(LARGE)].concat()),
    ] {
        let (code, message) = post(&api, media, body).await;
        assert_eq!(code, 400, "{media}: {message:.300}");
    }
}

#[tokio::test(start_paused = true)]
async fn yaml_is_read_to_a_depth_that_no_manifest_has() {
    let api = api().await;
    for (levels, read) in [(200, true), (300, false)] {
        let deep = format!("{}1{}", "{a: ".repeat(levels), "}".repeat(levels));
        let body = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {deep}\n");
        let (code, message) = post(&api, "application/yaml", body).await;
        // What is read is no string, as it would have to be.
        let refused = message.contains("recursion limit");
        assert_eq!((code, refused), (400, !read), "{levels}: {message:.300}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_huge_is_refused_or_taken_in_one_pass() {
    let api = api().await;
    let json = "application/json";
    let key = "k".repeat(LARGE / 2);
    let many =
        |count: usize, entry: &dyn Fn(usize) -> String| (0..count).map(entry).collect::<Vec<_>>().join(",");
    for (body, code) in [
        ("x".repeat(4 * LARGE), 413),
        (map(&format!(r#""data":{{"{key}":"v"}}"#)), 422),
        (map(&format!(r#""data":{{{}}}"#, many(LARGE / 20, &|n| format!(r#""k{n}":"v""#)))), 413),
        (map(&format!(r#""data":{{{}}}"#, many(LARGE / 10, &|_| r#""k":"v""#.to_owned()))), 201),
        (map(&format!(r#""data":{{{}}}"#, many(10_000, &|n| format!(r#"" {n}":"v""#)))), 422),
        (map(&format!(r#""{key}":1,"x":[{}]"#, many(LARGE / 10, &|_| "{}".to_owned()))), 409),
    ] {
        let (found, message) = post(&api, json, body.clone()).await;
        assert_eq!(found, code, "{:.60}: {message:.300}", body);
    }
}

#[tokio::test(start_paused = true)]
async fn patches_of_a_million_parts_are_refused() {
    let api = api().await;
    let target = format!("{MAPS}/m");
    let object: Value = serde_json::from_str(&map(r#""data":{"a":"b"}"#)).unwrap();
    api.post(MAPS, &object).await.ok();
    let json = |kind: &str| format!("application/{kind}-patch+json");
    let operations = |one: &str| format!("[{}]", vec![one; LARGE / (one.len() + 1)].join(","));
    let doubling = format!("[{}]", vec![r#"{"op":"copy","from":"/data","path":"/data/x"}"#; 9000].join(","));
    let labels: Vec<String> = (0..LARGE / 20).map(|n| format!(r#""l{n}":"v""#)).collect();
    let labels = format!(r#"{{"metadata":{{"labels":{{{}}}}}}}"#, labels.join(","));
    let deep = format!("{}1{}", r#"{"data":"#.repeat(200_000), "}".repeat(200_000));
    for (media, body, code) in [
        (json("json"), operations(r#"{"op":"test","path":""}"#), 413),
        (json("json"), operations("{}"), 413),
        (json("json"), doubling, 422),
        (json("json"), deep.clone(), 400),
        (json("merge"), deep.clone(), 400),
        (json("strategic-merge"), deep.clone(), 400),
        (json("merge"), labels.clone(), 413),
        (json("strategic-merge"), labels.clone(), 413),
        ("application/apply-patch+yaml".to_owned(), deep, 400),
        ("application/apply-patch+cbor".to_owned(), "a".repeat(LARGE), 400),
    ] {
        let target =
            if media.contains("apply") { format!("{target}?fieldManager=m") } else { target.clone() };
        let answer = api.send("PATCH", &target, &[("content-type", &media)], body.clone()).await;
        assert_eq!(answer.code, code, "{media} {:.60}: {:.300}", body, answer.message());
    }
    let bytes = cbor::object(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "c"}}),
    );
    let headers = [("content-type", "application/apply-patch+cbor")];
    let answer = api.send("PATCH", &format!("{target}?fieldManager=m&force=1"), &headers, bytes).await;
    assert_eq!(answer.ok()["data"]["a"], "c", "the server goes on");
}
