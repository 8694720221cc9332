//! OpenAPI documents, derived from the resource table and the schema: version 2 as JSON or protobuf, version 3 per group.
//!
//! Names, extensions and operation ids are Kubernetes', because clients look for them: kubectl finds a kind by
//! `x-kubernetes-group-version-kind`, and learns from the parameters of its PATCH operation what the server can do.

mod gnostic;
mod paths;
mod schemas;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::resource::{Resource, Table};

pub use gnostic::encode as protobuf;

/// Which document is made. They differ in where definitions are and in how a field refers to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V2,
    V3,
}

/// The document of version 2: all groups.
pub fn v2(table: &Table, server_version: &str) -> Value {
    let rows: Vec<&Resource> = table.rows().iter().map(AsRef::as_ref).collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": server_version},
        "paths": paths::of(&rows, Version::V2),
        "definitions": schemas::of(&rows, Version::V2),
    })
}

/// The document of version 3 of one group version, by its path: `api/v1` or `apis/apps/v1`.
pub fn v3(table: &Table, path: &str, server_version: &str) -> Option<Value> {
    let rows = groups(table).remove(path)?;
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": server_version},
        "paths": paths::of(&rows, Version::V3),
        "components": {"schemas": schemas::of(&rows, Version::V3)},
    }))
}

/// The paths of the group versions that have a document of version 3.
pub fn v3_paths(table: &Table) -> Vec<String> {
    groups(table).into_keys().collect()
}

fn groups(table: &Table) -> BTreeMap<String, Vec<&Resource>> {
    let mut groups: BTreeMap<String, Vec<&Resource>> = BTreeMap::new();
    for row in table.rows() {
        groups.entry(base(row).trim_start_matches('/').to_owned()).or_default().push(row);
    }
    groups
}

/// Where the paths of a row's group version start.
fn base(row: &Resource) -> String {
    if row.group.is_empty() {
        format!("/api/{}", row.version)
    } else {
        format!("/apis/{}/{}", row.group, row.version)
    }
}

fn reference(version: Version, name: &str) -> Value {
    let at = match version {
        Version::V2 => "#/definitions/",
        Version::V3 => "#/components/schemas/",
    };
    json!({"$ref": format!("{at}{name}")})
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// An object from its entries.
fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` of a document.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(to)) = map.get("$ref") {
                    found.push(to);
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_to_a_definition() {
        let table = Table::builtin();
        let mut documents = vec![v2(&table, "v1")];
        documents.extend(v3_paths(&table).iter().filter_map(|path| v3(&table, path, "v1")));
        for document in &documents {
            let mut found = Vec::new();
            references(document, &mut found);
            assert!(!found.is_empty());
            for to in found {
                let pointer = to.trim_start_matches('#');
                assert!(document.pointer(pointer).is_some(), "{to}");
            }
        }
    }

    #[test]
    fn a_pod_is_described_as_upstream_does() {
        let document = v2(&Table::builtin(), "v1");
        let spec = &document["definitions"]["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(spec["required"], json!(["containers"]));
        let containers = &spec["properties"]["containers"];
        assert_eq!(containers["items"]["$ref"], "#/definitions/io.k8s.api.core.v1.Container");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["properties"]["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
        let pod = &document["definitions"]["io.k8s.api.core.v1.Pod"];
        assert_eq!(
            pod["x-kubernetes-group-version-kind"],
            json!([{"group": "", "version": "v1", "kind": "Pod"}])
        );
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert_eq!(patch["operationId"], "patchCoreV1NamespacedPod");
        let names: Vec<&str> =
            patch["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
        assert!(names.contains(&"dryRun") && names.contains(&"fieldValidation"), "{names:?}");
    }

    #[test]
    fn a_field_of_version_3_keeps_its_default_beside_the_reference() {
        let table = Table::builtin();
        let document = v3(&table, "apis/apps/v1", "v1").unwrap();
        let metadata =
            &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]["properties"]["metadata"];
        assert_eq!(
            metadata["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
        assert!(v3(&table, "apis/nothing/v1", "v1").is_none());
    }

    #[test]
    fn the_protobuf_form_starts_with_the_version_of_swagger() {
        let bytes = protobuf(&v2(&Table::builtin(), "v1"));
        assert!(bytes.starts_with(b"\x0a\x032.0"));
        assert!(bytes.len() > 100_000);
    }
}
