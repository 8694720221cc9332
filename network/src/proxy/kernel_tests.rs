//! The rules in the real kernel: a node, its pods and a machine outside, each in a network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use base::Tasks;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::apply::Kernel;
use super::compile;
use super::model::Owner;
use super::rules::Place;
use super::table::Table;
use super::{HostPorts, Proxy, ServiceCaches};
use crate::config::{HostPort, Protocol};
use crate::dns::Dns;
use crate::nft::Socket;
use crate::testing::{self, FakeApi};

const TIMEOUT: Duration = Duration::from_secs(3);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 50);
const BALANCED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own.
struct Space {
    jobs: mpsc::Sender<Job>,
    thread: i32,
}

impl Space {
    fn new() -> Self {
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

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        self.jobs.send(Box::new(move || done.send(job()).unwrap())).unwrap();
        result.recv().expect("the job panicked")
    }

    fn command(&self, program: &'static str, args: String) -> String {
        self.run(move || {
            let output = Command::new(program).args(args.split_whitespace()).output().unwrap();
            assert!(output.status.success(), "{program} {args}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    fn ip(&self, args: &str) {
        self.command("ip", args.to_owned());
    }

    fn sysctl(&self, path: &'static str, value: &'static str) {
        self.run(move || std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap());
    }

    /// Answers each connection and each datagram to this port with the name and whom it comes from.
    fn serve(&self, name: &'static str, port: u16) {
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

    fn connect(&self, address: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
        self.run(move || TcpStream::connect_timeout(&SocketAddr::from((address, port)), TIMEOUT))
    }

    fn tcp(&self, address: Ipv4Addr, port: u16) -> io::Result<String> {
        ask(&mut self.connect(address, port)?)
    }

    fn udp(&self, address: Ipv4Addr, port: u16) -> io::Result<String> {
        let socket = self.run(move || UdpSocket::bind("0.0.0.0:0"))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.connect((address, port))?;
        ask_datagram(&socket)
    }
}

fn answer(mut stream: TcpStream, name: &str) {
    let Ok(SocketAddr::V4(peer)) = stream.peer_addr() else { return };
    let mut buffer = [0; 1];
    while matches!(stream.read(&mut buffer), Ok(1)) {
        let _ = stream.write_all(format!("{name} {}\n", peer.ip()).as_bytes());
    }
}

fn ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"?")?;
    let mut buffer = [0; 100];
    let length = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
}

fn ask_datagram(socket: &UdpSocket) -> io::Result<String> {
    socket.send(b"?")?;
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A node with two pods, `a` and `b`, that serve on port 8080, and a neighbour outside.
struct Lab {
    node: Space,
    outside: Space,
    pods: BTreeMap<&'static str, Space>,
    table: Table,
    kernel: Option<Kernel>,
    started: bool,
}

impl Lab {
    fn new() -> Self {
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

    fn pod(&self, name: &str) -> &Space {
        &self.pods[name]
    }

    fn apply(&mut self) {
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
    fn service(&mut self, extra: Value, endpoints: &[&str]) {
        let frontends = frontends("web", SERVICE, extra, endpoints);
        self.table.set(&Owner::Service(client::Key::new("default", "web")), frontends);
        self.apply();
    }
}

fn frontends(
    name: &str,
    address: Ipv4Addr,
    extra: Value,
    endpoints: &[&str],
) -> BTreeMap<super::model::Frontend, super::model::Backends> {
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

fn node_port() -> Value {
    json!({"type": "NodePort"})
}

#[test]
fn a_cluster_ip_reaches_all_endpoints_from_pods_and_from_the_node() {
    let mut lab = Lab::new();
    lab.service(json!({}), &["a", "b"]);
    for from in [lab.pod("a"), &lab.node] {
        let tcp: BTreeSet<_> = (0..40).map(|_| from.tcp(SERVICE, 80).unwrap()).collect();
        let udp: BTreeSet<_> = (0..40).map(|_| from.udp(SERVICE, 80).unwrap()).collect();
        assert_eq!((tcp.len(), udp.len()), (2, 2), "{tcp:?} {udp:?}");
    }
    // A pod is seen as itself by others, and as the node by itself.
    let seen: BTreeSet<_> = (0..40).map(|_| lab.pod("a").tcp(SERVICE, 80).unwrap()).collect();
    assert_eq!(seen, ["a 10.244.1.1".to_owned(), "b 10.244.1.2".to_owned()].into());
}

#[test]
fn a_node_port_answers_on_all_addresses_of_the_node() {
    let mut lab = Lab::new();
    lab.service(node_port(), &["b"]);
    assert_eq!(lab.outside.tcp(NODE, 30080).unwrap(), "b 10.244.1.1");
    assert_eq!(lab.outside.udp(NODE, 30080).unwrap(), "b 10.244.1.1");
    for address in [Ipv4Addr::LOCALHOST, NODE, GATEWAY] {
        assert_eq!(lab.node.tcp(address, 30080).unwrap(), "b 10.244.1.1", "{address}");
        assert_eq!(lab.node.udp(address, 30080).unwrap(), "b 10.244.1.1", "{address}");
    }
    assert_eq!(lab.pod("a").tcp(NODE, 30080).unwrap(), "b 10.244.1.1");
}

#[test]
fn a_local_policy_keeps_the_clients_address_and_lets_the_cluster_in() {
    let mut lab = Lab::new();
    let local = json!({"type": "NodePort", "externalTrafficPolicy": "Local"});
    lab.service(local.clone(), &["a", "b"]);
    let seen: BTreeSet<_> = (0..20).map(|_| lab.outside.tcp(NODE, 30080).unwrap()).collect();
    assert_eq!(seen, ["a 192.168.9.2".to_owned()].into());
    let inside: BTreeSet<_> = (0..40).map(|_| lab.pod("b").tcp(NODE, 30080).unwrap()).collect();
    assert_eq!(inside.len(), 2, "{inside:?}");
    lab.service(local, &["b"]);
    assert_eq!(lab.node.tcp(NODE, 30080).unwrap(), "b 10.244.1.1");
    assert_eq!(lab.outside.connect(NODE, 30080).unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let mut lab = Lab::new();
    lab.service(node_port(), &[]);
    let cases = [
        (lab.pod("a"), SERVICE, 80),
        (&lab.node, SERVICE, 80),
        (&lab.outside, NODE, 30080),
        (&lab.node, Ipv4Addr::LOCALHOST, 30080),
        // No such port, no such service.
        (lab.pod("a"), SERVICE, 81),
        (lab.pod("a"), Ipv4Addr::new(10, 96, 7, 7), 80),
    ];
    for (from, address, port) in cases {
        let start = Instant::now();
        let error = from.tcp(address, port).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{address}:{port}");
        // The sender's own node refuses the datagram before it leaves.
        let error = from.udp(address, port).unwrap_err().kind();
        let refused = [io::ErrorKind::ConnectionRefused, io::ErrorKind::PermissionDenied].contains(&error);
        assert!(refused, "{address}:{port} {error}");
        assert!(start.elapsed() < Duration::from_secs(1));
    }
    lab.service(node_port(), &["a"]);
    assert_eq!(lab.outside.tcp(NODE, 30080).unwrap(), "a 10.244.1.1");
}

#[test]
fn a_load_balancer_lets_its_source_ranges_in_only() {
    let mut lab = Lab::new();
    lab.outside.ip(&format!("route add {BALANCED} via {NODE}"));
    let balanced = |ranges: Value| json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ranges});
    lab.service(balanced(json!([])), &["a"]);
    assert_eq!(lab.outside.tcp(BALANCED, 80).unwrap(), "a 10.244.1.1");
    lab.service(balanced(json!(["192.168.9.0/24", "10.0.0.0/8"])), &["a"]);
    assert_eq!(lab.outside.tcp(BALANCED, 80).unwrap(), "a 10.244.1.1");
    lab.service(balanced(json!(["192.168.9.128/25", "10.0.0.0/8"])), &["a"]);
    assert_eq!(lab.outside.connect(BALANCED, 80).unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(lab.pod("b").tcp(BALANCED, 80).unwrap(), "a 10.244.1.1");
    lab.node.command("nft", "list ruleset".into());
}

#[test]
fn an_established_connection_outlives_its_endpoint_and_a_new_table() {
    let mut lab = Lab::new();
    lab.service(json!({}), &["a"]);
    let mut stream = lab.pod("b").connect(SERVICE, 80).unwrap();
    lab.service(json!({}), &["b"]);
    assert_eq!(ask(&mut stream).unwrap(), "a 10.244.1.3");
    assert_eq!(lab.node.tcp(SERVICE, 80).unwrap(), "b 10.244.1.1");
    lab.started = false;
    lab.apply();
    assert_eq!(ask(&mut stream).unwrap(), "a 10.244.1.3");
}

#[test]
fn a_udp_client_leaves_an_endpoint_that_is_gone() {
    let mut lab = Lab::new();
    lab.service(json!({}), &["b"]);
    let socket = lab.pod("a").run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket.connect((SERVICE, 80)).unwrap();
    assert_eq!(ask_datagram(&socket).unwrap(), "b 10.244.1.2");
    lab.service(json!({}), &["a", "b"]);
    assert_eq!(ask_datagram(&socket).unwrap(), "b 10.244.1.2");
    lab.service(json!({}), &["a"]);
    assert_eq!(ask_datagram(&socket).unwrap(), "a 10.244.1.1");
}

#[test]
fn a_client_with_affinity_comes_back_until_its_endpoint_is_gone() {
    let mut lab = Lab::new();
    let sticky = json!({"type": "NodePort", "sessionAffinity": "ClientIP"});
    lab.service(sticky.clone(), &["a", "b"]);
    let seen: BTreeSet<_> = (0..20).map(|_| lab.outside.tcp(NODE, 30080).unwrap()).collect();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let first = seen.first().unwrap().clone();
    let other = if first.starts_with('a') { "b" } else { "a" };
    lab.service(sticky.clone(), &[other]);
    assert_eq!(lab.outside.tcp(NODE, 30080).unwrap(), format!("{other} 10.244.1.1"));
    lab.service(sticky, &["a", "b"]);
    let seen: BTreeSet<_> = (0..20).map(|_| lab.outside.tcp(NODE, 30080).unwrap()).collect();
    assert_eq!(seen, [format!("{other} 10.244.1.1")].into());
    let timeouts = lab.node.command("nft", "list map ip skiff-test affinity".into());
    assert!(timeouts.contains("timeout 3h"), "{timeouts}");
}

#[test]
fn a_host_port_leads_to_its_pod_and_closes_with_it() {
    let mut lab = Lab::new();
    let port = HostPort { host_ip: None, protocol: Protocol::Tcp, host_port: 8088, container_port: 8080 };
    let bound = HostPort { host_ip: Some(GATEWAY), host_port: 8089, ..port };
    let owner = Owner::Sandbox("s".into());
    lab.table.set(&owner, compile::host_ports(Ipv4Addr::new(10, 244, 1, 2), &[port, bound]));
    lab.apply();
    assert_eq!(lab.outside.tcp(NODE, 8088).unwrap(), "a 192.168.9.2");
    assert_eq!(lab.node.tcp(Ipv4Addr::LOCALHOST, 8088).unwrap(), "a 10.244.1.1");
    assert_eq!(lab.pod("a").tcp(NODE, 8088).unwrap(), "a 10.244.1.1");
    assert!(lab.outside.tcp(NODE, 8089).is_err());
    assert_eq!(lab.pod("b").tcp(GATEWAY, 8089).unwrap(), "a 10.244.1.3");
    lab.table.set(&owner, BTreeMap::new());
    lab.apply();
    assert!(lab.outside.tcp(NODE, 8088).is_err());
}

#[test]
fn pods_are_seen_outside_as_their_node() {
    let lab = Lab::new();
    assert_eq!(lab.pod("a").tcp(OUTSIDE, 8080).unwrap(), "outside 192.168.9.1");
    assert_eq!(lab.pod("a").udp(OUTSIDE, 8080).unwrap(), "outside 192.168.9.1");
    assert_eq!(lab.pod("a").tcp(Ipv4Addr::new(10, 244, 1, 3), 8080).unwrap(), "b 10.244.1.2");
}

#[test]
fn neighbours_do_not_reach_loopback_servers() {
    let lab = Lab::new();
    lab.node.serve("node", 9000);
    assert_eq!(lab.node.tcp(Ipv4Addr::LOCALHOST, 9000).unwrap(), "node 127.0.0.1");
    lab.outside.sysctl("ipv4/conf/all/route_localnet", "1");
    lab.outside.ip("addr del 127.0.0.1/8 dev lo");
    lab.outside.ip(&format!("route add 127.0.0.0/8 via {NODE}"));
    assert!(lab.outside.udp(Ipv4Addr::LOCALHOST, 9000).is_err());
}

#[test]
fn the_nft_program_can_list_the_rules() {
    let mut lab = Lab::new();
    lab.service(
        json!({"type": "NodePort", "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local"}),
        &["a", "b"],
    );
    let listed = lab.node.command("nft", "list ruleset".into());
    assert!(listed.contains("tcp . 30080"), "{listed}");

    lab.node.command("nft", "-j list ruleset".into());
}

/// Prints how long it takes to program 10,000 services of five endpoints, and then to change one endpoint.
#[test]
fn programming_time_of_ten_thousand_services() {
    let mut lab = Lab::new();
    let backends = |n: u32, last: u32| {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + 256 + n);
        let mut frontends = frontends("web", address, json!({}), &[]);
        frontends.retain(|frontend, _| frontend.protocol == Protocol::Tcp);
        for backends in frontends.values_mut() {
            let endpoint = |i: u32| super::model::Endpoint {
                address: Ipv4Addr::from_bits(Ipv4Addr::new(10, 244, 2, 0).to_bits() + (n * 7 + i) % 60_000),
                port: 8080,
            };
            backends.endpoints = (0..last).map(endpoint).collect();
            backends.endpoints.sort();
        }
        frontends
    };
    let owner = |n: u32| Owner::Service(client::Key::new("default", format!("s{n}")));
    let start = Instant::now();
    for n in 0..10_000 {
        lab.table.set(&owner(n), backends(n, 5));
    }
    let compiled = start.elapsed();
    lab.apply();
    println!("10,000 services: compiled in {compiled:?}, programmed after {:?}", start.elapsed());
    let mut times = Vec::new();
    for round in 0..20 {
        let wanted = backends(round, if round % 2 == 0 { 4 } else { 6 });
        let start = Instant::now();
        lab.table.set(&owner(round), wanted);
        lab.apply();
        times.push(start.elapsed());
    }
    times.sort();
    println!("one endpoint change among them: median {:?}, worst {:?}", times[10], times[19]);
    let start = Instant::now();
    lab.started = false;
    lab.apply();
    println!("the whole table anew: {:?}", start.elapsed());
    lab.service(json!({}), &["a"]);
    assert_eq!(lab.pod("b").tcp(SERVICE, 80).unwrap(), "a 10.244.1.3");
}

/// The proxy and DNS of a node, on a thread in its namespace.
struct Agent {
    host_ports: HostPorts,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Agent {
    fn start(lab: &Lab, api: &FakeApi) -> Self {
        let host_ports = HostPorts::new();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (api, ports) = (api.clone(), host_ports.clone());
        let thread = lab.node.run(move || {
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async move {
                    let tasks = Tasks::new("test");
                    let state = tempfile::tempdir().unwrap();
                    let config = testing::config(&api, &tasks, "here", NODE, state.path().to_owned());
                    let pods = "10.244.1.0/24".parse().unwrap();
                    let caches = ServiceCaches::start(&config);
                    let _proxy =
                        Proxy::start_with(&config, caches.clone(), pods, "pods0", ports).await.unwrap();
                    let _dns = Dns::start_with(&config, caches, GATEWAY).await.unwrap();
                    let _ = stopped.await;
                    tasks.shutdown(TIMEOUT).await.unwrap();
                });
            })
        });
        Self { host_ports, stop: Some(stop), thread: Some(thread) }
    }

    fn set(&self, sandbox: &str, ports: Vec<HostPort>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.host_ports.set(sandbox, Ipv4Addr::new(10, 244, 1, 2), ports)).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn publish(api: &FakeApi, event: &'static str, address: &str) {
    api.append(
        "/apis/discovery.k8s.io/v1/endpointslices",
        event,
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"port": 8080}], "endpoints": [{"addresses": [address]}]}),
    );
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < TIMEOUT, "{what}");
    }
}

#[test]
fn the_proxy_follows_the_api_and_survives_its_own_restart() {
    let lab = Lab::new();
    let api = FakeApi::new();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": SERVICE, "ports": [{"port": 80}]}});
    api.append("/api/v1/services", "ADDED", service.clone());
    publish(&api, "ADDED", "10.244.1.2");
    let pod = lab.pod("b");
    let serves = |name: &str| pod.tcp(SERVICE, 80).is_ok_and(|answer| answer.starts_with(name));

    let agent = Agent::start(&lab, &api);
    until("the service is programmed", || serves("a"));
    publish(&api, "MODIFIED", "10.244.1.3");
    until("the endpoint changes", || serves("b"));
    let port = HostPort { host_ip: None, protocol: Protocol::Tcp, host_port: 8088, container_port: 8080 };
    agent.set("s", vec![port]);
    assert_eq!(lab.outside.tcp(NODE, 8088).unwrap(), "a 192.168.9.2");
    // "web.shop.svc.cluster.local" of type A, and the end of the answer: the address.
    let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x04shop\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01";
    let answer = pod.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket.connect("10.96.0.10:53").unwrap();
        socket.send(question).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    });
    assert!(answer.ends_with(&SERVICE.octets()), "{answer:?}");
    let mut stream = pod.connect(SERVICE, 80).unwrap();

    drop(agent);
    assert!(serves("b"));
    let agent = Agent::start(&lab, &api);
    agent.set("s", vec![port]);
    assert!(serves("b"));
    assert!(ask(&mut stream).is_ok());
    agent.set("s", Vec::new());
    assert!(lab.outside.tcp(NODE, 8088).is_err());

    // Somebody flushes everything.
    lab.node.command("nft", "flush ruleset".into());
    until("the rules are made anew", || serves("b"));
    publish(&api, "MODIFIED", "10.244.1.2");
    until("the endpoint changes again", || serves("a"));
    api.append("/api/v1/services", "DELETED", service);
    until("the service is gone", || pod.tcp(SERVICE, 80).is_err());

    drop(agent);
    lab.node.run(|| Proxy::cleanup(testing::ID).unwrap());
    lab.node.run(|| Proxy::cleanup(testing::ID).unwrap());
    assert_eq!(lab.node.command("nft", "list ruleset".into()), "");
}
