//! Secrets in the store: sealed there, plain for clients, and never taken for missing.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use apiserver::pki::Pki;
use apiserver::{ApiServer, Config};
use base::{Random, Tasks};
use serde_json::{Value, json};
use store::{Embedded, Op, Range, Store, Txn};

use crate::common::{Api, api, clock, over};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const PLAIN: &str = "correct horse battery staple";

fn secret(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": {"visible": "never"}},
        "stringData": {"password": PLAIN},
    })
}

fn pki(dir: &Path) -> Arc<Pki> {
    Arc::new(Pki::open(&dir.join("pki"), clock(), Random::system()).unwrap())
}

/// A server on the store and with the keys in this directory.
async fn start(dir: &Path) -> Result<Api, apiserver::StartError> {
    let tasks = Tasks::new("test");
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&dir.join("store"), clock(), tasks.clone()).unwrap());
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let config = Config::new(clock(), Random::seeded(1), tasks.clone(), pki(dir), local);
    Ok(over(ApiServer::start(store.clone(), config).await?, store, tasks))
}

async fn stop(api: Api) {
    let _ = api.server.shutdown().await;
    let _ = api.tasks.shutdown(std::time::Duration::from_secs(10)).await;
}

/// All bytes of the store's files.
fn stored(dir: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(dir.join("store")).unwrap();
    files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

async fn value(api: &Api, name: &str) -> Vec<u8> {
    let key = format!("/registry/secrets/default/{name}");
    api.store.range(Range::key(key)).await.unwrap().kvs[0].value.to_vec()
}

#[tokio::test]
async fn the_files_of_the_store_hold_nothing_of_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let api = start(dir.path()).await.unwrap();
    let mut watch = api.watch(&format!("{SECRETS}?watch=1")).await;
    let created = api.post(SECRETS, &secret("one")).await.ok();
    let encoded = created["data"]["password"].as_str().unwrap().to_owned();
    assert_eq!(watch.next().await.unwrap()["object"], created);
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "m"}, "data": {"k": "in clear"}});
    api.post("/api/v1/namespaces/default/configmaps", &map).await.ok();
    let changed =
        api.patch("merge-patch", &format!("{SECRETS}/one"), &json!({"data": {"x": "eA=="}})).await.ok();
    assert_eq!(changed["data"]["password"], encoded);
    drop(watch);
    stop(api).await;
    let files = stored(dir.path());
    assert!(holds(&files, "in clear") && holds(&files, "/registry/secrets/default/one"));
    for text in [PLAIN, &encoded, "visible"] {
        assert!(!holds(&files, text), "{text:?} is in the store");
    }
    let api = start(dir.path()).await.unwrap();
    assert_eq!(api.get(&format!("{SECRETS}/one")).await.ok(), changed);
    stop(api).await;
}

#[tokio::test]
async fn a_secret_in_clear_is_read_and_sealed_when_it_is_written() {
    let api = api().await;
    let mut old = secret("old");
    old["metadata"]["namespace"] = json!("default");
    old["metadata"]["uid"] = json!("u");
    old["type"] = json!("Opaque");
    old.as_object_mut().unwrap().remove("stringData");
    old["data"] = json!({"password": "b2xk"});
    let put = Op::put("/registry/secrets/default/old", old.to_string());
    api.store.txn(Txn::of([put])).await.unwrap();
    assert_eq!(api.get(&format!("{SECRETS}/old")).await.ok()["data"]["password"], "b2xk");
    assert!(value(&api, "old").await.starts_with(b"{"));
    let target = format!("{SECRETS}/old");
    api.patch("merge-patch", &target, &json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    assert!(value(&api, "old").await.starts_with(b"skiff:sealed:"));
    assert_eq!(api.get(&target).await.ok()["data"]["password"], "b2xk");
}

#[tokio::test]
async fn a_secret_that_was_moved_to_another_place_is_an_error() {
    let api = api().await;
    api.post(SECRETS, &secret("a")).await.ok();
    let a = value(&api, "a").await;
    let put = Op::put("/registry/secrets/default/b", a);
    api.store.txn(Txn::of([put])).await.unwrap();
    let registry = &api.server.server().registry;
    let error = registry.store.range(Range::prefix("/registry/secrets/")).await.unwrap_err().to_string();
    assert!(error.contains("default/b can't be opened") && error.contains("another place"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_opened_harms_no_other_kind() {
    let api = api().await;
    let other = "/api/v1/namespaces/default/configmaps";
    for name in ["a", "c"] {
        api.post(SECRETS, &secret(name)).await.ok();
    }
    let mut watch = api.watch(&format!("{SECRETS}?watch=1")).await;
    for _ in 0..2 {
        watch.next().await.expect("what is there");
    }
    let moved = value(&api, "a").await;
    api.store.txn(Txn::of([Op::put("/registry/secrets/default/b", moved)])).await.unwrap();
    assert!(watch.next().await.is_none(), "who watches has to list anew");
    let why = "/registry/secrets/default/b can't be opened";
    for target in [SECRETS, "/api/v1/secrets?limit=1", "/api/v1/secrets?watch=1", &format!("{SECRETS}/b")] {
        let answer = api.get(target).await;
        assert_eq!(
            (answer.code, answer.message().contains(why)),
            (500, true),
            "{target}: {}",
            answer.message()
        );
    }
    let deleted = api.send("DELETE", &format!("{SECRETS}/b"), &[], "").await;
    assert_eq!((deleted.code, deleted.message().contains(why)), (500, true), "{}", deleted.message());
    assert_eq!(api.get(&format!("{SECRETS}/a")).await.ok()["metadata"]["name"], "a");
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "m"}});
    api.post(other, &map).await.ok();
    let listed = api.get(other).await.ok();
    assert!(listed["items"].as_array().unwrap().iter().any(|map| map["metadata"]["name"] == "m"));
    // It goes on as soon as the value is gone, or is one.
    api.store.txn(Txn::of([Op::delete("/registry/secrets/default/b")])).await.unwrap();
    api.post(other, &json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "n"}})).await.ok();
    let names: Vec<Value> = api.get(SECRETS).await.ok()["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|secret| secret["metadata"]["name"].clone())
        .collect();
    assert_eq!(names, ["a", "c"]);
}

#[tokio::test]
async fn a_server_without_the_key_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let api = start(dir.path()).await.unwrap();
    api.post(SECRETS, &secret("one")).await.ok();
    stop(api).await;
    let file = dir.path().join("pki/sealing.key");
    let key = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let error = start(dir.path()).await.err().unwrap().to_string();
    assert!(error.contains("/registry/secrets/default/one") && error.contains("sealing.key"), "{error}");
    // A further key above the old one: both are read, the new one writes.
    let new = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{new}{key}")).unwrap();
    let api = start(dir.path()).await.unwrap();
    let before = value(&api, "one").await;
    let target = format!("{SECRETS}/one");
    api.patch("merge-patch", &target, &json!({"data": {"x": "eA=="}})).await.ok();
    let after = value(&api, "one").await;
    assert!(before[..23] != after[..23], "another key's name is in front");
    stop(api).await;
    std::fs::write(&file, new).unwrap();
    let api = start(dir.path()).await.unwrap();
    assert_eq!(api.get(&target).await.ok()["data"]["x"], "eA==");
    stop(api).await;
}
