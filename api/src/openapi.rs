//! OpenAPI documents, derived from the resource table and the schema: version 2 as JSON or protobuf, version 3 per group.
//!
//! Names, extensions and operation ids are Kubernetes', because clients look for them: kubectl finds a kind by
//! `x-kubernetes-group-version-kind`, and learns from the parameters of its PATCH operation what the server can do.

mod gnostic;
mod paths;
mod schemas;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::resource::{Resource, Table};
use crate::schema::descriptions::Descriptions;

/// Which document is made. They differ in where definitions are and in how a field refers to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V2,
    V3,
}

/// A document that is made while it is written, piece by piece: it is never in memory as a whole.
#[derive(Debug)]
pub struct Document<'a> {
    version: Version,
    server_version: &'a str,
    /// The rows of each group version, in the order of their paths.
    groups: Vec<Vec<&'a Resource>>,
}

/// The document of version 2: all groups.
pub fn v2<'a>(table: &'a Table, server_version: &'a str) -> Document<'a> {
    Document { version: Version::V2, server_version, groups: groups(table).into_values().collect() }
}

/// The document of version 3 of one group version, by its path: `api/v1` or `apis/apps/v1`.
pub fn v3<'a>(table: &'a Table, path: &str, server_version: &'a str) -> Option<Document<'a>> {
    let rows = groups(table).remove(path)?;
    Some(Document { version: Version::V3, server_version, groups: vec![rows] })
}

/// The paths of the group versions that have a document of version 3.
pub fn v3_paths(table: &Table) -> Vec<String> {
    groups(table).into_keys().collect()
}

impl Document<'_> {
    /// Writes it as JSON.
    pub fn json(&self, out: &mut impl Write) -> io::Result<()> {
        let texts = Descriptions::unpack();
        let info = self.info();
        let (head, before, end) = match self.version {
            Version::V2 => (r#""swagger":"2.0""#, r#""definitions":{"#, "}}"),
            Version::V3 => (r#""openapi":"3.0.0""#, r#""components":{"schemas":{"#, "}}}"),
        };
        write!(out, r#"{{{head},"info":{info},"paths":{{"#)?;
        members(out, self.paths())?;
        write!(out, "}},{before}")?;
        members(out, self.definitions().make(&texts))?;
        out.write_all(end.as_bytes())
    }

    /// The document of version 2 as protobuf, which older clients ask for.
    pub fn protobuf(&self) -> Vec<u8> {
        let texts = Descriptions::unpack();
        gnostic::encode(&self.info(), self.paths(), self.definitions().make(&texts))
    }

    fn info(&self) -> Value {
        json!({"title": "Kubernetes", "version": self.server_version})
    }

    fn paths(&self) -> impl Iterator<Item = (String, Value)> {
        self.groups.iter().flatten().flat_map(move |row| paths::of(row, self.version))
    }

    fn definitions(&self) -> schemas::Definitions<'_> {
        schemas::of(self.groups.iter().flatten().copied(), self.version)
    }
}

/// Writes the members of a JSON object as they come.
fn members(out: &mut impl Write, members: impl Iterator<Item = (String, Value)>) -> io::Result<()> {
    for (i, (name, value)) in members.enumerate() {
        if i > 0 {
            out.write_all(b",")?;
        }
        serde_json::to_writer(&mut *out, &name)?;
        out.write_all(b":")?;
        serde_json::to_writer(&mut *out, &value)?;
    }
    Ok(())
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

    fn value(document: Document<'_>) -> Value {
        let mut text = Vec::new();
        document.json(&mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

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
        let mut documents = vec![value(v2(&table, "v1"))];
        documents.extend(v3_paths(&table).iter().filter_map(|path| v3(&table, path, "v1")).map(value));
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
        let document = value(v2(&Table::builtin(), "v1"));
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
        let exec = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["post"];
        assert_eq!(exec["operationId"], "connectCoreV1PostNamespacedPodExec");
        assert!(exec["parameters"].is_null() && exec["x-kubernetes-action"] == "connect");
    }

    #[test]
    fn every_definition_of_a_type_and_every_field_says_what_it_is() {
        let table = Table::builtin();
        let mut bare = Vec::new();
        for (name, definition) in value(v2(&table, "v1"))["definitions"].as_object().unwrap() {
            let mut check = |what: String, schema: &Value| {
                if schema["description"].as_str().is_none_or(str::is_empty) {
                    bare.push(what);
                }
            };
            check(name.clone(), definition);
            for (field, of) in definition["properties"].as_object().into_iter().flatten() {
                check(format!("{name}.{field}"), of);
            }
        }
        // Upstream says nothing of these either.
        bare.retain(|name| {
            let silent =
                [".intstr.", "metrics.v1beta1", ".v1.JSONSchemaProps.", ".v1.ExternalDocumentation."];
            let besides = [".CertificateSigningRequest.metadata", ".IngressRule.http"];
            !silent.iter().any(|part| name.contains(part)) && !besides.iter().any(|end| name.ends_with(end))
        });
        assert_eq!(bare, Vec::<String>::new());
    }

    #[test]
    fn a_field_of_version_3_keeps_its_facts_beside_the_reference() {
        let table = Table::builtin();
        let document = value(v3(&table, "apis/apps/v1", "v1").unwrap());
        let schemas = &document["components"]["schemas"];
        let metadata = &schemas["io.k8s.api.apps.v1.Deployment"]["properties"]["metadata"];
        assert_eq!(
            *metadata,
            json!({
                "allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}],
                "default": {},
                "description": "Standard object's metadata. More info: \
                    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
            })
        );
        assert!(v3(&table, "apis/nothing/v1", "v1").is_none());
    }

    #[test]
    fn defaults_are_in_version_3_alone() {
        let table = Table::builtin();
        let old = value(v2(&table, "v1"));
        let new = value(v3(&table, "api/v1", "v1").unwrap());
        let field = |document: &'_ Value, path: &str| document.pointer(path).unwrap().clone();
        let port = "/io.k8s.api.core.v1.ContainerPort/properties";
        let old_port = field(&old["definitions"], &format!("{port}/protocol"));
        let values = "Protocol for port. Must be UDP, TCP, or SCTP. Defaults to \"TCP\".\n\n\
                      Possible enum values:\n - `\"SCTP\"`\n - `\"TCP\"`\n - `\"UDP\"`";
        assert_eq!(
            old_port,
            json!({"type": "string", "enum": ["SCTP", "TCP", "UDP"], "description": values})
        );
        let schemas = &new["components"]["schemas"];
        assert_eq!(field(schemas, &format!("{port}/protocol"))["default"], "TCP");
        assert_eq!(field(schemas, &format!("{port}/containerPort"))["default"], 0);
        // Left out when empty.
        assert_eq!(field(schemas, &format!("{port}/hostIP"))["default"], Value::Null);
        let container = field(schemas, "/io.k8s.api.core.v1.Container/properties");
        assert_eq!(container["args"]["items"], json!({"type": "string", "default": ""}));
        assert_eq!(
            container["resources"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.api.core.v1.ResourceRequirements"
        );
        let limits = field(schemas, "/io.k8s.api.core.v1.ResourceRequirements/properties/limits");
        assert_eq!(
            limits["additionalProperties"],
            json!({"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity"})
        );
        let time =
            field(schemas, "/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta/properties/creationTimestamp");
        assert!(time["default"].is_null() && time["allOf"].is_array());
    }

    #[test]
    fn what_upstream_requires_is_required_though_it_is_left_out_when_empty() {
        let document = value(v2(&Table::builtin(), "v1"));
        let rule = &document["definitions"]["io.k8s.api.core.v1.ContainerRestartRule"];
        assert_eq!(rule["required"], json!(["action"]));
        let reference = &document["definitions"]["io.k8s.api.core.v1.LocalObjectReference"];
        assert!(reference["required"].is_null());
    }

    #[test]
    fn the_protobuf_form_starts_with_the_version_of_swagger() {
        let bytes = v2(&Table::builtin(), "v1").protobuf();
        assert!(bytes.starts_with(b"\x0a\x032.0"));
        let text = b"List of containers belonging to the pod.";
        assert!(bytes.windows(text.len()).any(|part| part == text));
    }
}
