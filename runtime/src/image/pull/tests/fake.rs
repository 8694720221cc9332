//! A registry in this process.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::image::document::{DOCKER_INDEX, MANIFEST, architecture, sha256};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// How the registry wants to be asked.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Login {
    None,
    Basic,
    Token { anonymous: bool },
}

/// A running registry; it ends with its tasks.
pub(super) struct Fake {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: Tasks,
}

struct State {
    address: SocketAddr,
    login: Login,
    content: Mutex<Content>,
    manifest_requests: AtomicUsize,
    blob_requests: AtomicUsize,
    broken: AtomicUsize,
    break_next: AtomicBool,
    ranges: AtomicBool,
    stall: AtomicBool,
    gate: Mutex<Option<Gate>>,
}

#[derive(Default)]
struct Content {
    manifests: HashMap<(String, String), (String, Bytes)>,
    blobs: HashMap<String, Bytes>,
    layers: Vec<String>,
    scopes: Vec<String>,
}

/// Holds requests until it is opened, and tells how many came.
#[derive(Clone)]
pub(super) struct Gate {
    open: watch::Sender<bool>,
    reached: watch::Sender<usize>,
}

impl Gate {
    pub(super) fn open(&self) {
        self.open.send_replace(true);
    }

    pub(super) async fn reached(&self, count: usize) {
        let mut reached = self.reached.subscribe();
        tokio::time::timeout(LIMIT, reached.wait_for(|&now| now >= count))
            .await
            .expect("no request")
            .unwrap();
    }
}

impl Fake {
    pub(super) async fn start(login: Login) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            address,
            login,
            content: Mutex::default(),
            manifest_requests: AtomicUsize::new(0),
            blob_requests: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            break_next: AtomicBool::new(false),
            ranges: AtomicBool::new(true),
            stall: AtomicBool::new(false),
            gate: Mutex::default(),
        });
        let tasks = Tasks::new("registry");
        let (serving, connections) = (state.clone(), tasks.child("connections"));
        tasks.spawn("accept", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = serving.clone();
                connections.spawn("connection", async move {
                    let answer = service_fn(move |request| {
                        let state = state.clone();
                        async move { Ok::<_, Infallible>(state.answer(request).await) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    // A connection broken on purpose ends here.
                    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Self { address, state, _tasks: tasks }
    }

    pub(super) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.state.content.lock().unwrap()
    }

    fn blob(&self, bytes: Vec<u8>) -> serde_json::Value {
        let digest = sha256(&bytes);
        let size = bytes.len();
        self.content().blobs.insert(digest.clone(), bytes.into());
        json!({"mediaType": "application/octet-stream", "digest": digest, "size": size})
    }

    /// An archive with one file that is named by its content (or `large`), packed as told.
    fn layer(&self, text: &str, packing: &str) -> (serde_json::Value, String) {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        let name = if text.len() < 50 { text } else { "large" };
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        let tar = tar.into_inner().unwrap();
        let diff_id = sha256(&tar);
        let packed = match packing {
            "gzip" => {
                // Not made smaller, so that a large one stays large.
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
                gzip.write_all(&tar).unwrap();
                gzip.finish().unwrap()
            }
            "zstd" => zstd::encode_all(tar.as_slice(), 1).unwrap(),
            _ => tar,
        };
        let descriptor = self.blob(packed);
        self.content().layers.push(descriptor["digest"].as_str().unwrap().to_owned());
        (descriptor, diff_id)
    }

    fn manifest(&self, layers: &[(serde_json::Value, String)]) -> (String, Bytes) {
        let diff_ids: Vec<&String> = layers.iter().map(|(_, diff_id)| diff_id).collect();
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Cmd": ["run"], "User": "1000:1000"},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.blob(config.to_string().into_bytes());
        let id = config["digest"].as_str().unwrap().to_owned();
        let layers: Vec<_> = layers.iter().map(|(layer, _)| layer).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
            .to_string();
        (id, Bytes::from(manifest))
    }

    fn publish(&self, repository: &str, tag: Option<&str>, media_type: &str, bytes: Bytes) -> String {
        let digest = sha256(&bytes);
        let mut content = self.content();
        for reference in tag.into_iter().chain([digest.as_str()]) {
            let key = (repository.to_owned(), reference.to_owned());
            content.manifests.insert(key, (media_type.to_owned(), bytes.clone()));
        }
        digest
    }

    /// An image of gzip layers; returns the digests of its manifest and its config.
    pub(super) fn add(&self, repository: &str, tag: &str, layers: &[&str]) -> (String, String) {
        let layers: Vec<_> = layers.iter().map(|text| self.layer(text, "gzip")).collect();
        let (id, manifest) = self.manifest(&layers);
        (self.publish(repository, Some(tag), MANIFEST, manifest), id)
    }

    /// An index with an image for this machine and others; returns the digests of index and config.
    pub(super) fn add_multi_arch(&self, repository: &str, tag: &str) -> (String, String) {
        let layers: Vec<_> =
            ["gzip", "zstd", "plain"].iter().map(|packing| self.layer(packing, packing)).collect();
        let (id, manifest) = self.manifest(&layers);
        let size = manifest.len();
        let digest = self.publish(repository, None, MANIFEST, manifest);
        let entry = |digest: &str, os: &str, architecture: &str| {
            json!({"mediaType": MANIFEST, "digest": digest, "size": size,
                "platform": {"os": os, "architecture": architecture, "variant": "v9"}})
        };
        let index = json!({"schemaVersion": 2, "mediaType": DOCKER_INDEX, "manifests": [
            entry(&sha256("other"), "linux", "s390x"),
            entry(&sha256("windows"), "windows", architecture()),
            entry(&digest, "linux", architecture()),
            entry(&sha256("attestation"), "unknown", "unknown"),
        ]});
        (self.publish(repository, Some(tag), DOCKER_INDEX, index.to_string().into()), id)
    }

    pub(super) fn add_for_platform(&self, repository: &str, tag: &str, architecture: &str) {
        let index = json!({"schemaVersion": 2, "mediaType": DOCKER_INDEX, "manifests": [
            {"mediaType": MANIFEST, "digest": sha256("x"), "size": 1,
                "platform": {"os": "linux", "architecture": architecture}},
        ]});
        self.publish(repository, Some(tag), DOCKER_INDEX, index.to_string().into());
    }

    pub(super) fn layer_of(&self, repository: &str, tag: &str) -> Descriptor {
        let key = (repository.to_owned(), tag.to_owned());
        let manifest = Manifest::parse("manifest", &self.content().manifests[&key].1).unwrap();
        manifest.layers.unwrap().remove(0)
    }

    /// The same image under another tag, with layers that claim another size.
    pub(super) fn announce_layers_as(&self, repository: &str, reference: &str, tag: &str, size: u64) {
        let key = (repository.to_owned(), reference.to_owned());
        let manifest = self.content().manifests[&key].1.clone();
        let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        manifest["layers"][0]["size"] = json!(size);
        self.publish(repository, Some(tag), MANIFEST, manifest.to_string().into());
    }

    pub(super) fn corrupt_layers(&self) {
        let mut content = self.content();
        for digest in content.layers.clone() {
            content.blobs.insert(digest, Bytes::from_static(b"something else"));
        }
    }

    pub(super) fn replace_manifest(&self, repository: &str, reference: &str, bytes: &'static [u8]) {
        let key = (repository.to_owned(), reference.to_owned());
        self.content().manifests.insert(key, (MANIFEST.to_owned(), Bytes::from_static(bytes)));
    }

    pub(super) fn break_next_layer(&self, ranges: bool) {
        self.state.ranges.store(ranges, Ordering::SeqCst);
        self.state.break_next.store(true, Ordering::SeqCst);
    }

    pub(super) fn stall_layers(&self) {
        self.state.stall.store(true, Ordering::SeqCst);
    }

    pub(super) fn hold_manifests(&self) -> Gate {
        let gate = Gate { open: watch::Sender::new(false), reached: watch::Sender::new(0) };
        *self.state.gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    pub(super) fn manifest_requests(&self) -> usize {
        self.state.manifest_requests.load(Ordering::SeqCst)
    }

    pub(super) fn blob_requests(&self) -> usize {
        self.state.blob_requests.load(Ordering::SeqCst)
    }

    pub(super) fn broken(&self) -> usize {
        self.state.broken.load(Ordering::SeqCst)
    }

    pub(super) fn scopes(&self) -> Vec<String> {
        let mut scopes = self.content().scopes.clone();
        scopes.dedup();
        scopes
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let given =
            request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let basic = format!("Basic {}", STANDARD.encode("user:secret"));
        let path = request.uri().path().to_owned();
        if path == "/token" {
            let query = request.uri().query().unwrap_or_default().replace("%3A", ":");
            let scope = query.split('&').find_map(|pair| pair.strip_prefix("scope="));
            if given != basic && self.login != (Login::Token { anonymous: true }) {
                return status(StatusCode::UNAUTHORIZED, "wrong user or password");
            }
            self.content.lock().unwrap().scopes.push(scope.unwrap_or_default().to_owned());
            return full(StatusCode::OK, "application/json", json!({"token": "the-token"}).to_string());
        }
        let (wanted, challenge) = match self.login {
            Login::None => (None, String::new()),
            Login::Basic => (Some(basic), "Basic realm=\"fake\"".to_owned()),
            Login::Token { .. } => (
                Some("Bearer the-token".to_owned()),
                format!("Bearer realm=\"http://{}/token\",service=\"fake\"", self.address),
            ),
        };
        if wanted.is_some_and(|wanted| wanted != given) {
            let mut response = status(StatusCode::UNAUTHORIZED, "{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
            return response;
        }
        if path == "/v2/" {
            return status(StatusCode::OK, "{}");
        }
        let parts: Vec<&str> = path.trim_start_matches("/v2/").rsplitn(3, '/').collect();
        match parts.as_slice() {
            [reference, "manifests", repository] => self.manifest(repository, reference).await,
            [digest, "blobs", _] => self.blob(digest, request.headers().get(header::RANGE)),
            _ => status(StatusCode::NOT_FOUND, ""),
        }
    }

    async fn manifest(&self, repository: &str, reference: &str) -> Response<Body> {
        self.manifest_requests.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.reached.send_modify(|count| *count += 1);
            gate.open.subscribe().wait_for(|&open| open).await.unwrap();
        }
        let key = (repository.to_owned(), reference.to_owned());
        let found = self.content.lock().unwrap().manifests.get(&key).cloned();
        match found {
            Some((media_type, bytes)) => full(StatusCode::OK, &media_type, bytes),
            None => {
                let body = json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]});
                full(StatusCode::NOT_FOUND, "application/json", body.to_string())
            }
        }
    }

    fn blob(&self, digest: &str, range: Option<&http::HeaderValue>) -> Response<Body> {
        self.blob_requests.fetch_add(1, Ordering::SeqCst);
        let (found, is_layer) = {
            let content = self.content.lock().unwrap();
            (content.blobs.get(digest).cloned(), content.layers.iter().any(|layer| layer == digest))
        };
        let Some(bytes) = found else { return status(StatusCode::NOT_FOUND, "") };
        if is_layer && self.stall.load(Ordering::SeqCst) {
            return partly(bytes.len(), bytes.slice(..4), futures::stream::pending().boxed());
        }
        if is_layer && self.break_next.swap(false, Ordering::SeqCst) {
            self.broken.fetch_add(1, Ordering::SeqCst);
            let broken = futures::stream::once(async { Err(std::io::Error::other("broken on purpose")) });
            return partly(bytes.len(), bytes.slice(..bytes.len() / 2), broken.boxed());
        }
        let from: Option<usize> = range
            .filter(|_| self.ranges.load(Ordering::SeqCst))
            .and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        match from {
            Some(from) => full(StatusCode::PARTIAL_CONTENT, "application/octet-stream", bytes.slice(from..)),
            None => full(StatusCode::OK, "application/octet-stream", bytes),
        }
    }
}

fn full(status: StatusCode, media_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).header(header::CONTENT_TYPE, media_type).body(body).unwrap()
}

fn status(status: StatusCode, body: &'static str) -> Response<Body> {
    full(status, "application/json", body)
}

/// Announces more than it sends, then goes on as told.
fn partly(
    length: usize,
    start: Bytes,
    then: futures::stream::BoxStream<'static, std::io::Result<Bytes>>,
) -> Response<Body> {
    let start = futures::stream::once(async { Ok(start) });
    let body = StreamBody::new(start.chain(then).map_ok(Frame::data));
    let body = BodyExt::boxed_unsync(body);
    Response::builder().header(header::CONTENT_LENGTH, length).body(body).unwrap()
}
