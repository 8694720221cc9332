//! The verbs over every row of the resource table.
//!
//! No function here knows a kind by name. What differs between kinds is in their row and its rules; what a few kinds
//! do beside storing the object (a Service takes an address) is a [`reservations`] hook.

pub mod apply;
pub(crate) mod certificates;
pub mod collection;
pub mod create;
pub mod decode;
pub mod delete;
pub mod observed;
pub mod options;
mod owners;
pub mod patch;
pub(crate) mod quota;
pub mod read;
pub mod reservations;
pub mod selectors;
pub mod subresources;
pub mod table;
pub mod update;
pub mod verbs;
pub mod watch;
pub mod write;

use std::sync::{Arc, PoisonError, RwLock};

use api::object::Object;
use api::resource::{Action, Backing, Resource, Subresource, Table};
use api::status::Status;
use base::{Clock, Random};
use bytes::Bytes;
use serde_json::Value;
use store::{Range, Revision, Store};

use crate::cache::{Cache, Caches, Entry, Fields, FreshError};
use crate::config::Config;
use crate::metrics::Operation;
use crate::server::StartError;
use crate::{RequestInfo, respond};

/// The stored objects, and what is known of their kinds.
pub struct Registry {
    pub store: Arc<dyn Store>,
    pub caches: Arc<Caches>,
    pub clock: Clock,
    pub random: Random,
    pub(crate) reservations: reservations::Ranges,
    pub(crate) turns: quota::Turns,
    pub(crate) leases: write::EventLeases,
    table: RwLock<Arc<Table>>,
}

/// What a request is for: a row, and a subresource of it.
#[derive(Debug)]
pub struct Target {
    pub resource: Arc<Resource>,
    pub subresource: Option<Subresource>,
}

/// An object as it is now.
#[derive(Debug)]
pub struct Current {
    pub object: Box<dyn Object>,
    pub entry: Arc<Entry>,
    /// Read from the store itself, not from the cache.
    pub certain: bool,
}

impl Registry {
    /// The registry of the built-in rows, with a cache for each place in the store.
    pub fn new(store: Arc<dyn Store>, config: &Config) -> Result<Self, StartError> {
        let table = Table::builtin();
        let caches = Arc::new(Caches::new(store.clone(), config.clock.clone(), config.random.clone()));
        for row in table.stored() {
            add_cache(&caches, row);
        }
        Ok(Self {
            store,
            caches,
            clock: config.clock.clone(),
            random: config.random.clone(),
            reservations: reservations::Ranges::new(config)?,
            turns: quota::Turns::new(),
            leases: write::EventLeases::new(config.event_ttl),
            table: RwLock::new(table),
        })
    }

    /// All rows, as of now.
    pub fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The row and subresource of a request; 404 if there is none, 405 if it can't do the verb.
    pub fn target(&self, info: &RequestInfo) -> Result<Target, Status> {
        let table = self.table();
        let resource = table
            .resource(&info.group, &info.version, &info.resource)
            .ok_or_else(Status::unknown_path)?
            .clone();
        let is_in_namespace = !info.namespace.is_empty() && info.resource != "namespaces";
        let named = !matches!(info.verb, "list" | "watch" | "deletecollection") && !info.name.is_empty();
        let is_everywhere = resource.namespaced() && !is_in_namespace;
        // What can't be listed has no path of all namespaces.
        let has_everywhere = resource.verbs.contains(api::resource::Verbs::LIST) && !named;
        if is_in_namespace && !resource.namespaced() || is_everywhere && !has_everywhere {
            return Err(Status::unknown_path());
        }
        let subresource = match info.subresource.as_str() {
            "" => None,
            name => Some(resource.subresource(name).ok_or_else(Status::unknown_path)?.clone()),
        };
        let verbs = subresource.as_ref().map_or(resource.verbs, |subresource| subresource.verbs);
        // A proxy takes methods that are no verb.
        let is_any = subresource.as_ref().is_some_and(|subresource| subresource.action == Action::Proxy);
        let verb = api::resource::Verbs::parse(info.verb);
        if !is_any && !verb.is_some_and(|verb| verbs.contains(verb)) {
            return Err(Status::method_not_allowed());
        }
        // Writing in all namespaces at once, creating at a name, or changing a collection are methods that upstream's
        // paths do not have.
        let wrong_place = match (info.verb, &subresource) {
            ("create", None) => named || is_everywhere,
            ("deletecollection", None) => is_everywhere,
            ("update" | "patch", None) => !named,
            _ => false,
        };
        if wrong_place {
            return Err(Status::method_not_allowed());
        }
        Ok(Target { resource, subresource })
    }

    /// The key of an object in the store.
    pub(crate) fn key(&self, row: &Resource, namespace: &str, name: &str) -> Result<String, Status> {
        row.key(namespace, name).ok_or_else(Status::method_not_allowed)
    }

    /// The cache of a row's objects; `None` for rows that are answered and not stored.
    pub fn cache(&self, row: &Resource) -> Option<Arc<Cache>> {
        self.caches.get(&format!("{}/", row.prefix()?))
    }

    /// The cache of a row's objects by group and plural name, of whatever version.
    pub fn cache_of(&self, group: &str, plural: &str) -> Option<Arc<Cache>> {
        self.cache(self.table().preferred(group, plural)?)
    }

    /// The cache of a row that a verb can only be asked of if it is stored.
    pub(crate) fn stored(&self, row: &Resource) -> Result<Arc<Cache>, Status> {
        self.cache(row).ok_or_else(Status::method_not_allowed)
    }

    /// The object as it is now, from the cache; not certain to be the latest.
    pub(crate) fn cached(
        &self,
        row: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Current>, Status> {
        let cache = self.stored(row)?;
        cache.check_one(namespace, name).map_err(Status::internal)?;
        match cache.get(namespace, name) {
            None => Ok(None),
            Some(entry) => Ok(Some(Current { object: self.decode(row, &entry)?, entry, certain: false })),
        }
    }

    /// The object as it is now, from the store.
    pub(crate) async fn certain(
        &self,
        row: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Current>, Status> {
        let key = row.key(namespace, name).ok_or_else(Status::method_not_allowed)?;
        let asked = self.clock.instant();
        let answer = self.store.range(Range::key(key)).await;
        self.stored(row)?.times.observe(Operation::Get, self.clock.instant() - asked);
        let answer = answer.map_err(store_failure)?;
        match answer.kvs.first() {
            None => Ok(None),
            Some(kv) => self.current_of(row, namespace, name, &kv.value, kv.mod_revision).map(Some),
        }
    }

    pub(crate) fn current_of(
        &self,
        row: &Resource,
        namespace: &str,
        name: &str,
        value: &Bytes,
        revision: Revision,
    ) -> Result<Current, Status> {
        let key = crate::cache::key(namespace, name);
        let entry = Arc::new(Entry::new(&key, value, revision, Box::default()).map_err(Status::internal)?);
        Ok(Current { object: self.decode(row, &entry)?, entry, certain: true })
    }

    /// The typed object of an entry, in the row's version.
    pub(crate) fn decode(&self, row: &Resource, entry: &Entry) -> Result<Box<dyn Object>, Status> {
        match &row.backing {
            Backing::View { .. } => {
                let mut object = row.rules.decode(self.view(row, entry.bytes())?)?;
                row.rules.set_defaults(&mut *object);
                Ok(object)
            }
            _ => row.rules.decode_bytes(entry.bytes()).map_err(|status| Status::internal(status.message)),
        }
    }

    /// An entry's JSON in the row's version. Rows that own their objects get the bytes as they are.
    pub(crate) fn bytes(&self, row: &Resource, entry: &Entry) -> Result<Bytes, Status> {
        match &row.backing {
            Backing::View { .. } => Ok(self.view(row, entry.bytes())?.to_string().into()),
            _ => Ok(entry.bytes().clone()),
        }
    }

    fn view(&self, row: &Resource, bytes: &[u8]) -> Result<Value, Status> {
        let mut map = serde_json::from_slice(bytes).map_err(Status::internal)?;
        row.from_storage(&mut map);
        Ok(Value::Object(map))
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("caches", &self.caches).finish_non_exhaustive()
    }
}

fn add_cache(caches: &Caches, row: &Arc<Resource>) {
    let Some(prefix) = row.prefix() else { return };
    let reader = row.clone();
    let names = row.rules.field_names().to_vec();
    let order = names.clone();
    let read = move |value: &[u8]| match reader.rules.decode_bytes(value) {
        Ok(object) => field_values(&*reader.rules, &order, &*object),
        // What can't be decoded has no fields; whoever reads the object itself gets the error.
        Err(_) => order.iter().map(|_| Box::default()).collect(),
    };
    caches.add(&format!("{prefix}/"), Fields { names, read: Arc::new(read) });
}

/// The values of an object's selectable fields, in the order of `names`.
pub(crate) fn field_values(
    rules: &dyn api::object::Rules,
    names: &[&'static str],
    object: &dyn Object,
) -> Box<[Box<str>]> {
    let mut values = rules.fields(object);
    names
        .iter()
        .map(|name| match values.iter_mut().find(|(field, _)| field == name) {
            Some((_, value)) => std::mem::take(value).into_boxed_str(),
            None => Box::default(),
        })
        .collect()
}

/// 422: what is wrong with an object.
pub(crate) fn invalid(row: &Resource, name: &str, errors: &[api::field::FieldError]) -> Status {
    let (group, kind) = row.reported_kind();
    Status::invalid(group, kind, name, errors)
}

/// What a client is told when the store fails.
pub fn store_failure(error: store::Error) -> Status {
    match error {
        store::Error::TooLarge(why) => Status::request_entity_too_large(why),
        store::Error::Unavailable(_) | store::Error::NoSpace(_) => {
            Status::service_unavailable(format!("the store did not answer the request: {error}"))
        }
        error => Status::internal(error),
    }
}

/// What a client is told when a consistent read can't be made.
pub fn fresh_failure(error: FreshError) -> Status {
    match error {
        FreshError::Store(error) => store_failure(error),
        FreshError::NotReached(error) => Status::timeout(error, 1),
    }
}

/// An object that is no part of the store, as a response.
pub(crate) fn answer_object(
    code: http::StatusCode,
    accept: crate::negotiate::Accept,
    object: &dyn Object,
) -> Result<http::Response<crate::Body>, Status> {
    respond::object(code, accept, object.to_bytes().into())
}
