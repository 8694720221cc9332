//! A real cluster for one test: `skiff up` as a process, in the calling thread's network namespace.
//!
//! Whatever happens to the test, nothing stays: dropping the cluster takes it down, and a guard process does so when
//! the test itself is killed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Cache, CacheConfig, Cached, Client};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Node, Pod};
use tempfile::TempDir;

use crate::machine::{self, ADDRESS};
use crate::web;

/// How long anything that a test waits for may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    data: TempDir,
    arguments: Vec<String>,
    up: Child,
    /// Ends the cluster when this process does.
    guard: Child,
    tasks: base::Tasks,
}

/// The binary under test, beside the directory of the test's own.
pub fn skiff() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let found = own.ancestors().skip(1).map(|dir| dir.join("skiff")).find(|path| path.is_file());
    let Some(path) = found else {
        panic!(
            "no `skiff` beside {}: build it with `cargo build -p skiff-ctl` in the same profile",
            own.display()
        );
    };
    path
}

impl Cluster {
    /// Starts `skiff up` with further arguments and waits until it says that it is ready.
    pub fn up(arguments: &[&str]) -> Self {
        let data = tempfile::Builder::new().prefix("skiff-e2e").tempdir().expect("a temporary directory");
        let mut arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        if !arguments.iter().any(|argument| argument.starts_with("--nodes")) {
            arguments.push(format!("--node-ip={ADDRESS}"));
        }
        let down = "read -r _; exec \"$0\" down --delete-data --data-dir \"$1\" >/dev/null 2>&1";
        let guard = Command::new("sh")
            .args(["-c", down])
            .arg(skiff())
            .arg(data.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("a guard process");
        let up = start(data.path(), &arguments).expect("skiff up starts");
        let mut this = Self { data, arguments, up, guard, tasks: base::Tasks::new("test") };
        this.wait_ready();
        this
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        self.data.path()
    }

    /// The process of the control plane and the first node.
    pub fn process(&self) -> u32 {
        self.up.id()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("admin.kubeconfig")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    /// Waits for the line that says that the cluster is ready. The process may not end before.
    fn wait_ready(&mut self) {
        let started = Instant::now();
        while !self.log().contains("skiff is up at") {
            if let Ok(Some(status)) = self.up.try_wait() {
                panic!("skiff up ended with {status}: {}", self.log());
            }
            assert!(started.elapsed() < PATIENCE, "skiff up is not ready: {}", self.log());
            pause();
        }
    }

    /// Kills the process of the control plane and of the first node, as a crash would.
    pub fn kill(&mut self) {
        self.up.kill().expect("the process is there");
        self.up.wait().expect("the process is ours");
    }

    /// Starts the cluster again on what is there. Returns at once.
    pub fn start_again(&mut self) {
        self.up = start(self.dir(), &self.arguments).expect("skiff up starts");
    }

    /// Starts the cluster again and waits until it is ready.
    pub fn restart(&mut self) {
        self.start_again();
        self.wait_ready();
    }

    /// Runs `skiff` with arguments, as a user of the cluster.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(&skiff(), arguments)
    }

    /// Runs a client such as kubectl, as a user of the cluster.
    pub fn run_with(&self, program: &Path, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.dir())
            .stdin(Stdio::null())
            .output()
            .expect("the program starts")
    }

    /// What a successful command prints.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "skiff {arguments:?} failed\n{out}{err}");
        out
    }

    /// A client with the administrator's certificate.
    pub async fn client(&self) -> Client {
        client::connect::kubeconfig(&self.kubeconfig(), None).await.expect("the kubeconfig is good")
    }

    /// Creates every object of a file, or changes it to what the file says.
    pub fn apply(&self, file: &Path) -> String {
        self.ok(&["apply", "-f", &file.to_string_lossy()])
    }

    /// A cache of all objects of a kind, filled.
    pub async fn cache<K: Cached<DynamicType = ()>>(&self) -> Cache<K> {
        filled(&self.tasks, self.client().await).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of skiff up\n{}\n---", self.log());
        }
        let down =
            Command::new(skiff()).args(["down", "--delete-data", "--data-dir"]).arg(self.dir()).output();
        let _ = self.up.wait();
        // It has nothing left to do. It must not see its input end, or it would take the cluster down once more.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let said = match down {
            Ok(output) if output.status.success() => return,
            Ok(output) => text(&output.stderr),
            Err(error) => error.to_string(),
        };
        if std::thread::panicking() {
            eprintln!("skiff down failed: {said}");
        } else {
            panic!("skiff down failed: {said}");
        }
    }
}

fn start(data: &Path, arguments: &[String]) -> io::Result<Child> {
    let log = File::create(data.join("log"))?;
    Command::new(skiff())
        .arg("up")
        .arg("--data-dir")
        .arg(data)
        .args(arguments)
        .env("SKIFF_LOG", "info")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// The pace of looking at what can't tell of its changes: files and processes.
#[expect(clippy::disallowed_methods, reason = "a process' output and end have no event to wait for here")]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Text of a program's output.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A cache of all objects of a kind, filled.
pub async fn filled<K: Cached<DynamicType = ()>>(tasks: &base::Tasks, client: Client) -> Cache<K> {
    let (clock, random) = (base::Clock::system(), base::Random::system());
    let cache = Cache::start(tasks, client, clock, random, CacheConfig::default());
    within("the first list", cache.synced()).await;
    cache
}

/// How long it takes from `started` until the API says that it is ready.
pub async fn ready_after(started: Instant, client: &Client) -> Duration {
    loop {
        let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
        match client.request_text(request).await {
            Ok(said) if said == "ok" => return started.elapsed(),
            other => assert!(started.elapsed() < PATIENCE, "the API does not come back: {other:?}"),
        }
        pause();
    }
}

/// What a future gives, if it does so within [`PATIENCE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {} s", PATIENCE.as_secs()),
    }
}

/// Returns what `look` finds in a cache, now or after a change of it.
pub async fn eventually<K, T>(what: &str, cache: &Cache<K>, mut look: impl FnMut(&[Arc<K>]) -> Option<T>) -> T
where
    K: Cached<DynamicType = ()>,
{
    let mut changes = cache.subscribe();
    let waiting = async {
        loop {
            if let Some(found) = look(&cache.list()) {
                return found;
            }
            changes.next().await;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(found) => found,
        Err(_) => panic!("{what}: not within {} s; last seen: {:#?}", PATIENCE.as_secs(), cache.list()),
    }
}

/// True if the pod is ready and not on its way out.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready =
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// The pods with the label `app` of this value.
pub fn of_app<'a>(pods: &'a [Arc<Pod>], app: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
    pods.iter().filter(move |pod| {
        pod.metadata.labels.as_ref().and_then(|labels| labels.get("app")).is_some_and(|value| value == app)
    })
}

/// Container id and restart count of every container of the app: the same as long as nothing was restarted.
pub fn containers(pods: &[Arc<Pod>], app: &str) -> BTreeSet<(String, i32)> {
    let statuses = of_app(pods, app).filter_map(|pod| pod.status.as_ref());
    let statuses = statuses.flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| (status.container_id.clone().unwrap_or_default(), status.restart_count)).collect()
}

/// The containers of the app once it has as many pods as wanted, all ready.
pub fn all_ready(pods: &[Arc<Pod>], app: &str, wanted: usize) -> Option<BTreeSet<(String, i32)>> {
    let found: Vec<_> = of_app(pods, app).collect();
    (found.len() == wanted && found.iter().all(|pod| is_ready(pod))).then(|| containers(pods, app))
}

/// The nodes that the app's pods are on.
pub fn on_nodes(pods: &[Arc<Pod>], app: &str) -> BTreeSet<String> {
    of_app(pods, app).filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect()
}

/// True if the node says that it is ready.
pub fn node_is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A file of the examples.
pub fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples").join(name)
}

/// Runs a test on a machine of its own.
pub fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    machine::isolate().expect("a network namespace: these tests need root");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test());
}

/// The address of a node port on this machine.
pub fn node_port(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), port)
}

/// Makes a container of the demo application end with a code. Returns how it ended, once it is started again.
pub async fn end_a_container(pods: &Cache<Pod>, app: &str, code: i32) -> ContainerStateTerminated {
    let (ip, name) = of_app(&pods.list(), app)
        .find_map(|pod| Some((pod.status.as_ref()?.pod_ip.clone()?, pod.metadata.name.clone()?)))
        .expect("a pod with an address");
    let address = SocketAddr::new(ip.parse().expect("an address"), 8080);
    // The connection may be gone before the answer.
    let _ = web::get(address, &format!("/exit?code={code}"), Duration::from_secs(5));
    let restarted = eventually("a restart", pods, |pods| {
        let pod = of_app(pods, app).find(|pod| pod.metadata.name.as_deref() == Some(&name))?;
        let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.clone();
        (status.restart_count > 0 && status.ready).then_some(status)
    })
    .await;
    restarted.last_state.and_then(|state| state.terminated).expect("how it ended is told")
}

/// Asks a service until it answers: each node learns of its endpoints in its own time.
pub fn answer(port: u16) -> String {
    answer_at(node_port(port))
}

/// The same of an address.
pub fn answer_at(address: SocketAddr) -> String {
    let started = Instant::now();
    loop {
        match web::get(address, "/", Duration::from_secs(2)) {
            Ok((200, body)) => return body,
            other if started.elapsed() > PATIENCE => panic!("{address}: {other:?}"),
            _ => pause(),
        }
    }
}
