//! ResourceQuota: what an object uses is charged before it is stored, in the transaction that stores it.
//!
//! So no two writers, on however many servers, use the same amount, and nothing is charged for an object that was not
//! stored. What is used goes down when the quota controller has counted again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use api::object::Object;
use api::quota::{self, Amounts, Counted};
use api::resource::Resource;
use api::status::{GroupResource, Status};
use bytes::Bytes;
use k8s_openapi::api::core::v1::ResourceQuota;
use store::{Range, Revision};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::cache::Selector;
use crate::registry::store_failure;
use crate::server::Server;

/// The name of the plugin, by which it can be left out.
pub(crate) const PLUGIN: &str = "ResourceQuota";
/// After so many rounds against other servers the client is told of the conflict.
pub(crate) const ROUNDS: usize = 16;
const QUOTAS: GroupResource<'static> = GroupResource { group: "", resource: "resourcequotas" };

/// Who charges the quotas of a namespace: on one server one after the other, so that they don't overtake each other.
#[derive(Debug)]
pub(crate) struct Turns(Vec<Arc<Mutex<()>>>);

impl Turns {
    pub(crate) fn new() -> Self {
        Self((0..16).map(|_| Arc::default()).collect())
    }

    async fn take(&self, namespace: &str) -> Option<OwnedMutexGuard<()>> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % 16).unwrap_or_default();
        Some(self.0.get(place)?.clone().lock_owned().await)
    }
}

/// The new state of a quota, to be written if it is still at this revision.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub key: String,
    pub revision: Revision,
    pub value: Bytes,
}

/// What a write is charged, and the turn that it has until it is done.
#[derive(Debug, Default)]
pub(crate) struct Charge {
    pub changes: Vec<Change>,
    turn: Option<OwnedMutexGuard<()>>,
}

/// A write that uses something.
pub(crate) struct Use<'a> {
    pub row: &'a Resource,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub object: &'a dyn Object,
    /// None on create.
    pub old: Option<&'a dyn Object>,
}

impl Use<'_> {
    fn forbidden(&self, why: String) -> Status {
        Status::forbidden(self.row.group_resource(), self.name, why)
    }

    /// The resource, if this write can use something of it.
    fn counted(&self) -> Option<Counted<'_>> {
        let counted = Counted::of(&self.row.group, &self.row.plural)?;
        let counts = match self.old {
            None => self.subresource.is_empty(),
            Some(_) => counted.changes_on_update(self.subresource),
        };
        (counts && !self.namespace.is_empty()).then_some(counted)
    }
}

/// What the write has to be charged; 403 if a quota does not have that much.
pub(crate) async fn charge(server: &Server, write: &Use<'_>) -> Result<Charge, Status> {
    let registry = &server.registry;
    let Some(counted) = write.counted().filter(|_| server.admission.has(PLUGIN)) else {
        return Ok(Charge::default());
    };
    let Some(cache) = registry.cache_of("", "resourcequotas") else { return Ok(Charge::default()) };
    // A quota that the cache does not show yet has no limits before the controller has seen it.
    if cache.list(&Selector::namespace(write.namespace)).is_empty() {
        return Ok(Charge::default());
    }
    let table = registry.table();
    let row = table.preferred("", "resourcequotas").ok_or_else(Status::unknown_path)?;
    let prefix = row.key_prefix(Some(write.namespace)).ok_or_else(Status::unknown_path)?;
    let turn = registry.turns.take(write.namespace).await;
    let found = registry.store.range(Range::prefix(prefix)).await.map_err(store_failure)?;
    let now = registry.clock.now();
    let mut changes = Vec::new();
    for kv in found.kvs {
        let mut quota: ResourceQuota = serde_json::from_slice(&kv.value).map_err(Status::internal)?;
        if let Some(used) = use_of(write, counted, &quota, now)? {
            quota.status.get_or_insert_default().used = Some(quota::write(&used));
            let value = registry.stored_form(row, &mut quota)?;
            changes.push(Change { key: kv.key, revision: kv.mod_revision, value });
        }
    }
    let turn = turn.filter(|_| !changes.is_empty());
    Ok(Charge { changes, turn })
}

impl Charge {
    /// The write is done, or given up: the next one has its turn.
    pub(crate) fn end(self) {
        drop(self.turn);
    }
}

/// What is used of a quota after the write; None if nothing changes.
fn use_of(
    write: &Use<'_>,
    counted: Counted<'_>,
    quota: &ResourceQuota,
    now: jiff::Timestamp,
) -> Result<Option<Amounts>, Status> {
    let status = quota.status.as_ref();
    let hard = quota::read(status.and_then(|status| status.hard.as_ref()));
    let used = quota::read(status.and_then(|status| status.used.as_ref()));
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    let limited: Vec<&str> = hard.keys().map(String::as_str).filter(|name| counted.uses(name)).collect();
    if limited.is_empty() || !counted.in_scopes(quota, write.object) {
        return Ok(None);
    }
    if let Some(missing) = counted.missing(limited.iter().copied(), write.object) {
        return Err(write.forbidden(format!("failed quota: {name}: {missing}")));
    }
    if limited.iter().any(|resource| !used.contains_key(*resource)) {
        let resources = limited.join(",");
        return Err(write.forbidden(format!("status unknown for quota: {name}, resources: {resources}")));
    }
    let mut wanted = counted.usage(write.object, now);
    let negative: Vec<&str> =
        wanted.iter().filter(|(_, amount)| amount.sign() < 0).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        let resources = negative.join(",");
        return Err(write.forbidden(format!("quota usage is negative for resource(s): {resources}")));
    }
    if let Some(old) = write.old.filter(|old| counted.in_scopes(quota, *old)) {
        for (resource, before) in counted.usage(old, now) {
            if let Some(amount) = wanted.get_mut(&resource) {
                *amount = amount.minus(&before);
            }
        }
    }
    // What an update gives back is counted by the controller.
    wanted.retain(|resource, amount| amount.sign() > 0 && hard.contains_key(resource));
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut after = used.clone();
    quota::add(&mut after, &wanted);
    let exceeded: Vec<&String> =
        wanted.keys().filter(|resource| after.get(*resource) > hard.get(*resource)).collect();
    if !exceeded.is_empty() && write.subresource != "status" {
        let (requested, used, hard) =
            (shown(&exceeded, &wanted), shown(&exceeded, &used), shown(&exceeded, &hard));
        return Err(write.forbidden(format!(
            "exceeded quota: {name}, requested: {requested}, used: {used}, limited: {hard}"
        )));
    }
    Ok(Some(after))
}

fn shown(resources: &[&String], amounts: &Amounts) -> String {
    let amounts = resources.iter().filter_map(|resource| Some((resource, amounts.get(*resource)?)));
    amounts.map(|(resource, amount)| format!("{resource}={amount}")).collect::<Vec<_>>().join(",")
}

/// 409: other servers were always faster.
pub(crate) fn overtaken(charge: &Charge) -> Status {
    let key = charge.changes.first().map(|change| change.key.as_str()).unwrap_or_default();
    Status::modified(QUOTAS, key.rsplit('/').next().unwrap_or_default())
}
