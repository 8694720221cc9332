//! What tests on the real kernel share: namespaces of their own, nodes, and an API that only says what it's told.

use std::future::Future;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use base::{Clock, Random, Tasks};
use nix::sched::{CloneFlags, unshare};
use tokio::sync::mpsc as tokio_mpsc;

use crate::netlink::{Netns, Socket};
use crate::{Config, NodeNetwork, Overlay, Sandbox, links, routes};

mod api;
pub(crate) use api::FakeApi;

/// A network namespace with the loopback interface up. It ends when nobody has it open.
pub(crate) struct TestNetns {
    netns: Netns,
}

impl TestNetns {
    pub(crate) fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            links::up(&mut Socket::open().unwrap(), links::LOOPBACK).unwrap();
            Netns::current().unwrap()
        };
        Self { netns: thread::spawn(make).join().unwrap() }
    }

    pub(crate) fn open(path: &std::path::Path) -> Self {
        Self { netns: Netns::open(path).unwrap() }
    }

    /// A path to it, as a sandbox has one.
    pub(crate) fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}", self.netns.as_raw_fd()).into()
    }

    pub(crate) fn netns(&self) -> &Netns {
        &self.netns
    }

    pub(crate) fn socket(&self) -> Socket {
        self.netns.socket().unwrap()
    }

    /// Runs `f` inside, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.netns.run(|| Ok(f())).unwrap()
    }

    /// Names of all interfaces but the loopback.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let links = links::all(&mut self.socket()).unwrap();
        links.into_values().map(|link| link.name).filter(|name| name != "lo").collect()
    }
}

/// Joins two namespaces by a pair of interfaces named `eth0` with these addresses.
pub(crate) fn join(left: (&TestNetns, Ipv4Addr), right: (&TestNetns, Ipv4Addr), prefix: u8) {
    let mut socket = left.0.socket();
    links::create_pair(&mut socket, "eth0", right.0.netns()).unwrap();
    for (side, address) in [left, right] {
        let mut socket = side.socket();
        let index = links::by_name(&mut socket, "eth0").unwrap().unwrap().index;
        links::add_address(&mut socket, index, address, prefix).unwrap();
        links::up(&mut socket, index).unwrap();
    }
}

/// Sends a datagram from one namespace to an address of another; returns whom the receiver saw.
pub(crate) fn echo(from: &TestNetns, to: &TestNetns, address: Ipv4Addr) -> Ipv4Addr {
    let server = Listener::new(to, 0);
    echo_at(from, &server, (address, server.0.local_addr().unwrap().port()))
}

/// The port at which services and host ports find a listener.
pub(crate) const ECHO_PORT: u16 = 7000;

/// Who receives datagrams. For a fixed port there should be one as long as the test: a process that another
/// test is about to start may hold a closed one's port for a moment.
pub(crate) struct Listener(UdpSocket);

impl Listener {
    pub(crate) fn new(netns: &TestNetns, port: u16) -> Self {
        Self(netns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()))
    }
}

/// The same, to an address and port that lead to the listener.
pub(crate) fn echo_at(from: &TestNetns, to: &Listener, target: (Ipv4Addr, u16)) -> Ipv4Addr {
    let server = &to.0;
    let client = from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    for socket in [server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    let mut buffer = [0; 8];
    client.send_to(b"ping", target).unwrap();
    let (_, peer) = server.recv_from(&mut buffer).expect("the datagram arrives");
    server.send_to(b"pong", peer).unwrap();
    let (_, replier) = client.recv_from(&mut buffer).expect("the answer arrives");
    assert_eq!(replier, target.into());
    match peer.ip() {
        std::net::IpAddr::V4(peer) => peer,
        std::net::IpAddr::V6(peer) => panic!("{peer} is not an IPv4 address"),
    }
}

/// Returns once the node has so many routes to others, as the kernel announces.
pub(crate) fn wait_for_routes(netns: &TestNetns, count: usize) {
    let mut events = netns.netns().run(Socket::open_for_routes).unwrap();
    let mut socket = netns.socket();
    while routes::ours(&mut socket).unwrap().iter().filter(|route| route.metric > 0).count() != count {
        events.wait().expect("the routes change within a few seconds");
    }
}

type Job = Box<dyn FnOnce(NodeNetwork) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// A node: a thread in a namespace, with a runtime and a network.
pub(crate) struct TestNode {
    jobs: Option<tokio_mpsc::UnboundedSender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl TestNode {
    /// Starts the network `id` of the node `name` inside of `netns`.
    pub(crate) fn start(
        netns: &TestNetns,
        api: &FakeApi,
        name: &str,
        node_ip: Ipv4Addr,
        state: PathBuf,
    ) -> Self {
        let (jobs, mut queue) = tokio_mpsc::unbounded_channel::<Job>();
        let (api, name) = (api.clone(), name.to_owned());
        let inside = Netns::open(&netns.path()).unwrap();
        let thread = thread::spawn(move || {
            nix::sched::setns(&inside, CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let tasks = Tasks::new("test");
                let network = NodeNetwork::start(config(&api, &tasks, &name, node_ip, state)).await.unwrap();
                while let Some(job) = queue.recv().await {
                    job(network.clone()).await;
                }
            });
        });
        Self { jobs: Some(jobs), thread: Some(thread) }
    }

    /// Runs `f` on the node's runtime and returns its result.
    pub(crate) fn call<T, F, R>(&self, f: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(NodeNetwork) -> R + Send + 'static,
        R: Future<Output = T> + 'static,
    {
        let (sender, receiver) = mpsc::channel();
        let job: Job = Box::new(move |network| {
            Box::pin(async move {
                let _ = sender.send(f(network).await);
            })
        });
        assert!(self.jobs.as_ref().unwrap().send(job).is_ok(), "the node runs");
        receiver.recv().expect("the node answers")
    }

    /// Attaches a sandbox.
    pub(crate) fn attach(&self, id: &str, netns: &TestNetns) -> crate::Attachment {
        let sandbox = sandbox(id, netns);
        self.call(|network| async move { network.attach(sandbox).await.unwrap() })
    }
}

impl TestNode {
    /// Ends the node's process, so to speak.
    pub(crate) fn stop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.jobs = None;
        let ended = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            assert!(matches!(ended, None | Some(Ok(()))), "the node's thread panicked");
        }
    }
}

pub(crate) fn sandbox(id: &str, netns: &TestNetns) -> Sandbox {
    Sandbox { id: id.into(), netns: netns.path(), interface: "eth0".into(), host_ports: Vec::new() }
}

/// The id of the network of a test's node.
pub(crate) const ID: &str = "test";

pub(crate) fn config(
    api: &FakeApi,
    tasks: &Tasks,
    name: &str,
    node_ip: Ipv4Addr,
    state_dir: PathBuf,
) -> Config {
    Config {
        id: ID.into(),
        node_name: name.into(),
        node_ip,
        client: api.client(),
        clock: Clock::system(),
        random: Random::seeded(1),
        tasks: tasks.clone(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        cluster_dns: Ipv4Addr::new(10, 96, 0, 10),
        cluster_domain: "cluster.local".into(),
        resolv_conf: state_dir.join("resolv.conf"),
        state_dir,
        mtu: None,
        overlay: Overlay::default(),
    }
}
