//! JSON patch, merge patch and strategic merge patch.

use serde_json::{Value, json};

use crate::walk::{Made, Walk};

pub(crate) async fn each_kind(walk: &mut Walk<'_>) {
    walk.step("patch").await;
    let Some(made) = walk.make().await else { return };
    let note = |value: &str| json!({"metadata": {"annotations": {"example.org/walk": value}}});
    let operation =
        json!([{"op": "add", "path": "/metadata/annotations", "value": {"example.org/walk": "json-patch"}}]);
    for (kind, patch) in [
        ("json-patch", operation),
        ("merge-patch", note("merge-patch")),
        ("strategic-merge-patch", note("strategic-merge-patch")),
    ] {
        let Some(patched) = patched(walk, kind, &made, "", &patch).await else { continue };
        walk.same(kind, &patched["metadata"]["annotations"]["example.org/walk"], &json!(kind));
        walk.still(&format!("{kind}: get"), &made, &patched).await;
    }
    let before = walk.now(&made).await;
    for kind in ["merge-patch", "strategic-merge-patch"] {
        let what = format!("{kind} of nothing");
        let Some(same) = patched(walk, kind, &made, "", &json!({})).await else { continue };
        walk.same(&what, &same, &before);
        if let Some(dry) = patched(walk, kind, &made, "?dryRun=All", &note("dry")).await {
            walk.same("a dry run", &dry["metadata"]["annotations"]["example.org/walk"], &json!("dry"));
        }
        walk.still("after a dry run", &made, &before).await;
    }
    if let Some(change) = walk.patch_of(walk.sample.change.as_ref(), made.number)
        && let Some(changed) = patched(walk, "merge-patch", &made, "", &change).await
    {
        let [old, new] =
            [&before, &changed].map(|object| object["metadata"]["generation"].as_u64().unwrap_or(0));
        let rises = u64::from(walk.sample.generation || walk.sample.late);
        walk.is("generation", new == old + rises, &changed["metadata"]);
    }
    refusals(walk, &made).await;
}

async fn patched(walk: &mut Walk<'_>, kind: &str, made: &Made, query: &str, patch: &Value) -> Option<Value> {
    let answer = walk.api.patch(kind, &format!("{}{query}", made.path), patch).await;
    walk.code(kind, 200, answer).map(|answer| answer.value)
}

async fn refusals(walk: &mut Walk<'_>, made: &Made) {
    let rejected = "the server rejected our request due to an error in our request";
    for (what, operation) in [
        ("a test that fails", json!([{"op": "test", "path": "/metadata/name", "value": "zzz"}])),
        ("what is not there to be removed", json!([{"op": "remove", "path": "/metadata/nothing"}])),
    ] {
        let answer = walk.api.patch("json-patch", &made.path, &operation).await;
        walk.refused(what, 422, "Invalid", rejected, &answer);
    }
    let renamed = json!({"metadata": {"name": "another"}});
    for kind in ["merge-patch", "strategic-merge-patch"] {
        let answer = walk.api.patch(kind, &made.path, &renamed).await;
        let why =
            format!("the name of the object (another) does not match the name on the URL ({})", made.name);
        walk.refused(&format!("{kind} of the name"), 400, "BadRequest", &why, &answer);
        let nobody = walk.api.patch(kind, &walk.one("nobody"), &json!({})).await;
        let why = format!("{} not found", walk.quoted("nobody"));
        walk.refused(&format!("{kind} of nobody"), 404, "NotFound", &why, &nobody);
        let stale = json!({"metadata": {"resourceVersion": "1", "labels": {"stage": "late"}}});
        let answer = walk.api.patch(kind, &made.path, &stale).await;
        walk.is(
            &format!("{kind} of another version"),
            (answer.code, answer.reason()) == (409, "Conflict"),
            &answer.text,
        );
    }
    let media = [("content-type", "application/zzz")];
    let answer = walk.api.send("PATCH", &made.path, &media, "{}").await;
    walk.refused("a patch of no kind", 415, "UnsupportedMediaType", "415: Unsupported Media Type", &answer);
}
