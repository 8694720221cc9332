//! The rules in the real kernel.

mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use base::Tasks;
use serde_json::{Value, json};

use super::compile;
use super::model::Owner;
use super::{HostPorts, Proxy, ServiceCaches};
use crate::config::{HostPort, Protocol};
use crate::dns::Dns;
use crate::testing::{self, FakeApi};
use lab::*;

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
