//! The same cluster and the same applications on containerd: as root, with Debian's containerd and runc.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use e2e::cluster::{
    Cluster, PATIENCE, all_ready, answer, answer_at, end_a_container, eventually, example, of_app, pause,
    skiff, text,
};
use e2e::containerd::Containerd;
use e2e::machine;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// What containerd is given: two versions of the demo, and what its sandboxes are made of.
const IMAGES: [&str; 3] = ["skiff.local/hello:1", "skiff.local/hello:2", "skiff.local/pause:1"];

/// Runs a test on a machine of its own, with a containerd that has the images.
fn alone<F: Future<Output = ()>>(test: impl FnOnce(Containerd) -> F) {
    machine::isolate().expect("a network namespace: these tests need root");
    let containerd = Containerd::start();
    let said = containerd.import(archive());
    assert!(IMAGES.iter().all(|image| said.contains(image)), "{said}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test(containerd));
}

/// The images as an archive, saved once for all tests.
fn archive() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images.tar");
        let saved = Command::new(skiff())
            .args(["image", "save", "--data-dir", "/nonexistent", "-o"])
            .arg(&archive)
            .args(IMAGES)
            .output()
            .expect("skiff starts");
        assert!(saved.status.success(), "{}", text(&saved.stderr));
        archive
    })
}

fn up(containerd: &Containerd) -> Cluster {
    Cluster::up(&[&format!("--runtime-endpoint={}", containerd.endpoint())])
}

fn name_of_first(pods: &[Arc<Pod>], app: &str) -> String {
    of_app(pods, app).next().and_then(|pod| pod.metadata.name.clone()).expect("a pod")
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The processes whose command line names `what`.
fn processes(what: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = text(&line).replace('\0', " ");
        if line.contains(what) {
            found.push(line);
        }
    }
    found
}

/// The cgroups of the cluster, in any hierarchy. `id` is that of its data directory.
fn cgroups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for tree in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let Ok(entries) = std::fs::read_dir(tree.path()) else { continue };
        let named = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().contains(id));
        found.extend(named.map(|entry| entry.path()));
    }
    found
}

/// By which the cluster's things are called on the machine: the directory below `/run/skiff` says it.
fn id_of(containerd: &Containerd) -> String {
    let plugin = containerd
        .cni_files()
        .into_iter()
        .find_map(|file| Some(file.strip_prefix("cni/bin/skiff-")?.strip_suffix("-node-1")?.to_owned()));
    plugin.expect("the plugin is there")
}

#[test]
fn an_application_runs_on_containerd_as_on_the_embedded_runtime() {
    alone(|containerd| async move {
        let mut cluster = up(&containerd);
        let id = id_of(&containerd);
        assert_eq!(
            containerd.cni_files(),
            [
                "cni/bin/loopback".to_owned(),
                format!("cni/bin/skiff-{id}-node-1"),
                "cni/net.d/10-skiff.conflist".into()
            ]
        );
        let nodes = cluster.cache::<Node>().await;
        let version = nodes.list()[0].status.as_ref().and_then(|status| status.node_info.clone()).unwrap();
        assert!(version.container_runtime_version.starts_with("containerd://"), "{version:?}");
        cluster.apply(&example("hello.yaml"));
        let pods = cluster.cache::<Pod>().await;
        let started = eventually("three ready pods", &pods, |pods| all_ready(pods, "hello", 3)).await;
        assert!(started.iter().all(|(id, _)| id.starts_with("containerd://")), "{started:?}");
        assert!(answer(30080).contains("tag 1"), "the node port leads to the pods");

        // By DNS, from inside; logs; exit codes.
        let first = name_of_first(&pods.list(), "hello");
        let ask = ["exec", &first, "--", "/skiff", "hello", "--ask", "http://hello.default.svc/"];
        assert!(cluster.ok(&ask).contains("tag 1"));
        assert!(cluster.ok(&["logs", &first]).contains("listening on port 8080"));
        let failed = cluster.run(&["exec", &first, "--", "/skiff", "frobnicate"]);
        assert_eq!(failed.status.code(), Some(2), "{}", text(&failed.stderr));
        assert!(text(&failed.stderr).contains("frobnicate"), "{}", text(&failed.stderr));

        // The end of a command's input, and forwarded ports: by SPDY, as this runtime has nothing else for them.
        let talkers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubectl/talkers.yaml");
        cluster.apply(&talkers);
        cluster.ok(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"]);
        assert_eq!(cluster.ok(&["exec", "-i", "talker", "-c", "one", "--", "/busybox", "wc", "-c"]), "0\n");
        let mut forward = Command::new(skiff())
            .args(["port-forward", "service/hello", ":80"])
            .env("KUBECONFIG", cluster.kubeconfig())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let address = line.split(' ').nth(2).and_then(|address| address.parse().ok());
        let answered = answer_at(address.unwrap_or_else(|| panic!("{line}")));
        assert!(answered.contains("tag 1"), "{answered}");
        forward.kill().unwrap();
        forward.wait().unwrap();
        cluster.ok(&["delete", "-f", &talkers.to_string_lossy(), "--now"]);

        // A new version.
        let client = cluster.client().await;
        let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
        let container = json!([{"name": "hello", "image": "skiff.local/hello:2"}]);
        let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": container}}}}));
        deployments.patch("hello", &PatchParams::default(), &patch).await.unwrap();
        eventually("three updated pods", &pods, |pods| {
            let images =
                of_app(pods, "hello").map(|pod| pod.spec.as_ref()?.containers.first()?.image.clone());
            let updated = images.into_iter().flatten().all(|image| image.ends_with(":2"));
            updated.then(|| all_ready(pods, "hello", 3)).flatten()
        })
        .await;
        assert!(answer(30080).contains("tag 2"));

        // A container that ends is started again.
        let ended = end_a_container(&pods, "hello", 3).await;
        assert_eq!((ended.exit_code, ended.reason.as_deref()), (3, Some("Error")));

        // Containers outlive the agent, and the next one takes them over.
        let before = eventually("three ready pods", &pods, |pods| all_ready(pods, "hello", 3)).await;
        cluster.kill();
        assert!(answer(30080).contains("tag 2"), "services work without an agent");
        cluster.restart();
        let pods = cluster.cache::<Pod>().await;
        let after = eventually("the same pods", &pods, |pods| all_ready(pods, "hello", 3)).await;
        assert_eq!(before, after, "no container was restarted");
        let scale = Patch::Merge(json!({"spec": {"replicas": 4}}));
        let deployments: Api<Deployment> = Api::default_namespaced(cluster.client().await);
        deployments.patch("hello", &PatchParams::default(), &scale).await.unwrap();
        eventually("a fourth pod", &pods, |pods| all_ready(pods, "hello", 4)).await;

        // Init containers, volumes and variables.
        cluster.apply(&example("configured.yaml"));
        eventually("the configured pod", &pods, |pods| all_ready(pods, "configured", 1)).await;
        let show = |what: &str, name: &str| {
            cluster.ok(&["exec", "configured", "-c", "web", "--", "/skiff", "hello", what, name])
        };
        assert_eq!(show("--show-env", "PASSWORD").trim_end(), "correct horse battery staple");
        assert_eq!(show("--show-env", "NODE_NAME").trim_end(), "node-1");
        assert_eq!(show("--show-env", "MEMORY_LIMIT").trim_end(), "67108864");
        assert_eq!(show("--show-file", "/etc/about/motd"), "welcome\n");
        assert_eq!(show("--show-file", "/etc/credentials/password"), "correct horse battery staple");
        assert!(show("--show-file", "/etc/about/labels").contains("app=\"configured\""));
        assert_eq!(show("--show-file", "/etc/about/token").split('.').count(), 3, "a token");

        // What the containers use is measured.
        let pki = cluster.dir().join("pki");
        let as_the_api_server = json!({
            "clusters": [{"name": "node", "cluster": {
                "server": format!("https://{}:10250", machine::ADDRESS),
                "certificate-authority": pki.join("ca.crt"),
            }}],
            "users": [{"name": "server", "user": {
                "client-certificate": pki.join("apiserver-kubelet-client.crt"),
                "client-key": pki.join("apiserver-kubelet-client.key"),
            }}],
            "contexts": [{"name": "node", "context": {"cluster": "node", "user": "server"}}],
            "current-context": "node",
        });
        let of_node = cluster.dir().join("node.kubeconfig");
        std::fs::write(&of_node, as_the_api_server.to_string()).unwrap();
        let node = client::connect::kubeconfig(&of_node, None).await.unwrap();
        let asked = http::Request::get("/stats/summary").body(Vec::new()).unwrap();
        let stats: serde_json::Value = node.request(asked).await.unwrap();
        let of_pods = stats["pods"].as_array().cloned().unwrap_or_default();
        assert_eq!(of_pods.len(), 5, "{stats}");
        let used = |pod: &serde_json::Value| pod["memory"]["workingSetBytes"].as_u64().unwrap_or_default();
        assert!(of_pods.iter().all(|pod| used(pod) > 0), "{stats}");

        // What is deleted is given back.
        cluster.ok(&["delete", "-f", &example("hello.yaml").to_string_lossy()]);
        eventually("only the configured pod", &pods, |pods| (pods.len() == 1).then_some(())).await;
        let started = Instant::now();
        // One sandbox, an init container that has ended, and two that run.
        while containerd.containers().len() > 4 || ip(&["-o", "link"]).matches(": skv").count() > 1 {
            assert!(started.elapsed() < PATIENCE, "still there: {:?}", containerd.containers());
            pause();
        }
        let held =
            std::fs::read_to_string(cluster.dir().join("nodes/node-1/network/addresses.json")).unwrap();
        assert_eq!(held.matches("host_interface").count(), 1, "{held}");

        let dir = cluster.dir().to_string_lossy().into_owned();
        assert!(!cgroups(&id).is_empty(), "the test can see cgroups");
        drop(cluster);
        assert_eq!(containerd.containers(), Vec::<String>::new());
        assert_eq!(containerd.cni_files(), Vec::<String>::new());
        assert_eq!(cgroups(&id), Vec::<PathBuf>::new());
        assert_eq!(processes(&dir), Vec::<String>::new());
        let links = ip(&["-o", "link", "show"]);
        assert_eq!(links.lines().count(), 2, "only lo and lan0 are left: {links}");
    });
}

#[test]
fn pods_in_a_runtime_that_is_gone_are_told_of_and_ended_when_it_is_back() {
    alone(|mut containerd| async move {
        let mut cluster = up(&containerd);
        cluster.apply(&example("configured.yaml"));
        let pods = cluster.cache::<Pod>().await;
        eventually("a ready pod", &pods, |pods| all_ready(pods, "configured", 1)).await;
        let id = id_of(&containerd);

        // Another runtime would leave the pods alone for ever.
        cluster.kill();
        let dir = cluster.dir().to_string_lossy().into_owned();
        let other = cluster.run(&["up", "--data-dir", &dir, "--node-ip", machine::ADDRESS]);
        let said = text(&other.stderr);
        assert!(said.contains("give --runtime-endpoint"), "{said}");

        containerd.stop();
        let down = cluster.run(&["down", "--data-dir", &dir]);
        let said = text(&down.stderr);
        assert_eq!((down.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("pods of node-1 are left behind: container runtime at /"), "{said}");
        assert_eq!(containerd.cni_files(), Vec::<String>::new());
        assert_eq!(cgroups(&id), Vec::<PathBuf>::new(), "what ran was ended");
        assert_eq!(ip(&["-o", "link"]).matches(": skv").count(), 0);

        containerd.start_again();
        assert!(!containerd.containers().is_empty());
        drop(cluster);
        assert_eq!(containerd.containers(), Vec::<String>::new());
        assert_eq!(containerd.cni_files(), Vec::<String>::new());
    });
}

#[test]
fn a_network_that_the_runtime_has_already_is_honoured() {
    alone(|containerd| async move {
        let conf = containerd.dir().join("cni/net.d/05-theirs.conflist");
        let plugins = json!([{
            "type": "bridge",
            "bridge": "theirs0",
            "isGateway": true,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": containerd.dir().join("ipam"),
                "ranges": [[{"subnet": "10.222.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }]);
        let network = json!({"cniVersion": "0.4.0", "name": "theirs", "plugins": plugins});
        std::fs::write(&conf, network.to_string()).unwrap();
        for plugin in ["bridge", "host-local", "loopback"] {
            let installed = Path::new("/usr/lib/cni").join(plugin);
            std::os::unix::fs::symlink(installed, containerd.dir().join("cni/bin").join(plugin)).unwrap();
        }
        let files = containerd.cni_files();
        let cluster = up(&containerd);
        assert_eq!(containerd.cni_files(), files, "nothing is written");
        cluster.apply(&example("hello.yaml"));
        let pods = cluster.cache::<Pod>().await;
        eventually("three ready pods", &pods, |pods| all_ready(pods, "hello", 3)).await;
        for pod in of_app(&pods.list(), "hello") {
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default();
            assert!(address.starts_with("10.222.0."), "{address}");
        }
        assert!(answer(30080).contains("tag 1"), "services lead to its pods");
        drop(cluster);
        assert_eq!(containerd.containers(), Vec::<String>::new());
        assert_eq!(containerd.cni_files(), files);
    });
}
