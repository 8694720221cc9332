//! Watch: what changes after a list, as its selector sees it.

use api::cbor;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::common::Answer;
use crate::walk::{Made, OURS, Walk, merged};

/// An object enters the selection as ADDED and leaves it as DELETED, and each event carries it as it is then.
pub(crate) async fn changes(walk: &mut Walk<'_>) {
    walk.step("watch").await;
    let list = walk.api.get(&format!("{}?{OURS}", walk.all())).await;
    let version = list.value["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let query = format!("?watch=true&resourceVersion={version}&timeoutSeconds=60");
    let mut all = walk.api.watch(&format!("{}{query}&{OURS}", walk.all())).await;
    let mut some =
        walk.api.watch(&format!("{}{query}&labelSelector=walk%3Dyes,stage%3Don", walk.all())).await;
    let Some(made) = walk.make().await else { return };
    let mut seen = vec![("ADDED", made.answer.clone())];
    if walk.sample.settles {
        seen.push(("MODIFIED", made.object.clone()));
    }
    let mut chosen = Vec::new();
    for (stage, in_all, in_some) in [
        (Some("on"), "MODIFIED", Some("ADDED")),
        (Some("off"), "MODIFIED", Some("DELETED")),
        (Some("on"), "MODIFIED", Some("ADDED")),
        (None, "MODIFIED", Some("MODIFIED")),
    ] {
        let patch = match stage {
            Some(stage) => json!({"metadata": {"labels": {"stage": stage}}}),
            None => json!({"metadata": {"annotations": {"walk": "1"}}}),
        };
        let answer = walk.api.patch("merge-patch", &made.path, &patch).await;
        let Some(Answer { value, .. }) = walk.code("a change", 200, answer) else { return };
        chosen.extend(in_some.map(|word| (word, value.clone())));
        seen.push((in_all, value));
    }
    let left = remove(walk, &made).await;
    seen.extend(left.clone());
    chosen.extend(left);
    for (what, watch, want) in [("all", &mut all, seen), ("some", &mut some, chosen)] {
        for (i, (word, object)) in want.iter().enumerate() {
            let event = watch.next().await.unwrap_or_default();
            let what = format!("{what}, event {i} ({word})");
            walk.same(&what, &event["type"], &json!(word));
            let mut shown = event["object"].clone();
            // An object that leaves is shown as it was last, in the version of its leaving.
            if *word == "DELETED" {
                let number = |value: &Value| {
                    value["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok())
                };
                let rises = number(&shown) >= number(object);
                walk.is(&format!("{what}: version"), rises, &shown["metadata"]);
                for field in [
                    "resourceVersion",
                    "managedFields",
                    "labels",
                    "generation",
                    "deletionTimestamp",
                    "deletionGracePeriodSeconds",
                    "finalizers",
                ] {
                    shown["metadata"][field] = object["metadata"][field].clone();
                }
                shown["status"] = object["status"].clone();
                if shown["spec"].is_object() {
                    shown["spec"]["finalizers"] = object["spec"]["finalizers"].clone();
                }
            }
            walk.same(&what, &shown, object);
        }
    }
    let initial = walk.api.watch(&format!("{}?watch=true&timeoutSeconds=1&{OURS}", walk.all())).await;
    let mut initial = initial;
    walk.is("nothing is left", initial.next().await.is_none(), "an event");
}

/// Deletes the object, and gives the events of it.
async fn remove(walk: &mut Walk<'_>, made: &Made) -> Vec<(&'static str, Value)> {
    let options = json!({"propagationPolicy": "Background", "gracePeriodSeconds": 0});
    let before = walk.now(made).await;
    let answer = walk.api.delete(&made.path, Some(&options)).await;
    walk.code("delete", 200, answer);
    let left = walk.api.get(&made.path).await;
    if left.code == 404 {
        return vec![("DELETED", before)];
    }
    // Something holds it: it is shown going before it is gone.
    walk.release(&made.path).await;
    vec![("MODIFIED", left.value.clone()), ("DELETED", merged(&left.value, &json!({})))]
}

/// A watch of one name sees one object, and the present comes first, in whatever form is asked for.
pub(crate) async fn forms(walk: &mut Walk<'_>) {
    walk.step("forms of watches").await;
    let (Some(a), Some(_)) = (walk.make().await, walk.make().await) else { return };
    let named = format!("fieldSelector=metadata.name%3D{}&timeoutSeconds=1", a.name);
    let all = walk.all();
    for (what, target) in [
        ("by name", format!("{all}?watch=true&{named}")),
        ("by the older path", format!("{}?{named}", walk.served.watched())),
        (
            "with a bookmark",
            format!(
                "{all}?watch=1&{named}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
            ),
        ),
    ] {
        let mut watch = walk.api.watch(&target).await;
        let event = watch.next().await.unwrap_or_default();
        walk.same(what, &event, &json!({"type": "ADDED", "object": a.object}));
        let end = watch.next().await.unwrap_or_default();
        if what == "with a bookmark" {
            let mark = &end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"];
            let head = json!([end["type"], end["object"]["kind"], mark]);
            walk.same(what, &head, &json!(["BOOKMARK", walk.served.kind, "true"]));
        } else {
            walk.same(what, &end, &Value::Null);
        }
    }
    let target = format!("{all}?watch=true&{named}");
    let response = walk.api.raw("GET", &target, &[("accept", "application/cbor-seq")], "").await;
    let media =
        response.headers().get("content-type").and_then(|media| media.to_str().ok()).map(str::to_owned);
    walk.same("CBOR", &json!(media), &json!("application/cbor-seq"));
    let bytes = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let event = cbor::decode(&bytes).unwrap_or_default();
    walk.same("CBOR", &event, &json!({"type": "ADDED", "object": a.object}));
    for form in ["Table", "PartialObjectMetadata"] {
        let accept = format!("application/json;as={form};v=v1;g=meta.k8s.io");
        let target = format!("{all}?watch=true&{named}");
        let answer = walk.api.send("GET", &target, &[("accept", &accept)], "").await;
        let Some(answer) = walk.code(form, 200, answer) else { continue };
        let event: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        let head = json!([event["type"], event["object"]["kind"], event["object"]["apiVersion"]]);
        walk.same(form, &head, &json!(["ADDED", form, "meta.k8s.io/v1"]));
        let metadata = match form {
            "Table" => &event["object"]["rows"][0]["object"]["metadata"],
            _ => &event["object"]["metadata"],
        };
        walk.same(form, metadata, &walk.alone(&a.object));
    }
}
