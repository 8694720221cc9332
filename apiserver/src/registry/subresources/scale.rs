//! `scale`: how many replicas there are, and how many there should be.

use std::sync::Arc;

use api::object::Object;
use api::resource::Resource;
use api::status::Status;
use bytes::Bytes;
use http::{Response, StatusCode};
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::body::Body;
use crate::cache::Entry;
use crate::context::Context;
use crate::negotiate::Accept;
use crate::registry::options::WriteOptions;
use crate::registry::update::{self, Part};
use crate::registry::{Current, answer_object, decode, fresh_failure, patch};
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
    let scale_row = super::spoken_row::<Scale>();
    let options =
        WriteOptions::read(&info.query, if verb == "patch" { "PatchOptions" } else { "UpdateOptions" })?;
    let asked = match verb {
        "update" => Some(super::spoken::<Scale>(context, &body, &options)?),
        _ => None,
    };
    let request = match verb {
        "patch" => Some(patch::Request::read(context, &body)?),
        _ => None,
    };
    let mut change = |current: Option<&Current>| {
        let current = current.ok_or_else(not_found)?;
        let scale = match (&asked, &request) {
            (Some(scale), _) => scale.clone(),
            (None, Some(request)) => {
                let shown = scale_of(row, &*current.object)?.to_value();
                let patched = request.apply(&scale_row, shown)?;
                let object = decode::of_value(context, &scale_row, &patched, Vec::new(), options.validation)?;
                let scale = object.into_any().downcast::<Scale>();
                *scale.map_err(|_| Status::internal("the object is not a Scale"))?
            }
            (None, None) => return Err(Status::method_not_allowed()),
        };
        apply(row, current, &scale)
    };
    let updated = update::store(server, context, row, Part::Whole, &info.name, &options, &mut change).await?;
    let mut object = updated.object;
    set_version(&mut *object, &updated.entry);
    answer_object(StatusCode::OK, Accept { ..context.accept }, &scale_of(row, &*object)?)
}

/// The object with the replicas of the Scale, under the Scale's preconditions.
fn apply(row: &Resource, current: &Current, scale: &Scale) -> Result<Box<dyn Object>, Status> {
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
