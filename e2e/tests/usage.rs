//! What a user is told who asks for what can't be: one line that says what to do, and the exit code of the README.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use e2e::cluster::{alone, skiff, text};
use e2e::lan::{Machine, NEAR};

/// The one line that is said, if nothing else is and the exit code is right.
fn line(what: &[&str], code: i32, output: &Output) -> String {
    let (said, out) = (text(&output.stderr), text(&output.stdout));
    println!("{what:?}: {code} {}", said.trim_end());
    assert_eq!(output.status.code(), Some(code), "{what:?}: {out}{said}");
    assert_eq!(said.lines().count(), 1, "{what:?}: {said}");
    assert_eq!(out, "", "{what:?}");
    said
}

#[test]
fn bad_usage_is_told_in_one_line() {
    let cases: [(&[&str], &str); 24] = [
        (&["up", "--nodes", "0"], "--nodes"),
        (&["up", "--nodes", "101"], "--nodes"),
        (&["up", "--nodes", "abc"], "--nodes"),
        (&["up", "--store", "etcd"], "--etcd-endpoints"),
        (&["up", "--store", "paper"], "--store"),
        (&["up", "--etcd-endpoints", "http://127.0.0.1:2379"], "--store etcd"),
        (&["up", "--bind", "nowhere"], "--bind"),
        (&["up", "--bind", "127.0.0.1:66666"], "--bind"),
        (&["up", "--node-ip", "::1"], "--node-ip"),
        (&["up", "--node-ip", "10.0.0.0/8"], "--node-ip"),
        (&["up", "--max-pods=-1"], "--max-pods"),
        (&["up", "--frobnicate"], "--frobnicate"),
        (&["up", "now"], "now"),
        (&["server", "--store", "etcd"], "--etcd-endpoints"),
        (&["server", "--nodes", "2"], "--nodes"),
        (&["server", "--audit-policy-file", "/no/file", "--audit-log-path", "-"], "/no/file: No such file"),
        (&["server", "--audit-log-path", "-"], "--audit-policy-file"),
        (&["agent", "--token", "x"], "--token"),
        (&["agent", "--agent-port", "x"], "--agent-port"),
        (&["token", "create", "--hours", "0"], "--hours"),
        (&["token", "destroy"], "destroy"),
        (&["frobnicate"], "frobnicate"),
        (&["down", "--force"], "--force"),
        (&["get", "pods", "--output"], "--output"),
    ];
    for (arguments, expected) in cases {
        let output = Command::new(skiff()).args(arguments).output().unwrap();
        let said = line(arguments, 2, &output);
        assert!(said.contains(expected), "{said}");
    }
}

/// Runs skiff as a user without any rights, who need not be able to reach the binary by its path.
fn as_nobody(arguments: &[&str]) -> Output {
    let script =
        "exec 3<\"$0\"; exec setpriv --reuid 65534 --regid 65534 --clear-groups /proc/self/fd/3 \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(skiff()).args(arguments).stdin(Stdio::null());
    command.output().expect("sh and setpriv are there")
}

#[test]
fn missing_privileges_are_told_in_one_line() {
    for role in ["up", "down", "agent"] {
        let said = line(&[role], 2, &as_nobody(&[role]));
        assert!(said.contains("needs root"), "{said}");
    }
    // The control plane alone needs no more than its directory.
    let said = line(&["server"], 1, &as_nobody(&["server", "--data-dir", "/proc/skiff"]));
    assert!(said.contains("/proc/skiff"), "{said}");
}

#[test]
fn what_is_taken_or_not_there_is_named() {
    alone(|| async {
        let mut machine = Machine::new("machine", NEAR, 10);
        let dir = machine.dir().to_string_lossy().into_owned();
        let other = tempfile::tempdir().unwrap();
        let other = other.path().to_string_lossy().into_owned();
        machine.start(&["server"]);
        machine.wait_for("server", "skiff server is ready");
        let pid = std::fs::read_to_string(machine.dir().join("lock")).unwrap();
        let config = machine.kubeconfig().to_string_lossy().into_owned();
        let file = |name: &str, text: &str| {
            let path = machine.dir().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_string_lossy().into_owned()
        };
        let good = std::fs::read_to_string(&config).unwrap();
        let broken = file("broken", "apiVersion: v1\nclusters: [\n");
        let wrong = file("wrong", "apiVersion: v1\nkind: Config\nclusters: 7\n");
        let empty = file("empty", "");
        let refused = file("refused", &good.replace(":6443", ":6444"));
        let nowhere = file("nowhere", &good.replace("127.0.0.1", "nowhere.invalid"));
        let stranger =
            file("stranger", &good.replace("https://127.0.0.1:6443", "https://192.168.77.10:6443"));
        let etcd = |endpoints: &'static str| {
            ["server", "--bind=127.0.0.1:7443", "--data-dir", "", "--store=etcd", endpoints]
        };
        let (gone, silent) = (
            etcd("--etcd-endpoints=http://127.0.0.1:1,http://127.0.0.1:2"),
            etcd("--etcd-endpoints=http://192.168.77.99:2379"),
        );
        let cases: [(&[&str], &[&str]); 15] = [
            (&["server", "--data-dir", &dir], &["in use by process", pid.trim(), "--data-dir"]),
            (&["down", "--data-dir", "/nowhere/at/all"], &["nothing to do"]),
            (&["server", "--data-dir", &other], &["127.0.0.1:6443", "port 6443", "--bind"]),
            (
                &["server", "--data-dir", &other, "--bind", "203.0.113.7:6443"],
                &["203.0.113.7:6443", "address"],
            ),
            (&["server", "--data-dir", "/dev/null/x"], &["/dev/null/x"]),
            (&gone, &["etcd at http://127.0.0.1:1, http://127.0.0.1:2", "refused"]),
            (&silent, &["etcd at http://192.168.77.99:2379"]),
            (&["get", "pods", "--kubeconfig", "/nowhere"], &["/nowhere"]),
            (&["get", "pods", "--kubeconfig", &broken], &[&broken]),
            (&["get", "pods", "--kubeconfig", &wrong], &[&wrong, "line 3"]),
            (&["get", "pods", "--kubeconfig", &empty], &["kubeconfig"]),
            (&["get", "pods", "--kubeconfig", &config, "--context", "elsewhere"], &["elsewhere"]),
            (
                &["get", "pods", "--kubeconfig", &refused],
                &["The connection to the server 127.0.0.1:6444 was refused"],
            ),
            (
                &["get", "pods", "--kubeconfig", &nowhere],
                &["Unable to connect to the server", "nowhere.invalid"],
            ),
            (
                &["get", "pods", "--kubeconfig", &stranger, "--server", "https://192.168.77.1:6443"],
                &["was refused"],
            ),
        ];
        for (arguments, expected) in cases {
            let arguments: Vec<&str> = arguments
                .iter()
                .map(|argument| if argument.is_empty() { &other } else { *argument })
                .collect();
            let started = Instant::now();
            let output = machine.run(&arguments);
            let code = if arguments[0] == "down" { 0 } else { 1 };
            let said = line(&arguments, code, &output);
            for expected in expected {
                assert!(said.contains(expected), "{arguments:?}: {expected:?} is not in {said}");
            }
            let took = started.elapsed();
            // The resolver of the system takes its time with a name server that is silent.
            assert!(took < Duration::from_secs(40), "{arguments:?} took {took:?}");
        }
        // It was not disturbed by any of that.
        machine.ok(&["get", "namespaces"]);
    });
}

#[test]
fn a_node_whose_port_is_taken_says_so_and_ends() {
    alone(|| async {
        let _taken = TcpListener::bind("192.168.77.1:10250").unwrap();
        let data = tempfile::tempdir().unwrap();
        let run = |arguments: &[&str]| {
            Command::new(skiff()).args(arguments).arg("--data-dir").arg(data.path()).output().unwrap()
        };
        let output = run(&["up", "--node-ip", "192.168.77.1"]);
        assert!(run(&["down", "--delete-data"]).status.success());
        let said = line(&["up"], 1, &output);
        assert!(said.contains("192.168.77.1:10250") && said.contains("--agent-port"), "{said}");
    });
}
