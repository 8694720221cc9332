//! Which verb does what, for a resource itself.

use std::sync::Arc;

use api::resource::{Backing, Resource};
use api::status::Status;
use http::Response;

use crate::Body;
use crate::body::RequestBody;
use crate::context::Context;
use crate::registry::{collection, create, delete, observed, patch, read, update, watch};
use crate::server::Server;

/// Answers a verb on a resource.
pub async fn answer(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    if let Some(advice) = row.rules.deprecated() {
        context.warnings.add(advice.to_owned());
    }
    if let Backing::Observed(observation) = row.backing {
        return observed::answer(server, context, row, observation).await;
    }
    match context.info.verb {
        "get" => return read::get(server, context, row).await,
        "list" => return read::list(server, context, row).await,
        "watch" => return watch::watch(server, context, row).await,
        _ => {}
    }
    let body = context.read_body(body, server.config.max_body).await?;
    match (context.info.verb, &row.backing) {
        ("create", Backing::Answered(answer)) => create::answered(server, context, row, *answer, body).await,
        ("create", _) => create::create(server, context, row, body).await,
        ("update", _) => update::update(server, context, row, update::Part::Whole, body).await,
        ("patch", _) => patch::answer(server, context, row, update::Part::Whole, body).await,
        ("delete", _) => delete::delete(server, context, row, body).await,
        ("deletecollection", _) => collection::delete(server, context, row, body).await,
        _ => Err(Status::method_not_allowed()),
    }
}
