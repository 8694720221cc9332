//! Tables and partial metadata: what `kubectl get` shows.

use serde_json::{Value, json};

use crate::common::Answer;
use crate::walk::{OURS, Walk};

/// The columns of each kind, a line each: `+` is for wide output only, `:` gives a type other than text, `=` the format.
/// Those of Kubernetes 1.24, with what came later.
const COLUMNS: &str = include_str!("columns.txt");

/// Name, type, format and priority of each column; `None` for a kind that the list does not have.
fn expected(version: &str, plural: &str) -> Option<Value> {
    let head = format!("{version} {plural}: ");
    let line = COLUMNS.lines().find_map(|line| line.strip_prefix(&head))?;
    let column = |text: &str| {
        let (text, format) = text.split_once('=').unwrap_or((text, ""));
        let (text, kind) = text.split_once(':').unwrap_or((text, "string"));
        let (name, priority) = text.strip_prefix('+').map_or((text, 0), |name| (name, 1));
        json!({"name": name, "type": kind, "format": format, "priority": priority})
    };
    Some(line.split(", ").map(column).collect())
}

async fn get(walk: &Walk<'_>, path: &str, form: &str, version: &str) -> Answer {
    let accept = format!("application/json;as={form};v={version};g=meta.k8s.io");
    walk.api.send("GET", path, &[("accept", &accept)], "").await
}

fn check_columns(walk: &mut Walk<'_>, table: &Value) {
    let columns = table["columnDefinitions"].as_array().cloned().unwrap_or_default();
    let shown: Value = columns
        .iter()
        .map(|column| {
            let part = |name: &str| column[name].clone();
            json!({"name": part("name"), "type": part("type"), "format": part("format"), "priority": part("priority")})
        })
        .collect();
    match expected(&walk.served.version, &walk.served.plural) {
        Some(want) => walk.same("columns", &shown, &want),
        None => walk.fault(format_args!("its columns are not in columns.txt: {shown}")),
    }
    for row in table["rows"].as_array().into_iter().flatten() {
        let cells = row["cells"].as_array().map(Vec::len);
        walk.is("a cell for each column", cells == Some(columns.len()), row);
    }
}

/// A kind that nobody creates is listed all the same.
pub(crate) async fn empty(walk: &mut Walk<'_>) {
    walk.step("list").await;
    let all = walk.all();
    let list = walk.api.get(&all).await;
    if let Some(Answer { value, .. }) = walk.code("list", 200, list) {
        walk.same("kind", &value["kind"], &json!(format!("{}List", walk.served.kind)));
        walk.is("items", value["items"].is_array(), &value);
    }
    let table = get(walk, &all, "Table", "v1").await;
    if let Some(table) = walk.code("Table", 200, table) {
        check_columns(walk, &table.value);
    }
}

pub(crate) async fn columns_and_rows(walk: &mut Walk<'_>) {
    walk.step("Table").await;
    let (Some(a), Some(_)) = (walk.make().await, walk.make().await) else { return };
    for version in ["v1", "v1beta1"] {
        let api_version = format!("meta.k8s.io/{version}");
        let head = json!({"kind": "Table", "apiVersion": api_version});
        let answer = get(walk, &a.path, "Table", version).await;
        let Some(one) = walk.code("of one", 200, answer) else { return };
        let answer = get(walk, &format!("{}?{OURS}", walk.all()), "Table", version).await;
        let Some(list) = walk.code("of a list", 200, answer) else { return };
        for (what, table, rows) in [("of one", &one, 1), ("of a list", &list, 2)] {
            let shown = json!({"kind": table.value["kind"], "apiVersion": table.value["apiVersion"]});
            walk.same(what, &shown, &head);
            walk.is(what, table.value["rows"].as_array().map(Vec::len) == Some(rows), &table.text);
        }
        if version == "v1" {
            check_columns(walk, &list.value);
        }
        let name = list.value["columnDefinitions"]
            .as_array()
            .into_iter()
            .flatten()
            .position(|c| c["format"] == "name");
        if let Some(at) = name {
            walk.same("the name's cell", &one.value["rows"][0]["cells"][at], &json!(a.name));
        }
        let object = &one.value["rows"][0]["object"];
        let want = json!({"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": walk.alone(&a.object)});
        walk.same("the row's object", object, &want);
    }
    for (include, want) in [("None", Value::Null), ("Object", a.object.clone())] {
        let answer = get(walk, &format!("{}?includeObject={include}", a.path), "Table", "v1").await;
        if let Some(Answer { value, .. }) = walk.code(include, 200, answer) {
            walk.same(include, &value["rows"][0]["object"], &want);
        }
    }
}

pub(crate) async fn partial(walk: &mut Walk<'_>) {
    walk.step("PartialObjectMetadata").await;
    let Some(made) = walk.make().await else { return };
    for version in ["v1", "v1beta1"] {
        let api_version = format!("meta.k8s.io/{version}");
        let answer = get(walk, &made.path, "PartialObjectMetadata", version).await;
        let Some(one) = walk.code("of one", 200, answer) else { return };
        let want = json!({"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": walk.alone(&made.object)});
        walk.same("of one", &one.value, &want);
        let path = format!("{}?{OURS}", walk.all());
        let answer = get(walk, &path, "PartialObjectMetadataList", version).await;
        let Some(list) = walk.code("of a list", 200, answer) else { return };
        let head = json!({"kind": list.value["kind"], "apiVersion": list.value["apiVersion"]});
        walk.same(
            "of a list",
            &head,
            &json!({"kind": "PartialObjectMetadataList", "apiVersion": api_version}),
        );
        walk.same("item", &list.value["items"][0]["metadata"], &walk.alone(&made.object));
        walk.same("no more of the item", &list.value["items"][0]["spec"], &Value::Null);
    }
}
