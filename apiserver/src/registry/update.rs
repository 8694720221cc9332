//! Update: the whole object, or one part of it, under optimistic locking.

use std::sync::Arc;

use api::apply::same_but_times;
use api::field::{FieldError, Path};
use api::object::Object;
use api::resource::Resource;
use api::status::Status;
use bytes::Bytes;
use http::{Response, StatusCode};

use crate::admission::{AdmissionContext, Operation};
use crate::auth::Decision;
use crate::body::Body;
use crate::cache::Entry;
use crate::context::Context;
use crate::registry::options::WriteOptions;
use crate::registry::owners::{self, Tracker};
use crate::registry::quota::{self, Use};
use crate::registry::write::{Action, Written};
use crate::registry::{self, Current, Registry, certificates, create, decode, delete, reservations};
use crate::respond;
use crate::server::Server;

/// Which part of an object an update is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    Whole,
    Status,
    /// A subresource that changes the object under rules of its own.
    Change(&'a str),
}

/// What to make of the object as it is now.
pub(crate) trait Change: Send {
    /// The wanted object. Called again on the newer state if another writer was faster.
    fn apply(&mut self, current: Option<&Current>) -> Result<Box<dyn Object>, Status>;
}

impl<F> Change for F
where
    F: FnMut(Option<&Current>) -> Result<Box<dyn Object>, Status> + Send,
{
    fn apply(&mut self, current: Option<&Current>) -> Result<Box<dyn Object>, Status> {
        self(current)
    }
}

/// What came of an update.
pub(crate) struct Updated {
    pub entry: Arc<Entry>,
    pub object: Box<dyn Object>,
    pub created: bool,
}

/// After so many rounds against other writers, the client is told of the conflict.
const ROUNDS: usize = 32;

/// PUT of an object.
pub async fn update(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
    part: Part<'_>,
    body: Bytes,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::read(&context.info.query, "UpdateOptions")?;
    let mut object = decode::object(context, row, &body, options.validation)?;
    check_name(context, row, &*object)?;
    create::place(row, &mut *object, &context.info.namespace)?;
    let mut change = |_: Option<&Current>| Ok(object.clone_box());
    let updated = store(server, context, row, part, &context.info.name, &options, &mut change).await?;
    let code = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
    respond::object(code, context.accept, server.registry.bytes(row, &updated.entry)?)
}

/// The object must be the one that the path names.
pub(crate) fn check_name(context: &Context<'_>, row: &Resource, object: &dyn Object) -> Result<(), Status> {
    let (info, metadata) = (context.info, object.metadata());
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let why = if name.is_empty() {
        format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            info.name
        )
    } else if name != info.name {
        format!("the name of the object ({name}) does not match the name on the URL ({})", info.name)
    } else if row.namespaced() && !namespace.is_empty() && namespace != info.namespace {
        format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            info.namespace
        )
    } else {
        return Ok(());
    };
    Err(Status::bad_request(why))
}

/// Changes the object `name` until no other writer comes in between.
pub(crate) async fn store(
    server: &Server,
    context: &Context<'_>,
    row: &Resource,
    part: Part<'_>,
    name: &str,
    options: &WriteOptions,
    change: &mut dyn Change,
) -> Result<Updated, Status> {
    let registry = &server.registry;
    let namespace = if row.namespaced() { context.info.namespace.as_str() } else { "" };
    let mut current = registry.cached(row, namespace, name)?;
    for _ in 0..ROUNDS {
        let certain = current.as_ref().is_some_and(|current| current.certain);
        match attempt(server, context, row, part, namespace, name, options, change, current.as_ref()).await {
            Ok(Attempt::Done(updated)) => return Ok(updated),
            // Somebody was faster. If the client said which state it means, the next round finds the conflict.
            Ok(Attempt::Again(newer)) => {
                current = match newer {
                    Some(kv) => {
                        Some(registry.current_of(row, namespace, name, &kv.value, kv.mod_revision)?)
                    }
                    None => registry.certain(row, namespace, name).await?,
                };
            }
            // Judged by a state that may be old: it is only true if the store says the same.
            Err(status) if !certain => {
                let revision = current.as_ref().map(|current| current.entry.revision());
                let newer = registry.certain(row, namespace, name).await?;
                let same = newer.as_ref().map(|newer| newer.entry.revision()) == revision;
                // What admission decided by may be old even if the object itself is not.
                if same && status.code != 403 {
                    return Err(status);
                }
                registry.caches.fresh().await.map_err(crate::registry::fresh_failure)?;
                let absent = newer.is_none();
                current = newer;
                if absent {
                    let last =
                        attempt(server, context, row, part, namespace, name, options, change, None).await?;
                    if let Attempt::Done(updated) = last {
                        return Ok(updated);
                    }
                }
            }
            Err(status) => return Err(status),
        }
    }
    Err(Status::modified(row.group_resource(), name))
}

enum Attempt {
    Done(Updated),
    /// The object is not what it was; this is what it is, if the store said so.
    Again(Option<store::KeyValue>),
}

#[allow(clippy::too_many_arguments)]
async fn attempt(
    server: &Server,
    context: &Context<'_>,
    row: &Resource,
    part: Part<'_>,
    namespace: &str,
    name: &str,
    options: &WriteOptions,
    change: &mut dyn Change,
    current: Option<&Current>,
) -> Result<Attempt, Status> {
    let registry = &server.registry;
    let mut object = change.apply(current)?;
    let Some(current) = current else {
        return create_instead(server, context, row, part, name, object, options).await;
    };
    let old = &*current.object;
    let of = row.group_resource();
    if let Some(uid) = object.metadata().uid.clone().filter(|uid| !uid.is_empty()) {
        let actual = old.metadata().uid.as_deref().unwrap_or_default();
        if uid != actual {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {actual}");
            return Err(Status::conflict(of, name, why));
        }
    }
    let revision = current.entry.revision();
    match object.metadata().resource_version.as_deref().unwrap_or_default() {
        // Whatever the object is now is what the client means.
        "" if row.rules.unconditional_update() => {
            object.metadata_mut().resource_version.clone_from(&old.metadata().resource_version);
        }
        "" => {
            let path = Path::new("metadata").child("resourceVersion");
            let error = FieldError::invalid(&path, 0, "must be specified for an update");
            // Upstream names the resource here, not the kind.
            return Err(Status::invalid(&row.group, &row.plural, name, &[error]));
        }
        version if version.parse() == Ok(revision) => {}
        version if version.parse::<u64>().is_err() => {
            let why = format!("strconv.ParseUint: parsing {}: invalid syntax", api::field::quote(version));
            // Upstream's odd answer: 500 without a reason.
            return Err(Status::failure(500, api::status::Reason::Unknown, why));
        }
        _ => return Err(Status::modified(of, name)),
    }
    create::place(row, &mut *object, namespace)?;
    keep_system_fields(&mut *object, old);
    let manager = (!options.owners_known).then(|| owners::manager(context, options));
    let subresource = context.info.subresource.as_str();
    let tracker = manager.as_deref().map(|manager| Tracker { registry, row, subresource, manager });
    // What a part's own rules take back was not written.
    let is_change = matches!(part, Part::Change(_));
    if let Some(tracker) = tracker.as_ref().filter(|_| !is_change) {
        tracker.updated(&mut *object, current)?;
    }
    let admission = AdmissionContext {
        user: context.user,
        operation: Operation::Update,
        resource: row,
        subresource: &context.info.subresource,
        namespace,
        name: name.to_owned(),
        dry_run: options.dry_run,
        warnings: context.warnings,
    };
    server.admission.admit(&admission, &mut *object, Some(old))?;
    keep_system_fields(&mut *object, old);
    let now = registry.clock.now();
    let mut errors = match part {
        Part::Whole => {
            reservations::prepare(&mut *object, Some(old));
            row.rules.prepare_update(&mut *object, old);
            row.rules.stamp(&mut *object, Some(old), now);
            row.rules.validate_update(&*object, old)
        }
        Part::Status => {
            row.rules.prepare_status(&mut *object, old);
            row.rules.stamp(&mut *object, Some(old), now);
            row.rules.validate_status(&*object, old)
        }
        Part::Change(subresource) => {
            row.rules.prepare_subresource(subresource, &mut *object, old);
            row.rules.stamp(&mut *object, Some(old), now);
            if let Some(tracker) = &tracker {
                tracker.updated(&mut *object, current)?;
            }
            row.rules.validate_subresource(subresource, &*object, old)
        }
    };
    certificates::validate(&*object, Some(old), &mut errors);
    if !errors.is_empty() {
        return Err(registry::invalid(row, name, &errors));
    }
    server.admission.validate(&admission, Some(&*object), Some(old))?;
    row.rules.warnings(&*object, Some(old)).into_iter().for_each(|warning| context.warnings.add(warning));

    let key = registry.key(row, namespace, name)?;
    let gone = delete::is_finished(row, &*object, old);
    let mut reserve = if gone {
        reservations::end(server, row, old)
    } else {
        reservations::begin(server, row, Some(old), Some(&mut *object))?
    };
    keep_times(registry, row, &mut *object, current)?;
    loop {
        let value = registry.stored_form(row, &mut *object)?;
        if !gone && current.entry.is_made_of(&value) {
            // Nothing to write. What the cache showed may be old, and then this would be no answer.
            if !current.certain {
                return Ok(Attempt::Again(None));
            }
            return Ok(Attempt::Done(Updated { entry: current.entry.clone(), object, created: false }));
        }
        let used = Use {
            row,
            subresource: &context.info.subresource,
            namespace,
            name,
            object: &*object,
            old: Some(old),
        };
        let charge = quota::charge(server, &used).await?;
        if options.dry_run {
            let entry = registry.written(row, &key, &value, revision)?;
            return Ok(Attempt::Done(Updated { entry, object, created: false }));
        }
        reserve.pay(&charge);
        let action = if gone { Action::Delete } else { Action::Put(value.clone()) };
        let done = registry.commit(row, &key, revision, action, &*object, reserve.reservation()).await;
        if !options.owners_known && done.as_ref().is_err_and(|why| owners::forget(&mut *object, why)) {
            continue;
        }
        match done? {
            Written::Conflict(newer) => return Ok(Attempt::Again(newer)),
            // The quotas are looked at again, and so is the object.
            Written::Overtaken => return Ok(Attempt::Again(None)),
            Written::Taken(index) => reserve.taken(server, index, Some(&mut *object)).await?,
            Written::Done(at) => {
                let entry = registry.written(row, &key, &value, at)?;
                return Ok(Attempt::Done(Updated { entry, object, created: false }));
            }
        }
        charge.end();
    }
}

/// Takes back the times of the owners if nothing else changed: who writes what is there already writes nothing.
fn keep_times(
    registry: &Registry,
    row: &Resource,
    object: &mut dyn Object,
    current: &Current,
) -> Result<(), Status> {
    let old = current.object.metadata().managed_fields.as_ref();
    let new = object.metadata().managed_fields.as_ref();
    if old == new || !same_but_times(old.map(Vec::as_slice), new.map(Vec::as_slice)) {
        return Ok(());
    }
    let times = std::mem::replace(&mut object.metadata_mut().managed_fields, old.cloned());
    if !current.entry.is_made_of(&registry.stored_form(row, object)?) {
        object.metadata_mut().managed_fields = times;
    }
    Ok(())
}

/// An update of an object that is not there.
async fn create_instead(
    server: &Server,
    context: &Context<'_>,
    row: &Resource,
    part: Part<'_>,
    name: &str,
    mut object: Box<dyn Object>,
    options: &WriteOptions,
) -> Result<Attempt, Status> {
    let not_found = || Status::not_found(row.group_resource(), name);
    let meant_to_exist =
        object.metadata().resource_version.as_deref().is_some_and(|version| !version.is_empty())
            || object.metadata().uid.as_deref().is_some_and(|uid| !uid.is_empty());
    let creates = options.creates || row.rules.create_on_update() && !meant_to_exist;
    if part != Part::Whole || !creates {
        return Err(not_found());
    }
    may_create(server, context, row, name)?;
    // The cache may just not know it yet.
    let namespace = if row.namespaced() { context.info.namespace.as_str() } else { "" };
    if server.registry.certain(row, namespace, name).await?.is_some() {
        return Ok(Attempt::Again(None));
    }
    let metadata = object.metadata_mut();
    metadata.name.get_or_insert_with(|| name.to_owned());
    let (entry, object) = create::store(server, context, row, object, options).await?;
    Ok(Attempt::Done(Updated { entry, object, created: true }))
}

/// Who may update or patch need not be allowed to create.
fn may_create(server: &Server, context: &Context<'_>, row: &Resource, name: &str) -> Result<(), Status> {
    let mut attributes = context.info.attributes(context.user.clone());
    "create".clone_into(&mut attributes.verb);
    match server.auth.authorize(&attributes) {
        Decision::Allow => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => {
            Err(Status::forbidden(row.group_resource(), name, reason))
        }
    }
}

/// Restores what an update can't change.
fn keep_system_fields(object: &mut dyn Object, old: &dyn Object) {
    let old = old.metadata();
    let metadata = object.metadata_mut();
    metadata.generation = old.generation;
    metadata.self_link = None;
    if metadata.uid.as_deref().unwrap_or_default().is_empty() {
        metadata.uid.clone_from(&old.uid);
    }
    metadata.creation_timestamp.clone_from(&old.creation_timestamp);
    // An update can neither start a deletion nor take it back.
    metadata.deletion_timestamp.clone_from(&old.deletion_timestamp);
    if metadata.deletion_grace_period_seconds.is_none() || old.deletion_timestamp.is_none() {
        metadata.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
}
