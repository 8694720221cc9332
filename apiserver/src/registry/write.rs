//! The one place that writes to the store.

use std::sync::Arc;
use std::time::Duration;

use api::object::Object;
use api::resource::{Backing, Resource};
use api::status::Status;
use bytes::Bytes;
use serde_json::Value;
use store::{Compare, KeyValue, Op, OpResult, Revision, Store, Txn};
use tokio::time::Instant;

use crate::cache::Entry;
use crate::metrics::Operation;
use crate::registry::reservations::Reservation;
use crate::registry::{Registry, field_values, store_failure};

/// What came of a write.
pub(crate) enum Written {
    /// Done, at this revision.
    Done(Revision),
    /// The object is not what it was expected to be; this is what it is.
    Conflict(Option<KeyValue>),
    /// The reservation with this number is taken.
    Taken(usize),
    /// A quota that is charged is not what it was expected to be.
    Overtaken,
}

/// What is to become of an object.
pub(crate) enum Action {
    Put(Bytes),
    Delete,
}

impl Registry {
    /// The stored form of an object: its own version's JSON without resourceVersion.
    pub(crate) fn stored_form(&self, row: &Resource, object: &mut dyn Object) -> Result<Bytes, Status> {
        let version = object.metadata_mut().resource_version.take();
        let bytes = match &row.backing {
            Backing::View { .. } => {
                let Value::Object(mut map) = object.to_value() else {
                    return Err(Status::internal("an object is not a JSON object"));
                };
                row.to_storage(&mut map);
                self.canonical(row, Value::Object(map))?
            }
            _ => object.to_bytes().into(),
        };
        object.metadata_mut().resource_version = version;
        Ok(bytes)
    }

    /// A stored value goes through the typed form of the row that owns the place, so that its bytes are the same
    /// whichever view wrote it.
    fn canonical(&self, row: &Resource, value: Value) -> Result<Bytes, Status> {
        match self.owner(row) {
            Some(owner) => {
                let mut object = owner.rules.decode(value)?;
                owner.rules.set_defaults(&mut *object);
                Ok(object.to_bytes().into())
            }
            None => Ok(value.to_string().into()),
        }
    }

    /// The row whose form the objects of this row have in the store.
    fn owner(&self, row: &Resource) -> Option<Arc<Resource>> {
        match &row.backing {
            Backing::View { storage, .. } => {
                self.table().kind(&storage.group, &storage.version, &storage.kind).cloned()
            }
            _ => None,
        }
    }

    /// Writes one object if it is still at `expected` (0: not there), together with its reservations.
    pub(crate) async fn commit(
        &self,
        row: &Resource,
        key: &str,
        expected: Revision,
        action: Action,
        object: &dyn Object,
        reservation: &Reservation,
    ) -> Result<Written, Status> {
        let cache = self.stored(row)?;
        let relative = key.strip_prefix(cache.prefix()).unwrap_or(key);
        let mut txn = Txn::default().when(Compare::mod_revision(key, expected)).or_else(Op::get(key));
        for taken in &reservation.take {
            txn = txn.when(Compare::mod_revision(taken, 0)).or_else(Op::get(taken));
            txn.success.push(Op::put(taken.as_str(), reservation.holder.clone()));
        }
        for charge in &reservation.charges {
            txn = txn.when(Compare::mod_revision(&charge.key, charge.revision));
            txn.success.push(Op::put(charge.key.as_str(), charge.value.clone()));
        }
        txn.success.extend(reservation.release.iter().map(Op::delete));
        let operation = match (&action, expected) {
            (Action::Put(_), 0) => Operation::Create,
            (Action::Put(_), _) => Operation::Update,
            (Action::Delete, _) => Operation::Delete,
        };
        let told = match &action {
            Action::Put(value) => {
                let (lease, volatile) = self.leases.of(row, &*self.store, self.clock.instant()).await?;
                txn.success.push(Op::Put { key: key.to_owned(), value: value.clone(), lease, volatile });
                if matches!(row.backing, Backing::Stored { .. }) {
                    let fields = field_values(&*row.rules, row.rules.field_names(), object);
                    cache.expect(relative, value, fields);
                }
                true
            }
            Action::Delete => {
                txn.success.push(Op::delete(key));
                false
            }
        };
        let asked = self.clock.instant();
        let result = self.store.txn(txn).await;
        cache.times.observe(operation, self.clock.instant() - asked);
        if told && !matches!(&result, Ok(answer) if answer.succeeded) {
            cache.forget(relative);
        }
        let answer = result.map_err(store_failure)?;
        if answer.succeeded {
            return Ok(Written::Done(answer.revision));
        }
        let mut found = answer.results.into_iter().map(|result| match result {
            OpResult::Get(range) => range.kvs.into_iter().next(),
            _ => None,
        });
        let object = found.next().flatten();
        if object.as_ref().map_or(0, |kv| kv.mod_revision) != expected {
            return Ok(Written::Conflict(object));
        }
        match found.enumerate().find(|(_, kv)| kv.is_some()) {
            Some((index, _)) => Ok(Written::Taken(index)),
            None if !reservation.charges.is_empty() => Ok(Written::Overtaken),
            // The holder let go between the comparison and now, which one transaction does not allow.
            None => Ok(Written::Conflict(object)),
        }
    }

    /// The entry of an object that was just written.
    pub(crate) fn written(
        &self,
        row: &Resource,
        key: &str,
        value: &[u8],
        revision: Revision,
    ) -> Result<Arc<Entry>, Status> {
        let cache = self.stored(row)?;
        let relative = key.strip_prefix(cache.prefix()).unwrap_or(key);
        Entry::new(relative, value, revision, Box::default()).map(Arc::new).map_err(Status::internal)
    }
}

/// Where events are: they live for a while, and need not survive a power loss.
const EVENTS: &str = "/registry/events";
/// Leases are shared by the events of so long a time, so that there are few of them.
const SHARED: Duration = Duration::from_secs(60);

/// The leases that let events go.
#[derive(Debug)]
pub(crate) struct EventLeases {
    ttl: Duration,
    current: tokio::sync::Mutex<Option<(i64, Instant)>>,
}

impl EventLeases {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self { ttl, current: tokio::sync::Mutex::new(None) }
    }

    /// The lease that an object of this row lives under (0 is none), and whether its write is volatile.
    async fn of(&self, row: &Resource, store: &dyn Store, now: Instant) -> Result<(i64, bool), Status> {
        if row.prefix() != Some(EVENTS) {
            return Ok((0, false));
        }
        let mut current = self.current.lock().await;
        if let Some((lease, until)) = *current
            && now < until
        {
            return Ok((lease, true));
        }
        let lease = store.lease_grant(self.ttl + SHARED).await.map_err(store_failure)?;
        *current = Some((lease, now + SHARED));
        Ok((lease, true))
    }
}
