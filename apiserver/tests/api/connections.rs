//! Clients on the wire that are slow, want too much, or are there when the server ends.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use apiserver::Config;
use apiserver::pki::tls;
use bytes::Bytes;
use http::Request;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::common::{Answer, Api, with};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Served {
    api: Api,
    port: u16,
}

impl Served {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let api = with(change).await;
        let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = api.server.clone();
        api.tasks.spawn("serve", async move { server.serve(listener).await.unwrap() });
        Self { api, port }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let admin = self.api.pki.admin().unwrap();
        let credential = (admin.certificate_pem.as_str(), admin.key_pem());
        let config = tls::client(self.api.pki.authority_pem(), Some(credential)).unwrap();
        let stream = TcpStream::connect((LOCAL, self.port)).await.unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(ServerName::IpAddress(LOCAL.into()), stream)
            .await
            .unwrap()
    }

    async fn client(&self) -> SendRequest<BoxBody<Bytes, std::convert::Infallible>> {
        let io = TokioIo::new(self.connect().await);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        self.api.tasks.spawn("client", async move {
            let _ = connection.await;
        });
        sender
    }

    async fn ask(&self, method: &str, target: &str, headers: &[(String, String)], body: Bytes) -> Answer {
        let mut request = Request::builder().method(method).uri(target).header("host", "the-api");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body).boxed()).unwrap();
        Answer::of(self.client().await.send_request(request).await.unwrap()).await
    }

    /// What the server answers to these bytes until it closes the connection.
    async fn until_closed(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // Cut without a word, or with one.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn is_well(&self) {
        assert_eq!(self.ask("GET", "/readyz", &[], Bytes::new()).await.text, "ok");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_slow_with_its_head_is_cut() {
    let served = Served::new(|_| {}).await;
    let clock = served.api.server.server().config.clock.clone();
    let started = clock.instant();
    let answer = served.until_closed(b"GET /readyz HTTP/1.1\r\nhost: x\r\nslow: ").await;
    assert!(!answer.contains("200 OK"), "{answer}");
    assert!(clock.instant() - started <= Duration::from_secs(60));
    served.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_slow_with_its_body_gets_a_timeout() {
    let served = Served::new(|_| {}).await;
    let head = format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{");
    let answer = served.until_closed(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    served.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_or_a_body_that_is_too_large_is_refused() {
    let served = Served::new(|_| {}).await;
    let large = [("x-large".to_owned(), "x".repeat(200 << 10))];
    let answer = served.ask("GET", "/readyz", &large, Bytes::new()).await;
    assert_eq!(answer.code, 431);
    let many: Vec<(String, String)> = (0..5000).map(|n| (format!("x-{n}"), String::new())).collect();
    assert_eq!(served.ask("GET", "/readyz", &many, Bytes::new()).await.code, 431);
    // As much as a person with many groups sends.
    let usual: Vec<(String, String)> = (0..80).map(|n| (format!("x-{n}"), "x".repeat(200))).collect();
    assert_eq!(served.ask("GET", "/readyz", &usual, Bytes::new()).await.code, 200);
    let answer = served.ask("POST", MAPS, &[], Bytes::from(vec![b' '; (3 << 20) + 1])).await;
    answer.refused(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728");
    served.is_well().await;
}

#[tokio::test]
async fn the_end_of_a_server_is_announced_and_requests_come_to_their_end() {
    let served = Served::new(|config| config.shutdown_delay = Duration::from_secs(2)).await;
    let server = served.api.server.clone();
    let mut client = served.client().await;
    let request = Request::builder().uri(format!("{MAPS}?watch=1")).header("host", "x");
    let request = request.body(Full::new(Bytes::new()).boxed()).unwrap();
    let mut watch = client.send_request(request).await.unwrap();
    let mut late = served.connect().await;
    let during = async {
        // No longer ready, but still serving, also those who come now.
        let answer = served.ask("GET", "/readyz", &[], Bytes::new()).await;
        assert!(answer.text.contains("[-]shutdown failed: reason withheld\n"), "{}", answer.text);
        assert_eq!(answer.code, 500);
        let answer = served.ask("GET", "/readyz/shutdown", &[], Bytes::new()).await;
        assert_eq!(answer.text, "internal server error: process is shutting down\n");
        assert_eq!(served.ask("GET", "/livez", &[], Bytes::new()).await.code, 200);
        let body = json!({"metadata": {"name": "new"}}).to_string();
        assert_eq!(served.ask("POST", MAPS, &[], body.into()).await.code, 201);
        let event = watch.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(event.starts_with(b"{\"type\":\"ADDED\""), "{event:?}");
        // A request that is under way when the delay is over, which is when the watches end.
        let body = json!({"metadata": {"name": "late"}}).to_string();
        let head = format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        late.write_all(head.as_bytes()).await.unwrap();
        assert!(watch.frame().await.is_none());
        late.write_all(body.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = late.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 201 "), "{}", String::from_utf8_lossy(&answer));
    };
    let (ended, ()) = tokio::join!(server.shutdown(), during);
    ended.unwrap();
    assert!(TcpStream::connect((LOCAL, served.port)).await.is_err(), "the server still accepts");
}
