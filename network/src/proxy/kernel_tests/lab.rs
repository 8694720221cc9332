//! A node, its pods and a machine outside, each in a network namespace, and servers and clients in them.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::super::apply::Kernel;
use super::super::compile;
use super::super::model::{self, Owner};
use super::super::rules::Place;
use super::super::table::Table;
use crate::nft::Socket;

pub(super) const TIMEOUT: Duration = Duration::from_secs(3);
pub(super) const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 1);
pub(super) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 2);
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
pub(super) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 50);
pub(super) const BALANCED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own.
pub(super) struct Space {
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) thread: i32,
}

impl Space {
    pub(super) fn new() -> Self {
        let (jobs, work) = mpsc::channel::<Job>();
        let (ready, thread_id) = mpsc::channel();
        thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            for job in work {
                job();
            }
        });
        let space = Self { jobs, thread: thread_id.recv().unwrap() };
        space.ip("link set lo up");
        space
    }

    pub(super) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        self.jobs.send(Box::new(move || done.send(job()).unwrap())).unwrap();
        result.recv().expect("the job panicked")
    }

    pub(super) fn command(&self, program: &'static str, args: String) -> String {
        self.run(move || {
            let output = Command::new(program).args(args.split_whitespace()).output().unwrap();
            assert!(output.status.success(), "{program} {args}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    pub(super) fn ip(&self, args: &str) {
        self.command("ip", args.to_owned());
    }

    pub(super) fn sysctl(&self, path: &'static str, value: &'static str) {
        self.run(move || std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap());
    }

    /// Answers each connection and each datagram to this port with the name and whom it comes from.
    pub(super) fn serve(&self, name: &'static str, port: u16) {
        self.run(move || {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || answer(stream, name));
                }
            });
            thread::spawn(move || {
                let mut buffer = [0; 100];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(format!("{name} {}", from.ip()).as_bytes(), from);
                }
            });
        });
    }

    pub(super) fn connect(&self, address: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
        self.run(move || TcpStream::connect_timeout(&SocketAddr::from((address, port)), TIMEOUT))
    }

    pub(super) fn tcp(&self, address: Ipv4Addr, port: u16) -> io::Result<String> {
        ask(&mut self.connect(address, port)?)
    }

    pub(super) fn udp(&self, address: Ipv4Addr, port: u16) -> io::Result<String> {
        let socket = self.run(move || UdpSocket::bind("0.0.0.0:0"))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.connect((address, port))?;
        ask_datagram(&socket)
    }
}

pub(super) fn answer(mut stream: TcpStream, name: &str) {
    let Ok(SocketAddr::V4(peer)) = stream.peer_addr() else { return };
    let mut buffer = [0; 1];
    while matches!(stream.read(&mut buffer), Ok(1)) {
        let _ = stream.write_all(format!("{name} {}\n", peer.ip()).as_bytes());
    }
}

pub(super) fn ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"?")?;
    let mut buffer = [0; 100];
    let length = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
}

pub(super) fn ask_datagram(socket: &UdpSocket) -> io::Result<String> {
    socket.send(b"?")?;
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A node with two pods, `a` and `b`, that serve on port 8080, and a neighbour outside.
pub(super) struct Lab {
    pub(super) node: Space,
    pub(super) outside: Space,
    pub(super) pods: BTreeMap<&'static str, Space>,
    pub(super) table: Table,
    pub(super) kernel: Option<Kernel>,
    pub(super) started: bool,
}

impl Lab {
    pub(super) fn new() -> Self {
        let (node, outside) = (Space::new(), Space::new());
        node.ip("link add pods0 type bridge");
        node.ip(&format!("addr add {GATEWAY}/24 dev pods0"));
        node.ip("link set pods0 up");
        node.ip(&format!("link add eth0 type veth peer name eth0 netns {}", outside.thread));
        for (space, address) in [(&node, NODE), (&outside, OUTSIDE)] {
            space.ip(&format!("addr add {address}/24 dev eth0"));
            space.ip("link set eth0 up");
        }
        node.ip(&format!("route add default via {OUTSIDE}"));
        node.sysctl("ipv4/ip_forward", "1");
        node.sysctl("ipv4/conf/all/route_localnet", "1");
        outside.serve("outside", 8080);
        let mut pods = BTreeMap::new();
        for (name, address) in [("a", "10.244.1.2"), ("b", "10.244.1.3")] {
            let pod = Space::new();
            node.ip(&format!("link add pod-{name} type veth peer name eth0 netns {}", pod.thread));
            node.ip(&format!("link set pod-{name} master pods0"));
            node.ip(&format!("link set pod-{name} type bridge_slave hairpin on"));
            node.ip(&format!("link set pod-{name} up"));
            pod.ip(&format!("addr add {address}/32 dev eth0"));
            pod.ip("link set eth0 up");
            pod.ip(&format!("route add {GATEWAY} dev eth0"));
            pod.ip(&format!("route add default via {GATEWAY}"));
            pod.serve(name, 8080);
            pods.insert(name, pod);
        }
        let place = Place {
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            bridge: "pods0".into(),
        };
        let table = Table::new(place.pod_cidr);
        let kernel = node.run(|| Kernel::new(Socket::open().unwrap(), "skiff-test".into(), place));
        let mut lab = Self { node, outside, pods, table, kernel: Some(kernel), started: false };
        lab.apply();
        lab
    }

    pub(super) fn pod(&self, name: &str) -> &Space {
        &self.pods[name]
    }

    pub(super) fn apply(&mut self) {
        let anew = !self.started;
        let changes = if anew { self.table.everything() } else { self.table.changes() };
        let mut kernel = self.kernel.take().unwrap();
        self.kernel = Some(self.node.run(move || {
            kernel.apply(&changes, anew).unwrap();
            kernel
        }));
        self.started = true;
    }

    /// A service for TCP and UDP with these pods as its endpoints.
    pub(super) fn service(&mut self, extra: Value, endpoints: &[&str]) {
        let frontends = frontends("web", SERVICE, extra, endpoints);
        self.table.set(&Owner::Service(client::Key::new("default", "web")), frontends);
        self.apply();
    }
}

pub(super) fn frontends(
    name: &str,
    address: Ipv4Addr,
    extra: Value,
    endpoints: &[&str],
) -> BTreeMap<model::Frontend, model::Backends> {
    let port = |protocol: &str| {
        let mut port = json!({"name": protocol, "port": 80, "protocol": protocol});
        if extra["type"] == "NodePort" {
            port["nodePort"] = 30080.into();
        }
        port
    };
    let mut spec = json!({"clusterIP": address, "ports": [port("TCP"), port("UDP")]});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let mut service = json!({"metadata": {"name": name}, "spec": spec});
    if extra["type"] == "LoadBalancer" {
        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": BALANCED}]}});
    }
    let service: Service = serde_json::from_value(service).unwrap();
    let endpoint = |pod: &&str| {
        let address = if *pod == "a" { "10.244.1.2" } else { "10.244.1.3" };
        // Pod a counts as local, b as another node's.
        json!({"addresses": [address], "nodeName": if *pod == "a" { "here" } else { "there" }})
    };
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {}, "addressType": "IPv4",
        "ports": [{"name": "TCP", "port": 8080, "protocol": "TCP"}, {"name": "UDP", "port": 8080, "protocol": "UDP"}],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    }))
    .unwrap();
    let here = compile::Location { node: "here".into(), zone: None };
    compile::service(&service, &[Arc::new(slice)], &here)
}

pub(super) fn node_port() -> Value {
    json!({"type": "NodePort"})
}
