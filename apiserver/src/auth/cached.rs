//! The watch cache as the source of decisions.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tracing::debug;

use super::source::{Item, Kind, Source};
use crate::cache::{Cache, Caches, Entry, Field, FieldTerm, Selector};
use crate::registry::Registry;

/// The caches of the kinds that decisions are made by. A kind that this server does not have has no objects.
pub(super) struct Cached {
    by_kind: HashMap<Kind, Arc<Cache>>,
    all: Arc<Caches>,
    /// One at a time asks the store how far it is: whoever comes with bad credentials can't keep it busy.
    catching_up: Mutex<()>,
}

impl Cached {
    pub(super) fn new(registry: &Registry) -> Self {
        let cache = |kind: Kind| {
            let (group, plural) = kind.resource();
            Some((kind, registry.cache_of(group, plural)?))
        };
        Self {
            by_kind: Kind::ALL.into_iter().filter_map(cache).collect(),
            all: registry.caches.clone(),
            catching_up: Mutex::new(()),
        }
    }

    fn select(&self, kind: Kind, selector: &Selector) -> Vec<Item> {
        self.by_kind
            .get(&kind)
            .map(|cache| cache.list(selector).iter().map(|entry| item(entry)).collect())
            .unwrap_or_default()
    }
}

fn item(entry: &Entry) -> Item {
    Item {
        namespace: entry.namespace().to_owned(),
        name: entry.name().to_owned(),
        revision: entry.revision(),
        json: entry.bytes().clone(),
    }
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_kind.keys()).finish()
    }
}

impl Source for Cached {
    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Item> {
        self.by_kind.get(&kind)?.get(namespace, name).map(|entry| item(&entry))
    }

    fn list(&self, kind: Kind) -> Vec<Item> {
        self.select(kind, &Selector::default())
    }

    fn in_namespace(&self, kind: Kind, namespace: &str) -> Vec<Item> {
        self.select(kind, &Selector::namespace(namespace))
    }

    fn pods_on(&self, node: &str) -> Vec<Item> {
        let Some(index) = self.by_kind.get(&Kind::Pod).and_then(|cache| cache.field("spec.nodeName")) else {
            return Vec::new();
        };
        let term = FieldTerm { field: Field::Row(index), equals: true, value: node.to_owned() };
        self.select(Kind::Pod, &Selector { fields: vec![term], ..Selector::default() })
    }

    fn version(&self, kind: Kind) -> i64 {
        self.by_kind.get(&kind).map(|cache| cache.last_change()).unwrap_or_default()
    }

    fn catch_up(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let _one = self.catching_up.lock().await;
            if let Err(failure) = self.all.fresh().await {
                debug!(?failure, "decisions go by what is known");
            }
        })
    }
}
