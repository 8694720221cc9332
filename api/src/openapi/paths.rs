//! The paths: the operations on each row and on its subresources.

use serde_json::{Map, Value, json};

use super::{Version, base, gvk, object, reference, schemas};
use crate::resource::{Backing, GroupVersionKind, Resource, Verbs};

/// CBOR is read and written, but as upstream's gate for it (`CBORServingAndStorage`) is closed by default, nobody is told:
/// clients that ask the documents what to send go on with what every server takes.
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// What is done at a path: its HTTP method, upstream's words for it in `operationId` and in `x-kubernetes-action`.
struct Operation<'a> {
    method: &'static str,
    id: &'static str,
    action: &'static str,
    kind: &'a GroupVersionKind,
    /// The suffix of a subresource in `operationId`.
    suffix: &'a str,
    collection: bool,
}

impl Operation<'_> {
    /// It opens a connection to something else; its options are parameters of the URL.
    fn connects(&self) -> bool {
        self.kind.kind.ends_with("Options")
    }
}

/// All paths of a row.
pub(super) fn of(row: &Resource, version: Version) -> Map<String, Value> {
    let mut paths = Map::new();
    let kind = row.gvk();
    let start = base(row);
    let of_namespace =
        if row.namespaced() { format!("{start}/namespaces/{{namespace}}") } else { start.clone() };
    let collection = format!("{of_namespace}/{}", row.plural);
    let item = format!("{collection}/{{name}}");
    let maker = Maker { row, version };
    let operation = |method, id, action, collection| Operation {
        method,
        id,
        action,
        kind: &kind,
        suffix: "",
        collection,
    };
    let has = |verb| row.verbs.contains(verb);
    let mut at_collection = Vec::new();
    if has(Verbs::LIST) {
        at_collection.push(operation("get", "list", "list", true));
    }
    if has(Verbs::CREATE) {
        at_collection.push(operation("post", "create", "post", true));
    }
    if has(Verbs::DELETE_COLLECTION) {
        at_collection.push(operation("delete", "deleteCollection", "deletecollection", true));
    }
    maker.path(&mut paths, &collection, &at_collection, row.namespaced());
    if row.namespaced() && has(Verbs::LIST) {
        let all = [Operation { suffix: "ForAllNamespaces", ..operation("get", "list", "list", true) }];
        maker.path(&mut paths, &format!("{start}/{}", row.plural), &all, false);
    }
    let mut at_item = Vec::new();
    for (verb, method, id, action) in [
        (Verbs::GET, "get", "read", "get"),
        (Verbs::UPDATE, "put", "replace", "put"),
        (Verbs::PATCH, "patch", "patch", "patch"),
        (Verbs::DELETE, "delete", "delete", "delete"),
    ] {
        if has(verb) {
            at_item.push(operation(method, id, action, false));
        }
    }
    maker.path(&mut paths, &item, &at_item, row.namespaced());
    for part in &row.subresources {
        let suffix = capitalized(&part.name);
        let mut operations = Vec::new();
        for (verb, method, id, action) in [
            (Verbs::GET, "get", "read", "get"),
            (Verbs::CREATE, "post", "create", "post"),
            (Verbs::UPDATE, "put", "replace", "put"),
            (Verbs::PATCH, "patch", "patch", "patch"),
        ] {
            if part.verbs.contains(verb) {
                operations.push(Operation {
                    method,
                    id,
                    action,
                    kind: &part.kind,
                    suffix: &suffix,
                    collection: false,
                });
            }
        }
        maker.path(&mut paths, &format!("{item}/{}", part.name), &operations, row.namespaced());
    }
    paths
}

struct Maker<'a> {
    row: &'a Resource,
    version: Version,
}

impl Maker<'_> {
    fn path(
        &self,
        paths: &mut Map<String, Value>,
        path: &str,
        operations: &[Operation<'_>],
        namespaced: bool,
    ) {
        if operations.is_empty() {
            return;
        }
        let mut made = Map::new();
        for operation in operations {
            made.insert(operation.method.to_owned(), self.operation(operation, namespaced));
        }
        let mut parameters = Vec::new();
        if path.contains("{name}") {
            let description = format!("name of the {}", self.row.kind);
            parameters.push(self.parameter("name", "path", &description, "string"));
        }
        if path.contains("{namespace}") {
            let description = "object name and auth scope, such as for teams and projects";
            parameters.push(self.parameter("namespace", "path", description, "string"));
        }
        parameters.push(self.parameter(
            "pretty",
            "query",
            "If 'true', then the output is pretty printed.",
            "string",
        ));
        made.insert("parameters".to_owned(), parameters.into());
        paths.insert(path.to_owned(), made.into());
    }

    fn operation(&self, operation: &Operation<'_>, namespaced: bool) -> Value {
        let row = self.row;
        let group = match row.group.split('.').next().unwrap_or_default() {
            "" => "Core".to_owned(),
            group => capitalized(group),
        };
        let group_version = format!("{group}{}", capitalized(&row.version));
        let scope = if namespaced { "Namespaced" } else { "" };
        let connect = operation.connects();
        let (verb, method) = match connect {
            true => ("connect", capitalized(operation.method)),
            false => (operation.id, String::new()),
        };
        let id = format!("{verb}{group_version}{method}{scope}{}{}", row.kind, operation.suffix);
        let mut tag = group;
        tag.replace_range(..1, &tag[..1].to_ascii_lowercase());
        let kind = operation.kind;
        let mut made = object([
            ("operationId", id.into()),
            ("tags", json!([format!("{tag}_{}", row.version)])),
            ("x-kubernetes-action", if connect { "connect" } else { operation.action }.into()),
            ("x-kubernetes-group-version-kind", gvk(&kind.group, &kind.version, &kind.kind)),
        ]);
        let mut parameters = if connect { Vec::new() } else { self.query(operation) };
        let body = match operation.method {
            _ if connect => None,
            "post" | "put" => Some(self.definition(kind)),
            "patch" => Some(reference(self.version, "io.k8s.apimachinery.pkg.apis.meta.v1.Patch")),
            "delete" => Some(reference(self.version, "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")),
            _ => None,
        };
        let types: &[&str] = if operation.method == "patch" { &PATCHES } else { &["*/*"] };
        if let Some(body) = body {
            let required = operation.method != "delete";
            match self.version {
                Version::V2 => {
                    made.insert("consumes".to_owned(), json!(types));
                    let parameter =
                        json!({"name": "body", "in": "body", "required": required, "schema": body});
                    parameters.push(parameter);
                }
                Version::V3 => {
                    let content: Map<String, Value> =
                        types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": body}))).collect();
                    made.insert("requestBody".to_owned(), json!({"content": content, "required": required}));
                }
            }
        }
        if !parameters.is_empty() {
            made.insert("parameters".to_owned(), parameters.into());
        }
        made.insert("responses".to_owned(), self.responses(operation));
        if self.version == Version::V2 {
            made.insert("produces".to_owned(), json!(["application/json", "application/yaml"]));
            made.insert("schemes".to_owned(), json!(["https"]));
        }
        made.into()
    }

    fn query(&self, operation: &Operation<'_>) -> Vec<Value> {
        let text = |name: &str, description: &str| self.parameter(name, "query", description, "string");
        let mut made = Vec::new();
        if matches!(operation.method, "post" | "put" | "patch" | "delete") {
            made.push(text("dryRun", "When present, indicates that modifications should not be persisted."));
        }
        if matches!(operation.method, "post" | "put" | "patch") {
            made.push(text("fieldManager", "The name of who makes the change."));
            made.push(text(
                "fieldValidation",
                "What to do about unknown and duplicate fields: Ignore, Warn or Strict.",
            ));
        }
        if operation.method == "patch" {
            made.push(self.parameter(
                "force",
                "query",
                "Take over fields that others own (apply only).",
                "boolean",
            ));
        }
        if operation.method == "delete" {
            made.push(self.parameter(
                "gracePeriodSeconds",
                "query",
                "Seconds until the object is deleted.",
                "integer",
            ));
            made.push(text(
                "propagationPolicy",
                "What happens to dependents: Orphan, Background or Foreground.",
            ));
        }
        if operation.collection && operation.method != "post" {
            made.push(text("labelSelector", "Which objects are meant, by their labels."));
            made.push(text("fieldSelector", "Which objects are meant, by their fields."));
            made.push(text("continue", "Where an earlier list stopped."));
            made.push(self.parameter("limit", "query", "The most objects to list.", "integer"));
            made.push(text("resourceVersion", "As of when."));
            made.push(text("resourceVersionMatch", "How resourceVersion is meant."));
            made.push(self.parameter("timeoutSeconds", "query", "When to end.", "integer"));
        }
        if operation.id == "list" {
            made.push(self.parameter("watch", "query", "Follow the changes.", "boolean"));
            made.push(self.parameter("allowWatchBookmarks", "query", "Ask for bookmarks.", "boolean"));
            made.push(self.parameter("sendInitialEvents", "query", "Start with what there is.", "boolean"));
        }
        made
    }

    fn parameter(&self, name: &str, at: &str, description: &str, ty: &str) -> Value {
        let mut made =
            object([("name", name.into()), ("in", at.into()), ("description", description.into())]);
        if at == "path" {
            made.insert("required".to_owned(), true.into());
        }
        let (key, ty) = match self.version {
            Version::V2 => ("type", ty.into()),
            Version::V3 => ("schema", json!({"type": ty})),
        };
        made.insert(key.to_owned(), ty);
        made.into()
    }

    fn responses(&self, operation: &Operation<'_>) -> Value {
        let row = self.row;
        let status = || reference(self.version, "io.k8s.apimachinery.pkg.apis.meta.v1.Status");
        let list = GroupVersionKind { kind: row.list_kind.clone(), ..row.gvk() };
        let answered = matches!(row.backing, Backing::Answered(_));
        let schema = match operation.method {
            "get" if operation.collection => self.definition(&list),
            "get" if operation.suffix == "Log" => json!({"type": "string"}),
            _ if operation.connects() => json!({"type": "string"}),
            "delete" => status(),
            _ => self.definition(operation.kind),
        };
        let codes: &[(&str, &str)] = match operation.method {
            _ if operation.connects() => &[("200", "OK")],
            "post" if answered => &[("200", "OK"), ("201", "Created")],
            "post" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            "put" | "patch" => &[("200", "OK"), ("201", "Created")],
            "delete" if !operation.collection => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        };
        let mut made = Map::new();
        for (code, description) in codes {
            let response = match self.version {
                Version::V2 => json!({"description": description, "schema": schema}),
                Version::V3 => json!({
                    "description": description,
                    "content": {"application/json": {"schema": schema}, "application/yaml": {"schema": schema}},
                }),
            };
            made.insert((*code).to_owned(), response);
        }
        made.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        made.into()
    }

    /// The definition of a kind, or any object where the schema doesn't know it.
    fn definition(&self, kind: &GroupVersionKind) -> Value {
        let types = self.row.schema.types();
        match types.kind(&kind.group, &kind.version, &kind.kind) {
            Some(id) => reference(self.version, &schemas::name(&types.get(id).name)),
            None => json!({"type": "object"}),
        }
    }
}

/// `apps` as part of an operation's name: `Apps`.
fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
