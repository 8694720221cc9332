//! Deletecollection.

use std::sync::Arc;

use api::resource::Resource;
use api::status::Status;
use bytes::{BufMut, Bytes, BytesMut};
use http::{Response, StatusCode};
use serde_json::json;

use crate::body::Body;
use crate::cache::Entry;
use crate::context::Context;
use crate::registry::options::{DeleteOptions, integer};
use crate::registry::read::{self, Page};
use crate::registry::table::Shape;
use crate::registry::{delete, selectors};
use crate::server::Server;
use crate::{RequestInfo, respond};

/// DELETE of a collection: deletes what the list shows, and answers with the list.
pub async fn delete(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
    body: Bytes,
) -> Result<Response<Body>, Status> {
    let options = DeleteOptions::read(context, &body)?;
    delete::advise(context, row, &options);
    let registry = &server.registry;
    let cache = registry.stored(row)?;
    let query = &context.info.query;
    let selector = selectors::read(context.info, row, &cache)?;
    let limit = usize::try_from(integer(query, "limit")?.unwrap_or(0)).unwrap_or(0);
    let Page { snapshot, start, entries } = read::page(registry, &cache, query, &selector, limit).await?;
    let all = || snapshot.scan(&selector, start.as_deref()).cloned();
    let entries: Vec<Arc<Entry>> = match (entries, limit) {
        (Some(entries), _) => entries,
        (None, 0) => all().collect(),
        (None, limit) => all().take(limit).collect(),
    };
    let shape = Shape::new(registry, row, context.accept, query)?;
    let mut out = BytesMut::new();
    shape.put_head(&mut out, &json!({"resourceVersion": snapshot.revision.to_string()}), true);
    let mut first = true;
    for entry in entries {
        let info = RequestInfo {
            namespace: entry.namespace().to_owned(),
            name: entry.name().to_owned(),
            ..context.info.clone()
        };
        let one = Context { info: &info, ..*context };
        match delete::store(server, &one, row, entry.name(), &options).await {
            Ok(_) => {}
            // Somebody else deleted it.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
        if !std::mem::take(&mut first) {
            out.put_u8(b',');
        }
        shape.put_item(&mut out, &entry)?;
    }
    out.put_slice(b"]}");
    respond::object(StatusCode::OK, context.accept, out.freeze())
}
