//! The HTTP side: one upgrade per connection.

use std::convert::Infallible;
use std::sync::Arc;

use base::Tasks;
use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tracing::{debug, warn};

use super::channel::Protocol;
use super::{Streaming, Ticket, forward, session};

/// Takes connections until the tasks end.
pub(super) async fn serve(streaming: Arc<Streaming>, listener: TcpListener, tasks: Tasks) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (streaming, own) = (streaming.clone(), tasks.clone());
                tasks.spawn("streaming connection", connection(streaming, stream, own));
            }
            Err(error) => warn!(%error, "accept a streaming connection"),
        }
    }
}

async fn connection(streaming: Arc<Streaming>, stream: TcpStream, tasks: Tasks) {
    // Keystrokes must not wait for company.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let response = respond(&streaming, request, &tasks);
        async move { Ok::<_, Infallible>(response) }
    });
    if let Err(error) =
        http1::Builder::new().serve_connection(TokioIo::new(stream), answer).with_upgrades().await
    {
        debug!(%error, "streaming connection");
    }
}

fn respond(
    streaming: &Arc<Streaming>,
    mut request: Request<Incoming>,
    tasks: &Tasks,
) -> Response<Full<Bytes>> {
    let headers = request.headers();
    let upgrade = match Upgrade::choose(request.uri().path(), headers) {
        Ok(upgrade) => upgrade,
        Err((code, why)) => return text(code, why),
    };
    let Some(ticket) = streaming.redeem(request.uri().path()) else {
        return text(StatusCode::NOT_FOUND, "404 page not found");
    };
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    upgrade.answer(headers, response.headers_mut());
    let (core, upgraded) = (streaming.core.clone(), hyper::upgrade::on(&mut request));
    tasks.spawn("streaming session", async move {
        let io = match upgraded.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return debug!(%error, "upgrade"),
        };
        let protocol = match (upgrade, ticket) {
            (Upgrade::Spdy, Ticket::PortForward(sandbox, _)) => {
                return forward::over_spdy(&core, &sandbox, io).await;
            }
            // Whoever has a ticket of another kind was refused SPDY.
            (Upgrade::Spdy, _) => return,
            (Upgrade::WebSocket(protocol), ticket) => (protocol, ticket),
        };
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        match protocol {
            (_, Ticket::PortForward(sandbox, ports)) => {
                forward::over_websocket(&core, &sandbox, &ports, socket).await;
            }
            (protocol, ticket) => session::run(&core, socket, protocol, ticket).await,
        }
    });
    response
}

/// What a connection becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    WebSocket(Protocol),
    Spdy,
}

/// The protocol of port-forward over SPDY.
const PORT_FORWARD: &str = "portforward.k8s.io";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

impl Upgrade {
    fn choose(path: &str, headers: &HeaderMap) -> Result<Self, (StatusCode, &'static str)> {
        let is_forward = path.starts_with("/portforward/");
        let wants = |name: &[u8]| {
            headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(name))
        };
        if is_forward && wants(spdy::PROTOCOL.as_bytes()) {
            return if names(headers, &STREAM_PROTOCOL).any(|name| name == PORT_FORWARD) {
                Ok(Self::Spdy)
            } else {
                Err((StatusCode::FORBIDDEN, "unable to upgrade: the server accepts portforward.k8s.io"))
            };
        }
        if !wants(b"websocket") || !headers.contains_key(SEC_WEBSOCKET_KEY) {
            return Err((StatusCode::BAD_REQUEST, "unable to upgrade: only WebSocket is supported"));
        }
        let chosen = match Protocol::choose(names(headers, &SEC_WEBSOCKET_PROTOCOL)) {
            // The channels of ports are those of version 4; version 5 has nothing to add to them.
            Some(_) if is_forward => names(headers, &SEC_WEBSOCKET_PROTOCOL)
                .any(|name| name == Protocol::V4.name())
                .then_some(Protocol::V4),
            chosen => chosen,
        };
        let unknown = "no supported protocol: v5.channel.k8s.io and v4.channel.k8s.io are";
        chosen.map(Self::WebSocket).ok_or((StatusCode::FORBIDDEN, unknown))
    }

    /// The headers of the answer.
    fn answer(self, asked: &HeaderMap, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        let protocol = match self {
            Self::Spdy => {
                headers.insert(UPGRADE, HeaderValue::from_static(spdy::PROTOCOL));
                headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(PORT_FORWARD));
                return;
            }
            Self::WebSocket(protocol) => protocol,
        };
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol.name()));
        let key = asked.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
        if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key)) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
    }
}

/// The names in a header that may be there several times, each with a list.
fn names<'a>(headers: &'a HeaderMap, header: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(header)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
