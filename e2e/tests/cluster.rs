//! Whole clusters of real processes and containers, each in a network namespace of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::cluster::{
    Cluster, all_ready, alone, answer, answer_at, end_a_container, eventually, example, is_ready,
    node_is_ready, node_port, of_app, on_nodes, pause, ready_after, text, within,
};
use e2e::load::Load;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use sha2::{Digest, Sha256};

#[test]
fn an_application_runs_is_updated_without_a_failed_request_and_heals() {
    alone(|| async {
        let cluster = Cluster::up(&[]);
        cluster.apply(&example("hello.yaml"));
        cluster.apply(&example("budget.yaml"));
        let pods = cluster.cache::<Pod>().await;
        eventually("three ready pods", &pods, |pods| all_ready(pods, "hello", 3)).await;
        assert!(answer(30080).contains("tag 1"), "the node port leads to the pods");

        // A service is found by name from inside of a pod.
        let first = of_app(&pods.list(), "hello").next().and_then(|pod| pod.metadata.name.clone()).unwrap();
        let said =
            cluster.ok(&["exec", &first, "--", "/skiff", "hello", "--ask", "http://hello.default.svc/"]);
        assert!(said.contains("tag 1"), "{said}");
        let logs = cluster.ok(&["logs", &first]);
        assert!(logs.contains("listening on port 8080"), "{logs}");

        // A new version takes over under load.
        let client = cluster.client().await;
        let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
        let load = Load::start(&[node_port(30080)]);
        let image = |tag: &str| {
            let container = json!({"name": "hello", "image": format!("skiff.local/hello:{tag}")});
            Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [container]}}}}))
        };
        deployments.patch("hello", &PatchParams::default(), &image("2")).await.unwrap();
        let updated = |pods: &[Arc<Pod>]| {
            let images = of_app(pods, "hello")
                .filter_map(|pod| pod.spec.as_ref()?.containers.first()?.image.clone())
                .collect::<Vec<_>>();
            (images.iter().all(|image| image.ends_with(":2"))).then(|| all_ready(pods, "hello", 3)).flatten()
        };
        eventually("three updated pods", &pods, updated).await;
        let (asked, failures) = load.end();
        assert!(failures.is_empty(), "{} of {asked} requests failed: {failures:?}", failures.len());
        assert!(asked > 20, "only {asked} requests");
        assert!(answer(30080).contains("tag 2"));

        // A deleted pod is replaced.
        let api: Api<Pod> = Api::default_namespaced(client.clone());
        let victim = of_app(&pods.list(), "hello").next().and_then(|pod| pod.metadata.name.clone()).unwrap();
        api.delete(&victim, &DeleteParams::default()).await.unwrap();
        eventually("a replacement", &pods, |pods| {
            let gone = !of_app(pods, "hello").any(|pod| pod.metadata.name.as_deref() == Some(&victim));
            gone.then(|| all_ready(pods, "hello", 3)).flatten()
        })
        .await;

        // A container that ends is started again.
        let ended = end_a_container(&pods, "hello", 3).await;
        assert_eq!((ended.exit_code, ended.reason.as_deref()), (3, Some("Error")));

        // An image that doesn't exist is said to.
        let bad = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"},
            "spec": {"containers": [{"name": "c", "image": "skiff.local/hello:none"}]},
        });
        api.create(&PostParams::default(), &serde_json::from_value(bad).unwrap()).await.unwrap();
        eventually("a reason", &pods, |pods| {
            let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some("bad"))?;
            let state = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.clone()?;
            let reason = state.waiting?.reason?;
            (reason == "ErrImagePull" || reason == "ImagePullBackOff").then_some(())
        })
        .await;
    });
}

#[test]
fn containers_and_services_outlive_a_crash_of_the_control_plane() {
    alone(|| async {
        let mut cluster = Cluster::up(&[]);
        cluster.apply(&example("hello.yaml"));
        let pods = cluster.cache::<Pod>().await;
        let before = eventually("three ready pods", &pods, |pods| all_ready(pods, "hello", 3)).await;
        answer(30080);
        let load = Load::start(&[node_port(30080)]);
        cluster.kill();
        let (asked, failures) = load.end();
        assert!(
            failures.is_empty(),
            "{} of {asked} failed without a control plane: {failures:?}",
            failures.len()
        );
        let load = Load::start(&[node_port(30080)]);
        let client = cluster.client().await;
        let started = Instant::now();
        cluster.start_again();
        let took = ready_after(started, &client).await;
        println!("/readyz is ok {:.2} s after the start", took.as_secs_f32());
        assert!(took < Duration::from_secs(2), "/readyz took {took:?} to be ok");
        let pods = cluster.cache::<Pod>().await;
        let after = eventually("the same pods", &pods, |pods| all_ready(pods, "hello", 3)).await;
        assert_eq!(before, after, "no container was restarted");
        let (asked, failures) = load.end();
        assert!(failures.is_empty(), "{} of {asked} failed while it came back: {failures:?}", failures.len());
        let deployments: Api<Deployment> = Api::default_namespaced(cluster.client().await);
        let scale = Patch::Merge(json!({"spec": {"replicas": 4}}));
        deployments.patch("hello", &PatchParams::default(), &scale).await.unwrap();
        eventually("a fourth pod", &pods, |pods| all_ready(pods, "hello", 4)).await;
    });
}

#[test]
fn pods_move_away_from_a_node_that_is_cut_off_and_it_recovers() {
    alone(|| async {
        let cluster = Cluster::up(&["--nodes=3"]);
        cluster.apply(&example("hello.yaml"));
        let nodes = cluster.cache::<Node>().await;
        let pods = cluster.cache::<Pod>().await;
        eventually("three ready pods", &pods, |pods| all_ready(pods, "hello", 3)).await;
        let addresses: BTreeSet<String> = nodes.list().iter().filter_map(|node| internal_ip(node)).collect();
        assert_eq!(addresses.len(), 3);
        for address in &addresses {
            answer_at(std::net::SocketAddr::new(address.parse().unwrap(), 30080));
        }
        // Wait no longer than the test must: pods give up on the node at once.
        let deployments: Api<Deployment> = Api::default_namespaced(cluster.client().await);
        let tolerations = json!([
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
        ]);
        let patch = json!({"spec": {"replicas": 6, "template": {"spec": {"tolerations": tolerations}}}});
        deployments.patch("hello", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        eventually("six ready pods on all nodes", &pods, |pods| {
            all_ready(pods, "hello", 6).filter(|_| on_nodes(pods, "hello").len() == 3)
        })
        .await;
        let link = link_to_node(2);
        ip(&["link", "set", &link, "down"]);
        eventually("node-3 is unreachable", &nodes, |nodes| {
            nodes.iter().find(|node| name(node) == "node-3").filter(|node| !node_is_ready(node)).map(|_| ())
        })
        .await;
        eventually("six ready pods elsewhere", &pods, |pods| {
            let living = of_app(pods, "hello")
                .filter(|pod| is_ready(pod))
                .filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != Some("node-3"));
            (living.count() == 6).then_some(())
        })
        .await;
        ip(&["link", "set", &link, "up"]);
        eventually("node-3 is back", &nodes, |nodes| {
            nodes.iter().find(|node| name(node) == "node-3").filter(|node| node_is_ready(node)).map(|_| ())
        })
        .await;
        eventually("only the living pods are left", &pods, |pods| all_ready(pods, "hello", 6)).await;
    });
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

fn internal_ip(node: &Node) -> Option<String> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    Some(addresses.iter().find(|address| address.type_ == "InternalIP")?.address.clone())
}

fn ip(arguments: &[&str]) -> String {
    let output = std::process::Command::new("ip").args(arguments).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The machine's end of the link to a further node.
fn link_to_node(index: u32) -> String {
    let links = ip(&["-o", "link", "show"]);
    let names = links.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    let found = names.into_iter().find(|name| name.starts_with("skn") && name.ends_with(&index.to_string()));
    found.unwrap_or_else(|| panic!("no link to node {index}: {links}")).to_owned()
}

#[test]
fn every_example_runs() {
    alone(|| async {
        let cluster = Cluster::up(&[]);
        let directory = example("");
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty());
        for file in &files {
            let said = cluster.apply(file);
            assert!(said.contains("created"), "{}: {said}", file.display());
            let said = cluster.apply(file);
            assert!(!said.contains("created"), "{}: {said}", file.display());
        }
        let pods = cluster.cache::<Pod>().await;
        eventually("the pods of the examples", &pods, |pods| {
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            (ready >= 4 && ready == pods.len()).then_some(())
        })
        .await;
        // What configured.yaml shows can be seen in its container.
        let env = |name: &str| {
            let command = ["exec", "configured", "-c", "web", "--", "/skiff", "hello", "--show-env", name];
            cluster.ok(&command).trim_end().to_owned()
        };
        assert_eq!(env("PASSWORD"), "correct horse battery staple");
        assert_eq!(env("NODE_NAME"), "node-1");
        assert_eq!(env("MEMORY_LIMIT"), "67108864");
        let file = |path: &str| {
            cluster.ok(&["exec", "configured", "-c", "web", "--", "/skiff", "hello", "--show-file", path])
        };
        assert_eq!(file("/etc/about/motd"), "welcome\n");
        assert_eq!(file("/etc/credentials/password"), "correct horse battery staple");
        assert!(file("/etc/about/labels").contains("app=\"configured\""));
        assert_eq!(file("/etc/about/token").split('.').count(), 3, "a token");
    });
}

#[test]
fn nothing_is_left_after_down() {
    alone(|| async {
        let cluster = Cluster::up(&["--nodes=2"]);
        cluster.apply(&example("configured.yaml"));
        let pods = cluster.cache::<Pod>().await;
        eventually("a ready pod", &pods, |pods| all_ready(pods, "configured", 1)).await;
        let dir = cluster.dir().to_string_lossy().into_owned();
        let before = traces(&dir);
        for kind in ["mount", "process", "directory", "cgroup", "table"] {
            assert!(
                before.iter().any(|trace| trace.starts_with(kind)),
                "the test can see a {kind}: {before:?}"
            );
        }
        drop(cluster);
        assert_eq!(traces(&dir), Vec::<String>::new());
        let links = ip(&["-o", "link", "show"]);
        assert_eq!(links.lines().count(), 2, "only lo and lan0 are left: {links}");
    });
}

/// What a cluster in `dir` has left on the machine.
fn traces(dir: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(dir)).map(|line| format!("mount {line}")));
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = text(&line).replace('\0', " ");
        let own = entry.file_name().to_string_lossy() == std::process::id().to_string();
        if line.contains(dir) && !own && !line.starts_with("sh ") {
            found.push(format!("process {line}"));
        }
    }
    let id = id(dir);
    for path in [dir.to_owned(), format!("/run/skiff/{id}")] {
        if Path::new(&path).exists() {
            found.push(format!("directory {path}"));
        }
    }
    let hierarchies = mounts.lines().filter(|line| line.contains(" - cgroup"));
    for hierarchy in hierarchies.filter_map(|line| line.split(' ').nth(4)) {
        for entry in std::fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("skiff-{id}")) {
                found.push(format!("cgroup {}", entry.path().display()));
            }
        }
    }
    // The test's network namespace is its own, so every table in it counts.
    let tables = std::process::Command::new("nft").args(["list", "tables"]).output().expect("nft runs");
    found.extend(text(&tables.stdout).lines().map(str::to_owned));
    found
}

/// The name that a data directory has in the kernel, as ARCHITECTURE.md gives it.
fn id(dir: &str) -> String {
    Sha256::digest(dir.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_cluster_runs_on_etcd() {
    alone(|| async {
        let data = tempfile::tempdir().unwrap();
        let mut etcd = std::process::Command::new("etcd")
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls"])
            .args(["http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380"])
            .args(["--log-level", "error"])
            .spawn()
            .expect("etcd: install etcd-server");
        let started = Instant::now();
        let address = std::net::SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), 2379);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(started.elapsed() < e2e::cluster::PATIENCE, "etcd does not start");
            pause();
        }
        let cluster = Cluster::up(&["--store=etcd", "--etcd-endpoints=http://127.0.0.1:2379"]);
        cluster.apply(&example("hello.yaml"));
        let pods = cluster.cache::<Pod>().await;
        eventually("three ready pods", &pods, |pods| all_ready(pods, "hello", 3)).await;
        assert!(answer(30080).contains("tag 1"));
        within("the end", async { drop(cluster) }).await;
        etcd.kill().unwrap();
        etcd.wait().unwrap();
    });
}
