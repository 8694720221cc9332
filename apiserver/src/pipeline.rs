//! The way of a request, the same for every transport and every kind.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use api::schema::Types;
use api::status::{Reason, Status};
use futures::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use tracing::{debug, error, warn};

use crate::audit::Stage;
use crate::auth::{Decision, forbidden};
use crate::body::RequestBody;
use crate::context::Context;
use crate::negotiate::{self, Accept, Media};
use crate::notes::{Ending, Notes};
use crate::registry::{self, verbs};
use crate::routes::{self, Access, RouteRequest};
use crate::server::Server;
use crate::{Body, Connection, RequestInfo, UserInfo, respond};

/// Answers one request.
pub async fn handle(
    server: &Arc<Server>,
    connection: &Connection,
    request: Request<RequestBody>,
) -> Response<Body> {
    let started = server.config.clock.instant();
    let (parts, body) = request.into_parts();
    let info = RequestInfo::new(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default());
    let notes = Notes::new(server, connection, &parts.headers);
    let media = negotiate::failure_media(&parts.headers);
    let ending = Ending::begin(server, &info, &parts.headers, started);
    let answer = match patience(server, &info) {
        Err(status) => Err(status),
        Ok(patience) => {
            let answering = answer(server, connection, &info, &notes, patience, parts, body);
            timed(answering, (!info.is_long()).then_some(patience), &notes).await
        }
    };
    let mut response = answer.unwrap_or_else(|status| {
        notes.failed(&status);
        failure(&info, media, &status)
    });
    respond::warn(&mut response, &notes.warnings);
    notes.tell(&mut response);
    ending.attach(response, &info, notes)
}

/// How long a request may take: what the client asks for, but no longer than the server allows.
fn patience(server: &Server, info: &RequestInfo) -> Result<Duration, Status> {
    let most = server.config.request_timeout;
    let Some(asked) = info.query.get("timeout").filter(|_| !info.is_long()) else { return Ok(most) };
    let nanos = api::schema::duration(asked).map_err(|why| {
        Status::bad_request(format!("invalid timeout specified in the request URL - {why}"))
    })?;
    Ok(match u64::try_from(nanos) {
        Ok(nanos @ 1..) => most.min(Duration::from_nanos(nanos)),
        _ => most,
    })
}

/// The answer, if it comes in time and without a panic.
async fn timed(
    answering: impl Future<Output = Result<Response<Body>, Status>>,
    patience: Option<Duration>,
    notes: &Notes,
) -> Result<Response<Body>, Status> {
    // What a panic leaves behind is this request's alone; what is shared is behind locks that are fit for it.
    let answering = AssertUnwindSafe(answering).catch_unwind();
    let answer = match patience {
        None => answering.await,
        Some(patience) => match tokio::time::timeout(patience, answering).await {
            Ok(answer) => answer,
            Err(_) => {
                return Err(Status::timeout("request did not complete within the allotted timeout", 0));
            }
        },
    };
    answer.unwrap_or_else(|_| {
        if let Some(recorder) = notes.recorder() {
            recorder.failed(&Status::internal("APIServer panic'd"));
            recorder.stage(Stage::Panic);
        }
        let text = "This request caused apiserver to panic. Look in the logs for details.\n";
        Ok(respond::text(StatusCode::INTERNAL_SERVER_ERROR, text))
    })
}

/// connection → request info → authentication → audit → impersonation → flow control → authorization → (decode →
/// default → mutate → validate → store → encode: the verbs).
async fn answer(
    server: &Arc<Server>,
    connection: &Connection,
    info: &RequestInfo,
    notes: &Notes,
    patience: Duration,
    parts: Parts,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    let route = if info.resource_request { None } else { routes::find(&info.path) };
    let is_open = route.is_some_and(|route| route.access == Access::Open);
    let user = match is_open {
        true => Arc::new(UserInfo::anonymous()),
        false => authenticate(server, connection, info, notes, &parts).await?,
    };
    notes.begin_audit(server, info, &parts, connection, &user);
    let user = match is_open {
        true => user,
        false => act_as(server, notes, user, &parts)?,
    };
    let seat = if info.is_passed_on() {
        None
    } else {
        let sort = notes.sort(server.flow.sort(info, &user));
        match server.flow.enter(server, sort, info, &user, patience / 4).await {
            Ok(seat) => Some(seat),
            Err(away) => return Ok(too_many(away.seconds)),
        }
    };
    if !is_open {
        authorize(server, info, &user, notes)?;
    }
    // The seat is held until the head of the answer is there.
    let answer = perform(server, connection, info, notes, user, route, parts, body).await;
    drop(seat);
    answer
}

/// What an authorized request is for.
#[expect(clippy::too_many_arguments, reason = "the end of the way: everything that is known is handed over")]
async fn perform(
    server: &Arc<Server>,
    connection: &Connection,
    info: &RequestInfo,
    notes: &Notes,
    user: Arc<UserInfo>,
    route: Option<&routes::Route>,
    mut parts: Parts,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
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
    let (warnings, audit, stay) = (&notes.warnings, notes.recorder(), &notes.stay);
    let context =
        Context { info, user: &user, headers: &parts.headers, connection, accept, warnings, audit, stay };
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

/// Who asks. Whoever fails to say so is recorded, too.
async fn authenticate(
    server: &Server,
    connection: &Connection,
    info: &RequestInfo,
    notes: &Notes,
    parts: &Parts,
) -> Result<Arc<UserInfo>, Status> {
    let user = server.auth.identify(parts, connection).await.inspect_err(|_| {
        notes.refused(server, info, parts, connection);
    })?;
    Ok(user.unwrap_or_else(|| Arc::new(UserInfo::anonymous())))
}

/// As whom the user acts.
fn act_as(
    server: &Server,
    notes: &Notes,
    user: Arc<UserInfo>,
    parts: &Parts,
) -> Result<Arc<UserInfo>, Status> {
    let acting = server.auth.impersonate(user.clone(), &parts.headers)?;
    if let Some(recorder) = notes.recorder().filter(|_| !Arc::ptr_eq(&user, &acting)) {
        recorder.impersonated(&acting);
    }
    Ok(acting)
}

/// 403 unless somebody allows it; 401 for a client without credentials.
fn authorize(server: &Server, info: &RequestInfo, user: &Arc<UserInfo>, notes: &Notes) -> Result<(), Status> {
    let attributes = info.attributes(user.clone());
    let decision = server.auth.authorize(&attributes);
    if let Some(recorder) = notes.recorder() {
        let (word, reason) = match &decision {
            Decision::Allow => ("allow", server.auth.why_allowed(&attributes)),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => ("forbid", reason.clone()),
        };
        recorder.annotate("authorization.k8s.io/decision", word);
        recorder.annotate("authorization.k8s.io/reason", reason);
    }
    match decision {
        Decision::Allow => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(&attributes, &reason)),
    }
}

/// 429, in upstream's form: plain text, so that it costs nothing to make.
fn too_many(seconds: u32) -> Response<Body> {
    let text = "Too many requests, please try again later.\n";
    let mut response = respond::text(StatusCode::TOO_MANY_REQUESTS, text);
    response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn failure(info: &RequestInfo, media: Media, status: &Status) -> Response<Body> {
    let (verb, path, code, message) = (info.verb, info.path.as_str(), status.code, status.message.as_str());
    match status.code {
        // A backend that is away, or answers with a fault, is not this server's.
        502..=504 if info.is_passed_on() => debug!(verb, path, code, message, "a backend did not answer"),
        500.. if info.is_passed_on() => warn!(verb, path, code, message, "a request to a backend failed"),
        // Upstream's 500 without a reason is about what the client sent.
        500 if status.reason == Reason::Unknown => debug!(verb, path, code, message, "request refused"),
        // The client asked for less time than it takes.
        504 if info.query.get("timeout").is_some() => debug!(verb, path, code, message, "request timed out"),
        500.. => error!(verb, path, code, message, "request failed"),
        _ => {}
    }
    respond::status(media, status)
}
