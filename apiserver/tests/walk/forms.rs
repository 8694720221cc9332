//! Protobuf, CBOR and YAML, in both directions.

use api::cbor;
use api::schema::protobuf;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::walk::{OURS, Walk, merged, short};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const CBOR: &str = "application/cbor";
const YAML: &str = "application/yaml";

/// Without empty structs, which are always on the wire, and without empty lists and nulls, which never are.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let parts = map.iter().map(|(name, part)| (name.clone(), bare(part)));
            parts.filter(|(_, part)| ![json!({}), json!([]), Value::Null].contains(part)).collect()
        }
        Value::Array(list) => list.iter().map(bare).collect(),
        other => other.clone(),
    }
}

fn opened(bytes: &[u8]) -> Result<Value, String> {
    let envelope = protobuf::open(bytes).map_err(|error| error.to_string())?;
    let ty = protobuf::kind(&envelope.api_version, &envelope.kind).ok_or("an unknown kind")?;
    protobuf::unseal(&envelope, &ty).map_err(|error| error.to_string())
}

/// A request and its answer in a form, the answer as JSON.
async fn exchange(
    walk: &mut Walk<'_>,
    form: &str,
    method: &str,
    path: &str,
    body: Vec<u8>,
    code: u16,
) -> Option<Value> {
    let response = walk.api.raw(method, path, &[("accept", form), ("content-type", form)], body).await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let media = parts.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if (parts.status.as_u16(), media) != (code, form) {
        walk.fault(format_args!("{method} {path}: {} {media}: {}", parts.status, short(&text)));
        return None;
    }
    let read = match form {
        PROTOBUF => opened(&bytes),
        CBOR => cbor::decode(&bytes).map_err(|error| error.to_string()),
        _ => serde_saphyr::from_str(&text).map_err(|error| error.to_string()),
    };
    match read {
        Ok(value) => Some(value),
        Err(why) => {
            walk.fault(format_args!("{method} {path}: can't be read: {why}: {}", short(&text)));
            None
        }
    }
}

fn written(form: &str, object: &Value) -> Result<Vec<u8>, String> {
    match form {
        PROTOBUF => protobuf::object(object).map_err(|error| error.to_string()),
        CBOR => Ok(cbor::object(object)),
        _ => serde_saphyr::to_string(object).map(String::into_bytes).map_err(|error| error.to_string()),
    }
}

async fn both_ways(walk: &mut Walk<'_>, form: &str) {
    let Some(made) = walk.make().await else { return };
    if let Some(read) = exchange(walk, form, "GET", &made.path, Vec::new(), 200).await {
        walk.same("what is read", &bare(&read), &bare(&made.object));
    }
    let path = format!("{}?{OURS}", walk.all());
    let list = walk.api.get(&path).await.value;
    if let Some(read) = exchange(walk, form, "GET", &path, Vec::new(), 200).await {
        walk.same("a list", &bare(&read), &bare(&list));
    }
    // The same object, written in this form.
    let mut other = made.object.clone();
    let next = walk.next();
    other["metadata"] = next["metadata"].clone();
    for field in ["spec", "status"] {
        other[field] = next[field].clone();
    }
    other = bare(&merged(&other, &next));
    let all = walk.all();
    let body = match written(form, &other) {
        Ok(body) => body,
        Err(why) => return walk.fault(format_args!("it can't be written: {why}")),
    };
    if let Some(created) = exchange(walk, form, "POST", &all, body, 201).await {
        let name = other["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        walk.settled(&name, Value::Null).await;
        let stored = walk.api.get(&walk.one(&name)).await.value;
        if !walk.sample.settles {
            walk.same("what was created", &bare(&created), &bare(&stored));
        }
        let labelled = merged(&stored, &json!({"metadata": {"labels": {"stage": "one"}}}));
        match written(form, &labelled) {
            Err(why) => walk.fault(format_args!("it can't be written again: {why}")),
            Ok(body) => {
                let path = walk.one(&name);
                let updated = exchange(walk, form, "PUT", &path, body, 200).await;
                let label = updated.unwrap_or_default()["metadata"]["labels"]["stage"].clone();
                walk.same("the label of an update", &label, &json!("one"));
                let mut now = walk.api.get(&path).await.value;
                for field in ["resourceVersion", "managedFields", "labels", "generation"] {
                    now["metadata"][field] = stored["metadata"][field].clone();
                }
                walk.same("what an update left", &bare(&now), &bare(&stored));
            }
        }
    }
}

pub(crate) async fn protobuf(walk: &mut Walk<'_>) {
    walk.step("protobuf").await;
    both_ways(walk, PROTOBUF).await;
}

pub(crate) async fn cbor(walk: &mut Walk<'_>) {
    walk.step("CBOR").await;
    both_ways(walk, CBOR).await;
}

pub(crate) async fn yaml(walk: &mut Walk<'_>) {
    walk.step("YAML").await;
    both_ways(walk, YAML).await;
}

/// A kind that is answered and not stored: the answer is the same in every form.
pub(crate) async fn answered(walk: &mut Walk<'_>) {
    walk.step("answer").await;
    let namespace = crate::walk::NAMESPACE;
    let mut answers = Vec::new();
    for form in ["application/json", YAML, PROTOBUF, CBOR] {
        let object = walk.next();
        for before in walk.sample.before(walk.number()) {
            let kind = before["kind"].as_str().unwrap_or_default().to_lowercase();
            walk.api.post(&format!("/api/v1/namespaces/{namespace}/{kind}s"), &before).await.ok();
        }
        let body = match form {
            "application/json" => Ok(object.to_string().into_bytes()),
            form => written(form, &object),
        };
        let body = match body {
            Ok(body) => body,
            Err(why) => {
                walk.fault(format_args!("{form}: it can't be written: {why}"));
                continue;
            }
        };
        let all = walk.all();
        let answer = match form {
            "application/json" => {
                let answer = walk.api.send("POST", &all, &[], body).await;
                walk.code("create", 201, answer).map(|answer| answer.value)
            }
            form => exchange(walk, form, "POST", &all, body, 201).await,
        };
        let Some(mut answer) = answer else { continue };
        if answer["kind"] == "Status" {
            walk.same("status", &answer["status"], &json!("Success"));
        } else {
            let head = json!({"kind": answer["kind"], "apiVersion": answer["apiVersion"]});
            walk.same("head", &head, &json!({"kind": walk.served.kind, "apiVersion": walk.served.version}));
        }
        answer["metadata"] = Value::Null;
        answers.push(bare(&answer));
    }
    for other in answers.iter().skip(1) {
        walk.same("the answer in another form", other, &answers[0]);
    }
    let unknown = merged(&walk.next(), &json!({"walkUnknown": 1}));
    let all = format!("{}?fieldValidation=Strict", walk.all());
    let answer = walk.api.post(&all, &unknown).await;
    walk.is(
        "strict",
        answer.code == 400 && answer.message().contains("unknown field \"walkUnknown\""),
        &answer.text,
    );
}
