//! From creation to removal.

use std::time::Instant;

use cri::*;

use crate::client::{Node, resources, security, signalled, with_pipe};

pub(crate) async fn a_container_runs_logs_and_ends_with_its_code(node: Node) {
    let pod = node.pod().await;
    let id = pod.create(pod.script("main", "echo out; echo err >&2; printf part; exit 7")).await;
    assert_eq!(pod.status(&id).await.state(), ContainerState::ContainerCreated);
    pod.runtime.clone().start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap();
    let status = pod.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    assert!(status.created_at <= status.started_at && status.started_at <= status.finished_at);
    let log = std::fs::read_to_string(&status.log_path).unwrap();
    for line in [" stdout F out\n", " stderr F err\n", " stdout P part\n"] {
        assert!(log.contains(line), "{log}");
    }
    let id = pod.start(pod.script("good", "hostname; cat /etc/resolv.conf; echo $FROM")).await;
    assert_eq!(pod.ended(&id).await.reason, "Completed");
    assert_eq!(pod.log("good"), format!("{}\nnameserver 10.96.0.10\nimage\n", pod.config.hostname));
    let filter = ContainerFilter { pod_sandbox_id: pod.id.clone(), ..ContainerFilter::default() };
    let list =
        pod.runtime.clone().list_containers(ListContainersRequest { filter: Some(filter) }).await.unwrap();
    assert_eq!(list.into_inner().containers.len(), 2);
    // Unknown ones are gone already.
    for _ in 0..2 {
        let request = RemoveContainerRequest { container_id: id.clone() };
        pod.runtime.clone().remove_container(request).await.unwrap();
    }
    pod.remove().await;
}

pub(crate) async fn what_can_not_be_started_says_why(node: Node) {
    let pod = node.pod().await;
    for (name, command, expected) in [
        ("missing", "nonsense", "executable file not found in $PATH"),
        ("path", "/none/such", "no such file or directory"),
    ] {
        let config = ContainerConfig { command: vec![command.to_owned()], ..pod.script(name, "") };
        let id = pod.create(config).await;
        let request = StartContainerRequest { container_id: id.clone() };
        let error = pod.runtime.clone().start_container(request).await.unwrap_err();
        assert!(error.message().contains(expected), "{error}");
        let status = pod.status(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    }
    let config = ContainerConfig {
        image: Some(ImageSpec { image: "skiff.test/none:1".to_owned(), ..ImageSpec::default() }),
        ..pod.script("image", "")
    };
    let request =
        CreateContainerRequest { pod_sandbox_id: pod.id.clone(), config: Some(config), sandbox_config: None };
    let error = pod.runtime.clone().create_container(request).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound);
    pod.remove().await;
}

pub(crate) async fn stopping_asks_first_and_then_kills(node: Node) {
    let pod = node.pod().await;
    let mut polite =
        pod.script("polite", "trap 'echo bye; exit 3' TERM; echo > /v/pipe; while :; do sleep 1; done");
    let pipe = with_pipe(&node, "polite", &mut polite);
    let id = pod.start(polite).await;
    signalled(pipe).await;
    pod.stop(&id, 20).await;
    assert_eq!(pod.status(&id).await.exit_code, 3);
    assert_eq!(pod.log("polite"), "bye\n");
    let mut stubborn = pod.script("stubborn", "trap '' TERM; echo > /v/pipe; while :; do sleep 1; done");
    let pipe = with_pipe(&node, "stubborn", &mut stubborn);
    let id = pod.start(stubborn).await;
    signalled(pipe).await;
    let begin = Instant::now();
    pod.stop(&id, 1).await;
    assert!(begin.elapsed().as_secs() < 10);
    assert_eq!(pod.status(&id).await.exit_code, 137);
    pod.stop(&id, 1).await;
    pod.remove().await;
}

pub(crate) async fn a_container_over_its_memory_limit_is_oom_killed(node: Node) {
    let pod = node.pod().await;
    let mut config = pod.script("big", "exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    resources(&mut config).memory_limit_in_bytes = 32 << 20;
    let id = pod.start(config).await;
    let status = pod.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    pod.remove().await;
}

pub(crate) async fn a_pod_can_share_its_pid_namespace(node: Node) {
    let mut config = node.sandbox_config();
    let options = NamespaceOption { pid: NamespaceMode::Pod as i32, ..NamespaceOption::default() };
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options =
        Some(options.clone());
    let pod = node.pod_with(config).await;
    let mut first = pod.script("first", "sleep 1000 & echo > /v/pipe; wait");
    security(&mut first).namespace_options = Some(options.clone());
    let pipe = with_pipe(&node, "shared", &mut first);
    let id = pod.start(first).await;
    signalled(pipe).await;
    let mut second = pod.script("second", "cat /proc/1/comm; ps | grep -c 'sleep 100[0]$'");
    security(&mut second).namespace_options = Some(options);
    assert_eq!(pod.output(second).await, "pause\n1\n");
    // What the first one started ends with it.
    pod.stop(&id, 0).await;
    let mut third = pod.script("third", "ps | grep -c 'sleep 100[0]$'");
    security(&mut third).namespace_options =
        Some(pod.config.linux.clone().unwrap().security_context.unwrap().namespace_options.unwrap());
    assert_eq!(pod.output(third).await, "0\n");
    pod.remove().await;
}

pub(crate) async fn limits_can_be_changed_and_use_is_told(node: Node) {
    let pod = node.pod().await;
    let mut config = pod.script("limited", "echo > /v/pipe; sleep 1000");
    resources(&mut config).memory_limit_in_bytes = 64 << 20;
    resources(&mut config).cpu_shares = 512;
    let pipe = with_pipe(&node, "limited", &mut config);
    let id = pod.start(config).await;
    signalled(pipe).await;
    let wanted =
        LinuxContainerResources { memory_limit_in_bytes: 128 << 20, ..LinuxContainerResources::default() };
    let request = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(wanted),
        ..Default::default()
    };
    pod.runtime.clone().update_container_resources(request).await.unwrap();
    let now = pod.status(&id).await.resources.unwrap().linux.unwrap();
    assert_eq!((now.memory_limit_in_bytes, now.cpu_shares), (128 << 20, 512));
    let request = ContainerStatsRequest { container_id: id.clone() };
    let stats = pod.runtime.clone().container_stats(request).await.unwrap().into_inner().stats.unwrap();
    let memory = stats.memory.unwrap();
    let (used, free) = (memory.working_set_bytes.unwrap().value, memory.available_bytes.unwrap().value);
    assert_eq!(used + free, 128 << 20);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    pod.remove().await;
}

pub(crate) async fn a_log_is_reopened_after_rotation(node: Node) {
    let pod = node.pod().await;
    let config = ContainerConfig {
        stdin: true,
        stdin_once: true,
        ..pod.script("rotated", "echo one; cat /v/pipe; sleep 1000")
    };
    let mut config = config;
    let pipe = with_pipe(&node, "rotated", &mut config);
    let id = pod.start(config).await;
    let path = pod.status(&id).await.log_path;
    // Read by the container only after its first line.
    tokio::task::spawn_blocking({
        let (pipe, path) = (pipe.clone(), path.clone());
        move || {
            let writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
            std::fs::rename(&path, format!("{path}.1")).unwrap();
            writer
        }
    })
    .await
    .unwrap();
    let request = ReopenContainerLogRequest { container_id: id.clone() };
    pod.runtime.clone().reopen_container_log(request).await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    pod.remove().await;
}

pub(crate) async fn thirty_pods_start_at_once(node: Node) {
    let alone = Instant::now();
    let pod = node.pod().await;
    let sandbox = alone.elapsed();
    let id = pod.start(pod.script("main", "sleep 1000")).await;
    println!("  one pod: sandbox {sandbox:?}, container {:?}", alone.elapsed() - sandbox);
    assert_eq!(pod.status(&id).await.state(), ContainerState::ContainerRunning);
    pod.remove().await;
    let begin = Instant::now();
    let starts = (0..30).map(|_| async {
        let pod = node.pod().await;
        pod.start(pod.script("main", "sleep 1000")).await;
        pod
    });
    let pods = futures::future::join_all(starts).await;
    println!("  thirty pods: {:?}", begin.elapsed());
    let begin = Instant::now();
    futures::future::join_all(pods.into_iter().map(|pod| pod.remove())).await;
    println!("  thirty pods removed: {:?}", begin.elapsed());
}
