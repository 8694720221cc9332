//! What node agents serve: container logs, and the streams of exec, attach and port-forward.
//!
//! Every request gets a connection of its own, which is never used again: an answer that is not the expected one
//! can't leave a tunnel behind. The agent must prove its node's certificate, redirects are not followed, and the
//! client's credentials are not passed on.
//!
//! Agents speak WebSocket for exec and attach, and SPDY for port-forward. Clients speak either for either: what they
//! speak is taken over here ([`spdy_streams`], [`tunnel`]).

mod log;
mod options;
mod port_forward;
mod spdy_streams;
mod streams;
mod tunnel;
mod upgrade;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::status::{Reason, Status};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::{Node, Pod};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::{BoxError, RequestBody, boxed};
use crate::context::{Context, read_body};
use crate::server::{Server, StartError};
use crate::{Config, RequestInfo, pki};

pub(crate) use log::log;
pub(crate) use port_forward::port_forward;
pub(crate) use streams::{Streams, streams};
pub(crate) use upgrade::{connected, copy, spawn, switching};

/// How long an agent may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(15);
/// What is read of an agent's error message.
const MOST_ERROR: usize = 16 * 1024;

/// The way to the node agents.
pub(crate) struct Agents {
    pki: Arc<pki::Pki>,
    port: u16,
}

/// Reads every option that a request to an agent may have. For fuzz targets.
pub(crate) fn read_options(info: &RequestInfo) {
    let _ = (options::of_log(info), options::of_streams(info, true), options::ports(info));
}

/// Sends one request over a connection of its own.
pub(crate) type Sender = hyper::client::conn::http1::SendRequest<RequestBody>;

impl Agents {
    pub(crate) fn new(config: &Config) -> Result<Self, StartError> {
        Ok(Self { pki: config.pki.clone(), port: config.node_agent_port })
    }

    /// A connection of its own to an agent. Its certificate is not looked at if the client of a log says so.
    pub(crate) async fn connect(
        &self,
        server: &Server,
        address: SocketAddr,
        unverified: bool,
    ) -> Result<Sender, String> {
        let credential = self.pki.agent_client().map_err(|error| error.to_string())?;
        let credential = (credential.certificate_pem.as_str(), credential.key_pem());
        let config = if unverified {
            pki::tls::unverified_client(Some(credential))
        } else {
            pki::tls::client(self.pki.authority_pem(), Some(credential))
        };
        let config = config.map_err(|error| error.to_string())?;
        let stream = dial(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| format!("tls {address}: {error}"))?;
        connected(server, stream).await
    }
}

/// A TCP connection; the error is in Go's words, which clients show.
pub(crate) async fn dial(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    stream.map_err(|error| {
        // "Connection refused (os error 111)"
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        format!("dial tcp {address}: connect: {text}")
    })
}

/// The agent of a node.
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
}

/// The pod of a request.
fn pod(server: &Server, context: &Context<'_>) -> Result<Pod, Status> {
    let info = context.info;
    let not_found = || Status::not_found(api::status::GroupResource::new("", "pods"), &info.name);
    let cache = server.registry.cache_of("", "pods").ok_or_else(Status::unknown_path)?;
    cache.get(&info.namespace, &info.name).ok_or_else(not_found)?.decode().map_err(Status::internal)
}

/// The container that is meant: the one named, or the only one.
fn container(pod: &Pod, name: Option<&str>) -> Result<String, Status> {
    let spec = pod.spec.as_ref();
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let init = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let usual = spec.into_iter().flat_map(|spec| &spec.containers);
    let ephemeral = spec.into_iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    let mut all = init.map(|container| &container.name).chain(usual.clone().map(|container| &container.name));
    if let Some(name) = name {
        let known = all.any(|known| known == name) || ephemeral.into_iter().any(|known| known.name == name);
        let unknown = || Status::bad_request(format!("container {name} is not valid for pod {pod_name}"));
        return if known { Ok(name.to_owned()) } else { Err(unknown()) };
    }
    let mut usual = usual;
    match (usual.next(), usual.next()) {
        (Some(only), None) => Ok(only.name.clone()),
        (None, _) => {
            Err(Status::bad_request(format!("a container name must be specified for pod {pod_name}")))
        }
        _ => {
            let all = all.chain(ephemeral.map(|container| &container.name));
            let all: Vec<&str> = all.map(String::as_str).collect();
            Err(Status::bad_request(format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                all.join(" ")
            )))
        }
    }
}

/// The agent of the pod's node; `None` if the pod has no node yet.
fn place(server: &Server, pod: &Pod) -> Result<Option<Place>, Status> {
    let host = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty());
    host.map(|host| node(server, host)).transpose()
}

/// The agent of a node.
pub(crate) fn node(server: &Server, name: &str) -> Result<Place, Status> {
    let cache = server.registry.cache_of("", "nodes").ok_or_else(Status::unknown_path)?;
    let not_found = || Status::not_found(api::status::GroupResource::new("", "nodes"), name);
    let node: Node = cache.get("", name).ok_or_else(not_found)?.decode().map_err(Status::internal)?;
    let status = node.status.unwrap_or_default();
    let address = status.addresses.iter().flatten().find(|address| address.type_ == "InternalIP");
    let address: IpAddr = address.and_then(|address| address.address.parse().ok()).ok_or_else(|| {
        Status::failure(500, Reason::Unknown, "no preferred addresses found; known addresses: []")
    })?;
    let port = status
        .daemon_endpoints
        .and_then(|endpoints| endpoints.kubelet_endpoint)
        .and_then(|endpoint| u16::try_from(endpoint.port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(server.agents.port);
    Ok(Place { address: SocketAddr::new(address, port), host: name.to_owned() })
}

/// Asks an agent with GET.
async fn ask(
    server: &Server,
    place: &Place,
    target: &str,
    headers: HeaderMap,
    unverified: bool,
) -> Result<Response<Incoming>, Status> {
    let failed = |why: String| Status::internal(format!("error dialing backend: node {}: {why}", place.host));
    let asking = async {
        let mut sender = server.agents.connect(server, place.address, unverified).await?;
        let mut request = Request::get(target)
            .header(HOST, place.address.to_string())
            .body(boxed(Empty::<Bytes>::new()))
            .map_err(|error| error.to_string())?;
        request.headers_mut().extend(headers);
        sender.send_request(request).await.map_err(|error| error.to_string())
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(failed(format!("no answer from {} in {} s", place.address, PATIENCE.as_secs()))),
    }
}

/// What an agent says in a refusal.
async fn words(response: Response<Incoming>) -> String {
    match read_body(boxed(response.into_body()), MOST_ERROR).await {
        Ok(body) => String::from_utf8_lossy(&body).trim().to_owned(),
        Err(status) => status.message,
    }
}

/// An agent's refusal, as the API's answer.
async fn refusal(response: Response<Incoming>, name: &str) -> Status {
    let code = response.status();
    let text = words(response).await;
    let reason = match code {
        StatusCode::BAD_REQUEST => Reason::BadRequest,
        StatusCode::NOT_FOUND => Reason::NotFound,
        StatusCode::FORBIDDEN => Reason::Forbidden,
        StatusCode::SERVICE_UNAVAILABLE => Reason::ServiceUnavailable,
        _ => Reason::InternalError,
    };
    let message =
        if text.is_empty() { format!("the node agent answered {code} for pods {name}") } else { text };
    // Whatever is not an error here is none that the client could use.
    let code = if code.is_client_error() || code.is_server_error() { code.as_u16() } else { 500 };
    Status::failure(code, reason, message)
}

/// Percent-encodes everything but what is safe in a path segment and a query value.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A body as it comes, of which an error cuts the answer.
pub(crate) fn passed_on(body: Incoming) -> crate::Body {
    let stream = futures::stream::unfold(body, |mut body| async move {
        loop {
            match http_body_util::BodyExt::frame(&mut body).await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => return Some((Ok(data), body)),
                    Err(_) => continue,
                },
                Err(error) => return Some((Err(BoxError::from(error)), body)),
            }
        }
    });
    crate::Body::Fallible(Box::pin(stream))
}
