//! What a word on the command line or a kind in a file means: from the built-in table first, and for the rest
//! from the server's discovery.

use std::sync::Arc;

use api::resource::{Resource, Table, api_version};
use api::schema::TypeRef;
use serde_json::Value;

use super::call::{ApiError, Call, encode};
use super::session::Session;
use crate::Failure;

/// Aggregated discovery.
const DISCOVERY: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// A resource, as far as the command line needs it.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) namespaced: bool,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) verbs: Vec<String>,
    row: Option<Arc<Resource>>,
}

impl From<&Arc<Resource>> for Mapping {
    fn from(row: &Arc<Resource>) -> Self {
        let texts = |list: &[api::resource::Text]| list.iter().map(ToString::to_string).collect();
        Self {
            group: row.group.to_string(),
            version: row.version.to_string(),
            kind: row.kind.to_string(),
            plural: row.plural.to_string(),
            singular: row.singular.to_string(),
            namespaced: row.namespaced(),
            short_names: texts(&row.short_names),
            categories: texts(&row.categories),
            verbs: row.verbs.names().map(str::to_owned).collect(),
            row: Some(row.clone()),
        }
    }
}

impl Mapping {
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// `pod`, `deployment.apps`: how messages name it.
    pub(crate) fn short(&self) -> String {
        with_group(&self.kind.to_lowercase(), &self.group)
    }

    /// `pods`, `deployments.apps`.
    pub(crate) fn resource(&self) -> String {
        with_group(&self.plural, &self.group)
    }

    /// `pod/x`, `deployment.apps/x`.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.short())
    }

    /// The path of the collection; of all namespaces if none is given.
    pub(crate) fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/namespaces/{}/{}", encode(namespace), self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    /// The path of an object.
    pub(crate) fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection(Some(namespace)), encode(name))
    }

    /// The type that strategic merge patches follow; only built-in kinds have one.
    pub(crate) fn strategic(&self) -> Option<&TypeRef> {
        self.row.as_ref().map(|row| &row.schema)
    }

    /// A built-in kind.
    pub(crate) fn builtin(group: &str, plural: &str) -> Result<Self, Failure> {
        let table = Table::builtin();
        let row = table.preferred(group, plural);
        row.map(Self::from).ok_or_else(|| no_such_type(plural))
    }

    fn named_by(&self, bare: &str) -> bool {
        self.plural == bare || self.singular == bare || self.kind.to_lowercase() == bare
    }
}

fn with_group(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

fn no_such_type(name: &str) -> Failure {
    Failure::new(format!("error: the server doesn't have a resource type {name:?}"))
}

impl Session {
    /// What the server offers, asked once.
    pub(crate) async fn discover(&self) -> Result<&[Mapping], ApiError> {
        let found = self
            .discovered
            .get_or_try_init(|| async {
                let mut all = Vec::new();
                for path in ["/api", "/apis"] {
                    let list = self.json(Call::get(path).accept(DISCOVERY)).await?;
                    if list["kind"] != "APIGroupDiscoveryList" {
                        return Err(ApiError::Broken(format!(
                            "the server has no aggregated discovery (at {path}); it must be Kubernetes 1.30 or newer"
                        )));
                    }
                    read_discovery(&list, &mut all);
                }
                Ok(all)
            })
            .await?;
        Ok(found)
    }

    /// The resource that a word of the command line names: plural, singular, short name, kind, `plural.group`.
    pub(crate) async fn resource(&self, word: &str) -> Result<Mapping, Failure> {
        let word = word.to_lowercase();
        if let Some(row) = Table::builtin().find(&word).first() {
            return Ok(Mapping::from(*row));
        }
        let (bare, group) =
            word.split_once('.').map_or((word.as_str(), None), |(bare, group)| (bare, Some(group)));
        let all = self.discover().await?;
        let in_group = |mapping: &&Mapping| {
            group.is_none_or(|group| {
                mapping.group == group || group == format!("{}.{}", mapping.version, mapping.group)
            })
        };
        let short = |mapping: &&Mapping| mapping.short_names.iter().any(|name| name == bare);
        let found = all
            .iter()
            .find(|mapping| mapping.named_by(bare) && in_group(mapping))
            .or_else(|| all.iter().find(|mapping| short(mapping) && in_group(mapping)));
        found.cloned().ok_or_else(|| no_such_type(&word))
    }

    /// The resources that a word names: a category such as `all` is several, and so is `a,b`.
    pub(crate) async fn resources(&self, words: &str) -> Result<Vec<Mapping>, Failure> {
        let mut found = Vec::new();
        for word in words.split(',') {
            if word.is_empty() {
                return Err(Failure::new(
                    "error: arguments in resource/name form must have a single resource and name",
                ));
            }
            if self.is_category(word).await? {
                let all = self.discover().await?;
                let mut plurals: Vec<(&str, &str)> = Vec::new();
                for mapping in all.iter().filter(|mapping| mapping.categories.iter().any(|c| c == word)) {
                    let key = (mapping.group.as_str(), mapping.plural.as_str());
                    if !plurals.contains(&key) {
                        plurals.push(key);
                        found.push(mapping.clone());
                    }
                }
            } else {
                found.push(self.resource(word).await?);
            }
        }
        Ok(found)
    }

    async fn is_category(&self, word: &str) -> Result<bool, ApiError> {
        if word == "all" {
            return Ok(true);
        }
        if !Table::builtin().find(&word.to_lowercase()).is_empty() {
            return Ok(false);
        }
        Ok(self.discover().await?.iter().any(|mapping| mapping.categories.iter().any(|c| c == word)))
    }

    /// The resource of an object by its `apiVersion` and `kind`.
    pub(crate) async fn kind(&self, api_version: &str, kind: &str) -> Result<Option<Mapping>, ApiError> {
        if let Some(row) = Table::builtin().kind_of(api_version, kind) {
            return Ok(Some(Mapping::from(row)));
        }
        let all = self.discover().await?;
        Ok(all.iter().find(|mapping| mapping.kind == kind && mapping.api_version() == api_version).cloned())
    }
}

/// The resources of a discovery document, in its order. The first version of a resource is the preferred one.
fn read_discovery(list: &Value, all: &mut Vec<Mapping>) {
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| array(value).iter().map(text).collect::<Vec<_>>();
    for group in array(&list["items"]) {
        let name = text(&group["metadata"]["name"]);
        for version in array(&group["versions"]) {
            for resource in array(&version["resources"]) {
                let kind = text(&resource["responseKind"]["kind"]);
                if kind.is_empty() {
                    continue;
                }
                let version = text(&version["version"]);
                let row = Table::builtin().kind(&name, &version, &kind).cloned();
                let singular = text(&resource["singularResource"]);
                all.push(Mapping {
                    group: name.clone(),
                    version,
                    plural: text(&resource["resource"]),
                    singular: if singular.is_empty() { kind.to_lowercase() } else { singular },
                    namespaced: resource["scope"] == "Namespaced",
                    short_names: texts(&resource["shortNames"]),
                    categories: texts(&resource["categories"]),
                    verbs: texts(&resource["verbs"]),
                    kind,
                    row,
                });
            }
        }
    }
}
