//! `scale`: how many replicas there are, and how many there should be.

use std::sync::Arc;

use api::apply::{Changes, Managed, OneVersion, Set, Target, Write, from_scale, to_scale};
use api::object::Object;
use api::resource::Resource;
use api::schema::decode::FieldValidation;
use api::status::Status;
use bytes::Bytes;
use http::{Response, StatusCode};
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, Time};
use serde_json::Value;

use crate::body::Body;
use crate::cache::Entry;
use crate::context::Context;
use crate::negotiate::Accept;
use crate::registry::create::whole_seconds;
use crate::registry::options::WriteOptions;
use crate::registry::update::{self, Part};
use crate::registry::{Current, answer_object, apply, decode, fresh_failure, owners, patch};
use crate::server::Server;

/// Get, update and patch of the Scale of an object.
pub async fn answer(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
    verb: &str,
    body: Bytes,
) -> Result<Response<Body>, Status> {
    let info = context.info;
    let not_found = || Status::not_found(row.group_resource(), &info.name);
    if verb == "get" {
        server.registry.caches.fresh().await.map_err(fresh_failure)?;
        let current = server.registry.cached(row, &info.namespace, &info.name)?.ok_or_else(not_found)?;
        let scale = scale_of(row, &*current.object)?;
        return answer_object(StatusCode::OK, context.accept, &scale);
    }
    let is_apply = verb == "patch" && apply::is_apply(context);
    let options = match verb {
        "patch" => WriteOptions::of_patch(&info.query, is_apply)?,
        _ => WriteOptions::read(&info.query, "UpdateOptions")?,
    };
    let asked = match verb {
        "update" => Asked::Whole(super::spoken::<Scale>(context, &body, &options)?),
        "patch" if is_apply => Asked::Apply(apply::Config::read(context, &body, options.validation)?),
        "patch" => Asked::Patch(patch::Request::read(context, &body)?),
        _ => return Err(Status::method_not_allowed()),
    };
    // The owners are those of the Scale, and so is their change.
    let options = WriteOptions { owners_known: true, ..options };
    let mut change = |current: Option<&Current>| {
        let current = current.ok_or_else(not_found)?;
        let (scale, managed) = change(server, context, row, current, &asked, &options)?;
        let mut object = scaled(row, current, &scale)?;
        object.metadata_mut().managed_fields = managed;
        Ok(object)
    };
    let updated = update::store(server, context, row, Part::Whole, &info.name, &options, &mut change).await?;
    let mut object = updated.object;
    set_version(&mut *object, &updated.entry);
    answer_object(StatusCode::OK, Accept { ..context.accept }, &scale_of(row, &*object)?)
}

/// What a client sent.
#[expect(clippy::large_enum_variant, reason = "there is one of a request, on its stack")]
enum Asked {
    Whole(Scale),
    Patch(patch::Request),
    Apply(apply::Config),
}

/// The Scale that is asked for, and the owners of the object when it has it.
fn change(
    server: &Server,
    context: &Context<'_>,
    row: &Resource,
    current: &Current,
    asked: &Asked,
    options: &WriteOptions,
) -> Result<(Scale, Option<Vec<ManagedFieldsEntry>>), Status> {
    let scale_row = super::spoken_row::<Scale>();
    let before = scale_of(row, &*current.object)?.to_value();
    let managed = Managed::stored(current.object.metadata().managed_fields.clone());
    let version = row.api_version();
    let of_scale = to_scale(&managed, &version);
    let manager = owners::manager(context, options);
    let now = Time(whole_seconds(server.registry.clock.now()));
    let none = Set::default();
    let write = Write { manager: &manager, version: &version, subresource: "scale", reset: &none, now };
    let typed = |value: &Value, validation| -> Result<Scale, Status> {
        let object = decode::of_value(context, &scale_row, value, Vec::new(), validation)?;
        let scale = object.into_any().downcast::<Scale>();
        scale.map(|scale| *scale).map_err(|_| Status::internal("the object is not a Scale"))
    };
    let scale = match asked {
        Asked::Whole(scale) => scale.clone(),
        Asked::Patch(request) => typed(&request.apply(&scale_row, before.clone())?, options.validation)?,
        Asked::Apply(config) => {
            let gvk = scale_row.gvk();
            let versions = OneVersion { ty: &scale_row.schema, version: &version };
            let target = Target { gvk: &gvk, ty: &scale_row.schema, versions: &versions };
            let (after, owners) =
                api::apply::apply(target, &write, &before, &config.value, of_scale, options.force)?;
            config.check_twice(context, options.validation)?;
            let scale = typed(&after, FieldValidation::Ignore)?;
            return Ok((scale, from_scale(managed, owners, &version).into_entries()));
        }
    };
    // Who has no owners of the replicas gets none by an update.
    let owners = if of_scale.is_empty() {
        of_scale
    } else {
        let changes = Changes::between(&scale_row.schema, &before, &scale.to_value());
        api::apply::update(&write, of_scale, changes, |_| None)
    };
    Ok((scale, from_scale(managed, owners, &version).into_entries()))
}

/// The object with the replicas of the Scale, under the Scale's preconditions.
fn scaled(row: &Resource, current: &Current, scale: &Scale) -> Result<Box<dyn Object>, Status> {
    let metadata = &scale.metadata;
    let wanted = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    if wanted < 0 {
        let path = api::field::Path::new("spec").child("replicas");
        let why = "must be greater than or equal to 0";
        let error = api::field::FieldError::invalid(&path, wanted, why);
        let name = current.entry.name();
        return Err(Status::invalid("autoscaling", "Scale", name, &[error]));
    }
    let mut object = current.object.clone_box();
    row.rules.set_replicas(&mut *object, wanted);
    let target = object.metadata_mut();
    // An empty version in the Scale means: whatever it is now.
    if let Some(version) = metadata.resource_version.as_ref().filter(|version| !version.is_empty()) {
        target.resource_version = Some(version.clone());
    }
    if let Some(uid) = metadata.uid.as_ref().filter(|uid| !uid.is_empty()) {
        target.uid = Some(uid.clone());
    }
    Ok(object)
}

fn set_version(object: &mut dyn Object, entry: &Entry) {
    object.metadata_mut().resource_version = Some(entry.revision().to_string());
}

fn scale_of(row: &Resource, object: &dyn Object) -> Result<Scale, Status> {
    let replicas = row.rules.replicas(object).ok_or_else(Status::unknown_path)?;
    let metadata = object.metadata();
    Ok(Scale {
        metadata: ObjectMeta {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            creation_timestamp: metadata.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: Some(replicas.wanted) }),
        status: Some(ScaleStatus {
            replicas: replicas.current,
            selector: Some(replicas.selector).filter(|selector| !selector.is_empty()),
        }),
    })
}
