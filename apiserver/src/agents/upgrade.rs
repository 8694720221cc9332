//! What a connection that is upgraded becomes, on the side of the client and on that of the agent.

use std::sync::Arc;

use api::status::{Reason, Status};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::debug;

use super::Sender;
use crate::admission::{AdmissionContext, Operation};
use crate::auth::{Decision, forbidden};
use crate::body::Body;
use crate::context::Context;
use crate::server::Server;

/// In which SPDY names what its streams are for.
pub(super) const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// What a client wants its connection to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    WebSocket { protocols: Vec<String> },
    Spdy { protocols: Vec<String> },
}

impl Asked {
    /// Reads the request's head.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Status> {
        let upgrade = headers.get(UPGRADE).map(HeaderValue::as_bytes).unwrap_or_default();
        if upgrade.eq_ignore_ascii_case(b"websocket") && headers.contains_key(SEC_WEBSOCKET_KEY) {
            return Ok(Self::WebSocket { protocols: names(headers, &SEC_WEBSOCKET_PROTOCOL) });
        }
        if upgrade.eq_ignore_ascii_case(spdy::PROTOCOL.as_bytes()) {
            return Ok(Self::Spdy { protocols: names(headers, &STREAM_PROTOCOL) });
        }
        Err(Status::bad_request("Upgrade request required"))
    }
}

/// The names in a header that may be there several times, each with a list.
fn names(headers: &HeaderMap, header: &HeaderName) -> Vec<String> {
    let lists = headers.get_all(header).iter().filter_map(|list| list.to_str().ok());
    let names = lists.flat_map(|list| list.split(',')).map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The first protocol of the client's that is among ours. A client that names none is so old that there was but one.
pub(super) fn negotiate<'a>(client: &[String], ours: &[&'a str]) -> Result<Option<&'a str>, Status> {
    if client.is_empty() {
        return Ok(None);
    }
    let common = client.iter().find_map(|name| ours.iter().find(|known| *known == name));
    common.map(|name| Some(*name)).ok_or_else(|| {
        let what = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            client.join(" "),
            ours.join(" ")
        );
        Status::failure(403, Reason::Forbidden, what)
    })
}

/// Refuses a stream to those who may not `create` it, as a WebSocket begins with GET, and to whom admission does.
pub(super) fn allow(server: &Server, context: &Context<'_>) -> Result<(), Status> {
    let info = context.info;
    if info.verb != "create" {
        let mut attributes = info.attributes(context.user.clone());
        "create".clone_into(&mut attributes.verb);
        if let Decision::Deny(reason) | Decision::NoOpinion(reason) = server.auth.authorize(&attributes) {
            return Err(forbidden(&attributes, &reason));
        }
    }
    let row = server.registry.table().preferred("", "pods").cloned().ok_or_else(Status::unknown_path)?;
    let admission = AdmissionContext {
        user: context.user,
        operation: Operation::Connect,
        resource: &row,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: info.name.clone(),
        dry_run: false,
        warnings: context.warnings,
    };
    server.admission.validate(&admission, None, None)
}

/// The headers with which an agent is asked for a WebSocket.
pub(super) fn ask_websocket(server: &Server, protocol: &'static str) -> HeaderMap {
    let mut key = [0; 16];
    server.config.random.fill(&mut key);
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    // Base64 is ASCII.
    if let Ok(key) = HeaderValue::from_str(&STANDARD.encode(key)) {
        headers.insert(SEC_WEBSOCKET_KEY, key);
    }
    headers
}

/// The headers with which an agent is asked for SPDY, or a client is given it.
pub(super) fn spdy_headers(protocol: Option<&'static str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(spdy::PROTOCOL));
    if let Some(protocol) = protocol {
        headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    }
    headers
}

/// The headers that give a client its WebSocket.
pub(super) fn websocket_headers(asked: &HeaderMap, protocol: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    let key = asked.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    headers
}

/// Those headers of a client's request, or of an agent's answer, that say what the connection becomes.
pub(super) fn of_the_stream(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        let name_text = name.as_str();
        if *name == CONNECTION
            || *name == UPGRADE
            || name_text.starts_with("sec-websocket-")
            || name_text.starts_with("x-stream-protocol-")
        {
            kept.append(name, value.clone());
        }
    }
    kept
}

/// The answer after which a connection is something else.
pub(crate) fn switching(headers: HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}

/// Both ends, when both are there.
pub(super) async fn both(client: OnUpgrade, agent: OnUpgrade) -> Option<(Upgraded, Upgraded)> {
    match tokio::try_join!(client, agent) {
        Ok(both) => Some(both),
        Err(error) => {
            debug!(%error, "a stream did not come about");
            None
        }
    }
}

/// Carries bytes unchanged both ways until both sides have ended.
pub(crate) async fn copy(client: OnUpgrade, backend: OnUpgrade) {
    let Some((client, backend)) = both(client, backend).await else { return };
    // The end of one side is passed on to the other.
    let copied = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await;
    if let Err(error) = copied {
        debug!(%error, "a stream was cut");
    }
}

/// HTTP on a connection that was just made.
pub(crate) async fn connected<IO>(server: &Server, io: IO) -> Result<Sender, String>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(|error| error.to_string())?;
    server.tasks().spawn("connection to a backend", async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "a connection to a backend ended");
        }
    });
    Ok(sender)
}

/// Starts what carries a stream. The request lasts until it has ended.
pub(crate) fn spawn(
    server: &Arc<Server>,
    context: &Context<'_>,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let stay = context.stay.clone();
    server.tasks().spawn("stream through the API server", async move {
        work.await;
        drop(stay);
    });
}
