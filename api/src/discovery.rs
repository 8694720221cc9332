//! The discovery documents: which groups, versions and resources there are. All are derived from the resource table.

use serde_json::{Map, Value, json};

use crate::resource::{GroupVersionKind, Resource, Subresource, Table, api_version};

/// The address of a server, for the clients that ask which one to talk to.
#[derive(Clone, Debug)]
pub struct ServerAddress {
    pub client_cidr: String,
    pub server_address: String,
}

fn addresses(servers: &[ServerAddress]) -> Value {
    servers.iter().map(|s| json!({"clientCIDR": s.client_cidr, "serverAddress": s.server_address})).collect()
}

/// `/api`
pub fn api_versions(table: &Table, servers: &[ServerAddress]) -> Value {
    let versions: Vec<&str> = table
        .groups()
        .iter()
        .filter(|g| g.name.is_empty())
        .flat_map(|g| g.versions.iter().map(AsRef::as_ref))
        .collect();
    json!({"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": addresses(servers)})
}

/// `/apis`
pub fn group_list(table: &Table) -> Value {
    let groups: Vec<Value> =
        table.groups().iter().filter(|g| !g.name.is_empty()).filter_map(|g| group(table, &g.name)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// One group as `/apis` lists it; without kind and version of its own.
fn group(table: &Table, name: &str) -> Option<Value> {
    let group = table.groups().iter().find(|g| g.name == name)?;
    let version = |v: &str| json!({"groupVersion": api_version(name, v), "version": v});
    let versions: Vec<Value> = group.versions.iter().map(|v| version(v)).collect();
    Some(json!({"name": name, "preferredVersion": versions.first(), "versions": versions}))
}

/// `/apis/GROUP`
pub fn api_group(table: &Table, name: &str) -> Option<Value> {
    let mut group = group(table, name)?;
    if let Value::Object(map) = &mut group {
        map.insert("kind".to_owned(), "APIGroup".into());
        map.insert("apiVersion".to_owned(), "v1".into());
    }
    Some(group)
}

/// `/api/VERSION` and `/apis/GROUP/VERSION`; None for a version that has no resource.
pub fn resource_list(table: &Table, group: &str, version: &str) -> Option<Value> {
    let mut rows: Vec<&Resource> = table.version(group, version).map(AsRef::as_ref).collect();
    if rows.is_empty() {
        return None;
    }
    rows.sort_by(|a, b| a.plural.cmp(&b.plural));
    let mut resources = Vec::new();
    for row in rows {
        resources.push(resource(row));
        resources.extend(row.subresources.iter().map(|s| subresource(row, s)));
    }
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version),
        "resources": resources,
    }))
}

fn resource(row: &Resource) -> Value {
    let verbs: Vec<&str> = row.verbs.names().collect();
    let mut out = json!({
        "name": row.plural, "singularName": row.singular, "namespaced": row.namespaced(), "kind": row.kind,
        "verbs": verbs,
    });
    if let Value::Object(map) = &mut out {
        names(row, map);
        if let Some(prefix) = row.prefix() {
            map.insert("storageVersionHash".to_owned(), storage_version_hash(prefix, row).into());
        }
    }
    out
}

fn names(row: &Resource, map: &mut Map<String, Value>) {
    if !row.short_names.is_empty() {
        map.insert("shortNames".to_owned(), row.short_names.iter().map(AsRef::<str>::as_ref).collect());
    }
    if !row.categories.is_empty() {
        map.insert("categories".to_owned(), row.categories.iter().map(AsRef::<str>::as_ref).collect());
    }
}

/// Eight bytes that change when the version in which objects are stored does; opaque to clients.
fn storage_version_hash(prefix: &str, row: &Resource) -> String {
    use base64::Engine as _;
    // FNV-1a, which never changes between releases.
    let stored = format!("{prefix}/{}", row.version);
    let hash = stored.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    base64::engine::general_purpose::STANDARD.encode(hash.to_be_bytes())
}

fn subresource(row: &Resource, sub: &Subresource) -> Value {
    let verbs: Vec<&str> = sub.verbs.names().collect();
    let mut out = json!({
        "name": format!("{}/{}", row.plural, sub.name), "singularName": "", "namespaced": row.namespaced(),
        "kind": sub.kind.kind, "verbs": verbs,
    });
    let elsewhere = (&sub.kind.group, &sub.kind.version) != (&row.group, &row.version);
    if let (Value::Object(map), true) = (&mut out, elsewhere) {
        if !sub.kind.group.is_empty() {
            map.insert("group".to_owned(), sub.kind.group.as_ref().into());
        }
        map.insert("version".to_owned(), sub.kind.version.as_ref().into());
    }
    out
}

/// Aggregated discovery (`apidiscovery.k8s.io/v2`): of the core with `/api`, of all other groups with `/apis`.
///
/// `version` is `v2`, or `v2beta1` for clients that know no better; the documents differ in nothing else.
pub fn aggregated(table: &Table, core: bool, version: &str) -> Value {
    let items: Vec<Value> = table
        .groups()
        .iter()
        .filter(|g| g.name.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|version| {
                    let mut rows: Vec<&Resource> =
                        table.version(&group.name, version).map(AsRef::as_ref).collect();
                    rows.sort_by(|a, b| a.plural.cmp(&b.plural));
                    let resources: Vec<Value> = rows.into_iter().map(aggregated_resource).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let mut metadata = Map::new();
            if !group.name.is_empty() {
                metadata.insert("name".to_owned(), group.name.as_ref().into());
            }
            metadata.insert("creationTimestamp".to_owned(), Value::Null);
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items,
    })
}

fn response_kind(of: &GroupVersionKind) -> Value {
    json!({"group": of.group, "version": of.version, "kind": of.kind})
}

fn aggregated_resource(row: &Resource) -> Value {
    let verbs: Vec<&str> = row.verbs.names().collect();
    let mut out = json!({
        "resource": row.plural, "responseKind": response_kind(&row.gvk()),
        "scope": if row.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular, "verbs": verbs,
    });
    if let Value::Object(map) = &mut out {
        names(row, map);
        if !row.subresources.is_empty() {
            let parts = row.subresources.iter().map(|sub| {
                let verbs: Vec<&str> = sub.verbs.names().collect();
                json!({"subresource": sub.name, "responseKind": response_kind(&sub.kind), "verbs": verbs})
            });
            map.insert("subresources".to_owned(), parts.collect());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_say_what_the_table_says() {
        let table = Table::builtin();
        assert_eq!(api_versions(&table, &[])["versions"], json!(["v1"]));
        let groups = group_list(&table);
        assert_eq!(groups["groups"][0]["name"], "apiregistration.k8s.io");
        assert_eq!(groups["groups"][1]["preferredVersion"]["groupVersion"], "apps/v1");
        assert_eq!(api_group(&table, "apps").map(|g| g["kind"].clone()), Some("APIGroup".into()));
        assert_eq!(api_group(&table, "nope"), None);
        assert_eq!(resource_list(&table, "apps", "v2"), None);
    }

    #[test]
    fn subresources_name_the_kind_they_speak() {
        let table = Table::builtin();
        let list = resource_list(&table, "", "v1").expect("the core has resources");
        let find = |name: &str| {
            let all = list["resources"].as_array().into_iter().flatten();
            all.into_iter().find(|r| r["name"] == name).cloned().unwrap_or_default()
        };
        assert_eq!(
            find("pods/eviction"),
            json!({"name": "pods/eviction", "singularName": "", "namespaced": true, "group": "policy",
                "version": "v1", "kind": "Eviction", "verbs": ["create"]})
        );
        assert_eq!(find("pods/exec")["verbs"], json!(["create", "get"]));
        assert_eq!(find("pods")["shortNames"], json!(["po"]));
        assert_eq!(find("pods")["categories"], json!(["all"]));
        assert_eq!(find("pods")["singularName"], "pod");
    }

    #[test]
    fn aggregated_discovery_has_the_core_apart() {
        let table = Table::builtin();
        let core = aggregated(&table, true, "v2");
        assert_eq!(core["apiVersion"], "apidiscovery.k8s.io/v2");
        assert_eq!(core["items"].as_array().map(Vec::len), Some(1));
        let rest = aggregated(&table, false, "v2");
        let apps = &rest["items"][1];
        assert_eq!(apps["metadata"]["name"], "apps");
        let resources = apps["versions"][0]["resources"].as_array().cloned().unwrap_or_default();
        let deployments = resources.iter().find(|r| r["resource"] == "deployments").expect("it is served");
        assert_eq!(
            deployments["subresources"][0],
            json!({"subresource": "scale", "verbs": ["get", "patch", "update"],
                "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}})
        );
    }
}
