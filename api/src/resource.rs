//! The row that describes a kind, and the table of all rows.
//!
//! Everything that is generic over kinds reads this table: routes, verbs, discovery, OpenAPI, Table output, storage
//! keys, RBAC names and the names that the command line knows. A kind that is defined at run time becomes a row of the
//! same type. Nothing may match on the name of a kind; what differs is in the row, as data or as a closed enum.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, LazyLock},
};

use serde_json::{Map, Value};

use crate::{kinds, object::Rules, schema::TypeRef, status::GroupResource};

/// Text that is static for built-in rows and owned for rows made at run time.
pub type Text = Cow<'static, str>;

/// Whether the objects of a kind live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Cluster,
    Namespaced,
}

/// A set of API verbs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Verbs(u16);

impl Verbs {
    pub const CREATE: Self = Self(1);
    pub const DELETE: Self = Self(2);
    pub const DELETE_COLLECTION: Self = Self(4);
    pub const GET: Self = Self(8);
    pub const LIST: Self = Self(16);
    pub const PATCH: Self = Self(32);
    pub const UPDATE: Self = Self(64);
    pub const WATCH: Self = Self(128);
    /// No verb.
    pub const NONE: Self = Self(0);
    /// What an ordinary stored kind can do.
    pub const ALL: Self = Self(255);
    /// What a subresource that shows and changes a part of an object can do.
    pub const CHANGE: Self = Self(8 | 32 | 64);
    /// What can be done with objects that are made as they are read.
    pub const READ: Self = Self(8 | 16);
    /// What a tunnel to a server in the cluster can do.
    pub const PROXY: Self = Self(1 | 2 | 8 | 32 | 64);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::CREATE, "create"),
        (Self::DELETE, "delete"),
        (Self::DELETE_COLLECTION, "deletecollection"),
        (Self::GET, "get"),
        (Self::LIST, "list"),
        (Self::PATCH, "patch"),
        (Self::UPDATE, "update"),
        (Self::WATCH, "watch"),
    ];

    /// Both sets together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without another.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all verbs of `other` are in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names, in the order in which discovery lists them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(verb, _)| self.contains(*verb)).map(|(_, name)| name)
    }

    /// The verb of a name as discovery and RBAC write it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, n)| *n == name).map(|(verb, _)| *verb)
    }
}

impl fmt::Debug for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// A kind by group, version and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    pub group: Text,
    pub version: Text,
    pub kind: Text,
}

impl GroupVersionKind {
    pub const fn fixed(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), version: Cow::Borrowed(version), kind: Cow::Borrowed(kind) }
    }

    /// `v1` or `apps/v1`
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
}

/// `v1` or `apps/v1`
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// What a subresource does. A closed set: the API server matches on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The object, of which only the status changes.
    Status,
    /// `autoscaling/v1` Scale, over [`Replicas`](crate::object::Replicas).
    Scale,
    /// The object, changed under the rules of `prepare_subresource` and `validate_subresource`.
    Change,
    /// Gives a pod its node.
    Binding,
    /// Deletes a pod, if its disruption budgets allow.
    Eviction,
    /// Issues a token of a service account.
    Token,
    Log,
    Exec,
    Attach,
    PortForward,
    Proxy,
}

impl Action {
    /// Whether something else than the API server makes the answer: a node, a pod or a service.
    pub fn is_passed_on(self) -> bool {
        matches!(self, Self::Log | Self::Exec | Self::Attach | Self::PortForward | Self::Proxy)
    }
}

/// A part of a resource with a path of its own.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// The last segment of the path, such as `status`.
    pub name: Text,
    /// The kind that it speaks.
    pub kind: GroupVersionKind,
    pub verbs: Verbs,
    pub action: Action,
}

/// A request that is answered, not stored. A closed set: the API server matches on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    Binding,
    TokenReview,
    SelfSubjectReview,
    SubjectAccessReview,
    LocalSubjectAccessReview,
    SelfSubjectAccessReview,
    SelfSubjectRulesReview,
}

/// What the server sees, shown as objects. A closed set: the API server matches on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Observation {
    /// How the parts of the control plane are.
    Components,
}

/// How objects of one version become objects of another. `apiVersion` and `kind` are not its business.
#[derive(Clone, Copy, Debug)]
pub struct Conversion {
    pub to_storage: fn(&mut Map<String, Value>),
    pub from_storage: fn(&mut Map<String, Value>),
}

/// Where the objects of a row are.
#[derive(Clone, Debug)]
pub enum Backing {
    /// In the store, as they are.
    Stored { prefix: Text },
    /// In the store, in the form of another row, which has the same prefix.
    View { prefix: Text, storage: GroupVersionKind, conversion: Conversion },
    /// Nowhere: a request is answered at once.
    Answered(Answer),
    /// Nowhere: each read makes them from what the server sees.
    Observed(Observation),
}

/// A column of a Table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Text,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: Text,
    /// `name` for the column that holds the object's name.
    pub format: Text,
    pub description: Text,
    /// 0 is always shown, more only in wide output.
    pub priority: i32,
}

/// What upstream says of the time at which an object was made.
const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It \
     is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It \
     is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

impl Column {
    /// A column of built-in text.
    pub const fn new(name: &'static str, kind: &'static str) -> Self {
        Self {
            name: Cow::Borrowed(name),
            kind: Cow::Borrowed(kind),
            format: Cow::Borrowed(""),
            description: Cow::Borrowed(""),
            priority: 0,
        }
    }

    /// A column of text.
    pub const fn text(name: &'static str) -> Self {
        Self::new(name, "string")
    }

    /// A column of whole numbers.
    pub const fn integer(name: &'static str) -> Self {
        Self::new(name, "integer")
    }

    /// The column of the object's name.
    pub const fn name() -> Self {
        Self {
            name: Cow::Borrowed("Name"),
            kind: Cow::Borrowed("string"),
            format: Cow::Borrowed("name"),
            description: Cow::Borrowed(
                "Name must be unique within a namespace. Is required when creating resources, although some resources \
                 may allow a client to request the generation of an appropriate name automatically. Name is primarily \
                 intended for creation idempotence and configuration definition. Cannot be updated. More info: \
                 https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
            ),
            priority: 0,
        }
    }

    /// The column of the object's age, as text.
    pub const fn age() -> Self {
        Self {
            name: Cow::Borrowed("Age"),
            kind: Cow::Borrowed("string"),
            format: Cow::Borrowed(""),
            description: Cow::Borrowed(CREATED),
            priority: 0,
        }
    }

    /// The same column with a description.
    pub const fn about(mut self, description: &'static str) -> Self {
        // Text that is static has nothing to drop; the compiler can't know it here.
        std::mem::forget(std::mem::replace(&mut self.description, Cow::Borrowed(description)));
        self
    }

    /// The same column, shown only in wide output.
    pub const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

/// The columns of kinds that have none of their own.
pub const NAME_AND_CREATION: &[Column] = &[Column::name(), Column::new("Created At", "date").about(CREATED)];

/// Everything that generic code knows about a kind.
#[derive(Clone, Debug)]
pub struct Resource {
    pub group: Text,
    /// The group under which what is invalid is reported.
    pub reported_group: Text,
    pub version: Text,
    pub kind: Text,
    /// The kind of a list of it.
    pub list_kind: Text,
    pub plural: Text,
    pub singular: Text,
    pub short_names: Vec<Text>,
    pub categories: Vec<Text>,
    pub scope: Scope,
    pub verbs: Verbs,
    /// Sorted by name.
    pub subresources: Vec<Subresource>,
    pub backing: Backing,
    /// The store must not show its objects: they are encrypted there.
    pub sealed: bool,
    /// The type of its objects.
    pub schema: TypeRef,
    pub rules: Arc<dyn Rules>,
}

impl Resource {
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// `v1` or `apps/v1`
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }

    /// Group and kind under which what is invalid is reported: of a view, those of what it shows.
    pub fn reported_kind(&self) -> (&str, &str) {
        match &self.backing {
            Backing::View { storage, .. } => (&storage.group, &storage.kind),
            _ => (&self.reported_group, &self.kind),
        }
    }

    /// Group and plural name, for messages.
    pub fn group_resource(&self) -> GroupResource<'_> {
        GroupResource::new(&self.group, &self.plural)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Where the objects are in the store, such as `/registry/pods`; None for kinds that are answered.
    pub fn prefix(&self) -> Option<&str> {
        match &self.backing {
            Backing::Stored { prefix } | Backing::View { prefix, .. } => Some(prefix),
            Backing::Answered(_) | Backing::Observed(_) => None,
        }
    }

    /// The key of an object, such as `/registry/pods/default/web-0`.
    pub fn key(&self, namespace: &str, name: &str) -> Option<String> {
        let prefix = self.prefix()?;
        Some(match self.scope {
            Scope::Namespaced => format!("{prefix}/{namespace}/{name}"),
            Scope::Cluster => format!("{prefix}/{name}"),
        })
    }

    /// What the keys of all objects (of a namespace, if one is given) start with.
    pub fn key_prefix(&self, namespace: Option<&str>) -> Option<String> {
        let prefix = self.prefix()?;
        Some(match namespace.filter(|ns| !ns.is_empty() && self.namespaced()) {
            Some(namespace) => format!("{prefix}/{namespace}/"),
            None => format!("{prefix}/"),
        })
    }

    /// Turns an object of this row into the form that is stored.
    pub fn to_storage(&self, object: &mut Map<String, Value>) {
        if let Backing::View { storage, conversion, .. } = &self.backing {
            (conversion.to_storage)(object);
            object.insert("apiVersion".to_owned(), storage.api_version().into());
            object.insert("kind".to_owned(), storage.kind.as_ref().into());
        }
    }

    /// Turns a stored object into the form of this row.
    pub fn from_storage(&self, object: &mut Map<String, Value>) {
        if let Backing::View { conversion, .. } = &self.backing {
            (conversion.from_storage)(object);
            object.insert("apiVersion".to_owned(), self.api_version().into());
            object.insert("kind".to_owned(), self.kind.as_ref().into());
        }
    }
}

/// An API group, with its versions in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: Text,
    pub versions: Vec<Text>,
}

type Key = (Text, Text, Text);

/// All rows. Immutable: a change of the rows makes a new table, so a reader always sees one whole set.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Arc<Resource>>,
    by_plural: HashMap<Key, usize>,
    by_kind: HashMap<Key, usize>,
    groups: Vec<Group>,
}

static BUILTIN: LazyLock<Arc<Table>> = LazyLock::new(|| Arc::new(Table::new(kinds::rows())));

impl Table {
    /// A table of rows; the first row of a group and version makes them preferred over later ones.
    pub fn new(rows: impl IntoIterator<Item = Resource>) -> Self {
        Self::default().with(rows)
    }

    /// The kinds that need no definition at run time.
    pub fn builtin() -> Arc<Self> {
        BUILTIN.clone()
    }

    /// This table with further rows; a row of the same group, version and plural is replaced.
    pub fn with(&self, rows: impl IntoIterator<Item = Resource>) -> Self {
        let mut all = self.rows.clone();
        for row in rows {
            let row = Arc::new(row);
            let same = |r: &Arc<Resource>| {
                (&r.group, &r.version, &r.plural) == (&row.group, &row.version, &row.plural)
            };
            match all.iter().position(same) {
                Some(i) => all[i] = row,
                None => all.push(row),
            }
        }
        Self::index(all)
    }

    /// This table without the rows for which `gone` is true.
    pub fn without(&self, gone: impl Fn(&Resource) -> bool) -> Self {
        Self::index(self.rows.iter().filter(|r| !gone(r)).cloned().collect())
    }

    fn index(rows: Vec<Arc<Resource>>) -> Self {
        let mut table = Self::default();
        for (i, row) in rows.iter().enumerate() {
            let (group, version) = (row.group.clone(), row.version.clone());
            table.by_plural.insert((group.clone(), version.clone(), row.plural.clone()), i);
            table.by_kind.entry((group.clone(), version.clone(), row.kind.clone())).or_insert(i);
            match table.groups.iter_mut().find(|g| g.name == group) {
                Some(found) if found.versions.contains(&version) => {}
                Some(found) => found.versions.push(version),
                None => table.groups.push(Group { name: group, versions: vec![version] }),
            }
        }
        table.rows = rows;
        table
    }

    /// All rows, in their order.
    pub fn rows(&self) -> &[Arc<Resource>] {
        &self.rows
    }

    /// The row of a path: group (empty for the core), version and plural name.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let key = key(group, version, plural);
        self.rows.get(*self.by_plural.get(&key)?)
    }

    /// The row of an object: group, version and kind.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        let key = key(group, version, kind);
        self.rows.get(*self.by_kind.get(&key)?)
    }

    /// The row of an object by `apiVersion` as written in it.
    pub fn kind_of(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.kind(group, version, kind)
    }

    /// The row of a resource in the preferred version that has it.
    pub fn preferred(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        let found = self.groups.iter().find(|g| g.name == group)?;
        found.versions.iter().find_map(|version| self.resource(group, version, plural))
    }

    /// The groups in order, the core (with an empty name) first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The rows of a group and version, in order.
    pub fn version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> + 'a {
        self.rows.iter().filter(move |r| r.group == group && r.version == version)
    }

    /// The rows that own a place in the store, one for each place.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<Resource>> {
        let mut seen = BTreeMap::new();
        self.rows.iter().filter(move |r| match &r.backing {
            Backing::Stored { prefix } => seen.insert(prefix.clone(), ()).is_none(),
            _ => false,
        })
    }

    /// Rows by any name a person may type: plural, singular, short name, or `plural.group`; lower case.
    /// In order, so the first is the one meant where several match.
    pub fn find(&self, name: &str) -> Vec<&Arc<Resource>> {
        let (bare, group) = name.split_once('.').map_or((name, None), |(n, g)| (n, Some(g)));
        let named = |r: &Resource| r.plural == bare || r.singular == bare;
        let in_group = |r: &Resource| {
            group.is_none_or(|g| {
                r.group == g || g.strip_prefix(r.version.as_ref()) == Some(&format!(".{}", r.group))
            })
        };
        let mut found: Vec<_> = self.rows.iter().filter(|r| named(r) && in_group(r)).collect();
        let short = |r: &Resource| r.short_names.iter().any(|s| s == bare);
        found.extend(self.rows.iter().filter(|r| !named(r) && short(r) && in_group(r)));
        found
    }
}

fn key(group: &str, version: &str, name: &str) -> Key {
    (Cow::Owned(group.to_owned()), Cow::Owned(version.to_owned()), Cow::Owned(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_share_a_name() {
        let table = Table::builtin();
        for (i, a) in table.rows().iter().enumerate() {
            for b in &table.rows()[..i] {
                assert!(
                    (&a.group, &a.version, &a.plural) != (&b.group, &b.version, &b.plural),
                    "{a:?} twice"
                );
                assert!(
                    a.group != b.group || a.kind != b.kind || a.version != b.version,
                    "two rows for {} {}",
                    a.api_version(),
                    a.kind
                );
                let shared = a.short_names.iter().any(|s| b.short_names.contains(s));
                assert!(
                    !shared || a.prefix() == b.prefix(),
                    "{} and {} share a short name",
                    a.plural,
                    b.plural
                );
            }
        }
    }

    #[test]
    fn every_row_is_consistent() {
        for row in Table::builtin().rows() {
            let names: Vec<&str> = row.subresources.iter().map(|s| s.name.as_ref()).collect();
            assert!(names.is_sorted(), "subresources of {} are sorted", row.plural);
            assert_eq!(row.plural, row.plural.to_lowercase());
            let answered = matches!(row.backing, Backing::Answered(_));
            assert!(!answered || row.rules.name_rule().is_none(), "{} has no metadata", row.plural);
            assert_eq!(answered, row.verbs == Verbs::CREATE, "verbs of {}", row.plural);
            assert!(!row.rules.columns().is_empty(), "columns of {}", row.plural);
            assert!(row.schema.ty().name.ends_with(&format!(".{}", row.kind)), "the type of {}", row.plural);
        }
    }

    #[test]
    fn rows_are_found_by_path_by_kind_and_by_what_people_type() {
        let table = Table::builtin();
        assert_eq!(table.resource("", "v1", "pods").map(|r| r.kind.as_ref()), Some("Pod"));
        assert_eq!(table.kind_of("apps/v1", "Deployment").map(|r| r.plural.as_ref()), Some("deployments"));
        assert!(table.resource("apps", "v1", "pods").is_none());
        assert_eq!(table.preferred("apps", "replicasets").map(|r| r.kind.as_ref()), Some("ReplicaSet"));
        for name in ["deploy", "deployment", "deployments", "deployments.apps", "deployments.v1.apps"] {
            assert_eq!(table.find(name).first().map(|r| r.kind.as_ref()), Some("Deployment"), "{name}");
        }
        assert_eq!(table.find("ev").first().map(|r| r.group.as_ref()), Some(""));
    }

    #[test]
    fn keys_are_upstreams() {
        let table = Table::builtin();
        let key =
            |plural, ns, name| table.find(plural).first().and_then(|r| r.key(ns, name)).unwrap_or_default();
        assert_eq!(key("pods", "default", "a"), "/registry/pods/default/a");
        assert_eq!(key("nodes", "", "a"), "/registry/minions/a");
        assert_eq!(key("services", "default", "a"), "/registry/services/specs/default/a");
        assert_eq!(key("events.events.k8s.io", "default", "a"), "/registry/events/default/a");
    }

    #[test]
    fn both_groups_of_events_show_the_same_objects() {
        let table = Table::builtin();
        let row = table.kind_of("events.k8s.io/v1", "Event").expect("the row exists");
        let event = serde_json::json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "hi", "regarding": {"kind": "Pod"},
            "reportingController": "x", "deprecatedCount": 2, "eventTime": null
        });
        let Value::Object(mut map) = event.clone() else { return };
        row.to_storage(&mut map);
        assert_eq!(
            Value::Object(map.clone()),
            serde_json::json!({
                "apiVersion": "v1", "kind": "Event", "message": "hi", "involvedObject": {"kind": "Pod"},
                "reportingComponent": "x", "count": 2, "eventTime": null
            })
        );
        row.from_storage(&mut map);
        assert_eq!(Value::Object(map), event);
    }

    #[test]
    fn verbs_are_listed_in_the_order_of_discovery() {
        let names: Vec<_> = Verbs::ALL.names().collect();
        assert!(names.is_sorted());
        assert_eq!(format!("{:?}", CONNECT), r#"["create", "get"]"#);
        assert_eq!(Verbs::parse("watch"), Some(Verbs::WATCH));
    }

    const CONNECT: Verbs = Verbs::CREATE.and(Verbs::GET);
}
