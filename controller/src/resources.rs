//! The kinds that objects can be listed and deleted of, and the caches of their metadata.

use std::collections::HashMap;
use std::sync::Arc;

use api::resource::{Resource, Table, Verbs};
use client::{Cache, Key};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::harness::{Caches, Metadata, What, Write, collection};

/// A kind and the metadata of all its objects.
pub(crate) struct Kind {
    pub(crate) row: Arc<Resource>,
    pub(crate) cache: Cache<Metadata>,
}

/// All kinds but events, which come and go too fast to be followed and are nobody's owner.
pub(crate) struct Resources {
    table: Arc<Table>,
    pub(crate) kinds: Vec<Kind>,
    /// By place in the store: all versions of a kind share it.
    by_prefix: HashMap<String, usize>,
    /// By resource and group, as in `deployments.apps`.
    by_name: HashMap<String, usize>,
}

impl Resources {
    /// Follows all kinds of the table.
    pub(crate) fn follow(caches: &Caches) -> Self {
        let table = Table::builtin();
        let needed = Verbs::LIST.and(Verbs::WATCH).and(Verbs::DELETE);
        let rows = table.stored().filter(|row| row.verbs.contains(needed) && row.kind != "Event");
        let kinds: Vec<Kind> =
            rows.map(|row| Kind { row: row.clone(), cache: caches.metadata(row) }).collect();
        let numbered = || kinds.iter().enumerate();
        let by_prefix =
            numbered().filter_map(|(number, kind)| Some((kind.row.prefix()?.to_owned(), number))).collect();
        let by_name = numbered().map(|(number, kind)| (kind.name(), number)).collect();
        Self { table, kinds, by_prefix, by_name }
    }

    /// All kinds whose objects are a namespace's content, events too.
    pub(crate) fn with_content(&self) -> impl Iterator<Item = &Arc<Resource>> {
        let needed = Verbs::LIST.and(Verbs::DELETE_COLLECTION);
        self.table.stored().filter(move |row| row.namespaced() && row.verbs.contains(needed))
    }

    /// The kind of an owner; `None` if it isn't known.
    pub(crate) fn of_owner(&self, owner: &OwnerReference) -> Option<usize> {
        let row = self.table.kind_of(&owner.api_version, &owner.kind)?;
        self.by_prefix.get(row.prefix()?).copied()
    }

    /// An object as a key of a queue; [`Resources::place`] reads it.
    pub(crate) fn key(&self, kind: usize, namespace: &str, name: &str) -> Key {
        Key::new(format!("{}:{namespace}", self.kinds[kind].name()), name)
    }

    /// Kind and key of the object that a key of a queue stands for.
    pub(crate) fn place(&self, key: &Key) -> Option<(usize, Key)> {
        let (kind, namespace) = key.namespace.split_once(':')?;
        Some((*self.by_name.get(kind)?, Key::new(namespace, &key.name)))
    }
}

impl Kind {
    /// Resource and group, as in `deployments.apps`.
    pub(crate) fn name(&self) -> String {
        self.row.group_resource().to_string()
    }

    /// The path of its objects in a namespace, or of all.
    pub(crate) fn collection(&self, namespace: &str) -> String {
        collection(&self.row, Some(namespace))
    }

    /// A write to an object.
    pub(crate) fn write(&self, object: &ObjectMeta, what: What) -> Write {
        let key =
            Key::new(object.namespace.clone().unwrap_or_default(), object.name.clone().unwrap_or_default());
        Write::at(self.collection(&key.namespace), &self.row.plural, key, what)
    }
}
