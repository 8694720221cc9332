//! Exec, attach and port-forward: the client's stream goes on to the runtime's own streaming server, at an address that the
//! runtime gives for one use.
//!
//! Bytes pass unchanged when both sides speak the same subprotocol, whether that is one of WebSocket's or SPDY. A
//! runtime that doesn't know `v5.channel.k8s.io` is spoken to in v4, and the one difference between them is taken
//! care of here: v4 has no message that closes a channel.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tracing::debug;

use super::reply::{self, Body, Refusal};
use super::routes::Query;
use super::{ContainerRef, Context};
use crate::runtime::RuntimeError;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
/// The first byte of v5's message that closes a channel.
const CLOSE: u8 = 255;
/// How long the runtime's server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is read of its error message.
const MOST_ERROR: usize = 16 * 1024;
/// The largest message that is taken over between v5 and v4.
const MOST_MESSAGE: usize = 1 << 20;

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
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
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
    let Wanted { stdin, stdout, stderr, tty } = wanted(query)?;
    upgradable(request.headers())?;
    let run = running(context, target)?;
    let cmd: Vec<String> = query.all("command").map(str::to_owned).collect();
    let asked = cri::ExecRequest { container_id: run.id, cmd, tty, stdin, stdout, stderr };
    let url = context.runtime.exec(asked).await.map_err(|error| refused(&error))?;
    proxy(context, &url, request).await
}

/// Joins the streams of a container's own process.
pub(super) async fn attach(
    context: &Arc<Context>,
    target: &Target<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(request.uri().query());
    let Wanted { stdin, stdout, stderr, .. } = wanted(&query)?;
    upgradable(request.headers())?;
    let run = running(context, target)?;
    // Whether there is a terminal was settled when the container was made.
    let pod = context.pod(target.namespace, target.pod);
    let container = pod.and_then(|pod| crate::pod::find_container(&pod, target.container));
    let tty = container.is_some_and(|(container, _)| container.tty == Some(true));
    let stderr = stderr && !tty;
    let asked = cri::AttachRequest { container_id: run.id, stdin, tty, stdout, stderr };
    let url = context.runtime.attach(asked).await.map_err(|error| refused(&error))?;
    proxy(context, &url, request).await
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

/// The subprotocols to offer to the runtime: in one line, because some servers read only the first.
fn to_offer(client: &[String]) -> Vec<&str> {
    let mut names: Vec<&str> = client.iter().map(String::as_str).collect();
    if names.contains(&V5) && !names.contains(&V4) {
        names.push(V4);
    }
    names
}

/// Connects the client with the runtime's server.
async fn proxy(
    context: &Arc<Context>,
    url: &str,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let failed = |why: String| Refusal::internal(format!("error dialing backend: {why}"));
    let client_offers = offered(request.headers());
    let asking = ask_runtime(context, url, &request, &client_offers);
    let mut answer = match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map_err(failed)?,
        Err(_) => return Err(failed(format!("no answer in {} s", PATIENCE.as_secs()))),
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let code = answer.status();
        let text = Limited::new(answer.into_body(), MOST_ERROR).collect().await;
        let text = text.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
        let text = text.unwrap_or_else(|error| error.to_string());
        // Whatever is no error here is none that the client could use.
        let code = if code.is_client_error() || code.is_server_error() {
            code
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        return Err(Refusal::new(code, text));
    }
    let chosen = answer.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|name| name.to_str().ok());
    let bridge = chosen == Some(V4) && !client_offers.iter().any(|name| name == V4);
    let mut response = reply::with(StatusCode::SWITCHING_PROTOCOLS, "text/plain", "");
    response.headers_mut().clear();
    for (name, value) in answer.headers() {
        let of_the_stream = [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL]
            .contains(name)
            || name.as_str() == "x-stream-protocol-version";
        if of_the_stream {
            response.headers_mut().append(name, value.clone());
        }
    }
    if bridge {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(V5));
    }
    let client = hyper::upgrade::on(&mut request);
    let runtime = hyper::upgrade::on(&mut answer);
    context.tasks.spawn("stream", async move {
        let (client, runtime) = match tokio::try_join!(client, runtime) {
            Ok(both) => both,
            Err(error) => return debug!(%error, "a stream did not come about"),
        };
        if bridge {
            return translate(client, runtime).await;
        }
        let (mut client, mut runtime) = (TokioIo::new(client), TokioIo::new(runtime));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut runtime).await {
            debug!(%error, "a stream was cut");
        }
    });
    Ok(response)
}

/// Sends the client's request to the one-time address.
async fn ask_runtime(
    context: &Context,
    url: &str,
    request: &Request<Incoming>,
    client_offers: &[String],
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
    // A WebSocket begins with GET and SPDY with POST; the API server sends both as GET.
    let is_websocket = request.headers().contains_key(SEC_WEBSOCKET_KEY);
    let method = if is_websocket { Method::GET } else { Method::POST };
    let mut asked = Request::builder().method(method).uri(target).header(HOST, format!("{host}:{port}"));
    for (name, value) in request.headers() {
        let of_the_stream = [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION].contains(name)
            || name.as_str().starts_with("x-stream-protocol-");
        if of_the_stream {
            asked = asked.header(name, value);
        }
    }
    if !client_offers.is_empty() {
        asked = asked.header(SEC_WEBSOCKET_PROTOCOL, to_offer(client_offers).join(", "));
    }
    let asked = asked.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    sender.send_request(asked).await.map_err(|error| error.to_string())
}

/// Takes messages over between a client that speaks v5 and a runtime that speaks v4.
async fn translate(client: Upgraded, runtime: Upgraded) {
    let config =
        WebSocketConfig::default().max_message_size(Some(MOST_MESSAGE)).max_frame_size(Some(MOST_MESSAGE));
    let client = WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, Some(config)).await;
    let runtime = WebSocketStream::from_raw_socket(TokioIo::new(runtime), Role::Client, Some(config)).await;
    let (mut to_client, mut from_client) = client.split();
    let (mut to_runtime, mut from_runtime) = runtime.split();
    let up = async {
        while let Some(Ok(message)) = from_client.next().await {
            // v4 can't close one channel alone: the command goes on without the end of its input.
            if matches!(&message, Message::Binary(data) if data.first() == Some(&CLOSE)) {
                continue;
            }
            // Pings are answered on each side by itself.
            let passed = matches!(message, Message::Binary(_) | Message::Text(_) | Message::Close(_));
            if passed && to_runtime.send(message).await.is_err() {
                break;
            }
        }
        let _ = to_runtime.close().await;
    };
    let down = async {
        while let Some(Ok(message)) = from_runtime.next().await {
            let passed = matches!(message, Message::Binary(_) | Message::Text(_) | Message::Close(_));
            if passed && to_client.send(message).await.is_err() {
                break;
            }
        }
        let _ = to_client.close().await;
    };
    // The runtime's last words must reach the client; the client's end ends all.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
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
    fn v4_is_offered_with_v5() {
        for (client, expected) in [
            (vec![V5], vec![V5, V4]),
            (vec![V5, V4], vec![V5, V4]),
            (vec![V4], vec![V4]),
            (vec!["channel.k8s.io"], vec!["channel.k8s.io"]),
            (vec![], vec![]),
        ] {
            let client: Vec<String> = client.into_iter().map(str::to_owned).collect();
            assert_eq!(to_offer(&client), expected);
        }
        let mut headers = HeaderMap::new();
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("a, b"));
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("c"));
        assert_eq!(offered(&headers), ["a", "b", "c"]);
    }
}
