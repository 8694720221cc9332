//! The clients that programs use, on a real cluster: the Python and the JavaScript one, as their projects publish them.
//!
//! The suites are in `clients/`, in the language of the client; `scripts/clients` fetches the clients.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::cluster::Cluster;
use e2e::machine;

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools")
}

fn suite(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// Runs a suite to its end. It says itself what it does and what went wrong.
fn run(cluster: &Cluster, client: &str, command: &mut Command) -> bool {
    let filled = tools().join(client).join("filled");
    assert!(filled.is_file(), "the {client} client is not in target/tools: run `scripts/clients`");
    let command = command.env("KUBECONFIG", cluster.kubeconfig()).env("HOME", cluster.dir());
    command.status().expect("the suite starts").success()
}

#[test]
fn programs_find_what_they_find_on_kubernetes() {
    machine::isolate().expect("a network namespace: these tests need root");
    let cluster = Cluster::up(&[]);
    let mut python = Command::new(tools().join("python/bin/python"));
    let mut javascript = Command::new("node");
    let suites = [
        ("python", python.arg(suite("python/suite.py"))),
        (
            "javascript",
            javascript.arg(suite("javascript/suite.mjs")).env("SUITE_MODULES", tools().join("javascript")),
        ),
    ];
    let failed: Vec<_> = suites
        .into_iter()
        .filter_map(|(client, command)| (!run(&cluster, client, command)).then_some(client))
        .collect();
    assert!(failed.is_empty(), "failed: {failed:?}");
}
