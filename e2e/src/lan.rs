//! Several machines for one test: network namespaces on bridges of the test's own machine.
//!
//! Each is held by a guard process inside of it. When the test ends, in whatever way, the guard's input does too: it
//! takes down what skiff runs on its machine and ends, and the namespace goes with it. Machines share what is not of
//! the network: mounts, cgroups and the host's name. Data directories of their own keep them apart there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use client::{Cache, Cached, Client};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::cluster::{PATIENCE, filled, pause, skiff, text};
use crate::machine::run;

/// A subnet of machines, and its bridge on the test's own machine.
#[derive(Clone, Copy, Debug)]
pub struct Subnet {
    bridge: &'static str,
    third: u8,
}

/// The subnet of the test's own machine.
pub const NEAR: Subnet = Subnet { bridge: "lan0", third: 77 };
/// Another one, behind the test's own machine as router.
pub const FAR: Subnet = Subnet { bridge: "lan1", third: 78 };

impl Subnet {
    fn address(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, self.third, host)
    }

    fn router(self) -> Ipv4Addr {
        self.address(1)
    }
}

/// Makes the test's own machine the router between [`NEAR`] and [`FAR`].
pub fn connect_far() -> io::Result<()> {
    run(&format!("ip link add {} address 02:00:c0:a8:4e:01 type bridge", FAR.bridge))?;
    run(&format!("ip address add {}/24 dev {}", FAR.router(), FAR.bridge))?;
    run(&format!("ip link set {} up", FAR.bridge))?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
}

/// A machine on which skiff runs.
#[derive(Debug)]
pub struct Machine {
    name: String,
    address: Ipv4Addr,
    data: TempDir,
    /// What runs, by the first word of its command.
    roles: BTreeMap<String, Child>,
    guard: Child,
    tasks: base::Tasks,
}

impl Machine {
    /// A machine with the address `host` of the subnet.
    pub fn new(name: &str, subnet: Subnet, host: u8) -> Self {
        let data = tempfile::Builder::new().prefix("skiff-e2e").tempdir().expect("a temporary directory");
        let hold = "echo; read -r _; exec \"$0\" down --delete-data --data-dir \"$1\" >/dev/null 2>&1";
        let mut guard = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", hold])
            .arg(skiff())
            .arg(data.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a guard process");
        let mut line = String::new();
        let said = guard.stdout.take().expect("it is piped");
        BufReader::new(said).read_line(&mut line).expect("the guard is in its namespace");
        let this = Self {
            name: name.to_owned(),
            address: subnet.address(host),
            data,
            roles: BTreeMap::new(),
            guard,
            tasks: base::Tasks::new("test"),
        };
        this.plug_in(subnet, host).expect("the machine's network");
        this
    }

    /// Gives the machine an interface on its subnet's bridge, and the router there.
    fn plug_in(&self, subnet: Subnet, host: u8) -> io::Result<()> {
        let (bridge, address, router) = (subnet.bridge, self.address, subnet.router());
        let port = format!("{bridge}p{host}");
        run(&format!("ip link add {port} type veth peer name eth0 netns {}", self.guard.id()))?;
        run(&format!("ip link set {port} master {bridge} up"))?;
        let inside = format!("nsenter {} -- ip", self.namespace());
        run(&format!("{inside} link set lo up"))?;
        run(&format!("{inside} address add {address}/24 dev eth0"))?;
        run(&format!("{inside} link set eth0 up"))?;
        run(&format!("{inside} route add default via {router}"))
    }

    fn namespace(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.guard.id())
    }

    /// The machine's address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        self.data.path()
    }

    /// The administrator's kubeconfig, of a server.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("admin.kubeconfig")
    }

    /// A command that is to run on this machine, as an administrator of the cluster. Its process is the program.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(self.namespace())
            .arg("--")
            .arg(program)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.dir())
            .stdin(Stdio::null());
        command
    }

    /// Starts a role of skiff on this machine. `SKIFF_DATA_DIR` leads all its commands to the machine's directory.
    pub fn start(&mut self, arguments: &[&str]) {
        let role = arguments[0];
        assert!(!self.roles.contains_key(role), "{} runs an {role} already", self.name);
        let log = File::create(self.log_file(role)).expect("a log");
        let process = self
            .command(&skiff())
            .args(arguments)
            .env("SKIFF_DATA_DIR", self.dir())
            .env("SKIFF_LOG", "info")
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("skiff starts");
        self.roles.insert(role.to_owned(), process);
    }

    fn log_file(&self, role: &str) -> PathBuf {
        self.dir().join(format!("log of {role}"))
    }

    /// What the role has printed since it was started.
    pub fn log(&self, role: &str) -> String {
        std::fs::read_to_string(self.log_file(role)).unwrap_or_default()
    }

    /// Waits until the role prints something. It may not end before.
    pub fn wait_for(&mut self, role: &str, said: &str) {
        let started = Instant::now();
        while !self.log(role).contains(said) {
            if let Some(Ok(Some(status))) = self.roles.get_mut(role).map(Child::try_wait) {
                panic!("the {role} of {} ended with {status}: {}", self.name, self.log(role));
            }
            assert!(started.elapsed() < PATIENCE, "{} does not say {said:?}", self.name);
            pause();
        }
    }

    fn take(&mut self, role: &str) -> Child {
        self.roles.remove(role).unwrap_or_else(|| panic!("{} runs no {role}", self.name))
    }

    /// Kills the role, as a crash would. What it has started goes on running.
    pub fn kill(&mut self, role: &str) {
        let mut process = self.take(role);
        process.kill().expect("it is there");
        let status = process.wait().expect("it is ours");
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{} ended before", self.name);
    }

    /// Asks the role to end, and returns how it did and how long that took.
    pub fn terminate(&mut self, role: &str) -> (ExitStatus, Duration) {
        let mut process = self.take(role);
        let started = Instant::now();
        // Nobody else waits for it, so the number is still its own.
        let pid = i32::try_from(process.id()).expect("a process number");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it is there");
        loop {
            if let Some(status) = process.try_wait().expect("it is ours") {
                return (status, started.elapsed());
            }
            assert!(started.elapsed() < PATIENCE, "{} does not end", self.name);
            pause();
        }
    }

    /// Runs `skiff` on this machine to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(&skiff());
        command.args(arguments).env("SKIFF_DATA_DIR", self.dir()).output().expect("skiff starts")
    }

    /// What a successful command prints.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{}: skiff {arguments:?} failed\n{out}{err}", self.name);
        out
    }

    /// A client with the certificate of this server's administrator, on the test's own machine: there the server is
    /// not at the loopback address of its kubeconfig.
    pub async fn client(&self) -> Client {
        let config = std::fs::read_to_string(self.kubeconfig()).expect("the server has written it");
        let path = self.dir().join("outside.kubeconfig");
        let config = config.replace("https://127.0.0.1:", &format!("https://{}:", self.address));
        std::fs::write(&path, config).expect("it can be written");
        client::connect::kubeconfig(&path, None).await.expect("the kubeconfig is good")
    }

    /// A cache of all objects of a kind, filled.
    pub async fn cache<K: Cached<DynamicType = ()>>(&self) -> Cache<K> {
        filled(&self.tasks, self.client().await).await
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for role in ["server", "agent"] {
                eprintln!("--- {role} of {}\n{}\n---", self.name, self.log(role));
            }
        }
        let down = self.run(&["down", "--delete-data"]);
        for role in self.roles.values_mut() {
            let _ = role.wait();
        }
        // It has nothing left to do.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        if down.status.success() {
            return;
        }
        let said = format!("skiff down failed on {}: {}", self.name, text(&down.stderr));
        if std::thread::panicking() {
            eprintln!("{said}");
        } else {
            panic!("{said}");
        }
    }
}
