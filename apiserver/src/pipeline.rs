//! The way of a request, the same for every transport and every kind.

use std::sync::Arc;

use api::schema::Types;
use api::status::Status;
use http::request::Parts;
use http::{Request, Response};
use tracing::error;

use crate::auth::Decision;
use crate::body::RequestBody;
use crate::context::{Context, Warnings};
use crate::negotiate::{self, Accept, Media};
use crate::registry::{self, verbs};
use crate::routes::{self, Access, RouteRequest};
use crate::server::Server;
use crate::{Attributes, Body, Connection, RequestInfo, UserInfo, respond};

/// Answers one request.
pub async fn handle(
    server: &Arc<Server>,
    connection: &Connection,
    request: Request<RequestBody>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let info = RequestInfo::new(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default());
    let warnings = Warnings::default();
    let media = negotiate::failure_media(&parts.headers);
    let started = server.config.clock.instant();
    let answering = answer(server, connection, &info, &warnings, parts, body);
    let mut response = if is_long(&info) {
        answering.await
    } else {
        match tokio::time::timeout(server.config.request_timeout, answering).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::timeout("request did not complete within the allotted timeout", 0)),
        }
    }
    .unwrap_or_else(|status| failure(&info, media, &status));
    respond::warn(&mut response, &warnings);
    server.metrics.request(&info, response.status(), started.elapsed());
    response
}

/// connection → request info → authentication → authorization → (decode → default → mutate → validate → store →
/// encode: the verbs).
async fn answer(
    server: &Arc<Server>,
    connection: &Connection,
    info: &RequestInfo,
    warnings: &Warnings,
    mut parts: Parts,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    let route = if info.resource_request { None } else { routes::find(&info.path) };
    let user = match route {
        Some(route) if route.access == Access::Open => Arc::new(UserInfo::anonymous()),
        _ => {
            let user = authenticate(server, connection, &parts).await?;
            authorize(server, info, &user)?;
            user
        }
    };
    if !info.resource_request {
        let route = route.ok_or_else(Status::unknown_path)?;
        return (route.handler)(RouteRequest { server, info, parts: &parts, user, connection, body }).await;
    }
    let target = server.registry.target(info)?;
    let transforms = matches!(info.verb, "get" | "list" | "watch") && target.subresource.is_none();
    let protobuf = Arc::ptr_eq(target.resource.schema.types(), &Types::builtin());
    let accept = if target.subresource.as_ref().is_some_and(|part| part.action.is_passed_on()) {
        // What the client accepts is for the backend to know.
        Accept::default()
    } else {
        Accept::read(&parts.headers, info.query.get("pretty"), transforms, protobuf)?
    };
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let context = Context { info, user: &user, headers: &parts.headers, connection, accept, warnings };
    match target.subresource {
        Some(subresource) => {
            registry::subresources::answer(
                server,
                &context,
                &target.resource,
                subresource,
                &parts,
                body,
                upgrade,
            )
            .await
        }
        None => verbs::answer(server, &context, &target.resource, body).await,
    }
}

async fn authenticate(
    server: &Server,
    connection: &Connection,
    parts: &Parts,
) -> Result<Arc<UserInfo>, Status> {
    Ok(server.auth.authenticate(parts, connection).await?.unwrap_or_else(|| Arc::new(UserInfo::anonymous())))
}

/// 403 unless somebody allows it; 401 for a client without credentials.
fn authorize(server: &Server, info: &RequestInfo, user: &Arc<UserInfo>) -> Result<(), Status> {
    let attributes = info.attributes(user.clone());
    match server.auth.authorize(&attributes) {
        Decision::Allow => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(&attributes, &reason)),
    }
}

/// Upstream's words for a request that nobody allows.
pub fn forbidden(attributes: &Attributes, reason: &str) -> Status {
    let Attributes { user, verb, group, resource, subresource, namespace, name, path, .. } = attributes;
    let user = api::field::quote(&user.name);
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if !attributes.resource_request {
        let what = format!("User {user} cannot {verb} path {}{because}", api::field::quote(path));
        return Status::forbidden(api::status::GroupResource::new("", ""), "", what);
    }
    let whole = if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
    let place = if namespace.is_empty() {
        " at the cluster scope".to_owned()
    } else {
        format!(" in the namespace {}", api::field::quote(namespace))
    };
    let what = format!(
        "User {user} cannot {verb} resource {} in API group {}{place}{because}",
        api::field::quote(&whole),
        api::field::quote(group)
    );
    Status::forbidden(api::status::GroupResource::new(group, resource), name, what)
}

/// Requests that may last: watches and streams.
fn is_long(info: &RequestInfo) -> bool {
    info.verb == "watch"
        || matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
}

fn failure(info: &RequestInfo, media: Media, status: &Status) -> Response<Body> {
    if status.code >= 500 {
        error!(verb = info.verb, path = %info.path, code = status.code, message = %status.message, "request failed");
    }
    respond::status(media, status)
}
