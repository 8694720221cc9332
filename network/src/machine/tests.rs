use super::*;
use crate::testing::{FakeApi, TestNetns, TestNode, echo, join, wait_for_routes};

const ID: &str = "machine";

/// Removes the mounts also when a test fails.
struct RunDir(tempfile::TempDir);

impl RunDir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("netns")
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let _ = remove_netns_files(&self.path());
    }
}

#[test]
fn nodes_reach_each_other_and_the_machine() {
    let (machine, run_dir) = (TestNetns::new(), RunDir::new());
    let (gateway, one, two) = machine.run(|| {
        let segment = Segment::ensure(ID, &run_dir.path()).unwrap();
        (segment.gateway(), segment.node(1).unwrap(), segment.node(2).unwrap())
    });
    assert_eq!(one.address.to_bits(), gateway.to_bits() + 1);
    assert_eq!(two.address.to_bits(), gateway.to_bits() + 2);
    let (first, second) = (TestNetns::open(&one.netns), TestNetns::open(&two.netns));
    assert_eq!(echo(&first, &second, two.address), one.address);
    assert_eq!(echo(&machine, &second, two.address), gateway);
    assert_eq!(echo(&first, &machine, gateway), one.address);
    let default = |route: &Route| route.destination.prefix() == 0 && route.via == Via::Gateway(gateway);
    assert!(routes::all(&mut first.socket()).unwrap().iter().any(default));
}

#[test]
fn nodes_go_out_under_the_address_of_the_machine() {
    let (machine, run_dir) = (TestNetns::new(), RunDir::new());
    let outside = TestNetns::new();
    let (own, other) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    join((&machine, own), (&outside, other), 24);
    let node = machine.run(|| Segment::ensure(ID, &run_dir.path()).unwrap().node(1).unwrap());
    assert_eq!(echo(&TestNetns::open(&node.netns), &outside, other), own);
    machine.run(|| Segment::remove(ID, &run_dir.path())).unwrap();
    assert_eq!(machine.interfaces(), ["eth0"]);
    let tables = machine.run(|| std::process::Command::new("nft").args(["list", "tables"]).output());
    assert_eq!(String::from_utf8(tables.unwrap().stdout).unwrap(), "");
}

#[test]
fn a_second_start_adopts_and_removal_leaves_nothing() {
    let (machine, run_dir) = (TestNetns::new(), RunDir::new());
    let ensure = || {
        machine.run(|| {
            let segment = Segment::ensure(ID, &run_dir.path()).unwrap();
            (segment.network(), segment.node(1).unwrap())
        })
    };
    let first = ensure();
    let index = |node: &NodeNamespace| {
        let mut socket = TestNetns::open(&node.netns).socket();
        links::by_name(&mut socket, INTERFACE).unwrap().unwrap().index
    };
    let before = index(&first.1);
    assert_eq!(ensure(), first);
    assert_eq!(index(&first.1), before, "the node's interface was left alone");
    for _ in 0..2 {
        machine.run(|| Segment::remove(ID, &run_dir.path())).unwrap();
    }
    assert_eq!(machine.interfaces(), Vec::<String>::new());
    assert!(!run_dir.path().exists());
}

#[test]
fn what_is_entered_is_inherited_by_processes() {
    let (machine, run_dir) = (TestNetns::new(), RunDir::new());
    let node = machine.run(|| Segment::ensure(ID, &run_dir.path()).unwrap().node(1).unwrap());
    let output =
        enter(&node.netns, || std::process::Command::new("cat").arg("/proc/net/dev").output()).unwrap();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(text.contains("eth0:") && text.lines().count() == 4, "{text}");
}

#[test]
fn a_subnet_in_use_is_not_taken() {
    let cidr = |text: &str| text.parse::<Cidr>().unwrap();
    assert_eq!(pick(&[], 7), Some(cidr("172.30.7.0/24")));
    assert_eq!(pick(&[cidr("172.30.7.128/25"), cidr("172.30.8.0/23")], 7), Some(cidr("172.30.10.0/24")));
    assert_eq!(pick(&[cidr("172.30.255.0/24")], 255), Some(cidr("172.30.0.0/24")));
    assert_eq!(pick(&[cidr("172.16.0.0/12")], 0), None);
}

#[test]
fn pods_of_the_machine_and_of_its_nodes_talk_over_plain_routes() {
    let (machine, run_dir) = (TestNetns::new(), RunDir::new());
    let (gateway, node) = machine.run(|| {
        let segment = Segment::ensure(ID, &run_dir.path()).unwrap();
        (segment.gateway(), segment.node(1).unwrap())
    });
    let api = FakeApi::new();
    api.node("a", &gateway.to_string(), Some("10.244.0.0/24"));
    api.node("b", &node.address.to_string(), Some("10.244.1.0/24"));
    let state = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let further = TestNetns::open(&node.netns);
    let nodes = [
        TestNode::start(&machine, &api, "a", gateway, state[0].path().into()),
        TestNode::start(&further, &api, "b", node.address, state[1].path().into()),
    ];
    let pods = [TestNetns::new(), TestNetns::new()];
    let attached = [nodes[0].attach("pod", &pods[0]), nodes[1].attach("pod", &pods[1])];
    wait_for_routes(&machine, 1);
    wait_for_routes(&further, 1);
    assert_eq!(echo(&pods[0], &pods[1], attached[1].address), attached[0].address);
    assert_eq!(echo(&pods[1], &pods[0], attached[0].address), attached[1].address);
    // Nodes are seen by pods under their own addresses.
    assert_eq!(echo(&further, &pods[0], attached[0].address), node.address);
    assert_eq!(echo(&machine, &pods[1], attached[1].address), gateway);
}
