//! Deletes objects whose owners are all gone, and carries out deletions in the foreground and with orphans.
//!
//! Promises: an object with an owner that is there is never deleted; one without any is, sooner or later; an
//! object that is deleted in the foreground goes after the dependents that block it; one that is deleted with
//! orphans leaves its dependents behind without a reference to it. Everything is decided again on the object
//! as it is now before it is written, and written only if it is still so.
//!
//! The graph of owners is not kept: it is what the metadata caches and their index by owner show. An owner that
//! they don't show is looked for in the API before anybody concludes that it is gone.

mod absent;
mod decide;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::Clock;
use client::{Change, Client, Key, Reference, error};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::GetParams;
use kube::core::Request;
use serde_json::json;

use self::absent::Absent;
use self::decide::{BLOCKS, Decision, FOREGROUND, Owner, decide, noticed};
use crate::Config;
use crate::harness::{
    self, BY_ANY_OWNER, Context, Error, Metadata, Plan, Reconciler, What, WorkQueue, Worker,
};
use crate::resources::Resources;

const WORKERS: usize = 8;
/// How long to wait until a cache shows an owner that the API showed.
const CATCH_UP: Duration = Duration::from_secs(10);
/// How often an owner is looked for that comes and goes meanwhile.
const ATTEMPTS: usize = 3;

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let resources = Arc::new(Resources::follow(&context.caches));
    let absent: Arc<Mutex<Absent>> = Arc::default();
    let mut worker = Worker::new(context, "garbage_collector_attempt_to_delete", WORKERS);
    for (number, kind) in resources.kinds.iter().enumerate() {
        worker.reads_as(&kind.row.plural, &kind.cache);
        let (queue, resources, absent) = (worker.queue(), resources.clone(), absent.clone());
        kind.cache.on_change(move |change| {
            let (new, old, last) = match change {
                Change::Applied(new, old) => {
                    (Some(&new.metadata), old.as_ref().map(|old| &old.metadata), new)
                }
                Change::Deleted(last) => (None, Some(&last.metadata), last),
                Change::Missed => return,
            };
            let noticed = noticed(new, old);
            let (namespace, name) = names(&last.metadata);
            if noticed.look {
                queue.add(resources.key(number, namespace, name));
            }
            if new.is_none() {
                let uid = last.metadata.uid.clone().unwrap_or_default();
                absent.lock().unwrap_or_else(PoisonError::into_inner).insert((number, namespace, name), &uid);
                queue.add(Key::new("", uid));
            }
            for owner in noticed.owners {
                if let Some(kind) = resources.of_owner(owner) {
                    let namespace = if resources.kinds[kind].row.namespaced() { namespace } else { "" };
                    queue.add(resources.key(kind, namespace, &owner.name));
                }
            }
        });
    }
    let queue = worker.queue();
    let (client, clock) = (context.client.clone(), context.clock.clone());
    harness::start(context, worker, GarbageCollector { client, clock, resources, absent, queue });
}

struct GarbageCollector {
    client: Client,
    clock: Clock,
    resources: Arc<Resources>,
    absent: Arc<Mutex<Absent>>,
    queue: Arc<WorkQueue>,
}

/// A dependent and the number of its kind.
type Dependent = (usize, Arc<Metadata>);

impl Reconciler for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let Some((number, object)) = self.resources.place(key) else {
            // An owner that is gone, by its UID.
            self.look_at(self.dependents(&key.name));
            return Ok(Plan::nothing());
        };
        let Some(cached) = self.resources.kinds[number].cache.get_key(&object) else {
            return Ok(Plan::nothing());
        };
        let mut plan = Plan::nothing();
        let owners = self.owners(&mut plan, number, &cached.metadata, false).await?;
        let uid = cached.metadata.uid.as_deref().unwrap_or_default();
        let dependents =
            |uid: &str| self.dependents(uid).into_iter().map(|(_, dependent)| dependent).collect();
        match decide(&cached.metadata, &owners, dependents) {
            Decision::Nothing => return Ok(plan),
            Decision::LookAtDependents => {
                let staying = |(_, dependent): &Dependent| dependent.metadata.deletion_timestamp.is_none();
                self.look_at(self.dependents(uid).into_iter().filter(staying));
                return Ok(plan);
            }
            _ => {}
        }
        // What is written is decided on the object as it is now.
        let live = self.live(number, &object).await?;
        let Some(live) = live.filter(|live| live.metadata.uid == cached.metadata.uid) else {
            return Ok(plan);
        };
        let owners = self.owners(&mut plan, number, &live.metadata, true).await?;
        let decision = decide(&live.metadata, &owners, dependents);
        self.carry_out(&mut plan, number, &live.metadata, decision);
        Ok(plan)
    }
}

impl GarbageCollector {
    /// Everything that names this UID as an owner.
    fn dependents(&self, uid: &str) -> Vec<Dependent> {
        let kinds = self.resources.kinds.iter().enumerate();
        kinds
            .flat_map(|(number, kind)| {
                let found = kind.cache.by(BY_ANY_OWNER, uid);
                found.into_iter().map(move |object| (number, object))
            })
            .collect()
    }

    fn look_at(&self, dependents: impl IntoIterator<Item = Dependent>) {
        for (kind, dependent) in dependents {
            let (namespace, name) = names(&dependent.metadata);
            self.queue.add(self.resources.key(kind, namespace, name));
        }
    }

    /// The state of each owner of an object. If it has to be `certain`, an owner that is there is never said to
    /// be gone, nor to wait for its dependents when it does not.
    async fn owners(
        &self,
        plan: &mut Plan,
        kind: usize,
        object: &ObjectMeta,
        certain: bool,
    ) -> Result<Vec<Owner>, Error> {
        let mut owners = Vec::new();
        for owner in object.owner_references.iter().flatten() {
            let state = match self.resources.of_owner(owner) {
                None => Owner::Unknown,
                Some(of) => {
                    let row = &self.resources.kinds[of].row;
                    let namespace = object.namespace.as_deref().unwrap_or_default();
                    if row.namespaced() && namespace.is_empty() {
                        self.misplaced(plan, kind, object, owner);
                        Owner::Unknown
                    } else {
                        let namespace = if row.namespaced() { namespace } else { "" };
                        let state = self.owner(of, namespace, owner, certain).await?;
                        if state == Owner::Absent && self.lives_elsewhere(of, namespace, owner) {
                            self.misplaced(plan, kind, object, owner);
                        }
                        state
                    }
                }
            };
            owners.push(state);
        }
        Ok(owners)
    }

    async fn owner(
        &self,
        kind: usize,
        namespace: &str,
        owner: &OwnerReference,
        certain: bool,
    ) -> Result<Owner, Error> {
        let (cache, key) = (&self.resources.kinds[kind].cache, Key::new(namespace, &owner.name));
        for _ in 0..ATTEMPTS {
            let cached = cache.get_key(&key);
            if let Some(found) = cached.filter(|found| found.metadata.uid.as_ref() == Some(&owner.uid)) {
                match Owner::of(&found.metadata) {
                    // Whoever deletes it may have changed his mind about its dependents.
                    Owner::Waiting if certain => {
                        let live = self.live(kind, &key).await?;
                        let live = live.filter(|live| live.metadata.uid.as_ref() == Some(&owner.uid));
                        return Ok(live.map_or(Owner::Absent, |live| Owner::of(&live.metadata)));
                    }
                    state => return Ok(state),
                }
            }
            if self.absent().contains((kind, namespace, &owner.name), &owner.uid) {
                return Ok(Owner::Absent);
            }
            let live = self.live(kind, &key).await?;
            let Some(live) = live.filter(|live| live.metadata.uid.as_ref() == Some(&owner.uid)) else {
                self.absent().insert((kind, namespace, &owner.name), &owner.uid);
                return Ok(Owner::Absent);
            };
            // Its deletion will be noticed only once the cache has shown it.
            let version = live.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
            let deadline = self.clock.instant() + CATCH_UP;
            if tokio::time::timeout_at(deadline, cache.reached(version.unwrap_or(0))).await.is_err() {
                break;
            }
        }
        let kind = self.resources.kinds[kind].name();
        Err(Error::Other(format!("the cache of {kind} does not show {key}, which is there")))
    }

    /// The object as it is now.
    async fn live(&self, kind: usize, key: &Key) -> Result<Option<Metadata>, Error> {
        let kind = &self.resources.kinds[kind];
        let what = || format!("get {} {key}", kind.name());
        let request = Request::new(kind.collection(&key.namespace))
            .get_metadata(&key.name, &GetParams::default())
            .map_err(|failure| Error::Other(format!("{}: {failure}", what())))?;
        match self.client.request(request).await {
            Ok(object) => Ok(Some(object)),
            Err(failure) if error::is_not_found(&failure) => Ok(None),
            Err(source) => Err(Error::Api { what: what(), source }),
        }
    }

    fn lives_elsewhere(&self, kind: usize, namespace: &str, owner: &OwnerReference) -> bool {
        let kind = &self.resources.kinds[kind];
        kind.row.namespaced()
            && kind.cache.list().iter().any(|object| {
                object.metadata.uid.as_ref() == Some(&owner.uid)
                    && object.metadata.namespace.as_deref() != Some(namespace)
            })
    }

    /// Tells that an object names an owner in another namespace.
    fn misplaced(&self, plan: &mut Plan, kind: usize, object: &ObjectMeta, owner: &OwnerReference) {
        let row = &self.resources.kinds[kind].row;
        let (namespace, name) = names(object);
        let about = Reference {
            api_version: row.api_version(),
            kind: row.kind.clone().into_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: object.uid.clone().unwrap_or_default(),
            field_path: String::new(),
        };
        let OwnerReference { api_version, kind, name, uid, .. } = owner;
        plan.warning(
            &about,
            "OwnerRefInvalidNamespace",
            format!("ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in namespace {namespace:?}"),
        );
    }

    fn carry_out(&self, plan: &mut Plan, kind: usize, object: &ObjectMeta, decision: Decision) {
        let kind = &self.resources.kinds[kind];
        let references = |object: &ObjectMeta, change: &dyn Fn(&mut Vec<OwnerReference>)| {
            let mut owners = object.owner_references.clone().unwrap_or_default();
            change(&mut owners);
            What::Merge(json!({"metadata": {
                "uid": object.uid, "resourceVersion": object.resource_version,
                "ownerReferences": (!owners.is_empty()).then_some(owners),
            }}))
        };
        match decision {
            Decision::Nothing | Decision::LookAtDependents => {}
            Decision::Orphan => {
                let uid = object.uid.as_deref().unwrap_or_default();
                let release = |(kind, dependent): &Dependent| {
                    let what =
                        references(&dependent.metadata, &|owners| owners.retain(|owner| owner.uid != uid));
                    self.resources.kinds[*kind].write(&dependent.metadata, what)
                };
                plan.then_all(self.dependents(uid).iter().map(release).collect());
                plan.then(kind.write(object, without_finalizer(object, decide::ORPHAN)));
            }
            Decision::Finish => plan.then(kind.write(object, without_finalizer(object, FOREGROUND))),
            Decision::Release(uids) => {
                let what = references(object, &|owners| owners.retain(|owner| !uids.contains(&owner.uid)));
                plan.then(kind.write(object, what));
            }
            Decision::Unblock => {
                let unblock = |owners: &mut Vec<OwnerReference>| {
                    let blocking = owners.iter_mut().filter(|owner| owner.block_owner_deletion == BLOCKS);
                    blocking.for_each(|owner| owner.block_owner_deletion = Some(false));
                };
                plan.then(kind.write(object, references(object, &unblock)));
            }
            Decision::Delete(propagation) => plan.then(kind.write(
                object,
                What::DeleteUnchanged {
                    uid: object.uid.clone().unwrap_or_default(),
                    version: object.resource_version.clone().unwrap_or_default(),
                    propagation,
                },
            )),
        }
    }

    fn absent(&self) -> std::sync::MutexGuard<'_, Absent> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn without_finalizer(object: &ObjectMeta, finalizer: &str) -> What {
    let mut finalizers = object.finalizers.clone().unwrap_or_default();
    finalizers.retain(|other| other != finalizer);
    What::Merge(json!({"metadata": {
        "uid": object.uid, "resourceVersion": object.resource_version,
        "finalizers": (!finalizers.is_empty()).then_some(finalizers),
    }}))
}

fn names(object: &ObjectMeta) -> (&str, &str) {
    (object.namespace.as_deref().unwrap_or_default(), object.name.as_deref().unwrap_or_default())
}
