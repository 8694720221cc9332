//! Apply: a patch that says what its sender wants to own.

use std::sync::Arc;

use api::apply::{self, Managed, Target};
use api::cbor;
use api::object::Object;
use api::resource::{GroupVersionKind, Resource};
use api::schema::decode::FieldValidation;
use api::status::Status;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value};

use crate::body::Body;
use crate::context::Context;
use crate::negotiate::content_type;
use crate::registry::options::WriteOptions;
use crate::registry::owners::Tracker;
use crate::registry::update::{self, Part};
use crate::registry::{Current, decode};
use crate::respond;
use crate::server::Server;

/// The media types of an apply: YAML, or CBOR.
const YAML: &str = "application/apply-patch+yaml";
const CBOR: &str = "application/apply-patch+cbor";

/// Whether a patch is an apply.
pub(crate) fn is_apply(context: &Context<'_>) -> bool {
    matches!(content_type(context.headers), YAML | CBOR)
}

/// What is applied, and what of it was given twice.
pub(crate) struct Config {
    pub(crate) value: Value,
    twice: Vec<String>,
}

impl Config {
    pub(crate) fn read(
        context: &Context<'_>,
        body: &[u8],
        validation: FieldValidation,
    ) -> Result<Self, Status> {
        if content_type(context.headers) == CBOR {
            // What is given twice is never taken in CBOR.
            let map = cbor::decode_object(body, "map[string]interface {}")
                .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
            return Ok(Self { value: Value::Object(map), twice: Vec::new() });
        }
        let bad = |why: &str| Status::bad_request(format!("error decoding YAML: {why}"));
        let (value, twice) = decode::yaml_body(body, validation != FieldValidation::Ignore)
            .map_err(|status| bad(&status.message))?;
        let word = match value {
            Value::Object(_) => return Ok(Self { value, twice }),
            Value::Null => return Ok(Self { value: Value::Object(Map::new()), twice }),
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
        };
        Err(bad(&format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {word} into Go value of type map[string]interface {{}}"
        )))
    }

    /// Refuses or tells of what was given twice, which is looked at last.
    pub(crate) fn check_twice(
        &self,
        context: &Context<'_>,
        validation: FieldValidation,
    ) -> Result<(), Status> {
        if self.twice.is_empty() {
            return Ok(());
        }
        let why = self.twice.join("\n");
        match validation {
            FieldValidation::Strict => {
                return Err(Status::bad_request(format!("error strict decoding YAML: {why}")));
            }
            FieldValidation::Warn => context.warnings.add(why),
            FieldValidation::Ignore => {}
        }
        Ok(())
    }
}

/// PATCH of an object with what its sender wants to own of it.
pub async fn answer(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
    part: Part<'_>,
    body: Bytes,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::of_patch(&context.info.query, true)?;
    let config = Config::read(context, &body, options.validation)?;
    let options = WriteOptions { owners_known: true, creates: true, ..options };
    let mut change = |current: Option<&Current>| {
        let object = applied(server, context, row, current, &config.value, &options)?;
        config.check_twice(context, options.validation)?;
        Ok(object)
    };
    let name = context.info.name.as_str();
    let updated = update::store(server, context, row, part, name, &options, &mut change).await?;
    let code = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
    respond::object(code, context.accept, server.registry.bytes(row, &updated.entry)?)
}

/// The object as the configuration and its owners make it.
fn applied(
    server: &Server,
    context: &Context<'_>,
    row: &Resource,
    current: Option<&Current>,
    config: &Value,
    options: &WriteOptions,
) -> Result<Box<dyn Object>, Status> {
    let tracker = Tracker {
        registry: &server.registry,
        row,
        subresource: &context.info.subresource,
        manager: &options.field_manager,
    };
    let (mut live, managed) = match current {
        Some(current) => {
            (current.object.to_value(), Managed::stored(current.object.metadata().managed_fields.clone()))
        }
        None => (Value::Object(Map::new()), Managed::default()),
    };
    if let Some(metadata) = live.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    let (gvk, versions) = (row.gvk(), tracker.versions());
    let target = Target { gvk: &gvk, ty: &row.schema, versions: &versions };
    let (value, managed) =
        tracker.write(|write| apply::apply(target, write, &live, config, managed, options.force))?;
    let mut object = decode::of_value(context, row, &value, Vec::new(), FieldValidation::Ignore)
        .map_err(|status| unfit(&gvk, &value, status))?;
    object.metadata_mut().managed_fields = managed.into_entries();
    if current.is_none() {
        let uid = object.metadata().uid.as_deref().unwrap_or_default();
        if !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(Status::conflict(row.group_resource(), &context.info.name, why));
        }
    }
    update::check_name(context, row, &*object)?;
    Ok(object)
}

/// A value that fits the schema as apply sees it, and is none of the kind all the same.
fn unfit(gvk: &GroupVersionKind, value: &Value, status: Status) -> Status {
    let prefix = format!("cannot be handled as a {}: ", gvk.kind);
    let Some((_, why)) = status.message.split_once(&prefix) else { return status };
    let text = |name: &str| value["metadata"][name].as_str().unwrap_or_default();
    let (namespace, name, version) = (text("namespace"), text("name"), gvk.api_version());
    let which = format!("{namespace}/{name}; {}/{}, Kind={}", gvk.group, gvk.version, gvk.kind);
    let why = format!("failed to convert new object ({which}) to proper version ({version}): {why}");
    // Upstream has no answer of its own for it.
    Status::failure(500, api::status::Reason::Unknown, why)
}
