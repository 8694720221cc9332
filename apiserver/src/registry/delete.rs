//! Delete: at once, gracefully, or when the finalizers are done.

use std::sync::Arc;
use std::time::Duration;

use api::object::Object;
use api::resource::Resource;
use api::status::Status;
use bytes::Bytes;
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use crate::admission::{AdmissionContext, Operation};
use crate::body::Body;
use crate::cache::Entry;
use crate::context::Context;
use crate::registry::create::whole_seconds;
use crate::registry::options::{DeleteOptions, Propagation};
use crate::registry::write::{Action, Written};
use crate::registry::{Current, reservations};
use crate::respond;
use crate::server::Server;

/// The finalizer of an object whose dependents go first.
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents stay.
const ORPHAN: &str = "orphan";
/// After so many rounds against other writers, the client is told of the conflict.
const ROUNDS: usize = 32;

/// What came of a deletion.
pub(crate) struct Deleted {
    pub entry: Arc<Entry>,
    /// The object is gone; otherwise it has begun to go.
    pub gone: bool,
    /// It went in its own time: nothing was left to do.
    pub object: Box<dyn Object>,
}

/// DELETE of an object.
pub async fn delete(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
    body: Bytes,
) -> Result<Response<Body>, Status> {
    let options = DeleteOptions::read(context, &body)?;
    advise(context, row, &options);
    let deleted = store(server, context, row, &context.info.name, &options).await?;
    if !deleted.gone || row.rules.returns_deleted() {
        let code = if !deleted.gone && options.cascade_asked { StatusCode::ACCEPTED } else { StatusCode::OK };
        return respond::object(code, context.accept, server.registry.bytes(row, &deleted.entry)?);
    }
    let bytes = success(row, deleted.object.metadata()).to_string();
    respond::object(StatusCode::OK, context.accept, bytes.into())
}

/// Tells a client that says nothing of the dependents that they stay.
pub(crate) fn advise(context: &Context<'_>, row: &Resource, options: &DeleteOptions) {
    let advice = row.rules.dependents_stay().filter(|advice| !advice.is_empty());
    if let Some(advice) = advice.filter(|_| options.propagation.is_none()) {
        context.warnings.add(advice.to_owned());
    }
}

/// The Status of a deletion that succeeded.
fn success(row: &Resource, metadata: &ObjectMeta) -> Value {
    let mut details = json!({"name": metadata.name, "kind": row.plural, "uid": metadata.uid});
    if !row.group.is_empty() {
        details["group"] = Value::from(row.group.as_ref());
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// What a deletion does to an object.
enum Step {
    /// Nothing: it goes in its own time already.
    Pending,
    /// It begins to go.
    Mark,
    Remove,
}

/// Deletes the object `name`, or begins to.
pub(crate) async fn store(
    server: &Server,
    context: &Context<'_>,
    row: &Resource,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, Status> {
    let registry = &server.registry;
    let namespace = if row.namespaced() { context.info.namespace.as_str() } else { "" };
    let key = registry.key(row, namespace, name)?;
    let of = row.group_resource();
    let mut current = registry.cached(row, namespace, name)?;
    for _ in 0..ROUNDS {
        let attempt = attempt(server, context, row, namespace, name, &key, options, current.as_ref()).await;
        let certain = current.as_ref().is_some_and(|current| current.certain);
        current = match attempt {
            Ok(Some(deleted)) => return Ok(deleted),
            Ok(None) => registry.certain(row, namespace, name).await?,
            // Judged by a state that may be old.
            Err(status) if !certain => {
                let newer = registry.certain(row, namespace, name).await?;
                registry.caches.fresh().await.map_err(crate::registry::fresh_failure)?;
                if newer.is_none() {
                    return Err(Status::not_found(of, name));
                }
                drop(status);
                newer
            }
            Err(status) => return Err(status),
        };
    }
    Err(Status::modified(of, name))
}

/// One try; `None` if another writer was faster.
#[allow(clippy::too_many_arguments)]
async fn attempt(
    server: &Server,
    context: &Context<'_>,
    row: &Resource,
    namespace: &str,
    name: &str,
    key: &str,
    options: &DeleteOptions,
    current: Option<&Current>,
) -> Result<Option<Deleted>, Status> {
    let registry = &server.registry;
    let current = current.ok_or_else(|| Status::not_found(row.group_resource(), name))?;
    let old = &*current.object;
    preconditions(row, name, options, old.metadata())?;
    let admission = AdmissionContext {
        user: context.user,
        operation: Operation::Delete,
        resource: row,
        subresource: "",
        namespace,
        name: name.to_owned(),
        dry_run: options.dry_run,
        warnings: context.warnings,
    };
    server.admission.validate(&admission, None, Some(old))?;

    let mut object = old.clone_box();
    let step = decide(server, row, &mut *object, options);
    let revision = current.entry.revision();
    let value = registry.stored_form(row, &mut *object)?;
    let (action, gone, reserve) = match step {
        Step::Pending => {
            // True only of the latest state.
            if !current.certain {
                return Ok(None);
            }
            return Ok(Some(Deleted { entry: current.entry.clone(), gone: false, object }));
        }
        Step::Mark => (Action::Put(value.clone()), false, reservations::none()),
        Step::Remove => (Action::Delete, true, reservations::end(server, row, old)),
    };
    if options.dry_run {
        let entry = registry.written(row, key, &value, revision)?;
        return Ok(Some(Deleted { entry, gone, object }));
    }
    match registry.commit(row, key, revision, action, &*object, reserve.reservation()).await? {
        Written::Done(at) => {
            // Gone objects are shown as they were last; others under their new revision.
            let entry = registry.written(row, key, &value, if gone { revision } else { at })?;
            Ok(Some(Deleted { entry, gone, object }))
        }
        Written::Conflict(_) | Written::Taken(_) | Written::Overtaken => Ok(None),
    }
}

fn preconditions(
    row: &Resource,
    name: &str,
    options: &DeleteOptions,
    metadata: &ObjectMeta,
) -> Result<(), Status> {
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let version = metadata.resource_version.as_deref().unwrap_or_default();
    let failed = |what: &str, wanted: &Option<String>, is: &str| {
        let wanted = wanted.as_deref().filter(|wanted| *wanted != is)?;
        let why =
            format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is}");
        Some(Status::conflict(row.group_resource(), name, why))
    };
    if row.rules.own_deletion() {
        let failed = failed("UID", &options.uid, uid)
            .or_else(|| failed("ResourceVersion", &options.resource_version, version));
        return failed.map_or(Ok(()), Err);
    }
    // Upstream names the kind here, not the resource.
    let (group, kind) = row.reported_kind();
    let of = api::status::GroupResource::new(group, kind);
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(of, name, why));
    }
    if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != version) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        );
        return Err(Status::conflict(of, name, why));
    }
    Ok(())
}

/// Decides what a deletion does, and does it to the object's metadata.
fn decide(server: &Server, row: &Resource, object: &mut dyn Object, options: &DeleteOptions) -> Step {
    let now = whole_seconds(server.registry.clock.now());
    let grace = row.rules.grace_period(object, options.grace_period);
    let held = row.rules.held(object);
    let metadata = object.metadata_mut();
    let before = metadata.finalizers.clone().unwrap_or_default();
    let after = finalizers(&before, options.propagation, row.rules.dependents_stay().is_some());
    if before != after {
        metadata.finalizers = Some(after.clone()).filter(|finalizers| !finalizers.is_empty());
    }
    let waits = !after.is_empty() || held;
    let pending_grace = metadata.deletion_grace_period_seconds.unwrap_or(0);
    match (&metadata.deletion_timestamp, grace) {
        // It goes gracefully already: its time can only be shortened.
        (Some(deadline), Some(_)) if pending_grace > 0 => match options.grace_period {
            Some(shorter) if shorter < pending_grace => {
                let earlier =
                    deadline.0 - Duration::from_secs(u64::try_from(pending_grace - shorter).unwrap_or(0));
                metadata.deletion_timestamp = Some(Time(earlier.max(now)));
                metadata.deletion_grace_period_seconds = Some(shorter);
                if shorter == 0 && !waits { Step::Remove } else { Step::Mark }
            }
            _ if before != after => Step::Mark,
            _ => Step::Pending,
        },
        // Only its finalizers hold it.
        (Some(_), _) if waits => {
            if before == after {
                Step::Pending
            } else {
                Step::Mark
            }
        }
        (Some(_), _) => Step::Remove,
        // Nothing is left to be told of its going.
        (None, None) if !waits => Step::Remove,
        (None, grace) => {
            let seconds = grace.unwrap_or(0).max(0);
            metadata.deletion_timestamp =
                Some(Time(now + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))));
            metadata.deletion_grace_period_seconds = Some(seconds);
            if let Some(generation) = metadata.generation.as_mut().filter(|generation| **generation > 0) {
                *generation += 1;
            }
            if waits || seconds > 0 {
                row.rules.prepare_delete(object);
                Step::Mark
            } else {
                Step::Remove
            }
        }
    }
}

/// The finalizers by which the garbage collector learns what to do with the dependents. Those of some kinds stay unless
/// it was said otherwise.
fn finalizers(before: &[String], propagation: Option<Propagation>, stay: bool) -> Vec<String> {
    let has = |name: &str| before.iter().any(|finalizer| finalizer == name);
    let wanted = match propagation {
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Background) => None,
        // Without a wish, what was decided before stands.
        None if has(ORPHAN) => Some(ORPHAN),
        None if has(FOREGROUND) => Some(FOREGROUND),
        None => stay.then_some(ORPHAN),
    };
    let mut after: Vec<String> =
        before.iter().filter(|name| *name != ORPHAN && *name != FOREGROUND).cloned().collect();
    if let Some(wanted) = wanted {
        // In its old place, so that nothing changes where nothing was asked.
        match before.iter().position(|name| name == wanted) {
            Some(place) if before.len() == after.len() + 1 => after.insert(place, wanted.to_owned()),
            _ => after.push(wanted.to_owned()),
        }
    }
    after
}

/// True if this update leaves nothing that a deletion, asked for before, has to wait for.
pub(crate) fn is_finished(row: &Resource, object: &dyn Object, old: &dyn Object) -> bool {
    let (new, old) = (object.metadata(), old.metadata());
    new.finalizers.as_ref().is_none_or(Vec::is_empty)
        && old.deletion_timestamp.is_some()
        && old.deletion_grace_period_seconds.unwrap_or(0) == 0
        && !row.rules.held(object)
}
