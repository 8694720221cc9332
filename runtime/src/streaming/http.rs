//! The HTTP side: one upgrade per connection.

use std::convert::Infallible;
use std::sync::Arc;

use base::Tasks;
use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
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
use super::{Streaming, session};

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
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY).cloned().filter(|_| wants_websocket(headers)) else {
        return text(StatusCode::BAD_REQUEST, "unable to upgrade: only WebSocket is supported");
    };
    let Some(protocol) = Protocol::choose(offered(headers)) else {
        return text(
            StatusCode::FORBIDDEN,
            "no supported protocol: v5.channel.k8s.io and v4.channel.k8s.io are",
        );
    };
    let Some(ticket) = streaming.redeem(request.uri().path()) else {
        return text(StatusCode::NOT_FOUND, "404 page not found");
    };
    let (core, upgrade) = (streaming.core.clone(), hyper::upgrade::on(&mut request));
    tasks.spawn("streaming session", async move {
        match upgrade.await {
            Ok(upgraded) => {
                let socket =
                    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
                session::run(&core, socket, protocol, ticket).await;
            }
            Err(error) => debug!(%error, "upgrade"),
        }
    });
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol.name()));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
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
