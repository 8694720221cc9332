//! Delete and deletecollection.

use serde_json::{Value, json};

use crate::common::Answer;
use crate::walk::{Walk, merged};

/// A deletion that means another object deletes nothing.
pub(crate) async fn preconditions(walk: &mut Walk<'_>) {
    walk.step("delete").await;
    let Some(made) = walk.make().await else { return };
    let kind = match walk.served.group() {
        "" => walk.served.kind.clone(),
        group => format!("{}.{group}", walk.served.kind),
    };
    let (uid, version) = (&made.object["metadata"]["uid"], &made.object["metadata"]["resourceVersion"]);
    for (field, word, wanted, actual, because) in [
        ("uid", "UID", "other", uid, "The object might have been deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "1", version, "The object might have been modified"),
    ] {
        let options = json!({"preconditions": {field: wanted}});
        let answer = walk.api.delete(&made.path, Some(&options)).await;
        let actual = actual.as_str().unwrap_or_default();
        let why = format!(
            "the {word} in the precondition ({wanted}) does not match the {word} in record ({actual}). {because}"
        );
        let of = answer.message().strip_prefix("Operation cannot be fulfilled on ").unwrap_or_default();
        // Some kinds are reported under the group of an older form of theirs.
        let is_named = of.starts_with(&format!("{kind} \"{}\": ", made.name))
            || of.starts_with(&format!("{}.extensions \"{}\": ", walk.served.kind, made.name))
            || of.starts_with(walk.served.kind.as_str());
        if walk.sample.plain {
            let why = format!(
                "Operation cannot be fulfilled on {}: Precondition failed: {word} in precondition: {wanted}, {word} in \
                 object meta: {actual}",
                walk.quoted(&made.name)
            );
            walk.refused(field, 409, "Conflict", &why, &answer);
            continue;
        }
        let said = answer.code == 409 && answer.reason() == "Conflict" && is_named && of.ends_with(&why);
        walk.is(field, said, &answer.text);
    }
    let sideways = walk.api.delete(&made.path, Some(&json!({"propagationPolicy": "Sideways"}))).await;
    let why = "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Sideways\": supported \
               values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"";
    walk.refused("a policy that is none", 422, "Invalid", why, &sideways);
    let dry = walk.api.delete(&format!("{}?dryRun=All", made.path), None).await;
    walk.code("a dry run", 200, dry);
    walk.still("after a dry run", &made, &made.object).await;
    let nobody = walk.api.delete(&walk.one("nobody"), None).await;
    walk.refused("nobody", 404, "NotFound", &format!("{} not found", walk.quoted("nobody")), &nobody);

    let options = json!({"preconditions": {"uid": uid, "resourceVersion": version}, "propagationPolicy": "Background",
        "gracePeriodSeconds": 0});
    let answer = walk.api.delete(&made.path, Some(&options)).await;
    let Some(Answer { value, .. }) = walk.code("what is meant", 200, answer) else { return };
    if value["kind"] == "Status" {
        let mut want = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": made.name, "kind": walk.served.plural, "uid": uid}});
        if !walk.served.group().is_empty() {
            want["details"]["group"] = json!(walk.served.group());
        }
        walk.same("answer", &value, &want);
    } else {
        let head = json!({"kind": value["kind"], "name": value["metadata"]["name"]});
        walk.same("answer", &head, &json!({"kind": walk.served.kind, "name": made.name}));
    }
}

/// An object with a finalizer stays, marked, until that is gone.
pub(crate) async fn finalizers(walk: &mut Walk<'_>) {
    walk.step("finalizers").await;
    let held = merged(&walk.next(), &json!({"metadata": {"finalizers": ["example.org/walk"]}}));
    let Some(made) = walk.make_of(held).await else { return };
    let answer = walk.api.delete(&made.path, Some(&json!({"propagationPolicy": "Background"}))).await;
    let Some(Answer { value: marked, .. }) = walk.code("delete", 200, answer) else { return };
    walk.same("kind of the answer", &marked["kind"], &json!(walk.served.kind));
    walk.is("it is marked", marked["metadata"]["deletionTimestamp"].is_string(), &marked["metadata"]);
    // Namespaces go in a way of their own.
    let has_grace = marked["metadata"]["deletionGracePeriodSeconds"].is_u64();
    walk.is("its grace", has_grace != walk.served.part("finalize").is_some(), &marked["metadata"]);
    if walk.sample.generation || walk.sample.once {
        walk.same("generation", &marked["metadata"]["generation"], &json!(2));
    }
    walk.still("get", &made, &marked).await;
    let again = walk.api.delete(&made.path, Some(&json!({"propagationPolicy": "Background"}))).await;
    if let Some(Answer { value, .. }) = walk.code("delete again", 200, again) {
        walk.same("delete again", &value, &marked);
    }
    // What is going takes no new finalizers, and does not come back.
    let more = json!({"metadata": {"finalizers": ["example.org/walk", "example.org/new"]}});
    let answer = walk.api.patch("merge-patch", &made.path, &more).await;
    walk.is("a new finalizer", answer.code == 422, &answer.text);
    let back = json!({"metadata": {"deletionTimestamp": null, "labels": {"stage": "one"}}});
    let answer = walk.api.patch("merge-patch", &made.path, &back).await;
    if let Some(Answer { value, .. }) = walk.code("a patch of the mark", 200, answer) {
        let time = &marked["metadata"]["deletionTimestamp"];
        walk.same("the mark stays", &value["metadata"]["deletionTimestamp"], time);
    }
    walk.release(&made.path).await;
    walk.code("after the last finalizer", 404, walk.api.get(&made.path).await);
}

/// What is to become of the dependents is written down where the garbage collector reads it.
pub(crate) async fn dependents(walk: &mut Walk<'_>) {
    walk.step("dependents").await;
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        let Some(made) = walk.make().await else { return };
        let answer = walk.api.delete(&made.path, Some(&json!({"propagationPolicy": policy}))).await;
        let Some(Answer { value, .. }) = walk.code(policy, 200, answer) else { continue };
        let finalizers = value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        walk.is(policy, finalizers.contains(&json!(finalizer)), &value);
        walk.release(&made.path).await;
        walk.code(&format!("{policy}, afterwards"), 404, walk.api.get(&made.path).await);
    }
    for (options, finalizer) in [(json!({"orphanDependents": true}), "orphan")] {
        let Some(made) = walk.make().await else { return };
        let answer = walk.api.delete(&made.path, Some(&options)).await;
        let Some(Answer { value, .. }) = walk.code("orphanDependents", 200, answer) else { continue };
        let finalizers = value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        walk.is("orphanDependents", finalizers.contains(&json!(finalizer)), &value);
    }
}

/// What the selector finds is deleted, and no more.
pub(crate) async fn collection(walk: &mut Walk<'_>) {
    walk.step("deletecollection").await;
    if !walk.served.can("deletecollection") {
        return;
    }
    let mut stay = Vec::new();
    let mut go = Vec::new();
    for i in 0..4 {
        let mut object = walk.next();
        let stage = if i < 3 { "go" } else { "stay" };
        object["metadata"]["labels"]["stage"] = json!(stage);
        let Some(made) = walk.make_of(object).await else { return };
        if i < 3 { go.push(made) } else { stay.push(made) }
    }
    let options = json!({"propagationPolicy": "Background", "gracePeriodSeconds": 0});
    let selected = format!("{}?labelSelector=stage%3Dgo", walk.all());
    let dry = walk.api.delete(&format!("{selected}&dryRun=All"), Some(&options)).await;
    walk.code("a dry run", 200, dry);
    for made in go.iter().chain(&stay) {
        walk.still("after a dry run", made, &made.object).await;
    }
    let named = format!("{selected}&fieldSelector=metadata.name%3D{}", go[0].name);
    for (what, target, mut gone) in
        [("by name", named, vec![go[0].clone()]), ("by label", selected.clone(), go[1..].to_vec())]
    {
        let answer = walk.api.delete(&target, Some(&options)).await;
        let Some(answer) = walk.code(what, 200, answer) else { return };
        walk.same(what, &answer.value["kind"], &json!(format!("{}List", walk.served.kind)));
        gone.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<&str> = gone.iter().map(|made| made.name.as_str()).collect();
        walk.same(what, &json!(answer.names()), &json!(names));
        for made in &gone {
            walk.release(&made.path).await;
            walk.code(what, 404, walk.api.get(&made.path).await);
        }
    }
    for made in &stay {
        let now: Value = walk.now(made).await;
        walk.same("what was not selected", &now, &made.object);
    }
}
