//! What the server says that it serves.

use serde_json::Value;

use crate::common::Api;

/// A resource of the discovery.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// `v1` or `apps/v1`
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
    pub(crate) parts: Vec<Part>,
}

/// A subresource.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) verbs: Vec<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

impl Served {
    /// All resources of all groups, in the order of the discovery.
    pub(crate) async fn all(api: &Api) -> Vec<Self> {
        let mut all = Vec::new();
        for version in versions(api).await {
            all.extend(Self::of(api, &version).await);
        }
        all
    }

    async fn of(api: &Api, version: &str) -> Vec<Self> {
        let list = api.get(&root(version)).await.ok();
        let resources = list["resources"].as_array().cloned().unwrap_or_default();
        let named = |resource: &Value| text(&resource["name"]);
        let own = resources.iter().filter(|resource| !named(resource).contains('/'));
        own.map(|resource| {
            let plural = named(resource);
            let parts = resources.iter().filter_map(|part| {
                let name = named(part).strip_prefix(&plural)?.strip_prefix('/')?.to_owned();
                Some(Part { name, verbs: texts(&part["verbs"]) })
            });
            Self {
                version: version.to_owned(),
                kind: text(&resource["kind"]),
                namespaced: resource["namespaced"] == true,
                verbs: texts(&resource["verbs"]),
                parts: parts.collect(),
                plural,
            }
        })
        .collect()
    }

    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }

    pub(crate) fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// The path of all objects, in a namespace where there are namespaces.
    pub(crate) fn path(&self, namespace: &str) -> String {
        let (root, plural) = (root(&self.version), &self.plural);
        if self.namespaced {
            format!("{root}/namespaces/{namespace}/{plural}")
        } else {
            format!("{root}/{plural}")
        }
    }

    /// The path of all objects of all namespaces.
    pub(crate) fn everywhere(&self) -> String {
        format!("{}/{}", root(&self.version), self.plural)
    }

    /// The path by which older clients watch all objects.
    pub(crate) fn watched(&self) -> String {
        format!("{}/watch/{}", root(&self.version), self.plural)
    }

    /// Without the version; empty for the core.
    pub(crate) fn group(&self) -> &str {
        self.version.split_once('/').map_or("", |(group, _)| group)
    }

    /// As messages name it: `pods` or `deployments.apps`.
    pub(crate) fn named(&self) -> String {
        match self.group() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }
}

/// The versions of all groups, the core's first.
pub(crate) async fn versions(api: &Api) -> Vec<String> {
    let groups = api.get("/apis").await.ok();
    let versions = groups["groups"].as_array().into_iter().flatten().flat_map(|group| {
        group["versions"].as_array().into_iter().flatten().map(|version| text(&version["groupVersion"]))
    });
    ["v1".to_owned()].into_iter().chain(versions).collect()
}

/// The path of a version.
pub(crate) fn root(version: &str) -> String {
    if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") }
}
