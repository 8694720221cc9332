//! Prints what the hot paths of the API server cost, each on a server in this process with a store on disk.
//!
//! Requests come through the in-process transport, so that sockets and TLS are not measured. What says "per core" runs on
//! one thread.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use apiserver::pki::Pki;
use apiserver::{ApiServer, Body, Config, InProcess, UserInfo};
use base::{Clock, Random, Tasks};
use bytes::Bytes;
use e2e::usage::Usage;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use store::Embedded;
use tempfile::TempDir;
use tower::Service;

const PODS: usize = 10_000;
/// The pods are spread over so many values of the label and so many nodes.
const SHARES: usize = 100;
const WATCHERS: usize = 1000;

fn main() {
    let one = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let all = || tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    one().block_on(read());
    one().block_on(watch());
    all().block_on(create());
}

/// A server, and its administrator.
struct Bench {
    service: InProcess,
    tasks: Tasks,
    _server: ApiServer,
    _data: TempDir,
}

impl Bench {
    async fn start() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let (clock, random, tasks) = (Clock::system(), Random::system(), Tasks::new("hotpaths"));
        let store = Embedded::open(data.path(), clock.clone(), tasks.clone()).expect("a store");
        let pki = Arc::new(Pki::in_memory(clock.clone(), random.clone()).expect("keys"));
        let config = Config::new(clock, random, tasks.clone(), pki, std::net::Ipv4Addr::LOCALHOST.into());
        let server = ApiServer::start(Arc::new(store), config).await.expect("a server");
        let service = server.in_process(UserInfo::new("admin", &["system:masters"]));
        let this = Self { service, tasks, _server: server, _data: data };
        let account = json!({"metadata": {"name": "default"}});
        this.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
        this
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        let response = self.service.clone().call(request).await.expect("an answer");
        assert!(response.status().is_success(), "{}", response.status());
        response
    }

    async fn open(&self, target: &str) -> Body {
        let request = Request::get(target).body(Full::default()).expect("a request");
        self.ask(request).await.into_body()
    }

    /// How many bytes a GET answers.
    async fn get(&self, target: &str) -> usize {
        let mut body = self.open(target).await;
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame.expect("a piece of the answer").data_ref().map_or(0, Bytes::len);
            // A client on another thread would read meanwhile.
            tokio::task::yield_now().await;
        }
        length
    }

    async fn post(&self, target: &str, object: &Value) {
        let request = Request::post(target).header("content-type", "application/json");
        let body = Full::new(Bytes::from(object.to_string()));
        self.ask(request.body(body).expect("a request")).await;
    }

    async fn put(&self, target: &str, object: &Value) {
        let request = Request::put(target).header("content-type", "application/json");
        let body = Full::new(Bytes::from(object.to_string()));
        self.ask(request.body(body).expect("a request")).await;
    }
}

fn pod(index: usize) -> Value {
    json!({
        "metadata": {"name": format!("pod-{index}"), "labels": {"app": format!("app-{}", index % SHARES), "tier": "web"}},
        "spec": {
            "nodeName": format!("node-{}", index / (PODS / SHARES)),
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main", "image": "registry.example/web:1.0",
                "ports": [{"containerPort": 8080}],
                "env": [{"name": "MODE", "value": "production"}, {"name": "LEVEL", "value": "info"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
            }],
        },
    })
}

const COLLECTION: &str = "/api/v1/namespaces/default/pods";

fn usage() -> Usage {
    Usage::of(std::process::id())
}

/// GET and LIST of 10,000 pods, and the memory that they take.
async fn read() {
    let bench = Bench::start().await;
    let before = usage();
    for index in 0..PODS {
        bench.post(COLLECTION, &pod(index)).await;
    }
    let whole = bench.get(COLLECTION).await;
    // The first list is what makes the buffers.
    let after = usage();
    let beyond = (after.resident.saturating_sub(before.resident)).saturating_sub(whole as u64) / PODS as u64;
    println!("{PODS} pods of {} bytes; memory beyond their bytes: {beyond} bytes per pod", whole / PODS);

    for clients in [1, 16] {
        let before = usage();
        let lists = 32;
        let rounds = (0..clients).map(|_| async {
            let mut bytes = 0;
            for _ in 0..lists / clients {
                bytes += bench.get(COLLECTION).await;
            }
            bytes
        });
        let started = Instant::now();
        let bytes: usize = futures::future::join_all(rounds).await.into_iter().sum();
        let speed = bytes as f64 / started.elapsed().as_secs_f64() / 1e9;
        let grown = usage().peak.saturating_sub(before.peak);
        println!(
            "LIST of all pods, {clients} clients: {speed:.2} GB/s per core, peak memory grew by {:.1} MiB",
            grown as f64 / (1 << 20) as f64
        );
    }
    let full = time(20, || bench.get(COLLECTION)).await;
    for (what, query) in [
        ("1 % by label", "labelSelector=app%3Dapp-7"),
        ("1 % by spec.nodeName", "fieldSelector=spec.nodeName%3Dnode-7"),
    ] {
        let target = format!("{COLLECTION}?{query}");
        let part = time(200, || bench.get(&target)).await;
        let (ratio, took) = (full.as_secs_f64() / part.as_secs_f64(), part.as_micros());
        println!("LIST of {what}: {took} us, {ratio:.0} times cheaper than the full one");
    }
    let one = time(20_000, || bench.get("/api/v1/namespaces/default/pods/pod-77?resourceVersion=0")).await;
    println!("GET by name, any revision: {:.0}/s per core", 1.0 / one.as_secs_f64());
    let one = time(20_000, || bench.get("/api/v1/namespaces/default/pods/pod-77")).await;
    println!("GET by name: {:.0}/s per core", 1.0 / one.as_secs_f64());
    bench.tasks.token().cancel();
}

/// How long one of `count` runs takes on average.
async fn time<F: Future<Output = usize>>(count: u32, run: impl Fn() -> F) -> Duration {
    let started = Instant::now();
    for _ in 0..count {
        run().await;
    }
    started.elapsed() / count
}

/// One event on its way to 1,000 watchers.
async fn watch() {
    let bench = Arc::new(Bench::start().await);
    let path = "/api/v1/namespaces/default/configmaps/seen";
    bench.post("/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "seen"}})).await;
    let (events, sent) = (200, Arc::new(Mutex::new(Vec::new())));
    let lock = |sent: &Mutex<Vec<Instant>>, at: usize| {
        sent.lock().unwrap_or_else(PoisonError::into_inner).get(at).copied()
    };
    let mut watchers = tokio::task::JoinSet::new();
    let ready = Arc::new(tokio::sync::Semaphore::new(0));
    for _ in 0..WATCHERS {
        let (bench, sent, ready) = (bench.clone(), sent.clone(), ready.clone());
        watchers.spawn(async move {
            let selector = "fieldSelector=metadata.name%3Dseen";
            let mut body =
                bench.open(&format!("/api/v1/namespaces/default/configmaps?watch=1&{selector}")).await;
            let (mut seen, mut latencies) = (0, Vec::new());
            while latencies.len() < events {
                let Some(Ok(frame)) = body.frame().await else { break };
                let now = Instant::now();
                let data = frame.into_data().unwrap_or_default();
                for _ in data.iter().filter(|byte| **byte == b'\n') {
                    // The first is what there was.
                    match seen {
                        0 => ready.add_permits(1),
                        _ => latencies.extend(lock(&sent, seen - 1).map(|at| now - at)),
                    }
                    seen += 1;
                }
            }
            latencies
        });
    }
    let _all = ready.acquire_many(WATCHERS as u32).await.expect("all watches begin");
    for event in 0..events {
        sent.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        bench.put(path, &json!({"metadata": {"name": "seen"}, "data": {"event": event.to_string()}})).await;
        // Each alone.
        Clock::system().wait(Duration::from_millis(20)).await;
    }
    let mut latencies: Vec<Duration> = watchers.join_all().await.into_iter().flatten().collect();
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "one event to {WATCHERS} watchers, from before the write: median {:.2} ms, p99 {:.2} ms ({} deliveries)",
        at(0.5),
        at(0.99),
        latencies.len()
    );
    bench.tasks.token().cancel();
}

/// Creates by 64 clients at once, on all cores.
async fn create() {
    let bench = Arc::new(Bench::start().await);
    let (clients, each) = (64, 400);
    let mut running = tokio::task::JoinSet::new();
    let (started, before) = (Instant::now(), usage().processor);
    for client in 0..clients {
        let bench = bench.clone();
        running.spawn(async move {
            for index in 0..each {
                let object =
                    json!({"metadata": {"name": format!("c-{client}-{index}")}, "data": {"key": "value"}});
                bench.post("/api/v1/namespaces/default/configmaps", &object).await;
            }
        });
    }
    running.join_all().await;
    let (took, processor) = (started.elapsed().as_secs_f64(), (usage().processor - before).as_secs_f64());
    let count = f64::from(clients * each);
    println!(
        "creates by {clients} clients: {:.0}/s, {:.0} us of CPU each (client included)",
        count / took,
        processor / count * 1e6
    );
    bench.tasks.token().cancel();
}
