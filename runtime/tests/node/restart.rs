//! Servers and shims that are killed.

use cri::*;

use crate::client::{Node, Pod, signalled, with_pipe};

pub(crate) async fn a_killed_server_adopts_what_ran_and_what_ended(node: Node) {
    let pod = node.pod().await;
    let mut stays = pod.script("stays", "cat /v/pipe; sleep 1000");
    let stays_pipe = with_pipe(&node, "stays", &mut stays);
    let stays = pod.start(stays).await;
    let mut ends = pod.script("ends", "cat /v/pipe; exit 5");
    let ends_pipe = with_pipe(&node, "ends", &mut ends);
    let ends = pod.start(ends).await;
    let created = pod.create(pod.script("created", "exit 4")).await;
    let exit = node.directory().join("root/containers").join(&ends).join("exit.json");
    let shim = shim_of(&node, &ends);

    node.kill_server();
    for pipe in [stays_pipe, ends_pipe] {
        tokio::task::spawn_blocking(move || std::fs::write(pipe, "meanwhile\n").unwrap()).await.unwrap();
    }
    // The shim ends after it has written down everything.
    gone(shim).await;
    assert!(exit.exists());
    node.start_server().await;

    let pod = Pod { runtime: node.runtime().await, ..pod };
    let status = pod.status(&ends).await;
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 5));
    assert_eq!(pod.log("ends"), "meanwhile\n");
    assert_eq!(pod.status(&stays).await.state(), ContainerState::ContainerRunning);
    assert_eq!(pod.exec(&stays, &["echo", "alive"], 10).await.unwrap().stdout, b"alive\n");
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: false };
    let sandbox = pod.runtime.clone().pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!(sandbox.state(), PodSandboxState::SandboxReady);
    // Its end is told to the new server.
    pod.stop(&stays, 0).await;
    assert_eq!(pod.ended(&stays).await.exit_code, 137);
    assert_eq!(pod.log("stays"), "meanwhile\n");
    pod.runtime
        .clone()
        .start_container(StartContainerRequest { container_id: created.clone() })
        .await
        .unwrap();
    assert_eq!(pod.ended(&created).await.exit_code, 4);
    pod.remove().await;
}

pub(crate) async fn a_container_survives_its_shim(node: Node) {
    let pod = node.pod().await;
    let mut config = pod.script("orphan", "exec > /dev/null 2>&1; echo > /v/pipe; cat /v/pipe; exit 6");
    let pipe = with_pipe(&node, "orphan", &mut config);
    let id = pod.start(config).await;
    signalled(pipe.clone()).await;
    let shim = shim_of(&node, &id);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    gone(shim).await;
    assert_eq!(pod.status(&id).await.state(), ContainerState::ContainerRunning);
    tokio::task::spawn_blocking(move || std::fs::write(pipe, "go\n").unwrap()).await.unwrap();
    let status = pod.ended(&id).await;
    // Kernels before 6.15 do not tell the exit code of a process that is not ours.
    assert!(
        matches!((status.exit_code, status.reason.as_str()), (6, "Error") | (255, "Unknown")),
        "{status:?}"
    );
    pod.remove().await;
}

/// The process that runs as the shim of a container.
fn shim_of(node: &Node, container: &str) -> i32 {
    let state = node.directory().join("state/containers").join(container);
    let wanted = format!("shim\0{}\0", state.display());
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).ends_with(&wanted)
        })
        .expect("no shim")
}

/// Waits until a process is gone.
async fn gone(pid: i32) {
    tokio::task::spawn_blocking(move || {
        #[allow(unsafe_code)]
        // SAFETY: pidfd_open takes two integers; poll reads and writes one pollfd.
        unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32;
            if fd >= 0 {
                let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
                assert_eq!(libc::poll(&mut poll, 1, 30_000), 1, "process {pid} does not end");
                libc::close(fd);
            }
        }
    })
    .await
    .unwrap();
}
