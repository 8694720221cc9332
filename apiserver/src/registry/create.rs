//! Create: a new object, or the answer to a review.

use std::sync::Arc;

use api::object::Object;
use api::resource::{Answer, Resource};
use api::status::Status;
use bytes::Bytes;
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::admission::{AdmissionContext, Operation};
use crate::body::Body;
use crate::cache::Entry;
use crate::context::Context;
use crate::registry::options::WriteOptions;
use crate::registry::owners::{self, Tracker};
use crate::registry::quota::{self, Use};
use crate::registry::write::{Action, Written};
use crate::registry::{self, answer_object, certificates, decode, fresh_failure, reservations, subresources};
use crate::respond;
use crate::server::Server;

/// So many generated names are tried before the client is told that all are taken.
const NAMES_TRIED: usize = 8;
/// What upstream keeps of a name's prefix before the generated end.
const MOST_PREFIX: usize = 58;

/// POST of an object.
pub async fn create(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
    body: Bytes,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::read(&context.info.query, "CreateOptions")?;
    let object = decode::object(context, row, &body, options.validation)?;
    let (entry, _) = store(server, context, row, object, &options).await?;
    respond::object(StatusCode::CREATED, context.accept, server.registry.bytes(row, &entry)?)
}

/// Takes a decoded object through mutation and validation into the store.
pub(crate) async fn store(
    server: &Server,
    context: &Context<'_>,
    row: &Resource,
    mut object: Box<dyn Object>,
    options: &WriteOptions,
) -> Result<(Arc<Entry>, Box<dyn Object>), Status> {
    let registry = &server.registry;
    place(row, &mut *object, &context.info.namespace)?;
    if object.metadata().resource_version.as_deref().is_some_and(|version| !version.is_empty()) {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(Status::failure(500, api::status::Reason::Unknown, message));
    }
    if !options.owners_known {
        let (manager, subresource) = (owners::manager(context, options), "");
        Tracker { registry, row, subresource, manager: &manager }.created(&mut *object)?;
    }
    let prefix = object.metadata().generate_name.clone().filter(|prefix| !prefix.is_empty());
    let generated = prefix.filter(|_| object.metadata().name.as_deref().unwrap_or_default().is_empty());
    let mut tried = 0;
    loop {
        let mut object = object.clone_box();
        if let Some(prefix) = &generated {
            let kept: String = prefix.chars().take(MOST_PREFIX).collect();
            object.metadata_mut().name = Some(kept + &registry.random.name_suffix(5));
        }
        fill_system_fields(server, &mut *object);
        mutate_and_validate(server, context, row, &mut object, options).await?;
        let name = object.metadata().name.clone().unwrap_or_default();
        let namespace = object.metadata().namespace.clone().unwrap_or_default();
        let key = registry.key(row, &namespace, &name)?;
        let exists = || Status::already_exists(row.group_resource(), &name);
        let mut reserve = reservations::begin(server, row, None, Some(&mut *object))?;
        let mut rounds = 0;
        let written = loop {
            let value = registry.stored_form(row, &mut *object)?;
            let (namespace, name, object_now) = (namespace.as_str(), name.as_str(), &*object);
            let subresource = context.info.subresource.as_str();
            let used = Use { row, subresource, namespace, name, object: object_now, old: None };
            let charge = quota::charge(server, &used).await?;
            if options.dry_run {
                if registry.certain(row, namespace, name).await?.is_some() {
                    return Err(exists());
                }
                let entry = dry(registry, row, &key, &value)?;
                return Ok((entry, object));
            }
            reserve.pay(&charge);
            let reservation = reserve.reservation();
            let done = registry.commit(row, &key, 0, Action::Put(value.clone()), &*object, reservation).await;
            if !options.owners_known && done.as_ref().is_err_and(|why| owners::forget(&mut *object, why)) {
                continue;
            }
            match done? {
                Written::Taken(index) => reserve.taken(server, index, Some(&mut *object)).await?,
                Written::Done(revision) => break Some(registry.written(row, &key, &value, revision)?),
                Written::Conflict(_) => break None,
                Written::Overtaken if rounds == quota::ROUNDS => return Err(quota::overtaken(&charge)),
                Written::Overtaken => rounds += 1,
            }
            charge.end();
        };
        match written {
            Some(entry) => return Ok((entry, object)),
            None if generated.is_none() => return Err(exists()),
            None => {
                tried += 1;
                if tried == NAMES_TRIED {
                    return Err(Status::generate_name_conflict(row.group_resource(), &name, 1));
                }
            }
        }
    }
}

/// Admission (mutating), preparation, validation, admission (validating). An object that admission refuses on what
/// the cache shows is looked at again when the cache is certain to be fresh.
async fn mutate_and_validate(
    server: &Server,
    context: &Context<'_>,
    row: &Resource,
    object: &mut Box<dyn Object>,
    options: &WriteOptions,
) -> Result<(), Status> {
    let pristine = object.clone_box();
    let mut fresh = false;
    loop {
        let result = mutate_and_validate_once(server, context, row, &mut **object, options);
        match result {
            Err(status) if !fresh && matches!(status.code, 403 | 404) => {
                server.registry.caches.fresh().await.map_err(fresh_failure)?;
                fresh = true;
                *object = pristine.clone_box();
            }
            result => return result,
        }
    }
}

fn mutate_and_validate_once(
    server: &Server,
    context: &Context<'_>,
    row: &Resource,
    object: &mut dyn Object,
    options: &WriteOptions,
) -> Result<(), Status> {
    let admission = AdmissionContext {
        user: context.user,
        operation: Operation::Create,
        resource: row,
        subresource: &context.info.subresource,
        namespace: &context.info.namespace,
        name: object.metadata().name.clone().unwrap_or_default(),
        dry_run: options.dry_run,
        warnings: context.warnings,
    };
    server.admission.admit(&admission, object, None)?;
    reservations::prepare(object, None);
    certificates::prepare(object, context.user);
    row.rules.prepare_create(object);
    row.rules.stamp(object, None, server.registry.clock.now());
    let mut errors = row.rules.validate(object);
    certificates::validate(object, None, &mut errors);
    if !errors.is_empty() {
        let name = object.metadata().name.clone().unwrap_or_default();
        return Err(registry::invalid(row, &name, &errors));
    }
    server.admission.validate(&admission, Some(object), None)?;
    row.rules.warnings(object, None).into_iter().for_each(|warning| context.warnings.add(warning));
    Ok(())
}

/// Sets what only the server sets, and clears what a client can't.
fn fill_system_fields(server: &Server, object: &mut dyn Object) {
    let registry = &server.registry;
    let metadata = object.metadata_mut();
    metadata.uid = Some(registry.random.uuid());
    metadata.creation_timestamp = Some(Time(whole_seconds(registry.clock.now())));
    metadata.deletion_timestamp = None;
    metadata.deletion_grace_period_seconds = None;
    metadata.generation = None;
    metadata.self_link = None;
    metadata.resource_version = None;
}

/// Times in metadata have no fractions.
pub(crate) fn whole_seconds(time: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Puts the object into the namespace of the path; refuses one that is meant for another.
pub(crate) fn place(row: &Resource, object: &mut dyn Object, namespace: &str) -> Result<(), Status> {
    let metadata = object.metadata_mut();
    let given = metadata.namespace.as_deref().unwrap_or_default();
    if !row.namespaced() {
        metadata.namespace = None;
    } else if given.is_empty() {
        metadata.namespace = Some(namespace.to_owned());
    } else if given != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// The entry of an object that is not stored: it has no revision.
pub(crate) fn dry(
    registry: &crate::registry::Registry,
    row: &Resource,
    key: &str,
    value: &Bytes,
) -> Result<Arc<Entry>, Status> {
    registry.written(row, key, value, 0)
}

/// POST of a request that is answered and not stored.
pub async fn answered(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
    answer: Answer,
    body: Bytes,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::read(&context.info.query, "CreateOptions")?;
    let mut object = decode::object(context, row, &body, options.validation)?;
    place(row, &mut *object, &context.info.namespace)?;
    if answer == Answer::Binding {
        let binding = object.downcast_ref().ok_or_else(|| Status::internal("the object is not a Binding"))?;
        return subresources::binding::bind(server, context, binding, &options).await;
    }
    let errors = row.rules.validate(&*object);
    if !errors.is_empty() {
        return Err(Status::invalid(&row.group, &row.kind, "", &errors));
    }
    let object = server.auth.review(context.user, &context.info.namespace, answer, object).await?;
    answer_object(StatusCode::CREATED, context.accept, &*object)
}
