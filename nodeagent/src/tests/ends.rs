//! How pods end, and what a restart of the agent changes: nothing.

use std::time::Duration;

use serde_json::json;

use crate::testing::Cluster;

fn running() -> serde_json::Value {
    json!({ "containers": [{ "name": "c", "image": "run:1" }] })
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_gets_its_grace_and_leaves_nothing() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    let hook = json!({ "preStop": { "exec": { "command": ["hook", "bye"] } } });
    let spec = json!({
        "terminationGracePeriodSeconds": 20,
        "containers": [{ "name": "c", "image": "stubborn:1", "lifecycle": hook }],
    });
    cluster.pod("web", spec).await;
    cluster.until_is("web", "Running+ready c=running#0").await;
    let before = cluster.clock.instant();
    cluster.delete("web", None).await;
    cluster.until_is("web", "gone").await;
    let took = (cluster.clock.instant() - before).as_secs();
    assert!((19..22).contains(&took), "{took}");
    let calls = cluster.runtime.calls();
    assert_eq!(calls[2..], ["exec hook bye in c", "stop c#0 20s"], "{calls:?}");
    assert!(cluster.runtime.remains().is_empty(), "{:?}", cluster.runtime.remains());
    assert_eq!(*cluster.host.cleaned.lock().unwrap(), ["web"]);
    assert!(cluster.events("web").await.contains(&"Killing: Stopping container c".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_second_deletion_shortens_the_grace() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    let spec = json!({
        "terminationGracePeriodSeconds": 300,
        "containers": [{ "name": "c", "image": "stubborn:1" }],
    });
    cluster.pod("web", spec).await;
    cluster.until_is("web", "Running+ready c=running#0").await;
    cluster.delete("web", None).await;
    cluster.clock.wait(Duration::from_secs(10)).await;
    let before = cluster.clock.instant();
    cluster.delete("web", Some(5)).await;
    cluster.until_is("web", "gone").await;
    let took = (cluster.clock.instant() - before).as_secs();
    assert!(took < 8, "{took}");
}

#[tokio::test(start_paused = true)]
async fn sidecars_end_after_the_containers_they_serve() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    let sidecar = |name: &str| json!({ "name": name, "image": "run:1", "restartPolicy": "Always" });
    let spec = json!({
        "initContainers": [sidecar("s1"), sidecar("s2")],
        "containers": [{ "name": "c", "image": "stubborn:1" }],
        "terminationGracePeriodSeconds": 10,
    });
    cluster.pod("web", spec).await;
    cluster.until_is("web", "Running+ready s1=running#0 s2=running#0 c=running#0").await;
    cluster.delete("web", None).await;
    cluster.until_is("web", "gone").await;
    let calls = cluster.runtime.calls();
    let stops: Vec<&str> =
        calls.iter().filter_map(|call| call.strip_prefix("stop ")?.split('#').next()).collect();
    assert_eq!(stops, ["c", "s2", "s1"]);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_does_not_wait_for_a_pull() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    let container = json!({ "name": "c", "image": "missing:1" });
    cluster.pod("web", json!({ "containers": [container] })).await;
    cluster.until_is("web", "Pending c=ImagePullBackOff#0").await;
    let before = cluster.clock.instant();
    cluster.delete("web", None).await;
    cluster.until_is("web", "gone").await;
    assert!(cluster.clock.instant() - before < Duration::from_secs(1));
    assert!(cluster.runtime.remains().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_removed_from_the_api_by_force_is_ended() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    cluster.pod("web", running()).await;
    cluster.until_is("web", "Running+ready c=running#0").await;
    cluster.delete("web", Some(0)).await;
    cluster.until_is("web", "gone").await;
    cluster.clock.wait(Duration::from_secs(5)).await;
    assert!(cluster.runtime.remains().is_empty(), "{:?}", cluster.runtime.remains());
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_adopts_what_runs_and_restarts_nothing() {
    let cluster = Cluster::new().await;
    let agent = cluster.agent().await;
    let probe = json!({ "exec": { "command": ["check"] }, "initialDelaySeconds": 3 });
    let container = json!({ "name": "c", "image": "run:1", "readinessProbe": probe });
    cluster.pod("web", json!({ "containers": [container] })).await;
    cluster.until_is("web", "Running+ready c=running#0").await;
    agent.shutdown(Duration::from_secs(5)).await.unwrap();
    let before = cluster.pods().get("web").await.unwrap();
    let calls = cluster.runtime.calls();
    let agent = cluster.agent().await;
    agent.registered().await.unwrap();
    cluster.clock.wait(Duration::from_secs(30)).await;
    assert_eq!(cluster.runtime.calls(), calls);
    let after = cluster.pods().get("web").await.unwrap();
    assert_eq!(before.status, after.status, "not even its status has changed");
    // And it is really looked after.
    cluster.runtime.end("c", 1);
    cluster.until_is("web", "Running+ready c=running#1").await;
}

#[tokio::test(start_paused = true)]
async fn what_ended_while_no_agent_ran_is_seen_by_the_next() {
    let cluster = Cluster::new().await;
    let agent = cluster.agent().await;
    cluster.pod("web", running()).await;
    cluster.until_is("web", "Running+ready c=running#0").await;
    agent.shutdown(Duration::from_secs(5)).await.unwrap();
    cluster.runtime.end("c", 9);
    let _agent = cluster.agent().await;
    cluster.until_is("web", "Running+ready c=running#1").await;
    let last = cluster
        .until("web", |pod| {
            let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
            statuses[0].last_state.as_ref()?.terminated.clone()
        })
        .await;
    assert_eq!(last.exit_code, 9);
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_no_agent_ran_is_ended_by_the_next_and_never_started() {
    let cluster = Cluster::new().await;
    let agent = cluster.agent().await;
    cluster.pod("stays", running()).await;
    cluster.pod("forced", running()).await;
    cluster.pod("asked", running()).await;
    for name in ["stays", "forced", "asked"] {
        cluster.until_is(name, "Running+ready c=running#0").await;
    }
    agent.shutdown(Duration::from_secs(5)).await.unwrap();
    cluster.delete("forced", Some(0)).await;
    cluster.delete("asked", None).await;
    let calls = cluster.runtime.calls().len();
    let _agent = cluster.agent().await;
    cluster.until_is("asked", "gone").await;
    cluster.clock.wait(Duration::from_secs(5)).await;
    assert_eq!(cluster.runtime.remains().len(), 2, "one sandbox, one container");
    let calls = cluster.runtime.calls()[calls..].to_vec();
    assert!(calls.iter().all(|call| call.starts_with("stop ")), "{calls:?}");
    cluster.until_is("stays", "Running+ready c=running#0").await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_post_start_hook_ends_its_container() {
    let cluster = Cluster::new().await;
    let _agent = cluster.agent().await;
    cluster.runtime.commands_answer("c", 1);
    let hook = json!({ "postStart": { "exec": { "command": ["hook", "hello"] } } });
    let container = json!({ "name": "c", "image": "run:1", "lifecycle": hook });
    cluster.pod("web", json!({ "containers": [container] })).await;
    cluster.until_is("web", "Running c=CrashLoopBackOff#1").await;
    let events = cluster.events("web").await;
    assert!(events.iter().any(|event| event == "FailedPostStartHook: PostStartHook failed"), "{events:#?}");
    cluster.runtime.commands_answer("c", 0);
    cluster.until_is("web", "Running+ready c=running#2").await;
}

#[tokio::test(start_paused = true)]
async fn a_runtime_without_events_is_listed() {
    let mut cluster = Cluster::new().await;
    std::sync::Arc::get_mut(&mut cluster.runtime).unwrap().is_mute = true;
    let _agent = cluster.agent().await;
    cluster.pod("web", running()).await;
    cluster.until_is("web", "Running+ready c=running#0").await;
    cluster.clock.wait(Duration::from_secs(60)).await;
    let before = cluster.clock.instant();
    cluster.runtime.end("c", 1);
    cluster.until_is("web", "Running+ready c=running#1").await;
    assert!(cluster.clock.instant() - before < Duration::from_secs(6));
    cluster
        .pod("job", json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": "exit:0" }] }))
        .await;
    cluster.until_is("job", "Succeeded c=0:Completed#0").await;
}
