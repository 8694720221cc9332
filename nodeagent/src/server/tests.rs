//! The server over real TLS, with a runtime and an API that do what the test says.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server as handshake;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::testing::FakeRuntime;
use super::*;
use crate::pod::testing::{container, pod};

struct Directory {
    pods: Vec<Arc<Pod>>,
    run: ContainerRef,
}

impl PodDirectory for Directory {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.clone()
    }
    fn container(&self, _: &str, pod: &str, container: &str, previous: bool) -> Option<ContainerRef> {
        (pod == "web" && container == "c" && !previous).then(|| self.run.clone())
    }
}

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str, group: Option<&str>) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (certificate, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Arc::new(roots)
    }
}

struct Fixture {
    authority: Authority,
    server: Server,
    runtime: Arc<FakeRuntime>,
    /// How often the API was asked who may do what.
    asked: Arc<AtomicUsize>,
    logs: tempfile::TempDir,
    _tasks: Tasks,
}

/// An API that allows `reader` to read statistics.
fn api(asked: Arc<AtomicUsize>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let asked = asked.clone();
        async move {
            assert_eq!(request.uri().path(), "/apis/authorization.k8s.io/v1/subjectaccessreviews");
            asked.fetch_add(1, Ordering::SeqCst);
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            let spec = &review["spec"];
            let attributes = &spec["resourceAttributes"];
            assert_eq!((&attributes["resource"], &attributes["name"]), (&json!("nodes"), &json!("n1")));
            let allowed = spec["user"] == "reader" && attributes["subresource"] == "stats";
            review["status"] = json!({ "allowed": allowed });
            let body = Full::new(Bytes::from(review.to_string()));
            Ok::<_, std::convert::Infallible>(http::Response::builder().status(201).body(body).unwrap())
        }
    });
    client::in_process(service)
}

impl Fixture {
    async fn new(url: &str) -> Self {
        let authority = Authority::new();
        let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots(), base::tls::provider())
            .build()
            .unwrap();
        let (certificate, key) = authority.issue("system:node:n1", None);
        let tls = rustls::ServerConfig::builder_with_provider(base::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let logs = tempfile::tempdir().unwrap();
        let run = ContainerRef {
            id: "id-1".into(),
            pod_uid: "uid-web".into(),
            attempt: 0,
            log_path: logs.path().join("0.log"),
            running: true,
        };
        let runtime = FakeRuntime { url: url.to_owned(), stats: vec![stats()], ..FakeRuntime::default() };
        runtime.exited.lock().unwrap().insert("id-1".into(), false);
        let runtime = Arc::new(runtime);
        let asked = Arc::new(AtomicUsize::new(0));
        let tasks = Tasks::new("test");
        let config = ServerConfig {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: Arc::new(tls),
            tasks: tasks.clone(),
            clock: Clock::system(),
            client: api(asked.clone()),
            runtime: runtime.clone(),
            node_name: "n1".into(),
        };
        let web = Arc::new(pod().with(container("c")).with(container("later")).build());
        let directory = Arc::new(Directory { pods: vec![web], run });
        let server = Server::start(config, directory).await.unwrap();
        Self { authority, server, runtime, asked, logs, _tasks: tasks }
    }

    async fn connect(&self, name: &str, group: Option<&str>) -> TlsStream<TcpStream> {
        let (certificate, key) = self.authority.issue(name, group);
        let tls = ClientConfig::builder_with_provider(base::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.authority.roots())
            .with_client_auth_cert(vec![certificate], key)
            .unwrap();
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server.port())).await.unwrap();
        let host = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(tls)).connect(host, stream).await.unwrap()
    }

    async fn send(&self, user: &str, group: Option<&str>, path: &str) -> http::Response<Incoming> {
        let stream = self.connect(user, group).await;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        self._tasks.spawn("client", async move {
            let _ = connection.await;
        });
        let request = Request::get(path).header("host", "n1").body(Empty::<Bytes>::new()).unwrap();
        sender.send_request(request).await.unwrap()
    }

    async fn get_as(&self, user: &str, group: Option<&str>, path: &str) -> (StatusCode, String) {
        let response = self.send(user, group, path).await;
        let code = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let (code, text) = self.get_as("api-server", Some("system:masters"), path).await;
        (code.as_u16(), text)
    }
}

fn stats() -> cri::ContainerStats {
    let labels = [
        ("io.kubernetes.pod.namespace", "default"),
        ("io.kubernetes.pod.name", "web"),
        ("io.kubernetes.pod.uid", "uid-web"),
        ("io.kubernetes.container.name", "c"),
    ];
    let attributes = cri::ContainerAttributes {
        id: "id-1".into(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..Default::default()
    };
    let value = |value| Some(cri::UInt64Value { value });
    let memory = cri::MemoryUsage { timestamp: 1, working_set_bytes: value(4096), ..Default::default() };
    cri::ContainerStats { attributes: Some(attributes), memory: Some(memory), ..Default::default() }
}

fn line(text: &str) -> String {
    format!("2026-01-01T00:00:01.5Z stdout F {text}\n")
}

#[tokio::test]
async fn only_who_is_allowed_gets_an_answer() {
    let fixture = Fixture::new("").await;
    assert_eq!(fixture.get("/healthz").await, (200, "ok".to_owned()));
    assert_eq!(fixture.asked.load(Ordering::SeqCst), 0, "administrators need no permission");
    for _ in 0..2 {
        let (code, _) = fixture.get_as("reader", None, "/stats/summary").await;
        assert_eq!(code, StatusCode::OK);
        let (code, text) = fixture.get_as("reader", None, "/pods").await;
        assert_eq!(code, StatusCode::FORBIDDEN);
        assert_eq!(text, "Forbidden (user=reader, verb=get, resource=nodes, subresource=proxy)");
    }
    assert_eq!(fixture.asked.load(Ordering::SeqCst), 2, "answers are kept");
    assert_eq!(fixture.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn pods_and_statistics_are_shown() {
    let fixture = Fixture::new("").await;
    let pods: Value = serde_json::from_str(&fixture.get("/pods").await.1).unwrap();
    assert_eq!((&pods["kind"], &pods["items"][0]["metadata"]["name"]), (&json!("PodList"), &json!("web")));
    let summary: Value = serde_json::from_str(&fixture.get("/stats/summary").await.1).unwrap();
    assert_eq!(summary["node"]["nodeName"], "n1");
    assert!(summary["node"]["memory"]["workingSetBytes"].as_u64().unwrap() > 0);
    let pod = &summary["pods"][0];
    assert_eq!(pod["podRef"], json!({ "name": "web", "namespace": "default", "uid": "uid-web" }));
    assert_eq!(pod["containers"][0]["memory"]["workingSetBytes"], 4096);
    let metrics = fixture.get("/metrics/resource").await.1;
    assert!(metrics.contains(
        "container_memory_working_set_bytes{container=\"c\",namespace=\"default\",pod=\"web\"} 4096"
    ));
}

#[tokio::test]
async fn logs_are_read_and_followed() {
    let fixture = Fixture::new("").await;
    let path = fixture.logs.path().join("0.log");
    let mut file = std::fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, (line("one") + &line("two")).as_bytes()).unwrap();
    let base = "/containerLogs/default/web/c";
    assert_eq!(fixture.get(base).await, (200, "one\ntwo\n".to_owned()));
    let tail = format!("{base}?tailLines=1&timestamps=true");
    assert_eq!(fixture.get(&tail).await.1, "2026-01-01T00:00:01.5Z two\n");
    for (path, code, text) in [
        (
            format!("{base}?previous=true"),
            400,
            "previous terminated container \"c\" in pod \"web\" not found",
        ),
        (
            "/containerLogs/default/web/later".to_owned(),
            400,
            "container \"later\" in pod \"web\" is waiting to start: ContainerCreating",
        ),
        ("/containerLogs/default/web/no".to_owned(), 404, "container \"no\" not found in pod \"web\"\n"),
        ("/containerLogs/default/no/c".to_owned(), 404, "pod \"no\" does not exist\n"),
        (format!("{base}?tailLines=x"), 400, "invalid value for tailLines: \"x\""),
    ] {
        assert_eq!(fixture.get(&path).await, (code, text.to_owned()), "{path}");
    }
    let followed = fixture.send("api-server", Some("system:masters"), &format!("{base}?follow=true")).await;
    let mut body = followed.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one\ntwo\n");
    std::io::Write::write_all(&mut file, line("three").as_bytes()).unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "three\n");
    fixture.runtime.exited.lock().unwrap().insert("id-1".into(), true);
    drop(file);
    assert!(body.frame().await.is_none());
}

/// A streaming server of a runtime that knows one subprotocol and sends back what it gets.
async fn echo(tasks: &Tasks, protocol: &'static str) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tasks.spawn("echo", async move {
        let (stream, _) = listener.accept().await.unwrap();
        #[expect(clippy::result_large_err, reason = "the shape of the callback")]
        let choose = |request: &handshake::Request, mut response: handshake::Response| {
            let offered = request.headers()["sec-websocket-protocol"].to_str().unwrap();
            assert!(offered.split(", ").any(|name| name == protocol), "{offered}");
            response.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, choose).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    });
    url
}

async fn open(
    fixture: &Fixture,
    path: &str,
    offer: &str,
) -> (tokio_tungstenite::WebSocketStream<TlsStream<TcpStream>>, String) {
    let stream = fixture.connect("api-server", Some("system:masters")).await;
    let mut request = format!("wss://127.0.0.1{path}").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", offer.parse().unwrap());
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let chosen = response.headers()["sec-websocket-protocol"].to_str().unwrap().to_owned();
    (socket, chosen)
}

#[tokio::test]
async fn a_command_is_run_over_the_runtimes_own_stream() {
    let tasks = Tasks::new("test");
    let fixture = Fixture::new(&echo(&tasks, "v5.channel.k8s.io").await).await;
    let path = "/exec/default/web/c?command=sh&command=-c&command=a%20b&input=1&output=1&error=1";
    let (mut socket, chosen) = open(&fixture, path, "v5.channel.k8s.io").await;
    assert_eq!(chosen, "v5.channel.k8s.io");
    for message in [vec![0, b'x'], vec![255, 0]] {
        socket.send(Message::binary(message.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_data(), message);
    }
    let call = "exec id-1 [\"sh\", \"-c\", \"a b\"] tty=false in=true out=true err=true";
    assert_eq!(*fixture.runtime.calls.lock().unwrap(), [call]);
}

/// A streaming server like containerd 1.6's: it refuses v5, and over SPDY sends back what it reads, to its end.
async fn older(tasks: &Tasks) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let all = tasks.clone();
    tasks.spawn("older", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tasks = all.clone();
            let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
                let response = http::Response::builder().header("connection", "Upgrade");
                let response = if request.headers()["upgrade"] == "SPDY/3.1" {
                    assert_eq!(request.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
                    let upgrade = hyper::upgrade::on(&mut request);
                    tasks.spawn("streams", async move { cat(upgrade.await.unwrap()).await });
                    response.status(101).header("upgrade", "SPDY/3.1")
                } else {
                    response.status(403)
                };
                async move { Ok::<_, std::convert::Infallible>(response.body(Empty::<Bytes>::new()).unwrap()) }
            });
            all.spawn("older connection", async move {
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
    url
}

async fn cat(io: hyper::upgrade::Upgraded) {
    let connection = spdy::Connection::new(spdy::Role::Server);
    let work = async {
        let mut streams = Vec::new();
        for kind in ["error", "stdin", "stdout", "stderr"] {
            let stream = connection.accept().await.unwrap();
            assert_eq!(stream.headers().get("streamType"), Some(kind));
            stream.reply();
            streams.push(stream);
        }
        while let Some(data) = streams[1].read().await.unwrap() {
            streams[2].write(data).await.unwrap();
        }
        streams[3].write("done".into()).await.unwrap();
        streams[0].write("{}".into()).await.unwrap();
        // Like that one it leaves at once.
        streams.iter().for_each(spdy::Stream::finish);
        connection.close();
    };
    let _ = tokio::join!(connection.run(TokioIo::new(io)), work);
}

#[tokio::test]
async fn a_runtime_that_does_not_know_v5_is_spoken_to_in_spdy() {
    let tasks = Tasks::new("test");
    let fixture = Fixture::new(&older(&tasks).await).await;
    // The second time it is known what the runtime speaks.
    for calls in [2, 3] {
        let path = "/exec/default/web/c?command=cat&output=1&input=1&error=1";
        let (mut socket, chosen) = open(&fixture, path, "v5.channel.k8s.io").await;
        assert_eq!(chosen, "v5.channel.k8s.io");
        socket.send(Message::binary(vec![0, b'y'])).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_data(), vec![1, b'y']);
        socket.send(Message::binary(vec![255, 0])).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_data(), b"\x02done".to_vec());
        assert_eq!(socket.next().await.unwrap().unwrap().into_data(), b"\x03{}".to_vec());
        let Message::Close(Some(frame)) = socket.next().await.unwrap().unwrap() else { panic!("no end") };
        assert_eq!(u16::from(frame.code), 1000);
        assert_eq!(fixture.runtime.calls.lock().unwrap().len(), calls);
    }
}

#[tokio::test]
async fn ports_are_those_of_the_pods_newest_sandbox() {
    let tasks = Tasks::new("test");
    let fixture = Fixture::new(&echo(&tasks, "v4.channel.k8s.io").await).await;
    let (mut socket, chosen) =
        open(&fixture, "/portForward/default/web?port=80,81", "v5.channel.k8s.io, v4.channel.k8s.io").await;
    assert_eq!(chosen, "v4.channel.k8s.io");
    socket.send(Message::binary(vec![0, b'y'])).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_data(), vec![0, b'y']);
    assert_eq!(*fixture.runtime.calls.lock().unwrap(), ["forward new [80, 81]"]);
    assert_eq!(fixture.get("/portForward/default/web").await, (400, "Upgrade request required".to_owned()));
}

#[tokio::test]
async fn streams_that_can_not_be_are_refused_in_the_kubelets_words() {
    let fixture = Fixture::new("http://127.0.0.1:1").await;
    for (path, code, text) in [
        ("/exec/default/web/c?command=ls&output=1", 400, "Upgrade request required"),
        ("/exec/default/web/c?command=ls", 400, "you must specify at least 1 of stdin, stdout, stderr"),
    ] {
        assert_eq!(fixture.get(path).await, (code, text.to_owned()), "{path}");
    }
    let stream = fixture.connect("api-server", Some("system:masters")).await;
    let request = "wss://127.0.0.1/exec/default/web/later?command=ls&output=1".into_client_request().unwrap();
    let error = tokio_tungstenite::client_async(request, stream).await.unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(response) = error else { panic!("{error}") };
    assert_eq!(response.status(), 404);
}
