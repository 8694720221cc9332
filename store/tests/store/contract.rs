//! Every implementation passes the same suite.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::{Clock, Tasks};
use store::{Embedded, Etcd, EtcdConfig, Store};

async fn run(store: &dyn Store) {
    for (name, case) in crate::suite::CASES {
        println!("{name}");
        case(store, format!("/registry/{name}/")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_embedded_store_in_memory_keeps_the_contract() {
    let tasks = Tasks::new("test");
    run(&Embedded::in_memory(Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap()), tasks.clone())).await;
}

#[tokio::test]
async fn the_embedded_store_on_disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let tasks = Tasks::new("test");
    run(&Embedded::open(dir.path(), Clock::system(), tasks.clone()).unwrap()).await;
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn the_store_on_etcd_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let (client, peer) =
        (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
    let child = Command::new("/usr/bin/etcd")
        .args(["--name", "test", "--data-dir"])
        .arg(dir.path())
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("test={peer}"), "--log-level", "error"])
        .env("ETCD_UNSUPPORTED_ARCH", "arm64")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this test needs /usr/bin/etcd: install Debian's package etcd-server");
    let _server = Server(child);
    let config = EtcdConfig { connect_timeout: Duration::from_secs(2), ..EtcdConfig::new([client]) };
    let clock = Clock::system();
    let mut tries = 0;
    let store = loop {
        match Etcd::connect(config.clone(), Tasks::new("test")).await {
            Ok(store) => break store,
            Err(error) => assert!(tries < 100, "etcd does not come up: {error}"),
        }
        tries += 1;
        clock.wait(Duration::from_millis(100)).await;
    };
    run(&store).await;
}
