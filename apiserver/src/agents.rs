//! What node agents serve: container logs, and the streams of exec and attach.
//!
//! Every request gets a connection of its own, which is never used again: an answer that is not the expected one
//! can't leave a tunnel behind. The agent must prove its node's certificate, redirects are not followed, and the
//! client's credentials are not passed on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::field::{FieldError, Path};
use api::status::{Reason, Status};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Node, Pod};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::debug;

use crate::admission::{AdmissionContext, Operation};
use crate::auth::Decision;
use crate::body::{BoxError, boxed};
use crate::context::{Context, read_body};
use crate::registry::fresh_failure;
use crate::server::{Server, StartError};
use crate::{Body, Config, pipeline, pki, respond};

/// How long an agent may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(15);
/// What is read of an agent's error message.
const MOST_ERROR: usize = 16 * 1024;

/// The way to the node agents.
pub(crate) struct Agents {
    pki: Arc<pki::Pki>,
    port: u16,
}

/// A stream through an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tunnel {
    Exec,
    Attach,
}

impl Agents {
    pub(crate) fn new(config: &Config) -> Result<Self, StartError> {
        Ok(Self { pki: config.pki.clone(), port: config.node_agent_port })
    }

    /// A connection of its own to an agent.
    async fn connect(
        &self,
        server: &Server,
        address: SocketAddr,
    ) -> Result<hyper::client::conn::http1::SendRequest<Empty<Bytes>>, String> {
        let credential = self.pki.agent_client().map_err(|error| error.to_string())?;
        let config = pki::tls::client(
            self.pki.authority_pem(),
            Some((&credential.certificate_pem, credential.key_pem())),
        )
        .map_err(|error| error.to_string())?;
        let stream =
            TcpStream::connect(address).await.map_err(|error| format!("dial tcp {address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| format!("tls {address}: {error}"))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        server.tasks().spawn("node agent connection", async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%address, %error, "connection to a node agent ended");
            }
        });
        Ok(sender)
    }
}

/// A container of a running pod, and where its agent is.
struct Place {
    address: SocketAddr,
    host: String,
    container: String,
}

fn pod(server: &Server, context: &Context<'_>) -> Result<Pod, Status> {
    let info = context.info;
    let not_found = || Status::not_found(api::status::GroupResource::new("", "pods"), &info.name);
    let cache = server.registry.cache_of("", "pods").ok_or_else(Status::unknown_path)?;
    cache.get(&info.namespace, &info.name).ok_or_else(not_found)?.decode().map_err(Status::internal)
}

/// The container that is meant: the one named, the default one, or the only one.
fn container(pod: &Pod, name: Option<&str>) -> Result<String, Status> {
    let spec = pod.spec.clone().unwrap_or_default();
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let names: Vec<&str> = spec.containers.iter().map(|container| container.name.as_str()).collect();
    let init: Vec<&str> =
        spec.init_containers.iter().flatten().map(|container| container.name.as_str()).collect();
    let ephemeral: Vec<&str> =
        spec.ephemeral_containers.iter().flatten().map(|container| container.name.as_str()).collect();
    if let Some(name) = name {
        let known = names.iter().chain(&init).chain(&ephemeral).any(|known| *known == name);
        let unknown = || Status::bad_request(format!("container {name} is not valid for pod {pod_name}"));
        return if known { Ok(name.to_owned()) } else { Err(unknown()) };
    }
    let annotation = "kubectl.kubernetes.io/default-container";
    let default = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(annotation));
    if let Some(default) = default.filter(|default| names.contains(&default.as_str())) {
        return Ok(default.clone());
    }
    match (names.as_slice(), init.is_empty()) {
        ([only], true) => Ok((*only).to_owned()),
        (_, true) => Err(Status::bad_request(format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}]",
            names.join(" ")
        ))),
        _ => Err(Status::bad_request(format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}] or one of the init containers: [{}]",
            names.join(" "),
            init.join(" ")
        ))),
    }
}

/// The agent of the pod's node; `None` if the pod has no node yet.
fn place(server: &Server, pod: &Pod, container: String) -> Result<Option<Place>, Status> {
    let Some(host) =
        pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty())
    else {
        return Ok(None);
    };
    let cache = server.registry.cache_of("", "nodes").ok_or_else(Status::unknown_path)?;
    let node = cache.get("", &host);
    let node =
        node.ok_or_else(|| Status::internal(format!("node {} not found", api::field::quote(&host))))?;
    let node: Node = node.decode().map_err(Status::internal)?;
    let status = node.status.unwrap_or_default();
    let address = status.addresses.iter().flatten().find(|address| address.type_ == "InternalIP");
    let address: IpAddr = address.and_then(|address| address.address.parse().ok()).ok_or_else(|| {
        Status::internal(format!("no preferred addresses found; known addresses: [] (node {host})"))
    })?;
    let port = status
        .daemon_endpoints
        .and_then(|endpoints| endpoints.kubelet_endpoint)
        .and_then(|endpoint| u16::try_from(endpoint.port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(server.agents.port);
    Ok(Some(Place { address: SocketAddr::new(address, port), host, container }))
}

/// GET of a pod's log.
pub(crate) async fn log(server: &Arc<Server>, context: &Context<'_>) -> Result<Response<Body>, Status> {
    server.registry.caches.fresh().await.map_err(fresh_failure)?;
    let info = context.info;
    let query = log_query(context)?;
    let pod = pod(server, context)?;
    let container = container(&pod, info.query.get("container"))?;
    let Some(place) = place(server, &pod, container)? else {
        return Ok(respond::text(StatusCode::OK, Bytes::new()));
    };
    let target = format!(
        "/containerLogs/{}/{}/{}?{query}",
        escape(&info.namespace),
        escape(&info.name),
        escape(&place.container)
    );
    let response = ask(server, &place, &target, HeaderMap::new()).await?;
    if response.status() != StatusCode::OK {
        return Err(refusal(response, &info.name, "pods/log").await);
    }
    let stream = futures::stream::unfold(response.into_body(), |mut body| async move {
        loop {
            match body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => return Some((Ok(data), body)),
                    Err(_) => continue,
                },
                Err(error) => return Some((Err(BoxError::from(error)), body)),
            }
        }
    });
    Ok(respond::with(StatusCode::OK, "text/plain", Body::Fallible(Box::pin(stream))))
}

/// The options of a log, checked, in the agent's spelling.
fn log_query(context: &Context<'_>) -> Result<String, Status> {
    let query = &context.info.query;
    let mut errors = Vec::new();
    let mut out = Vec::new();
    for (name, least) in [("sinceSeconds", 1), ("tailLines", 0), ("limitBytes", 1)] {
        let Some(value) = crate::registry::options::integer(query, name)? else { continue };
        if value < least {
            let why =
                if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            errors.push(FieldError::invalid(&Path::new(name), value, why));
        }
        out.push(format!("{name}={value}"));
    }
    if let Some(since) = query.get("sinceTime") {
        if query.get("sinceSeconds").is_some() {
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden(&Path::root(), why));
        }
        if since.parse::<jiff::Timestamp>().is_err() {
            return Err(Status::bad_request(format!(
                "parsing time {} as \"2006-01-02T15:04:05Z07:00\": cannot parse",
                api::field::quote(since)
            )));
        }
        out.push(format!("sinceTime={}", escape(since)));
    }
    for name in ["follow", "previous", "timestamps"] {
        if query.flag(name) {
            out.push(format!("{name}=true"));
        }
    }
    if let Some(stream) = query.get("stream") {
        if !matches!(stream, "All" | "Stdout" | "Stderr") {
            errors.push(FieldError::not_supported(
                &Path::new("stream"),
                stream,
                &["All", "Stderr", "Stdout"],
            ));
        }
        out.push(format!("stream={}", escape(stream)));
    }
    if errors.is_empty() { Ok(out.join("&")) } else { Err(Status::invalid("", "PodLogOptions", "", &errors)) }
}

/// GET or POST that becomes a stream through the agent.
pub(crate) async fn tunnel(
    server: &Arc<Server>,
    context: &Context<'_>,
    tunnel: Tunnel,
    parts: &Parts,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<Body>, Status> {
    let info = context.info;
    // A WebSocket begins with GET, but it does what only `create` may allow.
    if info.verb != "create" {
        let mut attributes = info.attributes(context.user.clone());
        "create".clone_into(&mut attributes.verb);
        if let Decision::Deny(reason) | Decision::NoOpinion(reason) = server.auth.authorize(&attributes) {
            return Err(pipeline::forbidden(&attributes, &reason));
        }
    }
    server.registry.caches.fresh().await.map_err(fresh_failure)?;
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
    server.admission.validate(&admission, None, None)?;
    let pod = pod(server, context)?;
    let container = container(&pod, info.query.get("container"))?;
    let unassigned = || Status::bad_request(format!("pod {} does not have a host assigned", info.name));
    let place = place(server, &pod, container)?.ok_or_else(unassigned)?;
    let (path, query) = match tunnel {
        Tunnel::Exec => ("exec", stream_query(context, true)?),
        Tunnel::Attach => ("attach", stream_query(context, false)?),
    };
    let target = format!(
        "/{path}/{}/{}/{}?{query}",
        escape(&info.namespace),
        escape(&info.name),
        escape(&place.container)
    );
    let Some(upgrade) = upgrade.filter(|_| parts.headers.contains_key(UPGRADE)) else {
        return Err(Status::bad_request("Upgrade request required"));
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &parts.headers {
        // The agent learns what the stream is, not who asked for it.
        let of_the_stream = *name == CONNECTION
            || *name == UPGRADE
            || name.as_str().starts_with("sec-websocket-")
            || name.as_str().starts_with("x-stream-protocol-");
        if of_the_stream {
            headers.append(name, value.clone());
        }
    }
    let mut answer = ask(server, &place, &target, headers).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(answer, &info.name, "pods").await);
    }
    let agent = hyper::upgrade::on(&mut answer);
    server.tasks().spawn("stream through a node agent", async move {
        let (client, agent) = match tokio::try_join!(upgrade, agent) {
            Ok(both) => both,
            Err(error) => return debug!(%error, "a stream did not come about"),
        };
        // Bytes pass unchanged both ways, closing frames included; one side's end is passed on to the other.
        let copied = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(agent)).await;
        if let Err(error) = copied {
            debug!(%error, "a stream was cut");
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    Ok(response)
}

/// The options of exec and attach, checked, in the agent's spelling.
fn stream_query(context: &Context<'_>, command: bool) -> Result<String, Status> {
    let query = &context.info.query;
    let mut out = Vec::new();
    let mut streams = 0;
    for (here, there) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(here) {
            out.push(format!("{there}=1"));
            streams += usize::from(here != "tty");
        }
    }
    if streams == 0 {
        return Err(Status::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    if query.flag("tty") && query.flag("stderr") {
        // What upstream's validation says; a terminal has one output.
        return Err(Status::bad_request("tty and stderr cannot both be true"));
    }
    if command {
        let words: Vec<String> =
            query.all("command").map(|word| format!("command={}", escape(word))).collect();
        if words.is_empty() {
            return Err(Status::bad_request("you must specify at least one command for the container"));
        }
        out.extend(words);
    }
    Ok(out.join("&"))
}

async fn ask(
    server: &Server,
    place: &Place,
    target: &str,
    headers: HeaderMap,
) -> Result<Response<Incoming>, Status> {
    let failed = |why: String| Status::internal(format!("error dialing backend: node {}: {why}", place.host));
    let asking = async {
        let mut sender = server.agents.connect(server, place.address).await?;
        let mut request = Request::get(target)
            .header(HOST, place.address.to_string())
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        request.headers_mut().extend(headers);
        sender.send_request(request).await.map_err(|error| error.to_string())
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(failed(format!("no answer from {} in {} s", place.address, PATIENCE.as_secs()))),
    }
}

/// An agent's refusal, as the API's answer.
async fn refusal(response: Response<Incoming>, name: &str, resource: &str) -> Status {
    let code = response.status();
    let text = match read_body(boxed(response.into_body()), MOST_ERROR).await {
        Ok(body) => String::from_utf8_lossy(&body).trim().to_owned(),
        Err(status) => status.message,
    };
    let reason = match code {
        StatusCode::BAD_REQUEST => Reason::BadRequest,
        StatusCode::NOT_FOUND => Reason::NotFound,
        StatusCode::FORBIDDEN => Reason::Forbidden,
        StatusCode::SERVICE_UNAVAILABLE => Reason::ServiceUnavailable,
        _ => Reason::InternalError,
    };
    // Whatever is not an error here is none that the client could use.
    let code = if code.is_client_error() || code.is_server_error() { code.as_u16() } else { 500 };
    let message =
        if text.is_empty() { format!("the node agent answered {code} for {resource} {name}") } else { text };
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
