//! Patch: JSON, merge and strategic merge, retried while other writers are faster.

use std::sync::Arc;

use api::object::Object;
use api::patch;
use api::resource::Resource;
use api::schema::go_text;
use api::status::{Reason, Status};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value};

use crate::body::Body;
use crate::context::Context;
use crate::negotiate;
use crate::registry::options::WriteOptions;
use crate::registry::update::{self, Part};
use crate::registry::{Current, apply, decode};
use crate::respond;
use crate::server::Server;

/// A patch, parsed.
pub(crate) enum Request {
    /// As it came: its operations are read when they are applied.
    Json(Bytes),
    Merge(Map<String, Value>),
    Strategic(Map<String, Value>),
}

/// PATCH of an object.
pub async fn answer(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
    part: Part<'_>,
    body: Bytes,
) -> Result<Response<Body>, Status> {
    if apply::is_apply(context) {
        return apply::answer(server, context, row, part, body).await;
    }
    let options = WriteOptions::of_patch(&context.info.query, false)?;
    let request = Request::read(context, &body)?;
    let name = context.info.name.as_str();
    let mut change = |current: Option<&Current>| {
        let current = current.ok_or_else(|| Status::not_found(row.group_resource(), name))?;
        let patched = request.apply(row, current.object.to_value())?;
        let object = decode::of_value(context, row, &patched, Vec::new(), options.validation)
            .map_err(|status| unfit(row, &patched, &request, status))?;
        same_place(context, &*object)?;
        Ok(object)
    };
    let updated = update::store(server, context, row, part, name, &options, &mut change).await?;
    respond::object(StatusCode::OK, context.accept, server.registry.bytes(row, &updated.entry)?)
}

fn same_place(context: &Context<'_>, object: &dyn Object) -> Result<(), Status> {
    let info = context.info;
    let given = object.metadata().name.as_deref().unwrap_or_default();
    if given != info.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            info.name
        )));
    }
    Ok(())
}

/// A patched object that does not fit its type is not a bad request but an invalid patch.
fn unfit(row: &Resource, patched: &Value, request: &Request, status: Status) -> Status {
    let prefix = format!("cannot be handled as a {}: ", row.kind);
    let Some((_, why)) = status.message.split_once(&prefix).filter(|_| status.code == 400) else {
        return status;
    };
    let path = api::field::Path::new("patch");
    let shown = match request {
        Request::Json(operations) => go_text::text(&row.schema, patched, &ways(operations)),
        Request::Merge(changes) => go_text::text(&row.schema, patched, &Value::Object(changes.clone())),
        // Upstream shows the patch here, not what came of it, and in Go's form.
        Request::Strategic(changes) => go_map(changes),
    };
    let error = api::field::FieldError::invalid(&path, shown, why);
    // Upstream names no object here.
    Status::invalid("", "", "", &[error])
}

/// An object for each place that the operations of a JSON patch go through.
fn ways(operations: &[u8]) -> Value {
    let mut ways = Value::Object(Map::new());
    let operations: Vec<Value> = serde_json::from_slice(operations).unwrap_or_default();
    for path in operations.iter().filter_map(|operation| operation["path"].as_str()) {
        let mut names: Vec<&str> = path.split('/').skip(1).collect();
        names.pop();
        let mut at = &mut ways;
        for name in names {
            let Value::Object(map) = at else { break };
            at = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
        }
    }
    ways
}

/// A map as Go prints it: `map[a:1 b:[x y]]`.
fn go_map(map: &Map<String, Value>) -> String {
    let mut fields: Vec<(&String, &Value)> = map.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}:{}", go_value(value))).collect();
    format!("map[{}]", fields.join(" "))
}

fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_value).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => go_map(map),
        other => other.to_string(),
    }
}

impl Request {
    /// Reads a patch by its content type.
    pub(crate) fn read(context: &Context<'_>, body: &[u8]) -> Result<Self, Status> {
        Ok(match negotiate::content_type(context.headers) {
            "application/json-patch+json" => Self::Json(Bytes::copy_from_slice(body)),
            "application/merge-patch+json" => Self::Merge(patch::parse_object(body)?),
            "application/strategic-merge-patch+json" => Self::Strategic(patch::parse_object(body)?),
            // Upstream finds no route for it, and says no more.
            _ => {
                let (reason, why) = (Reason::UnsupportedMediaType, "415: Unsupported Media Type");
                return Err(Status::failure(415, reason, why));
            }
        })
    }

    /// The object after the patch.
    pub(crate) fn apply(&self, row: &Resource, object: Value) -> Result<Value, Status> {
        Ok(match self {
            Self::Json(operations) => patch::json(&object, operations)?,
            Self::Merge(changes) => patch::merge(object, changes.clone()),
            Self::Strategic(changes) => patch::strategic::apply(&row.schema, object, changes.clone())?,
        })
    }
}
