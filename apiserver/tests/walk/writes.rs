//! Create and update.

use serde_json::{Value, json};

use crate::walk::{NAMESPACE, Walk, merged};

/// A new object gets what the server gives it, once; a dry run leaves nothing. False: there is nothing to go on with.
pub(crate) async fn create(walk: &mut Walk<'_>) -> bool {
    walk.step("create").await;
    let object = walk.next();
    let Some(made) = walk.make_of(object.clone()).await else { return false };
    for (field, want) in [("apiVersion", walk.served.version.as_str()), ("kind", walk.served.kind.as_str())] {
        walk.same(field, &made.object[field], &json!(want));
    }
    let metadata = &made.object["metadata"];
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        walk.is(field, metadata[field].as_str().is_some_and(|text| !text.is_empty()), metadata);
    }
    let namespace = if walk.served.namespaced { json!(NAMESPACE) } else { Value::Null };
    walk.same("namespace", &metadata["namespace"], &namespace);
    let first = if walk.sample.generation || walk.sample.once { json!(1) } else { Value::Null };
    walk.same("generation", &metadata["generation"], &first);
    walk.same("owner's operation", &metadata["managedFields"][0]["operation"], &json!("Update"));
    let all = walk.all();
    let again = walk.api.post(&all, &object).await;
    let exists = format!("{} already exists", walk.quoted(&made.name));
    walk.refused("the same again", 409, "AlreadyExists", &exists, &again);

    let other = walk.next();
    let name = other["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let dry = walk.api.post(&format!("{all}?dryRun=All"), &other).await;
    if let Some(dry) = walk.code("a dry run", 201, dry) {
        walk.same("resourceVersion of a dry run", &dry.value["metadata"]["resourceVersion"], &Value::Null);
    }
    let gone = format!("{} not found", walk.quoted(&name));
    let path = walk.one(&name);
    walk.refused("after a dry run", 404, "NotFound", &gone, &walk.api.get(&path).await);
    let dry = walk.api.post(&format!("{all}?dryRun=All"), &object).await;
    walk.refused("a dry run of what exists", 409, "AlreadyExists", &exists, &dry);
    let bad = walk.api.post(&format!("{all}?dryRun=Some"), &other).await;
    walk.is("a dry run of another sort", bad.code == 422, &bad.text);

    let versioned = merged(&other, &json!({"metadata": {"resourceVersion": "1"}}));
    let why = "resourceVersion should not be set on objects to be created";
    walk.refused("with a version", 500, "", why, &walk.api.post(&all, &versioned).await);
    if walk.served.namespaced {
        let elsewhere = merged(&other, &json!({"metadata": {"namespace": "elsewhere"}}));
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        walk.refused("for another namespace", 400, "BadRequest", why, &walk.api.post(&all, &elsewhere).await);
        let nowhere = walk.served.path("nowhere");
        let answer = walk.api.post(&nowhere, &other).await;
        let why = "namespaces \"nowhere\" not found";
        walk.refused("in a namespace that is not there", 404, "NotFound", why, &answer);
    }
    if walk.served.part("status").is_some() {
        status_is_reset(walk, &made.answer["status"]).await;
    }
    true
}

/// What a client says of the status of a new object does not count.
async fn status_is_reset(walk: &mut Walk<'_>, ordinary: &Value) {
    let object = walk.next();
    let number = walk.number();
    let Some(status) = walk.patch_of(walk.sample.status.as_ref(), number) else {
        return walk.fault("the sample has no status");
    };
    let Some(made) = walk.make_of(merged(&object, &status)).await else { return };
    if !walk.sample.keeps.is_empty() {
        let kept = merged(&made.answer, &status);
        walk.same("the status of a new object is kept", &made.answer["status"], &kept["status"]);
    } else {
        walk.same("the status of a new object", &made.answer["status"], ordinary);
    }
}

pub(crate) async fn generated_name(walk: &mut Walk<'_>) {
    walk.step("generateName").await;
    if walk.sample.fixed {
        return;
    }
    let mut object = walk.next();
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let prefix = format!("{name}-");
    // Some names end with a domain, and the generated end is the end of the domain then.
    object["metadata"]["generateName"] = json!(prefix);
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("name");
    }
    let mut names = Vec::new();
    for _ in 0..2 {
        let Some(made) = walk.make_of(object.clone()).await else { return };
        let is_made = made.name.strip_prefix(&prefix).is_some_and(|end| end.len() == 5);
        walk.is("the name", is_made, &made.name);
        walk.same("generateName", &made.object["metadata"]["generateName"], &json!(prefix));
        names.push(made.name);
    }
    names.dedup();
    walk.is("names differ", names.len() == 2, names.join(", "));
}

/// An update changes the object that it was made from, and no other.
pub(crate) async fn update(walk: &mut Walk<'_>) {
    walk.step("update").await;
    let Some(made) = walk.make().await else { return };
    let mut wanted = merged(&made.object, &json!({"metadata": {"labels": {"stage": "one"}}}));
    let Some(updated) = put(walk, "an update", &made.path, 200, &wanted).await else { return };
    walk.same("label", &updated["metadata"]["labels"]["stage"], &json!("one"));
    let versions = [&made.object, &updated].map(|object| object["metadata"]["resourceVersion"].clone());
    walk.is("the version is another one", versions[0] != versions[1], &updated);
    walk.still("what is read", &made, &updated).await;
    let Some(same) = put(walk, "an update that changes nothing", &made.path, 200, &updated).await else {
        return;
    };
    walk.same("what nothing changed", &same, &updated);

    let stale = walk.api.put(&made.path, &wanted).await;
    let why = format!(
        "Operation cannot be fulfilled on {}: the object has been modified; please apply your changes to the latest \
         version and try again",
        walk.quoted(&made.name)
    );
    walk.refused("an update of an older version", 409, "Conflict", &why, &stale);
    let mut other = updated.clone();
    other["metadata"]["uid"] = json!("other");
    let answer = walk.api.put(&made.path, &other).await;
    walk.is("an update of another object", (answer.code, answer.reason()) == (409, "Conflict"), &answer.text);
    let renamed = merged(&updated, &json!({"metadata": {"name": "another"}}));
    let why = format!("the name of the object (another) does not match the name on the URL ({})", made.name);
    walk.refused(
        "an update by another name",
        400,
        "BadRequest",
        &why,
        &walk.api.put(&made.path, &renamed).await,
    );

    let dry = merged(&updated, &json!({"metadata": {"labels": {"stage": "dry"}}}));
    put(walk, "a dry run", &format!("{}?dryRun=All", made.path), 200, &dry).await;
    walk.still("after a dry run", &made, &updated).await;

    wanted["metadata"]["resourceVersion"] = Value::Null;
    wanted["metadata"]["labels"]["stage"] = json!("two");
    let answer = walk.api.put(&made.path, &wanted).await;
    if walk.sample.conditional {
        let why = format!(
            "{} is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update",
            walk.quoted(&made.name)
        );
        walk.refused("an update of whatever there is", 422, "Invalid", &why, &answer);
    } else {
        walk.code("an update of whatever there is", 200, answer);
    }
    update_of_nothing(walk).await;
}

async fn update_of_nothing(walk: &mut Walk<'_>) {
    let absent = walk.next();
    let name = absent["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let path = walk.one(&name);
    let answer = walk.api.put(&path, &absent).await;
    if walk.sample.creates {
        walk.code("an update of what is not there", 201, answer);
    } else {
        let why = format!("{} not found", walk.quoted(&name));
        walk.refused("an update of what is not there", 404, "NotFound", &why, &answer);
    }
}

async fn put(walk: &mut Walk<'_>, what: &str, path: &str, code: u16, object: &Value) -> Option<Value> {
    let answer = walk.api.put(path, object).await;
    walk.code(what, code, answer).map(|answer| answer.value)
}

/// The generation rises with the spec, and with nothing else.
pub(crate) async fn count_generations(walk: &mut Walk<'_>) {
    walk.step("generation").await;
    let Some(made) = walk.make().await else { return };
    let Some(change) = walk.patch_of(walk.sample.change.as_ref(), made.number) else { return };
    let before = made.object["metadata"]["generation"].clone();
    let labelled = merged(&made.object, &json!({"metadata": {"labels": {"stage": "one"}, "generation": 77}}));
    let Some(labelled) = put(walk, "a label", &made.path, 200, &labelled).await else { return };
    let first = if walk.sample.labelled { json!(2) } else { before.clone() };
    walk.same("after a label", &labelled["metadata"]["generation"], &first);
    let changed = merged(&labelled, &change);
    let Some(changed) = put(walk, "a change", &made.path, 200, &changed).await else { return };
    let want = match first.as_u64() {
        Some(first) if walk.sample.generation => json!(first + 1),
        _ if walk.sample.late => json!(1),
        _ => before,
    };
    walk.same("after a change", &changed["metadata"]["generation"], &want);
    walk.is("the change is there", changed != labelled, &changed);
    let Some(again) = put(walk, "the same again", &made.path, 200, &changed).await else { return };
    walk.same("after the same again", &again["metadata"]["generation"], &want);
}
