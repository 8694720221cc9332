//! An API server in this process, reached over TLS by the real binary.
#![allow(dead_code, unreachable_pub)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use apiserver::pki::Pki;
use apiserver::{ApiServer, Config, UserInfo};
use base::{Clock, Random, Tasks};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use store::{Embedded, Store};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;

/// A server, and a directory with its kubeconfig.
pub struct Cluster {
    pub server: ApiServer,
    pub dir: tempfile::TempDir,
    tasks: Tasks,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub async fn cluster() -> Cluster {
    let (tasks, clock, random) = (Tasks::new("test"), Clock::system(), Random::system());
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(clock.clone(), tasks.clone()));
    let pki = Arc::new(Pki::in_memory(clock.clone(), random.clone()).unwrap());
    let config = Config::new(clock, random, tasks.clone(), pki.clone(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    let server = ApiServer::start(store, config).await.unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = server.clone();
    tasks.spawn("serve", async move { serving.serve(listener).await.unwrap() });
    let dir = tempfile::tempdir().unwrap();
    let admin = pki.admin().unwrap();
    let data = |pem: &str| STANDARD.encode(pem);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://{address}"), "certificate-authority-data": data(pki.authority_pem()),
        }}],
        "users": [{"name": "test", "user": {
            "client-certificate-data": data(&admin.certificate_pem), "client-key-data": data(admin.key_pem()),
        }}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    std::fs::write(dir.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
    let cluster = Cluster { server, dir, tasks };
    // The namespace that objects go to; a controller makes its service account in a whole cluster.
    let account = json!({"metadata": {"name": "default"}});
    cluster.call("POST", "/api/v1/namespaces/default/serviceaccounts", Some(&account)).await;
    cluster
}

impl Cluster {
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let admin = UserInfo::new("admin", &["system:masters"]);
        self.server.call(&admin, method, path, body).await.unwrap_or_else(|error| panic!("{path}: {error:?}"))
    }

    /// Writes a file; its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skiff"));
        command.args(args.split_whitespace());
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.dir.path())
            .env_remove("KUBERNETES_SERVICE_HOST");
        command.current_dir(self.dir.path()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Runs `skiff ARGS`.
    pub async fn run(&self, args: &str) -> Ran {
        self.feed(args, "").await
    }

    /// Runs `skiff ARGS` with something on its standard input.
    pub async fn feed(&self, args: &str, input: &str) -> Ran {
        Self::finish(self.command(args), input).await
    }

    /// Runs `skiff ARGS` with an editor.
    pub async fn editor(&self, editor: &str, args: &str) -> Ran {
        let mut command = self.command(args);
        command.env("KUBE_EDITOR", editor);
        Self::finish(command, "").await
    }

    async fn finish(mut command: Command, input: &str) -> Ran {
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that doesn't read is gone by now.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let done = child.wait_with_output().await.unwrap();
        Ran {
            code: done.status.code().unwrap_or(-1),
            out: String::from_utf8(done.stdout).unwrap(),
            err: String::from_utf8(done.stderr).unwrap(),
        }
    }

    /// Starts `skiff ARGS`.
    pub fn start(&self, args: &str) -> tokio::process::Child {
        self.command(args).spawn().unwrap()
    }

    /// A running pod, with what a node agent would report.
    pub async fn pod(&self, name: &str, labels: Value) {
        let pod = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "skiff.local/hello:1"}]},
        });
        self.call("POST", "/api/v1/namespaces/default/pods", Some(&pod)).await;
        let status = json!({"status": {
            "phase": "Running", "podIP": "10.244.0.9", "podIPs": [{"ip": "10.244.0.9"}], "hostIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "main", "image": "skiff.local/hello:1", "imageID": "sha256:1",
                "ready": true, "restartCount": 2, "started": true,
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
        }});
        self.call("PATCH", &format!("/api/v1/namespaces/default/pods/{name}/status"), Some(&status)).await;
    }
}

impl Ran {
    /// Succeeded with exactly this output.
    #[track_caller]
    pub fn prints(&self, out: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (0, out, ""));
    }

    /// Failed with exactly this error, and nothing on stdout.
    #[track_caller]
    pub fn fails(&self, err: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.trim_end()), (1, "", err));
    }

    /// Failed with an error that starts so.
    #[track_caller]
    pub fn starts(&self, err: &str) {
        assert!(self.code == 1 && self.err.starts_with(err), "{} {}", self.code, self.err);
    }

    /// Succeeded without output, saying this on stderr.
    #[track_caller]
    pub fn says(&self, err: &str) {
        self.ends(0, "", err);
    }

    /// Ended with this code, stdout and stderr.
    #[track_caller]
    pub fn ends(&self, code: i32, out: &str, err: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (code, out, err));
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}
