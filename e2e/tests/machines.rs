//! A control plane and agents on machines of their own.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Cache;
use e2e::cluster::{
    PATIENCE, all_ready, alone, containers, eventually, example, node_is_ready, of_app, on_nodes, pause,
    ready_after, text,
};
use e2e::lan::{self, FAR, Machine, NEAR, Subnet};
use e2e::load::Load;
use e2e::web;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::watch;

const SERVER: &str = "https://192.168.77.10:6443";

/// A control plane and two nodes, node-a and node-b.
struct Fleet {
    // Dropped in this order.
    agents: [Machine; 2],
    server: Machine,
}

fn server(arguments: &[&str]) -> Machine {
    let mut server = Machine::new("server", NEAR, 10);
    server.start(&[&["server"], arguments].concat());
    server.wait_for("server", "skiff server is ready");
    server
}

impl Fleet {
    /// Starts one machine after the other; the second node is in a subnet.
    fn start(arguments: &[&str], second: Subnet) -> Self {
        let server = server(arguments);
        let agents = [("node-a", NEAR, 11), ("node-b", second, 12)].map(|(name, subnet, host)| {
            let mut agent = Machine::new(name, subnet, host);
            let token = server.ok(&["token", "create"]);
            agent.start(&["agent", "--node-name", name, "--server", SERVER, "--token", token.trim()]);
            agent
        });
        Self { agents, server }
    }

    /// The example application with four replicas, once all are ready.
    async fn hello(&self) -> (Cache<Pod>, BTreeSet<(String, i32)>) {
        nodes_are_ready(&self.server.cache().await, &["node-a", "node-b"]).await;
        let text = std::fs::read_to_string(example("hello.yaml")).unwrap();
        let file = self.server.dir().join("hello.yaml");
        std::fs::write(&file, text.replace("replicas: 3", "replicas: 4")).unwrap();
        self.server.ok(&["apply", "-f", &file.to_string_lossy()]);
        let pods = self.server.cache::<Pod>().await;
        let containers = eventually("four ready pods", &pods, |pods| all_ready(pods, "hello", 4)).await;
        assert_eq!(on_nodes(&pods.list(), "hello").len(), 2, "both nodes have pods");
        for address in self.node_ports() {
            answer(address);
        }
        (pods, containers)
    }

    /// The node port of the application on both nodes.
    fn node_ports(&self) -> [SocketAddr; 2] {
        self.agents.each_ref().map(|agent| SocketAddr::new(agent.address().into(), 30080))
    }
}

/// Asks until there is an answer.
fn answer(address: SocketAddr) -> String {
    let started = Instant::now();
    loop {
        match web::get(address, "/", Duration::from_secs(2)) {
            Ok((200, body)) => return body,
            other => assert!(started.elapsed() < PATIENCE, "{address}: {other:?}"),
        }
        pause();
    }
}

async fn nodes_are_ready(nodes: &Cache<Node>, wanted: &[&str]) {
    eventually("ready nodes", nodes, |nodes| {
        let ready = nodes.iter().filter(|node| node_is_ready(node));
        let ready: BTreeSet<_> = ready.filter_map(|node| node.metadata.name.as_deref()).collect();
        (ready == wanted.iter().copied().collect()).then_some(())
    })
    .await;
}

/// A pod of each node, with its address.
fn one_per_node(pods: &[Arc<Pod>]) -> Vec<(String, Ipv4Addr)> {
    let of = |node: &String| {
        let mut pods = of_app(pods, "hello")
            .filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_ref() == Some(node)));
        pods.find_map(|pod| {
            Some((pod.metadata.name.clone()?, pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?))
        })
    };
    on_nodes(pods, "hello").iter().filter_map(of).collect()
}

#[test]
fn a_machine_joins_with_a_token_and_in_no_other_way() {
    alone(|| async {
        let mut server = server(&[]);
        let mut agent = Machine::new("node-a", NEAR, 11);
        let token = server.ok(&["token", "create"]);
        let token = token.trim();
        let [_, authority, id, secret] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
        let expired = server.ok(&["token", "create", "--description", "soon over"]);
        let expired = expired.trim();
        let name = format!("bootstrap-token-{}", expired.split('.').nth(2).unwrap());
        let secrets: Api<Secret> = Api::namespaced(server.client().await, "kube-system");
        let over = json!({"stringData": {"expiration": "2026-01-01T00:00:00Z"}});
        secrets.patch(&name, &PatchParams::default(), &Patch::Merge(over)).await.unwrap();
        let wrong_secret = format!("skiff.{authority}.{id}.{}", "x".repeat(16));
        let unknown = format!("skiff.{authority}.xxxxxx.{secret}");
        let other_cluster = format!("skiff.{}.{id}.{secret}", "ab".repeat(32));
        let not_ours = "not known to https://192.168.77.10:6443, or it has expired";
        let cases: [(&[&str], i32, &str); 11] = [
            (&["--server", SERVER, "--token", &wrong_secret], 1, not_ours),
            (&["--server", SERVER, "--token", &unknown], 1, not_ours),
            (&["--server", SERVER, "--token", expired], 1, not_ours),
            (
                &["--server", SERVER, "--token", &other_cluster],
                1,
                "is not the cluster that the token was made for",
            ),
            (&["--server", "https://192.168.77.10:6444", "--token", token], 1, "192.168.77.10:6444"),
            (&["--server", "https://nowhere.invalid:6443", "--token", token], 1, "nowhere.invalid"),
            (&["--server", SERVER, "--token", "secret"], 2, "not a join token"),
            (&["--server", "http://192.168.77.10:6443", "--token", token], 2, "https://HOST:6443"),
            (&["--server", SERVER], 2, "skiff token create"),
            (&["--token", token], 2, "--server"),
            (&["--server", SERVER, "--token", token, "--node-name", "Node_A"], 2, "Node_A"),
        ];
        for (arguments, code, expected) in cases {
            let started = Instant::now();
            let named = if arguments.contains(&"--node-name") { &[][..] } else { &["--node-name", "node-a"] };
            let output = agent.run(&[&["agent"], named, arguments].concat());
            let said = text(&output.stderr);
            println!("{code} {said}");
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
            assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
            assert!(said.contains(expected), "{arguments:?}: {said}");
            assert!(!said.contains(secret), "{said}");
            assert!(
                started.elapsed() < Duration::from_secs(15),
                "{arguments:?} took {:?}",
                started.elapsed()
            );
        }
        let nodes = server.cache::<Node>().await;
        assert!(nodes.list().is_empty(), "nobody has joined");
        agent.start(&["agent", "--node-name", "node-a", "--server", SERVER, "--token", token]);
        agent.wait_for("agent", "is running");
        nodes_are_ready(&nodes, &["node-a"]).await;

        // What has joined needs no token any more. Nobody else may take its name.
        assert!(agent.terminate("agent").0.success());
        agent.start(&["agent", "--node-name", "node-a"]);
        agent.wait_for("agent", "is running");
        nodes_are_ready(&nodes, &["node-a"]).await;
        // Its certificate is enough to get another one, here because it calls the server by another address.
        assert!(agent.terminate("agent").0.success());
        let before = membership(&agent);
        agent.start(&["agent", "--node-name", "node-a", "--server", "https://192.168.77.10:6443/"]);
        agent.wait_for("agent", "is running");
        assert_ne!(membership(&agent), before, "its certificates are new");
        nodes_are_ready(&nodes, &["node-a"]).await;
        let other = Machine::new("other", NEAR, 13);
        let output = other.run(&["agent", "--node-name", "node-a", "--server", SERVER, "--token", token]);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("give this machine another name (--node-name)"), "{said}");

        // The server's own machine can be a node too, with the same data directory.
        let token = server.ok(&["token", "create"]);
        let beside = ["agent", "--node-name", "node-s", "--server", "https://localhost:6443", "--token"];
        server.start(&[&beside[..], &[token.trim()]].concat());
        server.wait_for("agent", "is running");
        nodes_are_ready(&nodes, &["node-a", "node-s"]).await;
    });
}

fn membership(agent: &Machine) -> String {
    std::fs::read_to_string(agent.dir().join("nodes/node-a/membership.json")).unwrap()
}

/// Everything of a cluster that has to go from one machine to another.
async fn traffic(second: Subnet) {
    let fleet = Fleet::start(&[], second);
    let (pods, _) = fleet.hello().await;
    let found = one_per_node(&pods.list());
    assert_eq!(found.len(), 2, "{found:?}");
    for (name, _) in &found {
        let ask = |url: &str| fleet.server.ok(&["exec", name, "--", "/skiff", "hello", "--ask", url]);
        for (other, address) in &found {
            let said = ask(&format!("http://{address}:8080/"));
            assert!(said.contains(other), "{name} asks {other}: {said}");
        }
        for url in ["http://hello/", "http://hello.default.svc.cluster.local/"] {
            let said = ask(url);
            assert!(said.contains("tag 1"), "{name} asks {url}: {said}");
        }
        let logs = fleet.server.ok(&["logs", name]);
        assert!(logs.contains("listening on port 8080"), "{logs}");
    }
    // A service answers with pods of both nodes, on each of them.
    for address in fleet.node_ports() {
        let load = Load::start(&[address]);
        while load.asked() < 30 {
            pause();
        }
        load.end_without_failure("on a quiet cluster");
        let mut seen = BTreeSet::new();
        let started = Instant::now();
        while seen.len() < 2 {
            let said = answer(address);
            seen.extend(["node-a", "node-b"].into_iter().filter(|node| said.contains(node)));
            assert!(started.elapsed() < PATIENCE, "{address} answers only from {seen:?}");
        }
    }
}

#[test]
fn pods_on_machines_of_one_subnet_reach_each_other() {
    alone(|| traffic(NEAR));
}

#[test]
fn pods_on_machines_of_different_subnets_reach_each_other() {
    alone(|| async {
        lan::connect_far().unwrap();
        traffic(FAR).await;
    });
}

#[test]
fn pods_outlive_a_crash_of_their_agent() {
    alone(|| async {
        let mut fleet = Fleet::start(&[], NEAR);
        let (pods, before) = fleet.hello().await;
        let nodes = fleet.server.cache::<Node>().await;
        let load = Load::start(&fleet.node_ports());
        fleet.agents[1].kill("agent");
        let killed = load.asked();
        while load.asked() < killed + 50 {
            pause();
        }
        let started = Instant::now();
        fleet.agents[1].start(&["agent", "--node-name", "node-b"]);
        fleet.agents[1].wait_for("agent", "is running");
        println!("the agent is back {:.2} s after the start", started.elapsed().as_secs_f32());
        // A new pod on that node: the agent works, and has found its old ones.
        let api: Api<Pod> = Api::default_namespaced(fleet.server.client().await);
        let fresh = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fresh", "labels": {"app": "fresh"}},
            "spec": {"nodeName": "node-b", "containers": [{"name": "c", "image": "skiff.local/hello:1"}]},
        });
        api.create(&PostParams::default(), &serde_json::from_value(fresh).unwrap()).await.unwrap();
        eventually("a new pod on the node", &pods, |pods| all_ready(pods, "fresh", 1)).await;
        nodes_are_ready(&nodes, &["node-a", "node-b"]).await;
        let after = eventually("the same pods", &pods, |pods| all_ready(pods, "hello", 4)).await;
        assert_eq!(before, after, "no container was restarted");
        let asked = load.end_without_failure("while the agent was away and came back");
        println!("{asked} requests, none failed");
    });
}

/// Creates ConfigMaps until one is refused, and sends how many were acknowledged. Returns their names and contents.
async fn write(api: &Api<ConfigMap>, prefix: &str, count: &watch::Sender<usize>) -> Vec<(String, String)> {
    let mut acknowledged = Vec::new();
    loop {
        let name = format!("{prefix}-{}", acknowledged.len());
        let content = format!("what {name} holds");
        let object = json!({"metadata": {"name": &name}, "data": {"content": &content}});
        let object: ConfigMap = serde_json::from_value(object).unwrap();
        if api.create(&PostParams::default(), &object).await.is_err() {
            return acknowledged;
        }
        acknowledged.push((name, content));
        count.send_modify(|count| *count += 1);
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_crashes_and_pods_go_on_serving() {
    alone(|| async {
        let mut fleet = Fleet::start(&[], NEAR);
        let (pods, before) = fleet.hello().await;
        let load = Load::start(&fleet.node_ports());
        let client = fleet.server.client().await;
        let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let mut acknowledged = Vec::new();
        let mut best = Duration::MAX;
        for round in 0..3 {
            let (count, mut counted) = watch::channel(0);
            let prefixes: Vec<String> = (0..4).map(|writer| format!("c-{round}-{writer}")).collect();
            let writers = prefixes.iter().map(|prefix| write(&api, prefix, &count));
            let crash = async {
                counted.wait_for(|count| *count >= 200).await.unwrap();
                fleet.server.kill("server");
            };
            let (written, ()) = futures::join!(futures::future::join_all(writers), crash);
            acknowledged.extend(written.into_iter().flatten());
            let asked = load.asked();
            while load.asked() < asked + 20 {
                pause();
            }
            let started = Instant::now();
            fleet.server.start(&["server"]);
            let took = ready_after(started, &client).await;
            println!("/readyz is ok {:.2} s after the start", took.as_secs_f32());
            best = best.min(took);
            // The very first answers have everything.
            let there = api.list(&ListParams::default()).await.unwrap();
            for (name, content) in &acknowledged {
                let found = there.iter().find(|object| object.metadata.name.as_ref() == Some(name));
                let found = found.and_then(|object| object.data.as_ref()?.get("content"));
                assert_eq!(found, Some(content), "{name} was acknowledged");
            }
            fleet.server.wait_for("server", "skiff server is ready");
        }
        println!("{} acknowledged objects, all there after 3 crashes", acknowledged.len());
        // The best of three: the machine may be busy with something else.
        assert!(best < Duration::from_secs(2), "/readyz took {best:?} to be ok");
        let after = eventually("the same pods", &pods, |pods| all_ready(pods, "hello", 4)).await;
        assert_eq!(before, after, "no container was restarted");
        let asked = load.end_without_failure("while the server crashed");
        println!("{asked} requests, none failed");
    });
}

#[test]
fn agents_survive_the_end_of_the_server_and_find_it_again() {
    alone(|| async {
        let mut fleet = Fleet::start(&[], NEAR);
        let (_, before) = fleet.hello().await;
        let load = Load::start(&fleet.node_ports());
        let (status, took) = fleet.server.terminate("server");
        println!("the server ended with {status} after {:.2} s", took.as_secs_f32());
        assert!(status.success(), "{status}: {}", fleet.server.log("server"));
        assert!(took < Duration::from_secs(8), "the server took {took:?} to end");
        fleet.server.start(&["server"]);
        fleet.server.wait_for("server", "skiff server is ready");
        let pods = fleet.server.cache::<Pod>().await;
        assert_eq!(containers(&pods.list(), "hello"), before, "no container was restarted");
        fleet.server.ok(&["scale", "deployment/hello", "--replicas=8"]);
        eventually("eight ready pods", &pods, |pods| all_ready(pods, "hello", 8)).await;
        assert_eq!(on_nodes(&pods.list(), "hello").len(), 2, "both nodes have pods");
        assert!(containers(&pods.list(), "hello").is_superset(&before), "no container was restarted");
        load.end_without_failure("while the server was away");
        for agent in &mut fleet.agents {
            let (status, took) = agent.terminate("agent");
            println!("an agent ended with {status} after {:.2} s", took.as_secs_f32());
            assert!(status.success(), "{status}: {}", agent.log("agent"));
        }
    });
}

#[test]
fn a_server_works_when_one_of_its_etcd_endpoints_is_dead() {
    alone(|| async {
        let data = tempfile::tempdir().unwrap();
        // On this machine, in the middle between the others. It ends with the thread of this test.
        let urls = |port| format!("http://192.168.77.1:{port}");
        let etcd = std::process::Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--data-dir"])
            .arg(data.path())
            .args(["--listen-client-urls", &urls(2379), "--advertise-client-urls", &urls(2379)])
            .args(["--listen-peer-urls", "http://127.0.0.1:2380", "--log-level", "error"])
            .spawn();
        let mut etcd = etcd.expect("etcd: install etcd-server");
        let started = Instant::now();
        while std::net::TcpStream::connect("192.168.77.1:2379").is_err() {
            assert!(started.elapsed() < PATIENCE, "etcd does not start");
            pause();
        }
        let endpoints = format!("--etcd-endpoints={},{}", urls(2399), urls(2379));
        let fleet = Fleet::start(&["--store=etcd", &endpoints], NEAR);
        let (pods, _) = fleet.hello().await;
        // No request fails because its turn was the dead member's.
        let api: Api<ConfigMap> = Api::default_namespaced(fleet.server.client().await);
        let created = futures::stream::iter(0..100).map(async |index| {
            let object = json!({"metadata": {"name": format!("c-{index}")}});
            api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await
        });
        let created: Vec<_> = created.buffer_unordered(8).collect().await;
        let failed: Vec<_> = created.iter().filter_map(|result| result.as_ref().err()).collect();
        assert!(failed.is_empty(), "{} of 100 failed: {failed:?}", failed.len());
        eventually("four ready pods", &pods, |pods| all_ready(pods, "hello", 4)).await;
        drop(fleet);
        etcd.kill().unwrap();
        etcd.wait().unwrap();
    });
}
