//! How pods come up, and come up again.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::Api;
use serde_json::json;

use crate::testing::Cluster;

#[tokio::test(start_paused = true)]
async fn a_pod_starts_and_its_status_is_told_at_once() {
    let cluster = Cluster::new().await;
    let agent = cluster.agent().await;
    agent.registered().await.unwrap();
    let before = cluster.clock.instant();
    cluster.pod("web", json!({ "containers": [{ "name": "c", "image": "run:1" }] })).await;
    cluster.until_is("web", "Running+ready c=running#0").await;
    let took = cluster.clock.instant() - before;
    assert!(took < Duration::from_millis(100), "nothing may wait for a timer: {took:?}");
    let pod = cluster.pods().get("web").await.unwrap();
    let status = pod.status.unwrap();
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.0.1"));
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    let container = &status.container_statuses.unwrap()[0];
    assert!(container.container_id.as_deref().unwrap().starts_with("fake://c"));
    cluster.clock.wait(Duration::from_millis(100)).await;
    assert_eq!(
        cluster.events("web").await,
        [
            "Pulled: Container image \"run:1\" already present on machine and can be accessed by the pod",
            "Created: Container created",
            "Started: Container started",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_registers_and_says_that_it_lives() {
    let cluster = Cluster::new().await;
    let agent = cluster.agent().await;
    let node = agent.registered().await.unwrap();
    assert_eq!(node.metadata.labels.as_ref().unwrap()["kubernetes.io/hostname"], "n1");
    let status = node.status.clone().unwrap();
    let ready = status.conditions.unwrap().into_iter().find(|it| it.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("True", Some("KubeletReady")));
    assert_eq!(status.allocatable.unwrap()["cpu"].0, "4");
    assert_eq!(status.daemon_endpoints.unwrap().kubelet_endpoint.unwrap().port, i32::from(agent.port()));
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-node-lease");
    cluster.clock.wait(Duration::from_secs(1)).await;
    let first = leases.get("n1").await.unwrap().spec.unwrap().renew_time.unwrap().0;
    cluster.clock.wait(Duration::from_secs(11)).await;
    let lease = leases.get("n1").await.unwrap();
    assert!(lease.spec.unwrap().renew_time.unwrap().0 > first);
    assert_eq!(lease.metadata.owner_references.unwrap()[0].name, "n1");
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let quiet = nodes.get("n1").await.unwrap().metadata.resource_version;
    cluster.clock.wait(Duration::from_secs(60)).await;
    let later = nodes.get("n1").await.unwrap().metadata.resource_version;
    assert_eq!(quiet, later, "without a change the node's object is not written");
    let status = |reason: &str| format!("{reason}: Node n1 status is now: {reason}");
    let mut told = cluster.events("n1").await;
    told.sort();
    let pressures = ["NodeHasNoDiskPressure", "NodeHasSufficientMemory", "NodeHasSufficientPID"].map(status);
    assert_eq!(told[..3], pressures);
    assert_eq!(told[3..], ["Starting: Starting kubelet."]);
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_in_order_before_the_others_and_sidecars_beside_them() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    cluster
        .pod(
            "web",
            json!({
                "initContainers": [
                    { "name": "first", "image": "exit:0" },
                    { "name": "side", "image": "run:1", "restartPolicy": "Always" },
                    { "name": "second", "image": "exit:0" },
                ],
                "containers": [{ "name": "a", "image": "run:1" }, { "name": "b", "image": "run:1" }],
            }),
        )
        .await;
    cluster
        .until_is(
            "web",
            "Running+ready first=0:Completed#0 side=running#0 second=0:Completed#0 a=running#0 b=running#0",
        )
        .await;
    assert_eq!(
        cluster.runtime.calls(),
        ["sandbox web#0", "start first#0", "start side#0", "start second#0", "start a#0", "start b#0"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_is_restarted_with_growing_waits() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    cluster.pod("web", json!({ "containers": [{ "name": "c", "image": "exit:3" }] })).await;
    cluster.until_is("web", "Running c=CrashLoopBackOff#1").await;
    let state =
        cluster.until("web", |pod| pod.status.as_ref()?.container_statuses.as_ref()?.first().cloned()).await;
    assert_eq!(state.last_state.unwrap().terminated.unwrap().exit_code, 3);
    assert!(state.state.unwrap().waiting.unwrap().message.unwrap().starts_with("back-off 10s restarting"));
    let since = cluster.clock.instant();
    cluster.until_is("web", "Running c=CrashLoopBackOff#2").await;
    let waited = cluster.clock.instant() - since;
    assert!((9..12).contains(&waited.as_secs()), "{waited:?}");
    cluster.until_is("web", "Running c=CrashLoopBackOff#3").await;
    let waited = cluster.clock.instant() - since;
    assert!((29..33).contains(&waited.as_secs()), "{waited:?}");
    let events = cluster.events("web").await;
    assert!(events.iter().any(|event| {
        event.starts_with("BackOff: Back-off restarting failed container c in pod web_default(")
    }));
    // The newest and one before it are kept for their logs.
    assert_eq!(cluster.runtime.remains().len(), 3, "{:?}", cluster.runtime.remains());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_restarted_ends_as_its_containers_do() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    let spec =
        |image: &str| json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": image }] });
    cluster.pod("good", spec("exit:0")).await;
    cluster.pod("bad", spec("exit:4")).await;
    cluster.until_is("good", "Succeeded c=0:Completed#0").await;
    cluster.until_is("bad", "Failed c=4:Error#0").await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_can_not_be_pulled_is_told_and_tried_again() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    cluster.pod("web", json!({ "containers": [{ "name": "c", "image": "missing:1" }] })).await;
    cluster.until_is("web", "Pending c=ErrImagePull#0").await;
    cluster.until_is("web", "Pending c=ImagePullBackOff#0").await;
    cluster.clock.wait(Duration::from_secs(35)).await;
    let pulls = cluster.runtime.calls().iter().filter(|call| *call == "pull missing:1").count();
    assert_eq!(pulls, 3, "at 0, 10 and 30 seconds");
    let events = cluster.events("web").await;
    for expected in [
        "Pulling: Pulling image \"missing:1\"",
        "Failed: Failed to pull image \"missing:1\": rpc error: code = NotFound desc = failed to pull \"missing:1\": not found",
        "Failed: Error: ErrImagePull",
        "BackOff: Back-off pulling image \"missing:1\"",
        "Failed: Error: ImagePullBackOff",
    ] {
        assert!(events.iter().any(|event| event == expected), "{expected} {events:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_is_pulled_by_its_policy() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    let spec = |policy: &str| {
        let container = json!({ "name": "c", "image": "pull:1", "imagePullPolicy": policy });
        json!({ "containers": [container] })
    };
    cluster.pod("never", spec("Never")).await;
    cluster.until_is("never", "Pending c=ErrImageNeverPull#0").await;
    cluster.pod("absent", spec("IfNotPresent")).await;
    cluster.until_is("absent", "Running+ready c=running#0").await;
    cluster.pod("present", spec("IfNotPresent")).await;
    cluster.until_is("present", "Running+ready c=running#0").await;
    cluster.pod("always", spec("Always")).await;
    cluster.until_is("always", "Running+ready c=running#0").await;
    let pulls = cluster.runtime.calls().iter().filter(|call| call.starts_with("pull")).count();
    assert_eq!(pulls, 2);
    let events = cluster.events("absent").await;
    let pulled =
        "Pulled: Successfully pulled image \"pull:1\" in 1s (1s including waiting). Image size: 7 bytes.";
    assert!(events.iter().any(|event| event == pulled), "{events:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_container_waits_for_what_its_variables_come_from() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    let from = json!({ "configMapKeyRef": { "name": "settings", "key": "color" } });
    let container = json!({
        "name": "c", "image": "run:1", "args": ["$(COLOR)-$(NAME)"],
        "env": [
            { "name": "COLOR", "valueFrom": from },
            { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
        ],
    });
    cluster.pod("web", json!({ "containers": [container] })).await;
    cluster.until_is("web", "Pending c=CreateContainerConfigError#0").await;
    let message = cluster
        .until("web", |pod| {
            let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
            statuses[0].state.as_ref()?.waiting.as_ref()?.message.clone()
        })
        .await;
    assert_eq!(message, "configmap \"settings\" not found");
    let settings =
        ConfigMap { data: Some([("color".to_owned(), "blue".to_owned())].into()), ..ConfigMap::default() };
    *cluster.host.config_map.lock().unwrap() = Some(Arc::new(settings));
    cluster.until_is("web", "Running+ready c=running#0").await;
    let config = cluster.runtime.configs().pop().unwrap();
    assert_eq!(config.args, ["blue-web"]);
    let variables: Vec<String> = config.envs.iter().map(|env| env.key.clone()).collect();
    assert!(variables.contains(&"KUBERNETES_SERVICE_HOST".to_owned()), "{variables:?}");
    assert_eq!(config.labels["io.kubernetes.container.name"], "c");
    assert_eq!(config.annotations["io.kubernetes.container.restartCount"], "0");
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_its_volumes_is_being_created() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    let why = "MountVolume.SetUp failed for volume \"v\" : configmap \"x\" not found";
    *cluster.host.missing.lock().unwrap() = Some(why.to_owned());
    cluster.pod("web", json!({ "containers": [{ "name": "c", "image": "run:1" }] })).await;
    cluster.until_is("web", "Pending c=ContainerCreating#0").await;
    cluster.clock.wait(Duration::from_secs(1)).await;
    assert!(cluster.events("web").await.contains(&format!("FailedMount: {why}")));
    *cluster.host.missing.lock().unwrap() = None;
    cluster.until_is("web", "Running+ready c=running#0").await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_fails_its_liveness_probe_is_restarted() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    let probe = json!({ "exec": { "command": ["check"] }, "periodSeconds": 5, "failureThreshold": 2 });
    let container = json!({ "name": "c", "image": "run:1", "livenessProbe": probe });
    cluster.pod("web", json!({ "containers": [container] })).await;
    cluster.until_is("web", "Running+ready c=running#0").await;
    cluster.runtime.commands_answer("c", 1);
    cluster.until_is("web", "Running+ready c=running#1").await;
    cluster.runtime.commands_answer("c", 0);
    cluster.clock.wait(Duration::from_secs(30)).await;
    cluster.until_is("web", "Running+ready c=running#1").await;
    let events = cluster.events("web").await;
    for expected in [
        "Unhealthy: Liveness probe failed: said",
        "Killing: Container c failed liveness probe, will be restarted",
    ] {
        assert!(events.iter().any(|event| event == expected), "{events:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_its_probe_once_the_startup_probe_has_succeeded() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    cluster.runtime.commands_answer("c", 1);
    let probe = |failures: u32| json!({ "exec": { "command": ["check"] }, "periodSeconds": 1, "failureThreshold": failures });
    let container =
        json!({ "name": "c", "image": "run:1", "readinessProbe": probe(1), "startupProbe": probe(30) });
    cluster.pod("web", json!({ "containers": [container] })).await;
    cluster.until_is("web", "Running c=running#0").await;
    cluster.clock.wait(Duration::from_secs(5)).await;
    cluster.until_is("web", "Running c=running#0").await;
    cluster.runtime.commands_answer("c", 0);
    cluster.until_is("web", "Running+ready c=running#0").await;
    cluster.runtime.commands_answer("c", 1);
    cluster.until_is("web", "Running c=running#0").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_sandbox_ends_gets_a_new_one() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    cluster.pod("web", json!({ "containers": [{ "name": "c", "image": "run:1" }] })).await;
    cluster.until_is("web", "Running+ready c=running#0").await;
    cluster.runtime.end_sandbox("web");
    cluster.until_is("web", "Running+ready c=running#1").await;
    let ip = cluster.until("web", |pod| pod.status.as_ref()?.pod_ip.clone()).await;
    assert_ne!(ip, "10.244.0.1");
    assert!(cluster.runtime.calls().contains(&"sandbox web#1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_fit_is_refused() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    let resources = json!({ "requests": { "cpu": "3" } });
    let spec = json!({ "containers": [{ "name": "c", "image": "run:1", "resources": resources }] });
    cluster.pod("one", spec.clone()).await;
    cluster.until_is("one", "Running+ready c=running#0").await;
    cluster.pod("two", spec).await;
    let reason = cluster.until("two", |pod| pod.status.as_ref()?.reason.clone()).await;
    assert_eq!(reason, "OutOfcpu");
    cluster.until("two", |pod| (pod.status.as_ref()?.phase.as_deref() == Some("Failed")).then_some(())).await;
}
