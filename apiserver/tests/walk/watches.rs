//! Watch: what changes after a list, as its selector sees it.

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
    let mut seen = vec![("ADDED", made.object.clone())];
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
