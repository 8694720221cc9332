//! Exec, attach and port-forward: the client's stream goes on to the runtime's own streaming server, at an address that the
//! runtime gives for one use.
//!
//! Bytes pass unchanged when both sides speak the same subprotocol, whether that is one of WebSocket's or SPDY. A
//! runtime that doesn't know `v5.channel.k8s.io` is spoken to in SPDY ([`older`](super::older)).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::debug;

use super::older;
use super::reply::{self, Body, Refusal};
use super::routes::Query;
use super::{ContainerRef, Context};
use crate::runtime::RuntimeError;

const V5: &str = "v5.channel.k8s.io";
/// How long the runtime's server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is read of its error message.
const MOST_ERROR: usize = 16 * 1024;

/// The container that is meant.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) namespace: &'a str,
    pub(super) pod: &'a str,
    pub(super) container: &'a str,
    pub(super) uid: Option<&'a str>,
}

/// Which streams the client wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

fn wanted(query: &Query) -> Result<Wanted, Refusal> {
    let wanted = Wanted {
        stdin: query.flag("input"),
        stdout: query.flag("output"),
        stderr: query.flag("error"),
        tty: query.flag("tty"),
    };
    // A terminal has one output.
    let wanted = Wanted { stderr: wanted.stderr && !wanted.tty, ..wanted };
    if wanted.stdin || wanted.stdout || wanted.stderr {
        Ok(wanted)
    } else {
        Err(Refusal::bad_request("you must specify at least 1 of stdin, stdout, stderr"))
    }
}

fn running(context: &Context, target: &Target<'_>) -> Result<ContainerRef, Refusal> {
    let pod = context.pod(target.namespace, target.pod);
    let pod = pod.filter(|pod| target.uid.is_none_or(|uid| crate::pod::uid(pod) == uid));
    pod.ok_or_else(|| Refusal::not_found("pod does not exist"))?;
    let run = context.pods.container(target.namespace, target.pod, target.container, false);
    run.filter(|run| run.running)
        .ok_or_else(|| Refusal::not_found(format!("container not found (\"{}\")", target.container)))
}

fn refused(error: &RuntimeError) -> Refusal {
    Refusal::internal(error.rpc_text())
}

/// Runs a command in a container, with its streams.
pub(super) async fn exec(
    context: &Arc<Context>,
    target: &Target<'_>,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let wanted = wanted(query)?;
    let Wanted { stdin, stdout, stderr, tty } = wanted;
    upgradable(request.headers())?;
    let run = running(context, target)?;
    let cmd: Vec<String> = query.all("command").map(str::to_owned).collect();
    let asked = cri::ExecRequest { container_id: run.id, cmd, tty, stdin, stdout, stderr };
    stream(context, Asked::Exec(asked), wanted, request).await
}

/// Joins the streams of a container's own process.
pub(super) async fn attach(
    context: &Arc<Context>,
    target: &Target<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(request.uri().query());
    let wanted = wanted(&query)?;
    let Wanted { stdin, stdout, stderr, .. } = wanted;
    upgradable(request.headers())?;
    let run = running(context, target)?;
    // Whether there is a terminal was settled when the container was made.
    let pod = context.pod(target.namespace, target.pod);
    let container = pod.and_then(|pod| crate::pod::find_container(&pod, target.container));
    let tty = container.is_some_and(|(container, _)| container.tty == Some(true));
    let stderr = stderr && !tty;
    let asked = cri::AttachRequest { container_id: run.id, stdin, tty, stdout, stderr };
    stream(context, Asked::Attach(asked), Wanted { stderr, tty, ..wanted }, request).await
}

/// Connects to ports of a pod.
pub(super) async fn port_forward(
    context: &Arc<Context>,
    namespace: &str,
    pod: &str,
    uid: Option<&str>,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    upgradable(request.headers())?;
    // Over SPDY each stream says its port, so that none is known yet.
    let is_websocket = request.headers().contains_key(SEC_WEBSOCKET_KEY);
    let port = if is_websocket { ports(query)? } else { Vec::new() };
    let found =
        context.pod(namespace, pod).filter(|found| uid.is_none_or(|uid| crate::pod::uid(found) == uid));
    let found = found.ok_or_else(|| Refusal::not_found("pod does not exist"))?;
    let sandboxes = context.runtime.list_sandboxes(Some(crate::pod::uid(&found))).await;
    let sandboxes = sandboxes.map_err(|error| refused(&error))?;
    let attempt = |sandbox: &cri::PodSandbox| sandbox.metadata.as_ref().map_or(0, |data| data.attempt);
    let ready = sandboxes.iter().filter(|sandbox| sandbox.state() == cri::PodSandboxState::SandboxReady);
    let sandbox = ready.max_by_key(|sandbox| attempt(sandbox)).ok_or_else(|| {
        Refusal::internal(format!("failed to find sandboxID for pod \"{pod}_{namespace}\""))
    })?;
    let asked = cri::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port };
    let url = context.runtime.port_forward(asked).await.map_err(|error| refused(&error))?;
    proxy(context, &url, request).await
}

/// The ports that a WebSocket is for.
fn ports(query: &Query) -> Result<Vec<i32>, Refusal> {
    let all: Vec<&str> = query.all("port").flat_map(|list| list.split(',')).collect();
    if all.is_empty() {
        return Err(Refusal::bad_request("query parameter \"port\" is required"));
    }
    let number = |text: &str| match text.parse::<u16>() {
        Ok(0) => Err(Refusal::bad_request(format!("port \"{text}\" must be > 0"))),
        Ok(port) => Ok(i32::from(port)),
        Err(_) => {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let why = if digits { "value out of range" } else { "invalid syntax" };
            let why = format!("strconv.ParseUint: parsing \"{text}\": {why}");
            Err(Refusal::bad_request(format!("unable to parse \"{text}\" as a port: {why}")))
        }
    };
    all.into_iter().map(number).collect()
}

fn upgradable(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(UPGRADE) { Ok(()) } else { Err(Refusal::bad_request("Upgrade request required")) }
}

/// The subprotocols that the client offers, in its order.
fn offered(headers: &HeaderMap) -> Vec<String> {
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|list| list.to_str().ok());
    let names = lists.flat_map(|list| list.split(','));
    names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// What is asked of the runtime. Each address that it gives is good for one use.
enum Asked {
    Exec(cri::ExecRequest),
    Attach(cri::AttachRequest),
}

impl Asked {
    async fn url(&self, context: &Context) -> Result<String, Refusal> {
        let url = match self {
            Self::Exec(request) => context.runtime.exec(request.clone()).await,
            Self::Attach(request) => context.runtime.attach(request.clone()).await,
        };
        url.map_err(|error| refused(&error))
    }
}

/// Connects the client with the runtime's server in what both speak.
async fn stream(
    context: &Arc<Context>,
    asked: Asked,
    wanted: Wanted,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let offers_v5 = offered(request.headers()).iter().any(|name| name == V5);
    if !offers_v5 {
        return proxy(context, &asked.url(context).await?, request).await;
    }
    if !context.runtime_is_older.load(Ordering::Relaxed) {
        let mut headers = of_the_stream(request.headers());
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(V5));
        let answer = ask_runtime(context, &asked.url(context).await?, Method::GET, headers).await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(join(context, answer, &mut request));
        }
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(spdy::PROTOCOL));
    headers.insert("x-stream-protocol-version", HeaderValue::from_static(older::PROTOCOL));
    let mut answer = ask_runtime(context, &asked.url(context).await?, Method::POST, headers).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(answer).await);
    }
    context.runtime_is_older.store(true, Ordering::Relaxed);
    let mut response = switching();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(V5));
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let (client, runtime) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
    context.tasks.spawn("stream", async move {
        if let Some((client, runtime)) = both(client, runtime).await {
            older::carry(client, runtime, wanted).await;
        }
    });
    Ok(response)
}

/// Connects the client with the runtime's server as they are.
async fn proxy(
    context: &Arc<Context>,
    url: &str,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    // A WebSocket begins with GET and SPDY with POST; the API server sends both as GET.
    let is_websocket = request.headers().contains_key(SEC_WEBSOCKET_KEY);
    let method = if is_websocket { Method::GET } else { Method::POST };
    let mut headers = of_the_stream(request.headers());
    let offers = offered(request.headers()).join(", ");
    if let Some(offers) = HeaderValue::from_str(&offers).ok().filter(|offers| !offers.is_empty()) {
        // In one line, because some servers read only the first.
        headers.insert(SEC_WEBSOCKET_PROTOCOL, offers);
    }
    let answer = ask_runtime(context, url, method, headers).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(answer).await);
    }
    Ok(join(context, answer, &mut request))
}

/// Those headers of a request that say what the stream is.
fn of_the_stream(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        let kept_name = [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION].contains(name)
            || name.as_str().starts_with("x-stream-protocol-");
        if kept_name {
            kept.append(name, value.clone());
        }
    }
    kept
}

fn switching() -> Response<Body> {
    let mut response = reply::with(StatusCode::SWITCHING_PROTOCOLS, "text/plain", "");
    response.headers_mut().clear();
    response
}

/// The runtime's refusal, as it is.
async fn refusal(answer: Response<Incoming>) -> Refusal {
    let code = answer.status();
    let text = Limited::new(answer.into_body(), MOST_ERROR).collect().await;
    let text = text.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
    let text = text.unwrap_or_else(|error| error.to_string());
    // Whatever is no error here is none that the client could use.
    let is_error = code.is_client_error() || code.is_server_error();
    Refusal::new(if is_error { code } else { StatusCode::INTERNAL_SERVER_ERROR }, text)
}

/// Gives the client the runtime's answer, and carries bytes from then on.
fn join(
    context: &Context,
    mut answer: Response<Incoming>,
    request: &mut Request<Incoming>,
) -> Response<Body> {
    let mut response = switching();
    for (name, value) in answer.headers() {
        let of_the_stream = [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL]
            .contains(name)
            || name.as_str() == "x-stream-protocol-version";
        if of_the_stream {
            response.headers_mut().append(name, value.clone());
        }
    }
    let (client, runtime) = (hyper::upgrade::on(request), hyper::upgrade::on(&mut answer));
    context.tasks.spawn("stream", async move {
        let Some((client, runtime)) = both(client, runtime).await else { return };
        let (mut client, mut runtime) = (TokioIo::new(client), TokioIo::new(runtime));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut runtime).await {
            debug!(%error, "a stream was cut");
        }
    });
    response
}

async fn both(client: OnUpgrade, runtime: OnUpgrade) -> Option<(Upgraded, Upgraded)> {
    match tokio::try_join!(client, runtime) {
        Ok(both) => Some(both),
        Err(error) => {
            debug!(%error, "a stream did not come about");
            None
        }
    }
}

/// Asks at the one-time address.
async fn ask_runtime(
    context: &Context,
    url: &str,
    method: Method,
    headers: HeaderMap,
) -> Result<Response<Incoming>, Refusal> {
    let failed = |why: String| Refusal::internal(format!("error dialing backend: {why}"));
    match tokio::time::timeout(PATIENCE, dial(context, url, method, headers)).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(failed(format!("no answer in {} s", PATIENCE.as_secs()))),
    }
}

async fn dial(
    context: &Context,
    url: &str,
    method: Method,
    headers: HeaderMap,
) -> Result<Response<Incoming>, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http"));
    let host = host.ok_or_else(|| format!("{url:?} is not an address to stream to"))?;
    let port = uri.port_u16().unwrap_or(80);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream =
        TcpStream::connect((bare, port)).await.map_err(|error| format!("dial tcp {host}:{port}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    context.tasks.spawn("runtime stream", async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "connection to the runtime's streaming server ended");
        }
    });
    let target = uri.path_and_query().map_or("/", |path| path.as_str());
    let asked = Request::builder().method(method).uri(target).header(HOST, format!("{host}:{port}"));
    let mut asked = asked.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    asked.headers_mut().extend(headers);
    sender.send_request(asked).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_of_a_web_socket_are_checked() {
        for (query, expected) in [
            ("port=80,81&port=82", Ok(vec![80, 81, 82])),
            ("", Err("query parameter \"port\" is required")),
            ("port=0", Err("port \"0\" must be > 0")),
            (
                "port=x",
                Err("unable to parse \"x\" as a port: strconv.ParseUint: parsing \"x\": invalid syntax"),
            ),
            (
                "port=70000",
                Err(
                    "unable to parse \"70000\" as a port: strconv.ParseUint: parsing \"70000\": value out of range",
                ),
            ),
        ] {
            let read = ports(&Query::parse(Some(query)));
            assert_eq!(
                read.as_ref().map_err(|refusal| refusal.text.as_str()),
                expected.as_ref().map_err(|e| *e)
            );
        }
    }

    #[test]
    fn what_a_client_offers_is_read_from_all_lines() {
        let mut headers = HeaderMap::new();
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("a, b"));
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("c"));
        assert_eq!(offered(&headers), ["a", "b", "c"]);
    }
}
