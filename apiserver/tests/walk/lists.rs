//! Get and list, with selectors and in pages.

use serde_json::{Value, json};

use crate::walk::{OURS, Walk, short};

/// What is stored is what was answered, alone and in a list.
pub(crate) async fn read(walk: &mut Walk<'_>) {
    walk.step("read").await;
    let Some(made) = walk.make().await else { return };
    walk.still("get", &made, &made.object).await;
    for query in ["resourceVersion=0", "resourceVersion=1"] {
        let answer = walk.api.get(&format!("{}?{query}", made.path)).await;
        walk.code(query, 200, answer);
    }
    let why = format!("{} not found", walk.quoted("nobody"));
    let nobody = walk.one("nobody");
    walk.refused("a name that is not there", 404, "NotFound", &why, &walk.api.get(&nobody).await);
    let all = walk.all();
    for path in [all.clone(), walk.served.everywhere()] {
        let answer = walk.api.get(&format!("{path}?{OURS}")).await;
        let Some(list) = walk.code("list", 200, answer) else { continue };
        let head = json!({"kind": list.value["kind"], "apiVersion": list.value["apiVersion"]});
        let kind = format!("{}List", walk.served.kind);
        walk.same("list", &head, &json!({"kind": kind, "apiVersion": walk.served.version}));
        walk.same("names", &json!(list.names()), &json!([made.name]));
        let version = list.value["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        walk.is("the list's version", version.parse::<u64>().is_ok(), &list.text);
        let mut item = list.value["items"][0].clone();
        let bare = item.get("kind").is_none() && item.get("apiVersion").is_none();
        walk.is("items don't repeat what they are", bare, &item);
        for field in ["kind", "apiVersion"] {
            item[field] = made.object[field].clone();
        }
        walk.same("item", &item, &made.object);
    }
    if walk.served.namespaced {
        let list = walk.api.get(&format!("{}?{OURS}", walk.served.path("elsewhere"))).await;
        walk.same("names elsewhere", &json!(list.names()), &json!([]));
    }
}

/// Names that field selectors of these kinds may not use, though others may.
const WITHOUT_NAMESPACE: &[&str] = &["namespaces", "nodes", "certificatesigningrequests", "resourceslices"];

pub(crate) async fn select(walk: &mut Walk<'_>) {
    walk.step("selectors").await;
    let (Some(a), Some(b)) = (walk.make().await, walk.make().await) else { return };
    let patch = json!({"metadata": {"labels": {"stage": "one"}}});
    let answer = walk.api.patch("merge-patch", &b.path, &patch).await;
    walk.code("a label", 200, answer);
    let (both, one, other) =
        (vec![a.name.clone(), b.name.clone()], vec![a.name.clone()], vec![b.name.clone()]);
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let both = sorted(both);
    for (selector, want) in [
        ("stage=one", &other),
        ("stage!=one", &one),
        ("stage in (one,two)", &other),
        ("stage notin (one,two)", &one),
        ("stage", &other),
        ("!stage", &one),
        ("walk", &both),
    ] {
        names(walk, selector, &format!("labelSelector={}", escaped(&format!("{selector},walk=yes"))), want)
            .await;
    }
    let name = |operator: &str| format!("metadata.name{operator}{}", a.name);
    for (selector, want) in [(name("="), &one), (name("=="), &one), (name("!="), &other)] {
        names(walk, &selector, &format!("{OURS}&fieldSelector={}", escaped(&selector)), want).await;
    }
    let namespace = format!("{OURS}&fieldSelector=metadata.namespace%3Dwalk");
    if walk.served.namespaced {
        names(walk, "metadata.namespace", &namespace, &both).await;
        names(walk, "metadata.namespace!=", &namespace.replace("%3D", "!%3D"), &Vec::new()).await;
    } else {
        let answer = walk.api.get(&format!("{}?{namespace}", walk.all())).await;
        let code = if WITHOUT_NAMESPACE.contains(&walk.served.plural.as_str()) { 400 } else { 200 };
        walk.code("metadata.namespace", code, answer);
    }
    let fields: Vec<_> =
        walk.sample.fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    for (field, value) in fields {
        let value = walk.patch_of(Some(&value), a.number).unwrap_or_default();
        let value = value.as_str().unwrap_or_default().replace(',', "\\,").replace('=', "\\=");
        for (operator, finds) in [("=", true), ("!=", false)] {
            let selector = format!("{field}{operator}{value}");
            let answer =
                walk.api.get(&format!("{}?{OURS}&fieldSelector={}", walk.all(), escaped(&selector))).await;
            let Some(answer) = walk.code(&selector, 200, answer) else { continue };
            walk.is(&selector, answer.names().contains(&a.name) == finds, short(&answer.text));
        }
    }
    let answer = walk.api.get(&format!("{}?fieldSelector=spec.bogus%3D1", walk.all())).await;
    walk.is(
        "a field that can't be selected",
        (answer.code, answer.reason()) == (400, "BadRequest"),
        &answer.text,
    );
    let answer = walk.api.get(&format!("{}?labelSelector=a%3D%3D%3Db", walk.all())).await;
    let why = "unable to parse requirement: found '=', expected: identifier";
    walk.refused("a selector that is none", 400, "BadRequest", why, &answer);
}

async fn names(walk: &mut Walk<'_>, what: &str, query: &str, want: &Vec<String>) {
    let answer = walk.api.get(&format!("{}?{query}", walk.all())).await;
    if let Some(answer) = walk.code(what, 200, answer) {
        walk.same(what, &json!(answer.names()), &json!(want));
    }
}

/// Text as a part of a query.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() { char::from(byte).into() } else { format!("%{byte:02X}") }
            },
        )
        .collect()
}

/// A list in pages shows each object once, as of the first page.
pub(crate) async fn pages(walk: &mut Walk<'_>) {
    walk.step("pages").await;
    let mut want = Vec::new();
    for _ in 0..3 {
        let Some(made) = walk.make().await else { return };
        want.push(made.name);
    }
    want.sort();
    let first = format!("{}?{OURS}&limit=1", walk.all());
    let (mut target, mut names, mut versions) = (first.clone(), Vec::new(), Vec::new());
    loop {
        let answer = walk.api.get(&target).await;
        let Some(page) = walk.code("a page", 200, answer) else { return };
        names.extend(page.names());
        let metadata = &page.value["metadata"];
        versions.push(metadata["resourceVersion"].clone());
        walk.same("what remains of a selection", &metadata["remainingItemCount"], &Value::Null);
        let Some(next) = metadata["continue"].as_str().filter(|next| !next.is_empty()) else { break };
        target = format!("{first}&continue={next}");
        // What comes later is no part of this list.
        if names.len() == 1 && walk.make().await.is_none() {
            return;
        }
    }
    walk.same("names", &json!(names), &json!(want));
    versions.dedup();
    walk.is("all pages are of one version", versions.len() == 1, json!(versions));
    let whole = walk.api.get(&format!("{}?limit=1", walk.served.everywhere())).await;
    if let Some(page) = walk.code("a page of everything", 200, whole) {
        let remains = page.value["metadata"]["remainingItemCount"].as_u64();
        walk.is("what remains", remains.is_some_and(|count| count >= 3), &page.value["metadata"]);
    }
}

/// A list shows the state as of the version that is asked for.
pub(crate) async fn versions(walk: &mut Walk<'_>) {
    walk.step("versions").await;
    let Some(first) = walk.make().await else { return };
    let version = first.object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let Some(second) = walk.make().await else { return };
    let both = {
        let mut names = vec![first.name.clone(), second.name];
        names.sort();
        names
    };
    for (query, want) in [
        (String::new(), &both),
        ("resourceVersion=0".to_owned(), &both),
        (format!("resourceVersion={version}"), &both),
        (format!("resourceVersion={version}&resourceVersionMatch=NotOlderThan"), &both),
        (format!("resourceVersion={version}&resourceVersionMatch=Exact"), &vec![first.name.clone()]),
    ] {
        names(walk, &query, &format!("{OURS}&{query}"), want).await;
    }
    let bad = walk.api.get(&format!("{}?resourceVersionMatch=Exact", walk.all())).await;
    let why = "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is \
               forbidden unless resourceVersion is provided";
    walk.refused("a match without a version", 422, "Invalid", why, &bad);
}
