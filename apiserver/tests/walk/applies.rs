//! Server-side apply: what its senders own, and what happens when two want the same.

use serde_json::{Value, json};

use crate::common::Answer;
use crate::walk::{Walk, merged};

const MEDIA: [(&str, &str); 1] = [("content-type", "application/apply-patch+yaml")];

pub(crate) async fn apply(walk: &Walk<'_>, path: &str, query: &str, config: &Value) -> Answer {
    walk.api.send("PATCH", &format!("{path}?{query}"), &MEDIA, config.to_string()).await
}

pub(crate) async fn owners(walk: &mut Walk<'_>) {
    walk.step("apply").await;
    let object = walk.next();
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let path = walk.one(&name);
    let note = |value: &str| json!({"metadata": {"annotations": {"example.org/walk": value}}});
    let config = merged(&object, &note("a"));
    let dry = apply(walk, &path, "fieldManager=a&dryRun=All", &config).await;
    walk.code("a dry run", 201, dry);
    walk.code("after a dry run", 404, walk.api.get(&path).await);
    let created = apply(walk, &path, "fieldManager=a", &config).await;
    let Some(created) = walk.code("of a new object", 201, created) else { return };
    let owner = &created.value["metadata"]["managedFields"][0];
    let shown = json!({"manager": owner["manager"], "operation": owner["operation"], "apiVersion": owner["apiVersion"]});
    walk.same(
        "owner",
        &shown,
        &json!({"manager": "a", "operation": "Apply", "apiVersion": walk.served.version}),
    );
    let settled = walk.settled(&name, created.value).await;
    let again = apply(walk, &path, "fieldManager=a", &config).await;
    if let Some(again) = walk.code("the same again", 200, again) {
        walk.same("the same again", &again.value, &settled);
    }

    // Another one knows no more than what it is about.
    let identity =
        json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": {"name": name}});
    let theirs = merged(&identity, &note("b"));
    let conflict = apply(walk, &path, "fieldManager=b", &theirs).await;
    let why = "Apply failed with 1 conflict: conflict with \"a\": .metadata.annotations.example.org/walk";
    walk.refused("what another one owns", 409, "Conflict", why, &conflict);
    let cause = &conflict.value["details"]["causes"][0]["reason"];
    walk.same("cause", cause, &json!("FieldManagerConflict"));
    let forced = apply(walk, &path, "fieldManager=b&force=true", &theirs).await;
    let Some(forced) = walk.code("by force", 200, forced) else { return };
    walk.same("by force", &forced.value["metadata"]["annotations"]["example.org/walk"], &json!("b"));
    // Who does not want it any longer leaves it to the other.
    let without = apply(walk, &path, "fieldManager=a", &object).await;
    if let Some(without) = walk.code("without it", 200, without) {
        walk.same("without it", &without.value["metadata"]["annotations"]["example.org/walk"], &json!("b"));
    }
    let nothing = apply(walk, &path, "fieldManager=b", &identity).await;
    if let Some(nothing) = walk.code("of nothing", 200, nothing) {
        let note = &nothing.value["metadata"]["annotations"]["example.org/walk"];
        walk.same("what nobody wants is gone", note, &Value::Null);
    }
    let nameless = apply(walk, &path, "", &config).await;
    let refusal = (nameless.code, nameless.reason(), nameless.message());
    let why =
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
    walk.is("by nobody", refusal == (422, "Invalid", why), &nameless.text);
    let unknown = merged(&identity, &json!({"walkUnknown": 1}));
    let unknown = apply(walk, &path, "fieldManager=c", &unknown).await;
    let why = format!(
        "failed to create typed patch object (/{name}; {}, Kind={}): .walkUnknown: field not declared in schema",
        if walk.served.group().is_empty() { "/v1" } else { &walk.served.version },
        walk.served.kind
    );
    walk.refused("a field that is none", 500, "", &why, &unknown);
}
