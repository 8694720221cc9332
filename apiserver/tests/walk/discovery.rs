//! What is served is what Kubernetes 1.36 serves by default: resources, scopes, verbs, subresources and names.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::common::api;
use crate::served::{root, versions};

/// A line for each resource: `VERSION NAME KIND (cluster): VERBS; short NAMES; in CATEGORIES`.
const EXPECTED: &str = include_str!("discovery.txt");

fn line(version: &str, resource: &Value) -> String {
    let text = |key: &str| resource[key].as_str().unwrap_or_default();
    let texts = |key: &str| -> String {
        let all = resource[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        all.collect::<Vec<_>>().join(" ")
    };
    let scope = if resource["namespaced"] == true { "" } else { " (cluster)" };
    let mut line = format!("{version} {} {}{scope}: {}", text("name"), text("kind"), texts("verbs"));
    for (word, key) in [("short", "shortNames"), ("in", "categories")] {
        let all = texts(key);
        if !all.is_empty() {
            line.push_str(&format!("; {word} {all}"));
        }
    }
    line
}

#[tokio::test(start_paused = true)]
async fn all_that_kubernetes_serves_by_default_is_served_and_no_more() {
    let api = api().await;
    let mut served = BTreeSet::new();
    for version in versions(&api).await {
        let list = api.get(&root(&version)).await.ok();
        served.extend(list["resources"].as_array().into_iter().flatten().map(|one| line(&version, one)));
    }
    let expected: BTreeSet<String> = EXPECTED.lines().map(str::to_owned).collect();
    let missing: Vec<&String> = expected.difference(&served).collect();
    let more: Vec<&String> = served.difference(&expected).collect();
    assert!(missing.is_empty() && more.is_empty(), "missing: {missing:#?}\nmore: {more:#?}");
}
