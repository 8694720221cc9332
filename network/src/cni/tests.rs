//! A runtime's requests on the real kernel: plugin, socket, server, network.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use base::{Clock, Tasks};

use super::plugin::run;
use super::spec::Call;
use super::{Backend, Failure, Request, serve};
use crate::links;
use crate::testing::{FakeApi, TestNetns, TestNode, echo};

const NODE_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

fn call(socket: &Path, request: Request) -> Result<serde_json::Value, Failure> {
    run(Call::Network { version: "0.4.0".into(), socket: socket.to_owned(), request })
}

fn add(sandbox: &str, netns: PathBuf) -> Request {
    Request::Add { sandbox: sandbox.into(), netns, interface: "eth0".into(), host_ports: Vec::new() }
}

fn del(sandbox: &str) -> Request {
    Request::Del { sandbox: sandbox.into() }
}

#[test]
fn a_runtime_gets_an_address_for_a_sandbox_and_gives_it_back() {
    let (netns, api, state) = (TestNetns::new(), FakeApi::new(), tempfile::tempdir().unwrap());
    api.node("a", "192.168.1.1", Some("10.244.3.0/24"));
    let mut node = TestNode::start(&netns, &api, "a", NODE_IP, state.path().into());
    let socket = state.path().join("cni.sock");
    let at = socket.clone();
    // The group is held by the node's thread, until the node ends.
    let tasks = node.call(move |network| async move {
        let tasks = Tasks::new("cni");
        serve(&at, Backend::Node(network), &tasks, &Clock::system()).unwrap();
        tasks
    });
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    let pod = TestNetns::new();
    // The node's thread answers while this one asks.
    let result = call(&socket, add("one", pod.path())).unwrap();
    assert_eq!(result["ips"][0]["address"], "10.244.3.2/32");
    assert_eq!(result["interfaces"][1]["sandbox"], pod.path().to_string_lossy().as_ref());
    assert_eq!(echo(&netns, &pod, Ipv4Addr::new(10, 244, 3, 2)), Ipv4Addr::new(10, 244, 3, 1));
    assert_eq!(call(&socket, add("one", pod.path())).unwrap(), result, "asked again");
    call(&socket, Request::Check { sandbox: "one".into() }).unwrap();
    for _ in 0..2 {
        assert!(call(&socket, del("one")).unwrap().is_null());
        assert!(pod.interfaces().is_empty());
    }
    let unknown = call(&socket, Request::Check { sandbox: "one".into() }).unwrap_err();
    assert_eq!(unknown.code, 3, "{unknown:?}");
    let missing = call(&socket, add("two", "/nonexistent".into())).unwrap_err();
    assert_eq!(missing.code, 100, "{missing:?}");

    // Without an agent nothing is said to be released.
    drop(tasks);
    node.stop();
    for request in [add("one", pod.path()), del("one")] {
        let refused = call(&socket, request).unwrap_err();
        assert_eq!(refused.code, 11, "{refused:?}");
    }
}

#[test]
fn a_node_that_is_taken_down_lets_out_and_not_in() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cni.sock");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let tasks = Tasks::new("cni");
    runtime.block_on(async { serve(&socket, Backend::Leaving, &tasks, &Clock::system()) }).unwrap();
    assert!(call(&socket, del("any")).unwrap().is_null());
    assert_eq!(call(&socket, add("any", "/proc/self/ns/net".into())).unwrap_err().code, 11);
}

#[test]
fn the_loopback_interface_is_set_up_in_the_sandbox() {
    let pod = TestNetns::new();
    let up = |up| run(Call::Loopback { version: "0.4.0".into(), up, before: None });
    let result = up(Some(pod.path())).unwrap();
    assert_eq!(result["interfaces"][0]["name"], "lo");
    assert!(links::all(&mut pod.socket()).unwrap().contains_key(&links::LOOPBACK));
    assert!(up(None).unwrap().is_null());
    assert_eq!(up(Some("/nonexistent".into())).unwrap_err().code, 5);
}
