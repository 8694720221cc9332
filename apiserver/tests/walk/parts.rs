//! The subresources that change an object: its status and its scale.

use serde_json::{Value, json};

use crate::applies::apply;
use crate::common::Answer;
use crate::walk::{Walk, merged};

/// The status changes through its own path only, and nothing else does there.
pub(crate) async fn status(walk: &mut Walk<'_>) {
    walk.step("status").await;
    if walk.served.part("status").is_none() {
        return;
    }
    let Some(made) = walk.make().await else { return };
    let Some(status) = walk.patch_of(walk.sample.status.as_ref(), made.number) else { return };
    let path = format!("{}/status", made.path);
    walk.same("get", &walk.api.get(&path).await.value, &made.object);

    let change = walk.patch_of(walk.sample.change.as_ref(), made.number).unwrap_or_default();
    let wanted = merged(&made.object, &status);
    // Through the object itself: as if the status had not been said.
    if walk.sample.keeps != "always" {
        let updated = walk.api.put(&made.path, &wanted).await;
        let patched = walk.api.patch("merge-patch", &made.path, &status).await;
        for (what, answer) in [("an update", updated), ("a patch", patched)] {
            if let Some(Answer { value, .. }) = walk.code(what, 200, answer) {
                walk.same(&format!("after {what} of the object"), &value["status"], &made.object["status"]);
            }
        }
    }

    let before = walk.now(&made).await;
    let both = merged(&merged(&before, &status), &change);
    let Some(Answer { value, .. }) = walk.code("update", 200, walk.api.put(&path, &both).await) else {
        return;
    };
    let filled = merged(&value, &status);
    walk.same("what was written", &value["status"], &filled["status"]);
    walk.is("the status is another one", value["status"] != before["status"], &value["status"]);
    let mut rest = value.clone();
    for field in ["resourceVersion", "managedFields"] {
        rest["metadata"][field] = before["metadata"][field].clone();
    }
    rest["status"] = before["status"].clone();
    walk.same("all but the status", &rest, &before);
    let owner =
        value["metadata"]["managedFields"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
    walk.same("owner", &owner["subresource"], &json!("status"));
    let stale = walk.api.put(&path, &merged(&before, &json!({"status": {}}))).await;
    walk.is("an update of an older version", (stale.code, stale.reason()) == (409, "Conflict"), &stale.text);

    let after = walk.now(&made).await;
    walk.same("get after the update", &after, &value);
    for kind in ["merge-patch", "strategic-merge-patch"] {
        let answer = walk.api.patch(kind, &path, &change).await;
        if let Some(Answer { value, .. }) = walk.code(&format!("{kind} of the spec"), 200, answer) {
            walk.same(&format!("{kind} of the spec"), &value["spec"], &after["spec"]);
            walk.same("generation", &value["metadata"]["generation"], &before["metadata"]["generation"]);
        }
        let answer = walk.api.patch(kind, &path, &status).await;
        walk.code(&format!("{kind} of the status"), 200, answer);
    }
    let mut config = json!({"apiVersion": made.object["apiVersion"], "kind": made.object["kind"],
        "metadata": {"name": made.name}});
    config["status"] = status["status"].clone();
    let answer = apply(walk, &path, "fieldManager=s&force=true", &config).await;
    walk.code("apply", 200, answer);
    let nobody = walk.api.patch("merge-patch", &format!("{}/status", walk.one("nobody")), &status).await;
    let why = format!("{} not found", walk.quoted("nobody"));
    walk.refused("the status of nobody", 404, "NotFound", &why, &nobody);
}

/// The scale shows and changes the replicas.
pub(crate) async fn scale(walk: &mut Walk<'_>) {
    walk.step("scale").await;
    if walk.served.part("scale").is_none() {
        return;
    }
    let Some(made) = walk.make().await else { return };
    let path = format!("{}/scale", made.path);
    let Some(Answer { value: mut scale, .. }) = walk.code("get", 200, walk.api.get(&path).await) else {
        return;
    };
    let head = json!({"apiVersion": scale["apiVersion"], "kind": scale["kind"], "name": scale["metadata"]["name"],
        "uid": scale["metadata"]["uid"], "version": scale["metadata"]["resourceVersion"],
        "created": scale["metadata"]["creationTimestamp"]});
    let metadata = &made.object["metadata"];
    let want = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "name": made.name, "uid": metadata["uid"],
        "version": metadata["resourceVersion"], "created": metadata["creationTimestamp"]});
    walk.same("head", &head, &want);
    walk.same("replicas", &scale["spec"]["replicas"], &json!(1));
    walk.is("selector", scale["status"]["selector"].as_str().is_some_and(|text| !text.is_empty()), &scale);

    let stale = scale.clone();
    scale["spec"]["replicas"] = json!(5);
    replicas(walk, "dry run", &made.path, walk.api.put(&format!("{path}?dryRun=All"), &scale).await, 5, 1)
        .await;
    replicas(walk, "update", &made.path, walk.api.put(&path, &scale).await, 5, 5).await;
    let answer = walk.api.put(&path, &stale).await;
    walk.is(
        "an update of an older version",
        (answer.code, answer.reason()) == (409, "Conflict"),
        &answer.text,
    );
    for (i, kind) in ["merge-patch", "strategic-merge-patch"].into_iter().enumerate() {
        let count = 6 + i as u64;
        let answer = walk.api.patch(kind, &path, &json!({"spec": {"replicas": count}})).await;
        replicas(walk, kind, &made.path, answer, count, count).await;
    }
    let operation = json!([{"op": "replace", "path": "/spec/replicas", "value": 8}]);
    replicas(walk, "json-patch", &made.path, walk.api.patch("json-patch", &path, &operation).await, 8, 8)
        .await;
    let config = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": made.name},
        "spec": {"replicas": 9}});
    let answer = apply(walk, &path, "fieldManager=s&force=true", &config).await;
    replicas(walk, "apply", &made.path, answer, 9, 9).await;
    let answer = walk.api.patch("merge-patch", &path, &json!({"spec": {"replicas": -1}})).await;
    let why = format!(
        "Scale.autoscaling \"{}\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        made.name
    );
    walk.refused("less than nothing", 422, "Invalid", &why, &answer);
    let generation = walk.now(&made).await["metadata"]["generation"].clone();
    walk.same("generation", &generation, &json!(6));
}

async fn replicas(walk: &mut Walk<'_>, what: &str, object: &str, answer: Answer, shown: u64, stored: u64) {
    let Some(Answer { value, .. }) = walk.code(what, 200, answer) else { return };
    walk.same(&format!("{what}: shown"), &value["spec"]["replicas"], &json!(shown));
    let object: Value = walk.api.get(object).await.value;
    walk.same(&format!("{what}: stored"), &object["spec"]["replicas"], &json!(stored));
}

/// What else shows and changes the object: without a change, nothing is written.
pub(crate) async fn others(walk: &mut Walk<'_>) {
    walk.step("parts").await;
    let is_change =
        |verbs: &[String]| ["get", "patch", "update"].iter().all(|verb| verbs.iter().any(|own| own == verb));
    // Tunnels take the same verbs, and more.
    let parts = walk.served.parts.iter().filter(|part| is_change(&part.verbs) && part.verbs.len() == 3);
    let names: Vec<String> = parts.map(|part| part.name.clone()).filter(|name| name != "scale").collect();
    for name in names {
        let Some(made) = walk.make().await else { return };
        let path = format!("{}/{name}", made.path);
        let shown = walk.api.get(&path).await;
        if let Some(Answer { value, .. }) = walk.code(&name, 200, shown) {
            walk.same(&name, &value, &made.object);
        }
        let put = walk.api.put(&path, &made.object).await;
        if let Some(Answer { value, .. }) = walk.code(&format!("update of {name}"), 200, put) {
            walk.same(&format!("update of {name} that changes nothing"), &value, &made.object);
        }
        let patched = walk.api.patch("merge-patch", &path, &json!({})).await;
        if let Some(Answer { value, .. }) = walk.code(&format!("patch of {name}"), 200, patched) {
            walk.same(&format!("patch of {name} with nothing"), &value, &made.object);
        }
        let nobody = format!("{}/{name}", walk.one("nobody"));
        let why = format!("{} not found", walk.quoted("nobody"));
        walk.refused(&format!("{name} of nobody"), 404, "NotFound", &why, &walk.api.get(&nobody).await);
    }
}
