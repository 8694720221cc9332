//! What a container may and may not do.

use cri::*;

use crate::client::{Node, security};

pub(crate) async fn a_container_has_what_it_asked_for_and_no_more(node: Node) {
    let pod = node.pod().await;
    let probe = "id -u; id -G; grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'; \
        mkdir /new 2>&1; echo 1 2>&1 > /proc/sys/net/ipv4/ip_forward; ls /sys/firmware; \
        for c in /sys/fs/cgroup/*; do test -w $c && touch $c/x 2>/dev/null; mkdir $c/x 2>/dev/null && echo writable $c; done; \
        ls /proc/self/fd | wc -l; pwd; true";
    let mut config = pod.script("bound", probe);
    config.working_dir = "/work/deep".to_owned();
    let context = security(&mut config);
    context.run_as_username = "web".to_owned();
    context.supplemental_groups = vec![60];
    context.no_new_privs = true;
    context.readonly_rootfs = true;
    context.capabilities = Some(Capability {
        drop_capabilities: vec!["ALL".to_owned()],
        add_capabilities: vec!["CHOWN".to_owned()],
        ..Capability::default()
    });
    let output = pod.output(config).await;
    assert!(output.starts_with("33\n34 50 60\n"), "{output}");
    assert!(
        output.contains("CapEff:0000000000000000\nCapBnd:0000000000000001\nNoNewPrivs:1\nSeccomp:2\n"),
        "{output}"
    );
    assert!(output.contains("Read-only file system") && !output.contains("writable"), "{output}");
    assert!(output.ends_with("/work/deep\n"), "{output}");

    let plain = pod.output(pod.script("plain", "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'; mount -t tmpfs x /tmp 2>&1 || echo refused")).await;
    assert!(plain.starts_with("CapEff:00000000a80425fb\nNoNewPrivs:0\nSeccomp:2\n"), "{plain}");
    assert!(plain.ends_with("refused\n"), "{plain}");

    // A process that joins is held by the same rules.
    let id = pod.start(pod.script("joined", "sleep 1000")).await;
    let joined =
        pod.exec(&id, &["grep", "-E", "^(CapEff|CapBnd|Seccomp):", "/proc/self/status"], 10).await.unwrap();
    let joined = String::from_utf8(joined.stdout).unwrap();
    assert_eq!(joined, "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nSeccomp:\t2\n");

    let mut missing = pod.script("missing", "true");
    security(&mut missing).seccomp = Some(SecurityProfile {
        profile_type: security_profile::ProfileType::Localhost as i32,
        localhost_ref: "/nonexistent/profile.json".to_owned(),
    });
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.id.clone(),
        config: Some(missing),
        sandbox_config: None,
    };
    assert!(pod.runtime.clone().create_container(request).await.is_err());
    pod.remove().await;
}

pub(crate) async fn a_privileged_container_has_what_the_node_has(node: Node) {
    let pod = node.pod().await;
    let mut config = pod.script(
        "root",
        "grep Seccomp: /proc/self/status | tr -d '\\t'; mkdir /tmp/m && mount -t tmpfs x /tmp/m && echo mounted; test -w /proc/sys/kernel/hostname && echo writable",
    );
    security(&mut config).privileged = true;
    assert_eq!(pod.output(config).await, "Seccomp:0\nmounted\nwritable\n");
    pod.remove().await;
}

pub(crate) async fn volumes_are_mounted_as_asked(node: Node) {
    let pod = node.pod().await;
    let volume = node.volume("plain");
    std::fs::write(volume.join("file"), "content\n").unwrap();
    let host_path = volume.to_string_lossy().into_owned();
    let mount = |path: &str, readonly| Mount {
        container_path: path.to_owned(),
        host_path: host_path.clone(),
        readonly,
        ..Mount::default()
    };
    let mut config = pod
        .script("volumes", "cat /a/file; touch /a/x 2>&1; touch /b/y && echo written; echo shm > /dev/shm/x");
    config.mounts = vec![mount("/a", true), mount("/b", false)];
    config.mounts.push(Mount {
        container_path: "/etc/hosts".to_owned(),
        host_path: volume.join("file").to_string_lossy().into_owned(),
        ..Mount::default()
    });
    let output = pod.output(config).await;
    assert_eq!(output, "content\ntouch: /a/x: Read-only file system\nwritten\n");
    assert!(volume.join("y").exists());
    // Containers of a pod share memory.
    assert_eq!(pod.output(pod.script("shm", "cat /dev/shm/x")).await, "shm\n");
    pod.remove().await;
}
