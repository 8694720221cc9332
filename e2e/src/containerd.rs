//! Debian's containerd for one test: with its own state, and in the calling thread's network namespace.
//!
//! Its parent is a guard, a shell that takes orders on its standard input. When that ends, which is also when the test is
//! killed and the cluster that it started is down, the guard ends containerd with everything in it.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use crate::cluster::{PATIENCE, pause, text};

/// The namespace of containerd in which CRI keeps its things.
const NAMESPACE: &str = "k8s.io";

/// Takes `start`, `stop` and `end`; leaves nothing.
const GUARD: &str = r#"
ctr() { timeout 10 ctr -a "$0/c.sock" -n k8s.io "$@" 2>/dev/null; }
start() { containerd --config "$0/config.toml" <&- >>"$0/log" 2>&1 & pid=$!; }
stop() { kill "$pid"; wait "$pid"; }
start
while read -r order; do
    case $order in
        start) start ;;
        stop) stop ;;
        end) break ;;
    esac
done
for task in $(ctr tasks ls -q); do ctr tasks kill -s KILL -a "$task"; ctr tasks rm -f "$task"; done >&-
stop
grep -o " $0/[^ ]* " /proc/self/mounts | sort -r | xargs -r umount -l
rm -rf "$0"
"#;

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    dir: TempDir,
    guard: Child,
    /// Orders, and a sign of life. Processes that the test starts later hold it too, so that the guard waits for the one
    /// that takes the cluster down after the test was killed.
    orders: fs::File,
}

impl Containerd {
    /// Starts containerd and waits until it answers. Its sandboxes are made of `skiff.local/pause:1`, to be imported.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("skiff-ctrd").tempdir().expect("a temporary directory");
        for below in ["cni/net.d", "cni/bin"] {
            fs::create_dir_all(dir.path().join(below)).expect("a directory");
        }
        fs::write(dir.path().join("config.toml"), config(dir.path())).expect("a configuration");
        // Without O_CLOEXEC on the writing end: see `orders`.
        let (reading, orders): (OwnedFd, OwnedFd) = nix::unistd::pipe().expect("a pipe");
        nix::fcntl::fcntl(&orders, nix::fcntl::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).expect("a flag");
        let guard = Command::new("sh")
            .args(["-c", GUARD])
            .arg(dir.path())
            .stdin(Stdio::from(reading))
            .process_group(0)
            .spawn()
            .expect("a guard process");
        nix::fcntl::fcntl(&orders, nix::fcntl::F_SETFD(nix::fcntl::FdFlag::empty())).expect("a flag");
        let this = Self { dir, guard, orders: orders.into() };
        this.wait_ready();
        this
    }

    fn wait_ready(&self) {
        let started = Instant::now();
        // The socket is there a moment before the CRI service.
        while UnixStream::connect(self.socket()).is_err() || !self.ctr(&["version"]).status.success() {
            assert!(started.elapsed() < PATIENCE, "containerd does not start: {}", self.log());
            pause();
        }
    }

    fn order(&mut self, word: &str) {
        writeln!(self.orders, "{word}").expect("the guard is there");
    }

    /// Ends containerd; containers go on running.
    pub fn stop(&mut self) {
        self.order("stop");
        let started = Instant::now();
        while UnixStream::connect(self.socket()).is_ok() {
            assert!(started.elapsed() < PATIENCE, "containerd does not end");
            pause();
        }
    }

    /// Starts it again on what is there.
    pub fn start_again(&mut self) {
        self.order("start");
        self.wait_ready();
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    /// What to give to `skiff up`.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its directory, which every path of its own begins with.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where it looks for its network.
    pub fn cni_files(&self) -> Vec<String> {
        let names = |below: &str| {
            let entries = fs::read_dir(self.dir.path().join(below)).expect("a directory");
            let names =
                entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
            names.map(|name| format!("{below}/{name}")).collect::<Vec<_>>()
        };
        let mut found = names("cni/net.d");
        found.extend(names("cni/bin"));
        found.sort();
        found
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Runs containerd's own client.
    pub fn ctr(&self, arguments: &[&str]) -> Output {
        let socket = self.socket();
        let mut command = Command::new("ctr");
        command.arg("-a").arg(socket).args(["-n", NAMESPACE]).args(arguments).stdin(Stdio::null());
        command.output().expect("ctr: install containerd")
    }

    /// What a successful command of its client prints.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.ctr(arguments);
        let said = text(&output.stderr);
        assert!(output.status.success(), "ctr {arguments:?} failed: {said}");
        text(&output.stdout)
    }

    /// The ids of its containers; sandboxes are containers too.
    pub fn containers(&self) -> Vec<String> {
        self.ok(&["containers", "ls", "-q"]).lines().map(str::to_owned).collect()
    }

    /// Takes images from an archive.
    pub fn import(&self, archive: &Path) -> String {
        self.ok(&["images", "import", &archive.to_string_lossy()])
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- log of containerd\n{}\n---", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        let _ = writeln!(self.orders, "end");
        let _ = self.guard.wait();
    }
}

/// The least that containerd 1.6 needs to run beside others, and without rights that a container may lack.
fn config(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
[grpc]
  address = "{dir}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "skiff.local/pause:1"
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{dir}/cni/bin"
    conf_dir = "{dir}/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{dir}/runc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
"#
    )
}
