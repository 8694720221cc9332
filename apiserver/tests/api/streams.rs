//! Requests that go on to a node agent, which is one of the test's own here: over TLS on both sides.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use apiserver::pki::{Pki, tls};
use apiserver::{ApiServer, Config, UserInfo};
use base::{Clock, Random, Tasks};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use spdy::{Connection, Headers, Role};
use store::Embedded;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role as Side;
use tower::Service;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Lab {
    server: ApiServer,
    pki: Arc<Pki>,
    port: u16,
    /// What the agent was asked for.
    asked: Arc<Mutex<Vec<String>>>,
    tasks: Tasks,
}

impl Lab {
    async fn new() -> Self {
        let (clock, random, tasks) = (Clock::system(), Random::system(), Tasks::new("test"));
        let pki = Arc::new(Pki::in_memory(clock.clone(), random.clone()).unwrap());
        let config = Config::new(clock.clone(), random, tasks.clone(), pki.clone(), LOCAL);
        let store = Arc::new(Embedded::in_memory(clock, tasks.clone()));
        let server = ApiServer::start(store, config).await.unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let agent = agent(&pki, &tasks, asked.clone()).await;
        let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = server.clone();
        tasks.spawn("serve", async move { serving.serve(listener).await.unwrap() });
        let lab = Self { server, pki, port, asked, tasks };
        lab.call("POST", "/api/v1/nodes", json!({ "metadata": { "name": "n1" } })).await;
        let status = json!({ "status": {
            "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": agent } },
        } });
        lab.call("PATCH", "/api/v1/nodes/n1/status", status).await;
        let account = json!({ "metadata": { "name": "default" } });
        lab.call("POST", "/api/v1/namespaces/default/serviceaccounts", account).await;
        for (name, node, containers) in [("web", "n1", "c"), ("two", "n1", "a b"), ("new", "", "c")] {
            let containers: Vec<Value> =
                containers.split(' ').map(|name| json!({ "name": name, "image": "i" })).collect();
            let spec =
                json!({ "nodeName": node, "automountServiceAccountToken": false, "containers": containers });
            let pod = json!({ "metadata": { "name": name }, "spec": spec });
            lab.call("POST", "/api/v1/namespaces/default/pods", pod).await;
        }
        lab
    }

    async fn call(&self, method: &str, target: &str, body: Value) {
        let admin = UserInfo::new("admin", &["system:masters"]);
        self.server.call(&admin, method, target, Some(&body)).await.unwrap();
    }

    /// A request over TLS, as the administrator.
    async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<Incoming> {
        let admin = self.pki.admin().unwrap();
        let credential = (admin.certificate_pem.as_str(), admin.key_pem());
        let config = tls::client(self.pki.authority_pem(), Some(credential)).unwrap();
        let stream = TcpStream::connect((LOCAL, self.port)).await.unwrap();
        let stream =
            TlsConnector::from(Arc::new(config)).connect(ServerName::IpAddress(LOCAL.into()), stream).await;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream.unwrap())).await.unwrap();
        self.tasks.spawn("client", async move {
            let _ = connection.with_upgrades().await;
        });
        let mut request = Request::builder().method(method).uri(target).header("host", "the-api");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::from(body.to_owned()));
        sender.send_request(request.body(body).unwrap()).await.unwrap()
    }

    /// The same as code, headers and text.
    async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, String) {
        let response = self.send(method, target, headers, "the body").await;
        let (parts, body) = response.into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8(text.to_vec()).unwrap())
    }

    async fn message(&self, target: &str) -> (u16, String) {
        let (code, _, text) = self.ask("GET", target, &[]).await;
        let status: Value = serde_json::from_str(&text).unwrap_or_default();
        (code, status["message"].as_str().unwrap_or(&text).to_owned())
    }

    async fn spdy(&self, target: &str, protocols: &[&str]) -> (Connection, HeaderMap) {
        let mut headers = vec![("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        headers.extend(protocols.iter().map(|name| ("x-stream-protocol-version", *name)));
        let mut response = self.send("POST", target, &headers, "").await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let connection = Connection::new(Role::Client);
        let (io, running) = (hyper::upgrade::on(&mut response).await.unwrap(), connection.clone());
        self.tasks.spawn("spdy", async move {
            let _ = running.run(TokioIo::new(io)).await;
        });
        (connection, response.headers().clone())
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

/// A node agent that says what it is asked, and sends back what it gets.
async fn agent(pki: &Pki, tasks: &Tasks, asked: Arc<Mutex<Vec<String>>>) -> u16 {
    let serving = pki.node_serving("n1", &[LOCAL]).unwrap();
    let tls = tls::node_agent(pki.authority_pem(), &serving.certificate_pem, serving.key_pem()).unwrap();
    let acceptor = TlsAcceptor::from(tls);
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let all = tasks.clone();
    tasks.spawn("agent", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, asked, tasks) = (acceptor.clone(), asked.clone(), all.clone());
            all.spawn("agent connection", async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (asked, tasks) = (asked.clone(), tasks.clone());
                    async move {
                        let target = request.uri().path_and_query().unwrap().to_string();
                        asked.lock().unwrap().push(format!("{} {target}", request.method()));
                        Ok::<_, Infallible>(answer(request, &tasks).await)
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
    port
}

async fn answer(mut request: Request<Incoming>, tasks: &Tasks) -> Response<Full<Bytes>> {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let path = request.uri().path().to_owned();
    let response = Response::builder();
    let text = |response: http::response::Builder, code: u16, text: &str| {
        response.status(code).body(Full::new(Bytes::from(text.to_owned()))).unwrap()
    };
    match (path.as_str(), header("upgrade").as_deref()) {
        ("/refused", Some(_)) => text(response, 403, "not you"),
        ("/ignored", Some(_)) => text(response, 200, "what?"),
        (_, Some("websocket")) => {
            assert_eq!(header("sec-websocket-protocol").as_deref(), Some("v5.channel.k8s.io"));
            let accept = derive_accept_key(header("sec-websocket-key").unwrap().as_bytes());
            let upgrade = hyper::upgrade::on(&mut request);
            tasks.spawn("echo", async move { command(upgrade.await.unwrap()).await });
            let response = response.header("upgrade", "websocket").header("connection", "Upgrade");
            let response = response.header("sec-websocket-protocol", "v5.channel.k8s.io");
            text(response.header("sec-websocket-accept", accept), 101, "")
        }
        (_, Some(_)) => {
            assert_eq!(header("x-stream-protocol-version").as_deref(), Some("portforward.k8s.io"));
            let upgrade = hyper::upgrade::on(&mut request);
            tasks.spawn("echo", async move {
                let connection = Connection::new(Role::Server);
                let echo = async {
                    let stream = connection.accept().await.unwrap();
                    stream.reply();
                    while let Ok(Some(data)) = stream.read().await {
                        stream.write(data).await.unwrap();
                    }
                    stream.finish();
                    connection.ended().await;
                };
                let _ = tokio::join!(connection.run(TokioIo::new(upgrade.await.unwrap())), echo);
            });
            let response = response.header("upgrade", "SPDY/3.1").header("connection", "Upgrade");
            text(response.header("x-stream-protocol-version", "portforward.k8s.io"), 101, "")
        }
        ("/moved", _) => text(response.header("location", "/elsewhere/"), 302, ""),
        ("/page", _) => {
            let response = response.header("content-type", "text/html; charset=utf-8");
            text(response.header("access-control-allow-origin", "*"), 200, "<a href='/x'>x</a><a href='y'>")
        }
        ("/containerLogs/default/two/a", _) => text(response, 404, "no such container"),
        _ if path.starts_with("/containerLogs/") => text(response, 200, "a line\n"),
        _ => {
            let headers: Vec<String> = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            text(response.header("x-own", "1"), 201, &format!("{}\n\n{body}", headers.join("\n")))
        }
    }
}

/// A command that writes to both outputs what it reads, and what size its window has.
async fn command(io: Upgraded) {
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(io), Side::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(data) = message else { break };
        let channels: &[u8] = match data[0] {
            0 => &[1, 2],
            4 => &[1],
            255 => break,
            _ => &[],
        };
        for channel in channels {
            socket.send(Message::binary([&[*channel], &data[1..]].concat())).await.unwrap();
        }
    }
    let status = [&[3][..], br#"{"metadata":{},"status":"Success"}"#].concat();
    socket.send(Message::binary(status)).await.unwrap();
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

fn stream_of(kind: &str) -> Headers {
    Headers::new().with("streamType", kind)
}

#[tokio::test]
async fn a_command_runs_for_a_client_that_speaks_spdy() {
    let lab = Lab::new().await;
    let exec = "/api/v1/namespaces/default/pods/web/exec?command=cat&stdin=true&stdout=true&stderr=true";
    let (connection, headers) = lab.spdy(exec, &["v9", "v4.channel.k8s.io", "channel.k8s.io"]).await;
    assert_eq!(headers["x-stream-protocol-version"], "v4.channel.k8s.io");
    let [error, stdin, stdout, stderr] =
        ["error", "stdin", "stdout", "stderr"].map(|kind| connection.open(stream_of(kind)).unwrap());
    stderr.replied().await.unwrap();
    let running = "subresource=\"exec\",scope=\"resource\",component=\"apiserver\"} 1\n";
    assert!(lab.ask("GET", "/metrics", &[]).await.2.contains(running), "the stream is not counted");
    let input = Bytes::from(vec![b'x'; 1 << 20]);
    let writing = async {
        for piece in input.chunks(20_000) {
            stdin.write(input.slice_ref(piece)).await.unwrap();
        }
        stdin.finish();
    };
    let ((), out, err, status) =
        tokio::join!(writing, stdout.read_all(usize::MAX), stderr.read_all(usize::MAX), error.read_all(1000));
    assert!(out.unwrap() == input && err.unwrap() == input);
    assert_eq!(status.unwrap(), br#"{"metadata":{},"status":"Success"}"#);
    connection.close();
    connection.ended().await;
    assert_eq!(lab.asked(), ["GET /exec/default/web/c?input=1&output=1&error=1&command=cat"]);

    // With a terminal, and of version 2: without sizes, and nothing is said when all went well.
    let attach = "/api/v1/namespaces/default/pods/web/attach?stdin=1&stdout=1&tty=1";
    let (connection, _) = lab.spdy(attach, &["v2.channel.k8s.io"]).await;
    let [error, stdin, stdout] =
        ["error", "stdin", "stdout"].map(|kind| connection.open(stream_of(kind)).unwrap());
    stdin.finish();
    assert_eq!((stdout.read().await, error.read_all(10).await), (Ok(None), Ok(Vec::new())));
    // Of version 3 the size of the window is told.
    let (connection, _) = lab.spdy(attach, &["v3.channel.k8s.io"]).await;
    let [_error, stdin, stdout, resize] =
        ["error", "stdin", "stdout", "resize"].map(|kind| connection.open(stream_of(kind)).unwrap());
    resize.write(Bytes::from("{\"Width\":80,")).await.unwrap();
    resize.write(Bytes::from("\"Height\":24}\n{\"Wid")).await.unwrap();
    assert_eq!(stdout.read().await.unwrap().unwrap(), "{\"Width\":80,\"Height\":24}");
    stdin.finish();
    assert_eq!(stdout.read().await, Ok(None));
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy_and_through_a_web_socket() {
    let lab = Lab::new().await;
    let target = "/api/v1/namespaces/default/pods/web/portforward?ports=80&ports=81";
    let (connection, headers) = lab.spdy(target, &["portforward.k8s.io"]).await;
    assert_eq!(headers["x-stream-protocol-version"], "portforward.k8s.io");
    let echo = async |connection: &Connection| {
        let stream = connection.open(stream_of("data")).unwrap();
        stream.replied().await.unwrap();
        stream.write(Bytes::from("ping")).await.unwrap();
        stream.finish();
        assert_eq!(stream.read_all(100).await.unwrap(), b"ping");
    };
    echo(&connection).await;
    assert_eq!(lab.asked(), ["GET /portForward/default/web?port=80,81"]);

    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", key),
        ("sec-websocket-protocol", "SPDY/3.1+portforward.k8s.io"),
    ];
    let mut response = lab.send("GET", target, &headers, "").await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-protocol"], "SPDY/3.1+portforward.k8s.io");
    assert_eq!(response.headers()["sec-websocket-accept"], derive_accept_key(key.as_bytes()));
    let io = hyper::upgrade::on(&mut response).await.unwrap();
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(io), Side::Client, None).await;
    let (mut to_server, mut from_server) = socket.split();
    // The connection on the one end of a pipe, its bytes in messages on the other.
    let (near, far) = tokio::io::duplex(1 << 16);
    let (mut reader, mut writer) = tokio::io::split(far);
    lab.tasks.spawn("up", async move {
        let mut buffer = vec![0; 7];
        while let Ok(length @ 1..) = tokio::io::AsyncReadExt::read(&mut reader, &mut buffer).await {
            to_server.send(Message::binary(buffer[..length].to_vec())).await.unwrap();
        }
    });
    lab.tasks.spawn("down", async move {
        while let Some(Ok(message)) = from_server.next().await {
            if message.is_binary() {
                tokio::io::AsyncWriteExt::write_all(&mut writer, &message.into_data()).await.unwrap();
            }
        }
    });
    let connection = Connection::new(Role::Client);
    let running = connection.clone();
    lab.tasks.spawn("tunnel", async move {
        let _ = running.run(near).await;
    });
    echo(&connection).await;
}

#[tokio::test]
async fn a_stream_that_can_not_be_is_refused() {
    let lab = Lab::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    for (target, code, message) in [
        ("web/exec?command=x&stdout=1", 400, "Upgrade request required"),
        ("web/portforward", 400, "Upgrade request required"),
        ("web/exec?command=x", 400, "you must specify at least one of stdin, stdout, stderr"),
        ("web/exec?stdout=1", 400, "you must specify at least one command for the container"),
        ("web/exec?container=x&command=x&stdout=1", 400, "container x is not valid for pod web"),
        ("two/attach?stdout=1", 400, "a container name must be specified for pod two, choose one of: [a b]"),
        ("new/portforward", 400, "pod new does not have a host assigned"),
        ("none/portforward", 404, "pods \"none\" not found"),
    ] {
        assert_eq!(lab.message(&format!("{pods}/{target}")).await, (code, message.to_owned()), "{target}");
    }
    let headers = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9")];
    let (code, _, text) = lab.ask("POST", &format!("{pods}/web/exec?command=x&stdout=1"), &headers).await;
    assert!(
        code == 403 && text.contains("client supports [v9], server accepts [v5.channel.k8s.io"),
        "{text}"
    );
    // Whoever may only get can't begin a WebSocket, which is a GET.
    let rules =
        json!([{ "apiGroups": [""], "resources": ["pods/exec", "pods/portforward"], "verbs": ["get"] }]);
    let role = json!({ "metadata": { "name": "reader" }, "rules": rules });
    lab.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
    let binding = json!({ "metadata": { "name": "reader" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader" }] });
    lab.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    for part in ["exec?command=x&stdout=1", "portforward"] {
        let request = Request::get(format!("{pods}/web/{part}")).body(Full::new(Bytes::new())).unwrap();
        let user = UserInfo::new("reader", &["system:authenticated"]);
        let response = lab.server.in_process(user).call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{part}");
    }
    assert_eq!(lab.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_node_is_reached_through_its_proxy() {
    let lab = Lab::new().await;
    let base = "/api/v1/nodes/n1/proxy";
    let headers = [("x-mine", "1"), ("authorization", "Bearer x"), ("connection", "x-hop"), ("x-hop", "1")];
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        // A bearer that is not valid is no obstacle to a certificate that is.
        let (code, answered, text) = lab.ask(method, &format!("{base}/a%2Fb/c/?q=1&q=%20"), &headers).await;
        assert_eq!((code, &answered["x-own"]), (201, &"1".parse().unwrap()), "{method} {text}");
        for line in ["x-mine: 1", "host: the-api", "x-forwarded-for: 127.0.0.1", "\n\nthe body"] {
            assert!(text.contains(line), "{method} {line} {text}");
        }
        assert!(text.contains(&format!("x-forwarded-uri: {base}/a%2Fb/c/")), "{text}");
        assert!(!text.contains("authorization") && !text.contains("x-hop"), "{text}");
        assert_eq!(lab.asked(), [format!("{method} /a%2Fb/c/?q=1&q=%20")]);
    }
    for method in ["TRACE", "QUERY"] {
        assert_eq!(lab.ask(method, &format!("{base}/a"), &[]).await.0, 405, "{method}");
        assert!(lab.asked().is_empty(), "{method}");
    }
    let (code, headers, _) = lab.ask("GET", &format!("{base}?a=b"), &[]).await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (301, "/api/v1/nodes/n1/proxy/?a=b"));
    let (code, headers, _) = lab.ask("GET", &format!("{base}/moved"), &[]).await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (302, "/api/v1/nodes/n1/proxy/elsewhere/"));
    let (_, headers, text) = lab.ask("GET", &format!("{base}/page"), &[("accept", "text/html")]).await;
    assert_eq!(text, format!("<a href=\"{base}/x\">x</a><a href='y'>"));
    assert!(!headers.contains_key("access-control-allow-origin"));
    assert_eq!(headers["content-length"].to_str().unwrap(), text.len().to_string());
    for (target, code, message) in [
        ("/api/v1/nodes/none/proxy/", 404, "nodes \"none\" not found"),
        ("/api/v1/nodes/ftp:n1:1/proxy/", 400, "invalid node request \"ftp:n1:1\""),
        ("/api/v1/nodes/n1:1/proxy/", 400, "address not allowed"),
        ("/api/v1/namespaces/default/pods/web/proxy/", 400, "address not allowed"),
        ("/api/v1/namespaces/default/services/none/proxy/", 404, "endpoints \"none\" not found"),
    ] {
        assert_eq!(lab.message(target).await, (code, message.to_owned()), "{target}");
    }
}

#[tokio::test]
async fn an_upgrade_that_is_refused_leaves_no_connection() {
    let lab = Lab::new().await;
    let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let (code, headers, text) = lab.ask("GET", "/api/v1/nodes/n1/proxy/refused", &upgrade).await;
    assert_eq!((code, text.as_str(), headers["connection"].to_str().unwrap()), (403, "not you", "close"));
    let (code, _, text) = lab.ask("GET", "/api/v1/nodes/n1/proxy/ignored", &upgrade).await;
    assert!(code == 500 && text.contains("invalid upgrade response: status code 200"), "{text}");
}

#[tokio::test]
async fn logs_have_all_options_and_upstreams_rules() {
    let lab = Lab::new().await;
    let log = "/api/v1/namespaces/default/pods/web/log";
    let options = "follow=true&previous=true&timestamps=true&sinceSeconds=5&limitBytes=9&stream=Stdout";
    let all = format!("{log}?container=c&{options}&insecureSkipTLSVerifyBackend=true");
    assert_eq!(lab.message(&all).await, (200, "a line\n".to_owned()));
    let target = "limitBytes=9&sinceSeconds=5&follow=true&previous=true&timestamps=true&stream=Stdout";
    assert_eq!(lab.asked(), [format!("GET /containerLogs/default/web/c?{target}")]);
    let (code, _, text) = lab.ask("GET", "/api/v1/namespaces/default/pods/new/log", &[]).await;
    assert_eq!((code, text.as_str()), (204, ""));
    let invalid = |what: &str| format!("PodLogOptions \"web\" is invalid: {what}");
    for (query, code, message) in [
        ("tailLines=-1", 422, invalid("tailLines: Invalid value: -1: must be greater than or equal to 0")),
        ("limitBytes=0", 422, invalid("limitBytes: Invalid value: 0: must be greater than 0")),
        ("sinceSeconds=0", 422, invalid("sinceSeconds: Invalid value: 0: must be greater than 0")),
        (
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            422,
            invalid(": Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"),
        ),
        (
            "stream=Both",
            422,
            invalid("stream: Unsupported value: \"Both\": supported values: \"All\", \"Stderr\", \"Stdout\""),
        ),
        (
            "stream=Stderr&tailLines=1",
            422,
            invalid(": Forbidden: `tailLines` and specific `stream` are mutually exclusive for now"),
        ),
        ("tailLines=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()),
    ] {
        assert_eq!(lab.message(&format!("{log}?{query}")).await, (code, message), "{query}");
    }
    let missing = lab.message("/api/v1/namespaces/default/pods/two/log?container=a").await;
    assert_eq!(missing, (404, "the server could not find the requested resource ( pods/log two)".to_owned()));
}
