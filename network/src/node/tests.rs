//! The pod network on the real kernel.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::*;
use crate::routes;
use crate::testing::{
    ECHO_PORT, FakeApi, ID, Listener, TestNetns, TestNode, echo, echo_at, join, sandbox, wait_for_routes,
};

const NODE_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

fn one_node() -> (TestNetns, FakeApi, tempfile::TempDir) {
    let api = FakeApi::new();
    api.node("a", "192.168.1.1", Some("10.244.3.0/24"));
    (TestNetns::new(), api, tempfile::tempdir().unwrap())
}

fn start(netns: &TestNetns, api: &FakeApi, state: &tempfile::TempDir) -> TestNode {
    TestNode::start(netns, api, "a", NODE_IP, state.path().into())
}

#[test]
fn pods_of_a_node_reach_each_other_and_are_seen_under_their_own_addresses() {
    let (netns, api, state) = one_node();
    let node = start(&netns, &api, &state);
    let (one, two) = (TestNetns::new(), TestNetns::new());
    let first = node.attach("one", &one);
    let second = node.attach("two", &two);
    assert_eq!(first.address, Ipv4Addr::new(10, 244, 3, 2));
    assert_eq!(second.address, Ipv4Addr::new(10, 244, 3, 3));
    assert_eq!(first.gateway, Ipv4Addr::new(10, 244, 3, 1));
    assert_eq!(first.mtu, 1450);
    assert_eq!(echo(&one, &two, second.address), first.address);
    assert_eq!(echo(&netns, &one, first.address), first.gateway);
    assert_eq!(echo(&one, &netns, first.gateway), first.address);
    let mut inside = one.socket();
    let eth0 = links::by_name(&mut inside, "eth0").unwrap().unwrap();
    assert_eq!((eth0.mac, eth0.mtu), (Some(first.mac), 1450));
    let address = node.call(|network| async move { network.address("two") });
    assert_eq!(address, Some(second.address));
}

#[test]
fn asking_again_gives_the_same_and_repairs_what_is_broken() {
    let (netns, api, state) = one_node();
    let node = start(&netns, &api, &state);
    let pod = TestNetns::new();
    let index = || links::by_name(&mut pod.socket(), "eth0").unwrap().map(|link| link.index);
    let first = node.attach("pod", &pod);
    let before = index();
    assert_eq!(node.attach("pod", &pod), first);
    assert_eq!(index(), before, "it was left alone");
    links::delete(&mut netns.socket(), &first.host_interface).unwrap();
    assert_eq!(index(), None);
    assert_eq!(node.attach("pod", &pod), first);
    assert_eq!(echo(&netns, &pod, first.address), first.gateway);
}

#[test]
fn a_restart_adopts_pods_without_touching_them_even_while_the_api_is_away() {
    let (netns, api, state) = one_node();
    let (old, new) = (TestNetns::new(), TestNetns::new());
    let first = start(&netns, &api, &state).attach("old", &old);
    let index = links::by_name(&mut old.socket(), "eth0").unwrap().unwrap().index;
    let node = start(&netns, &FakeApi::new(), &state);
    assert_eq!(node.attach("old", &old), first);
    assert_eq!(links::by_name(&mut old.socket(), "eth0").unwrap().unwrap().index, index);
    let second = node.attach("new", &new);
    assert_eq!(second.address, Ipv4Addr::new(10, 244, 3, 3));
    assert_eq!(echo(&old, &new, second.address), first.address);
}

#[test]
fn what_no_living_sandbox_has_is_freed() {
    let (netns, api, state) = one_node();
    let node = start(&netns, &api, &state);
    let (live, dead) = (TestNetns::new(), TestNetns::new());
    let kept = node.attach("live", &live);
    node.attach("dead", &dead);
    // An interface whose allocation was lost.
    let bridge = Names::of(ID).bridge;
    let lost = TestNetns::new();
    let mut socket = netns.socket();
    let bridge = links::by_name(&mut socket, &bridge).unwrap().unwrap().index;
    let veth = links::Veth {
        name: "skv0123456789ab",
        alias: "lost",
        bridge,
        mtu: 1450,
        peer_name: "eth0",
        peer_mac: [2, 0, 0, 0, 0, 1],
    };
    links::create_veth(&mut socket, &veth, lost.netns()).unwrap();
    let freed = node.call(|network| async move { network.retain(&["live".into()]).await.unwrap() });
    assert_eq!(freed, ["dead"]);
    assert_eq!(lost.interfaces(), Vec::<String>::new());
    assert_eq!(dead.interfaces(), Vec::<String>::new());
    assert_eq!(echo(&netns, &live, kept.address), kept.gateway);
    let address = node.call(|network| async move { network.address("dead") });
    assert_eq!(address, None);
}

#[test]
fn cleanup_leaves_nothing() {
    let (netns, api, state) = one_node();
    let far = TestNetns::new();
    join((&netns, NODE_IP), (&far, Ipv4Addr::new(192, 168, 1, 2)), 24);
    let routes = || routes::all(&mut netns.socket()).unwrap();
    let (interfaces, before) = (netns.interfaces(), routes());
    api.node("b", "192.168.1.2", Some("10.244.1.0/24"));
    api.node("c", "192.168.9.2", Some("10.244.2.0/24"));
    let node = start(&netns, &api, &state);
    let pod = TestNetns::new();
    node.attach("pod", &pod);
    wait_for_routes(&netns, 2);
    drop(node);
    assert!(netns.interfaces().len() > interfaces.len() && routes().len() > before.len());
    for _ in 0..2 {
        netns.run(|| NodeNetwork::cleanup(ID, state.path())).unwrap();
    }
    assert_eq!(netns.interfaces(), interfaces);
    assert_eq!(routes(), before);
    assert_eq!(pod.interfaces(), Vec::<String>::new());
    assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
}

#[test]
fn a_hundred_pods_attach_at_once() {
    const PODS: usize = 100;
    let (netns, api, state) = one_node();
    let node = start(&netns, &api, &state);
    let pods: Vec<TestNetns> = (0..PODS).map(|_| TestNetns::new()).collect();
    let alone = TestNetns::new();
    let started = Instant::now();
    node.attach("alone", &alone);
    let one = started.elapsed();
    let sandboxes: Vec<Sandbox> =
        pods.iter().enumerate().map(|(n, pod)| sandbox(&n.to_string(), pod)).collect();
    let started = Instant::now();
    let attachments = node.call(move |network| async move {
        let all = sandboxes.into_iter().map(|sandbox| network.attach(sandbox));
        futures::future::try_join_all(all).await.unwrap()
    });
    let attached = started.elapsed();
    let addresses: HashSet<Ipv4Addr> = attachments.iter().map(|attachment| attachment.address).collect();
    assert_eq!(addresses.len(), PODS);
    echo(&pods[0], &pods[PODS - 1], attachments[PODS - 1].address);
    let started = Instant::now();
    node.call(|network| async move {
        let ids: Vec<String> = (0..PODS).map(|n| n.to_string()).collect();
        let all = ids.iter().map(|id| network.detach(id));
        futures::future::try_join_all(all).await.unwrap();
    });
    println!("attach one: {one:?}; {PODS} at once: {attached:?}; detach {PODS}: {:?}", started.elapsed());
    assert!(pods.iter().all(|pod| pod.interfaces().is_empty()));
}

#[test]
fn without_a_range_the_node_says_what_it_waits_for_and_goes_on_when_it_comes() {
    let (netns, api, state) = one_node();
    api.delete_node("a");
    let node = start(&netns, &api, &state);
    let missing = node.call(|network| async move { network.ready() });
    assert_eq!(missing, Err("node a has no podCIDR".into()));
    api.node("a", "192.168.1.1", None);
    api.node("a", "192.168.1.1", Some("10.244.8.0/24"));
    let pod = TestNetns::new();
    assert_eq!(node.attach("pod", &pod).address, Ipv4Addr::new(10, 244, 8, 2));
}

#[test]
fn another_range_is_for_new_pods_and_the_old_ones_keep_theirs() {
    let (netns, api, state) = one_node();
    let node = start(&netns, &api, &state);
    let (old, new) = (TestNetns::new(), TestNetns::new());
    let before = node.attach("old", &old);
    api.delete_node("a");
    api.node("a", "192.168.1.1", Some("10.244.5.0/24"));
    let mut events = netns.netns().run(crate::netlink::Socket::open_for_routes).unwrap();
    let bridged = |cidr: &str| {
        let routes = routes::all(&mut netns.socket()).unwrap();
        routes.iter().any(|route| route.destination.to_string() == cidr)
    };
    while !bridged("10.244.5.0/24") {
        events.wait().expect("the bridge gets another address");
    }
    node.call(|network| async move { network.wait_ready().await });
    assert_eq!(node.attach("old", &old), before);
    let after = node.attach("new", &new);
    assert_eq!((after.address, after.gateway), (Ipv4Addr::new(10, 244, 5, 2), Ipv4Addr::new(10, 244, 5, 1)));
    assert_eq!(echo(&old, &new, after.address), before.address);
    node.call(|network| async move { network.detach("old").await.unwrap() });
    drop(node);
    let node = start(&netns, &api, &state);
    node.call(|network| async move { network.wait_ready().await });
    assert!(bridged("10.244.5.0/24") && !bridged("10.244.3.0/24"));
}

#[test]
fn services_and_host_ports_lead_to_pods_here_and_elsewhere() {
    let mut pair = two_nodes([NODE_IP, Ipv4Addr::new(192, 168, 1, 2)], |_, _| {});
    let pods = [TestNetns::new(), TestNetns::new(), TestNetns::new()];
    let here = pair.nodes[0].attach("here", &pods[0]);
    let beside = pair.nodes[0].attach("beside", &pods[1]);
    let there = pair.nodes[1].attach("there", &pods[2]);
    for (name, address, pod) in [
        ("here", "10.96.0.1", here.address),
        ("beside", "10.96.0.2", beside.address),
        ("there", "10.96.0.3", there.address),
    ] {
        pair.api.service(name, address, 80, ECHO_PORT, &[pod]);
    }
    // A later start programs all services before it is done with host ports.
    let state = pair.state[0].path().to_owned();
    let [first, _] = &mut pair.nodes;
    first.stop();
    *first = TestNode::start(&pair.netns[0], &pair.api, "a", NODE_IP, state);
    let mut with_port = sandbox("beside", &pods[1]);
    let host_port = |host_ip| crate::HostPort {
        host_ip,
        protocol: crate::Protocol::Udp,
        host_port: 5353,
        container_port: ECHO_PORT,
    };
    with_port.host_ports = vec![host_port(None)];
    let again = with_port.clone();
    first.call(|network| async move { network.attach(with_port).await.unwrap() });
    wait_for_routes(&pair.netns[1], 1);
    let servers = pods.each_ref().map(|pod| Listener::new(pod, ECHO_PORT));
    let service = |last| (Ipv4Addr::new(10, 96, 0, last), 80);
    assert_eq!(echo_at(&pods[0], &servers[1], service(2)), here.address);
    assert_eq!(echo_at(&pods[0], &servers[2], service(3)), here.address);
    assert_eq!(echo_at(&pods[0], &servers[0], service(1)), here.gateway, "a pod that asks itself");
    assert_eq!(resolve(&pods[0], "there.default.svc.cluster.local"), Ipv4Addr::new(10, 96, 0, 3));
    let port = (NODE_IP, 5353);
    assert_eq!(echo_at(&pair.netns[1], &servers[1], port), Ipv4Addr::new(192, 168, 1, 2));
    // Another start keeps the port, without being asked.
    let state = pair.state[0].path().to_owned();
    first.stop();
    *first = TestNode::start(&pair.netns[0], &pair.api, "a", NODE_IP, state);
    assert_eq!(echo_at(&pair.netns[1], &servers[1], port), Ipv4Addr::new(192, 168, 1, 2));
    assert_eq!(first.call(|network| async move { network.attach(again).await.unwrap() }), beside);
    first.call(|network| async move { network.detach("beside").await.unwrap() });
    first.stop();
    pair.netns[0].run(|| NodeNetwork::cleanup(ID, pair.state[0].path())).unwrap();
    assert_eq!(pair.netns[0].interfaces(), ["eth0"]);
    let tables = pair.netns[0].run(|| std::process::Command::new("nft").args(["list", "tables"]).output());
    assert_eq!(String::from_utf8(tables.unwrap().stdout).unwrap(), "");
}

/// Asks the cluster's DNS service for an address.
fn resolve(from: &TestNetns, name: &str) -> Ipv4Addr {
    let socket = from.run(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    socket.send_to(&query, (Ipv4Addr::new(10, 96, 0, 10), 53)).unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).expect("DNS answers");
    // The one record is last, and ends with the address.
    assert_eq!(answer[6..8], [0, 1], "{:?}", &answer[..length]);
    answer[length - 4..length].first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets)).unwrap()
}

struct Pair {
    api: FakeApi,
    netns: [TestNetns; 2],
    nodes: [TestNode; 2],
    state: [tempfile::TempDir; 2],
}

/// Two nodes with an interface each, joined.
fn two_nodes(addresses: [Ipv4Addr; 2], prepare: impl Fn(&TestNetns, Ipv4Addr)) -> Pair {
    let api = FakeApi::new();
    let netns = [TestNetns::new(), TestNetns::new()];
    join((&netns[0], addresses[0]), (&netns[1], addresses[1]), 24);
    prepare(&netns[0], addresses[1]);
    prepare(&netns[1], addresses[0]);
    api.node("a", &addresses[0].to_string(), Some("10.244.0.0/24"));
    api.node("b", &addresses[1].to_string(), Some("10.244.1.0/24"));
    let state = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let nodes = [
        TestNode::start(&netns[0], &api, "a", addresses[0], state[0].path().into()),
        TestNode::start(&netns[1], &api, "b", addresses[1], state[1].path().into()),
    ];
    Pair { api, netns, nodes, state }
}

fn pods_talk(pair: &Pair) {
    let pods = [TestNetns::new(), TestNetns::new()];
    let first = pair.nodes[0].attach("pod", &pods[0]);
    let second = pair.nodes[1].attach("pod", &pods[1]);
    wait_for_routes(&pair.netns[0], 1);
    wait_for_routes(&pair.netns[1], 1);
    assert_eq!(echo(&pods[0], &pods[1], second.address), first.address);
    assert_eq!(echo(&pods[1], &pods[0], first.address), second.address);
    // A node's own processes reach the pods of others.
    echo(&pair.netns[0], &pods[1], second.address);
}

#[test]
fn pods_of_neighbouring_nodes_talk_over_plain_routes() {
    let pair = two_nodes([NODE_IP, Ipv4Addr::new(192, 168, 1, 2)], |_, _| {});
    pods_talk(&pair);
    assert!(!pair.netns[0].interfaces().contains(&Names::of(ID).overlay), "no overlay is needed");
    pair.api.delete_node("b");
    wait_for_routes(&pair.netns[0], 0);
}

#[test]
fn pods_of_nodes_in_different_subnets_talk_over_the_overlay() {
    let pair = two_nodes([NODE_IP, Ipv4Addr::new(192, 168, 2, 1)], |netns, other| {
        let mut socket = netns.socket();
        let index = links::by_name(&mut socket, "eth0").unwrap().unwrap().index;
        let route = routes::Route {
            destination: Cidr::new(other, 24),
            via: routes::Via::Link,
            index,
            source: None,
            metric: 0,
        };
        routes::add(&mut socket, &route).unwrap();
    });
    pods_talk(&pair);
    let overlay = Names::of(ID).overlay;
    let device = links::by_name(&mut pair.netns[0].socket(), &overlay).unwrap().unwrap();
    assert_eq!(routes::neighbours(&mut pair.netns[0].socket(), device.index).unwrap().len(), 2);
    // Who is masqueraded into the overlay is answered through it, not at the address of another interface.
    let addresses = links::addresses(&mut pair.netns[0].socket()).unwrap().into_iter();
    let of_device: Vec<_> = addresses.filter(|address| address.index == device.index).collect();
    assert_eq!(of_device.len(), 1);
    let other = links::addresses(&mut pair.netns[1].socket()).unwrap();
    assert!(!other.iter().any(|address| address.address == of_device[0].address), "it is the node's own");
    pair.api.delete_node("b");
    wait_for_routes(&pair.netns[0], 0);
}

#[test]
fn a_wait_for_the_network_ends_with_what_is_missing() {
    let (netns, state) = (TestNetns::new(), tempfile::tempdir().unwrap());
    let pod = TestNetns::new();
    let error = netns.run(|| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let tasks = base::Tasks::new("test");
            let config = crate::testing::config(&FakeApi::new(), &tasks, "a", NODE_IP, state.path().into());
            let network = NodeNetwork::start(config).await.unwrap();
            network.attach(sandbox("pod", &pod)).await.unwrap_err().to_string()
        })
    });
    assert_eq!(error, "pod network is not ready: sandbox pod: node a has no podCIDR");
    assert!(ATTACH_PATIENCE > Duration::ZERO);
}
