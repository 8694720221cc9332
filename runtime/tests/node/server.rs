//! The server as a process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use base::{Clock, Tasks};
use runtime::{Config, LoopbackOnly, Runtime};

/// The configuration of a node below a directory.
pub(crate) fn config(directory: &Path) -> Config {
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default().replace('.', "");
    Config {
        root: directory.join("root"),
        state: directory.join("state"),
        socket: directory.join("cri.sock"),
        cgroup_root: format!("/skiff-test-{name}"),
        network: Arc::new(LoopbackOnly),
        executable: std::env::current_exe().unwrap(),
        tasks: Tasks::new("test"),
        clock: Clock::system(),
    }
}

/// Serves until killed. Says so on standard output.
pub(crate) async fn serve(directory: &str) -> ! {
    let directory = PathBuf::from(directory);
    let config = config(&directory);
    let tasks = config.tasks.clone();
    let archive = directory.join("busybox.tar");
    let runtime = Runtime::start(config).await.unwrap();
    if archive.exists() {
        runtime.images().load(&archive).await.unwrap();
        std::fs::remove_file(&archive).unwrap();
    }
    println!("ready");
    tasks.token().cancelled().await;
    std::process::exit(0);
}

/// Starts a server and waits until it serves.
pub(crate) async fn spawn(directory: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("server")
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        assert_eq!(line, "ready\n");
    })
    .await
    .unwrap();
    child
}
