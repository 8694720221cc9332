//! Deployments, their replica sets and pods on the real API server, in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::common::{Cluster, cluster};
use crate::kubelet::{Kubelets, image, is_ready};
use client::Change;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";
const EVENTS: &str = "/api/v1/namespaces/default/events";

fn web(replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "hello:1"}]},
            },
        },
    })
}

async fn start(nodes: &[&str]) -> (Cluster, Kubelets) {
    let cluster = cluster().await;
    let kubelets = Kubelets::start(&cluster, nodes).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.until::<Value>(accounts, |found| !found.is_empty()).await;
    (cluster, kubelets)
}

async fn patch(cluster: &Cluster, patch: Value) {
    Cluster::ok(cluster.send("PATCH", WEB, &patch).await);
}

async fn set_image(cluster: &Cluster, image: &str) {
    let containers = json!([{"name": "web", "image": image}]);
    patch(cluster, json!({"spec": {"template": {"spec": {"containers": containers}}}})).await;
}

/// The deployment when all its pods run this image, are available, and no others are left.
async fn rolled_out(cluster: &Cluster, replicas: usize, wanted: &str) -> Deployment {
    cluster
        .until::<Pod>(PODS, |pods| {
            pods.len() == replicas && pods.iter().all(|pod| is_ready(pod) && image(pod) == wanted)
        })
        .await;
    let count = i32::try_from(replicas).unwrap();
    let done = |deployments: &[Deployment]| {
        let status = deployments[0].status.clone().unwrap_or_default();
        let complete = status.conditions.iter().flatten().any(|condition| {
            condition.type_ == "Progressing" && condition.reason.as_deref() == Some("NewReplicaSetAvailable")
        });
        complete
            && status.updated_replicas.unwrap_or(0) == count
            && status.replicas.unwrap_or(0) == count
            && status.available_replicas.unwrap_or(0) == count
            && status.observed_generation == deployments[0].metadata.generation
    };
    cluster.until(DEPLOYMENTS, done).await.remove(0)
}

fn annotation<'a>(
    meta: &'a k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    name: &str,
) -> &'a str {
    let name = format!("deployment.kubernetes.io/{name}");
    meta.annotations.as_ref().and_then(|all| all.get(&name)).map(String::as_str).unwrap_or_default()
}

async fn told(cluster: &Cluster, reason: &str, message: &str) {
    let wanted = |events: &[Event]| {
        events.iter().any(|event| {
            event.reason.as_deref() == Some(reason)
                && event.message.as_deref().is_some_and(|m| m.contains(message))
        })
    };
    cluster.until::<Event>(EVENTS, wanted).await;
}

/// The smallest number of ready pods and the largest number of pods from now on.
fn observe(kubelets: &Kubelets) -> Arc<[AtomicI64; 2]> {
    let extremes = Arc::new([AtomicI64::new(i64::MAX), AtomicI64::new(0)]);
    let (seen, pods) = (extremes.clone(), kubelets.pods.clone());
    let mut changes = kubelets.pods.subscribe();
    kubelets.tasks.spawn("observer", async move {
        while let Some(change) = changes.next().await {
            if matches!(change, Change::Missed) {
                continue;
            }
            let all = pods.list();
            let ready = i64::try_from(all.iter().filter(|pod| is_ready(pod)).count()).unwrap();
            let there = all.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
            seen[0].fetch_min(ready, Ordering::Relaxed);
            seen[1].fetch_max(i64::try_from(there).unwrap(), Ordering::Relaxed);
        }
    });
    extremes
}

#[tokio::test(start_paused = true)]
async fn a_deployment_rolls_out_updates_without_a_gap_and_goes_back() {
    let (cluster, kubelets) = start(&["a", "b"]).await;
    cluster.create(DEPLOYMENTS, web(4)).await;
    let deployment = rolled_out(&cluster, 4, "hello:1").await;
    assert_eq!(annotation(&deployment.metadata, "revision"), "1");
    told(&cluster, "ScalingReplicaSet", "from 0 to 4").await;
    told(&cluster, "SuccessfulCreate", "Created pod: web-").await;

    let extremes = observe(&kubelets);
    set_image(&cluster, "hello:2").await;
    let deployment = rolled_out(&cluster, 4, "hello:2").await;
    assert_eq!(annotation(&deployment.metadata, "revision"), "2");
    set_image(&cluster, "hello:1").await;
    let deployment = rolled_out(&cluster, 4, "hello:1").await;
    assert_eq!(annotation(&deployment.metadata, "revision"), "3");
    assert!(extremes[0].load(Ordering::Relaxed) >= 3, "{extremes:?}");
    assert!(extremes[1].load(Ordering::Relaxed) <= 5, "{extremes:?}");

    let sets = cluster.until::<ReplicaSet>(SETS, |sets| sets.len() == 2).await;
    let mut revisions: Vec<_> = sets.iter().map(|set| annotation(&set.metadata, "revision")).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, ["2", "3"]);
    assert!(sets.iter().any(|set| annotation(&set.metadata, "revision-history") == "1"));
    told(&cluster, "SuccessfulDelete", "Deleted pod: web-").await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_follows_its_scale_also_in_the_middle_of_a_rollout_that_is_stuck() {
    let (cluster, kubelets) = start(&["a", "b"]).await;
    cluster.create(DEPLOYMENTS, web(2)).await;
    rolled_out(&cluster, 2, "hello:1").await;
    patch(&cluster, json!({"spec": {"replicas": 8}})).await;
    rolled_out(&cluster, 8, "hello:1").await;

    kubelets.broken.lock().unwrap().insert("hello:bad".into());
    patch(&cluster, json!({"spec": {"progressDeadlineSeconds": 60}})).await;
    set_image(&cluster, "hello:bad").await;
    let stuck = |deployments: &[Deployment]| {
        let status = deployments[0].status.clone().unwrap_or_default();
        status.conditions.iter().flatten().any(|c| c.reason.as_deref() == Some("ProgressDeadlineExceeded"))
    };
    cluster.until(DEPLOYMENTS, stuck).await;
    let pods = cluster.until::<Pod>(PODS, |pods| pods.len() == 9).await;
    assert_eq!(pods.iter().filter(|pod| is_ready(pod)).count(), 7);
    patch(&cluster, json!({"spec": {"replicas": 17}})).await;
    // The old and the new set grow alike: 7 and 2 of 9 become 14 and 4 of 18.
    let pods = cluster.until::<Pod>(PODS, |pods| pods.iter().filter(|pod| is_ready(pod)).count() == 14).await;
    assert_eq!(pods.len(), 18);
    set_image(&cluster, "hello:1").await;
    rolled_out(&cluster, 17, "hello:1").await;
    patch(&cluster, json!({"spec": {"replicas": 0}})).await;
    rolled_out(&cluster, 0, "hello:1").await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_scales_but_rolls_nothing_out() {
    let (cluster, _kubelets) = start(&["a"]).await;
    cluster.create(DEPLOYMENTS, web(2)).await;
    rolled_out(&cluster, 2, "hello:1").await;
    patch(&cluster, json!({"spec": {"paused": true}})).await;
    set_image(&cluster, "hello:2").await;
    patch(&cluster, json!({"spec": {"replicas": 3}})).await;
    let ready = |pods: &[Pod]| pods.iter().filter(|pod| is_ready(pod)).count() == 3;
    cluster.until::<Pod>(PODS, ready).await;
    cluster.settle().await;
    let pods = cluster.until::<Pod>(PODS, ready).await;
    assert!(pods.iter().all(|pod| image(pod) == "hello:1"));
    patch(&cluster, json!({"spec": {"paused": false}})).await;
    rolled_out(&cluster, 3, "hello:2").await;
}

#[tokio::test(start_paused = true)]
async fn recreate_ends_all_old_pods_before_the_first_new_one() {
    let (cluster, kubelets) = start(&["a"]).await;
    let mut deployment = web(3);
    deployment["spec"]["strategy"] = json!({"type": "Recreate"});
    deployment["spec"]["revisionHistoryLimit"] = json!(1);
    cluster.create(DEPLOYMENTS, deployment).await;
    rolled_out(&cluster, 3, "hello:1").await;
    let extremes = observe(&kubelets);
    for version in ["hello:2", "hello:3", "hello:4"] {
        set_image(&cluster, version).await;
        rolled_out(&cluster, 3, version).await;
    }
    assert_eq!(extremes[0].load(Ordering::Relaxed), 0);
    assert_eq!(extremes[1].load(Ordering::Relaxed), 3);
    // The current set, and one of history.
    cluster.until::<ReplicaSet>(SETS, |sets| sets.len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_replaced_and_a_strayed_one_let_go() {
    let (cluster, _kubelets) = start(&["a"]).await;
    cluster.create(DEPLOYMENTS, web(3)).await;
    rolled_out(&cluster, 3, "hello:1").await;
    let pods = cluster.until::<Pod>(PODS, |pods| pods.len() == 3).await;
    let name = |at: usize| pods[at].metadata.name.clone().unwrap();
    Cluster::ok(cluster.send("DELETE", &format!("{PODS}/{}", name(0)), &Value::Null).await);
    let stray = json!({"metadata": {"labels": {"app": "other"}}});
    Cluster::ok(cluster.send("PATCH", &format!("{PODS}/{}", name(1)), &stray).await);
    let pods = cluster
        .until::<Pod>(PODS, |pods| {
            let strayed = pods.iter().filter(|pod| pod.metadata.owner_references.is_none()).count();
            pods.len() == 4 && strayed == 1 && pods.iter().all(is_ready)
        })
        .await;
    assert!(pods.iter().all(|pod| pod.metadata.name != Some(name(0))));
    // Back with its labels, it is one too many, and owned again before one of them goes.
    let back = json!({"metadata": {"labels": {"app": "web"}}});
    Cluster::ok(cluster.send("PATCH", &format!("{PODS}/{}", name(1)), &back).await);
    cluster
        .until::<Pod>(PODS, |pods| {
            pods.len() == 3 && pods.iter().all(|p| p.metadata.owner_references.is_some())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn refused_pods_show_everywhere_and_are_made_once_they_may_be() {
    let (cluster, _kubelets) = start(&["a"]).await;
    let mut deployment = web(2);
    deployment["spec"]["template"]["spec"]["serviceAccountName"] = json!("later");
    cluster.create(DEPLOYMENTS, deployment).await;
    let failing = |deployments: &[Deployment]| {
        let status = deployments[0].status.clone().unwrap_or_default();
        status.conditions.iter().flatten().any(|condition| {
            condition.type_ == "ReplicaFailure"
                && condition.reason.as_deref() == Some("FailedCreate")
                && condition.message.as_deref().is_some_and(|text| text.starts_with("pods \"web-"))
        })
    };
    cluster.until(DEPLOYMENTS, failing).await;
    told(&cluster, "FailedCreate", "Error creating: pods \"web-").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "later"}});
    cluster.create("/api/v1/namespaces/default/serviceaccounts", account).await;
    let deployment = rolled_out(&cluster, 2, "hello:1").await;
    assert!(!failing(&[deployment]));
}

#[tokio::test(start_paused = true)]
async fn what_is_as_it_should_be_is_left_alone() {
    let (cluster, _kubelets) = start(&["a"]).await;
    cluster.create(DEPLOYMENTS, web(2)).await;
    rolled_out(&cluster, 2, "hello:1").await;
    cluster.settle().await;
    let versions = async || {
        let mut versions = Vec::new();
        for path in [DEPLOYMENTS, SETS, PODS] {
            for object in cluster.until::<Value>(path, |_| true).await {
                versions.push(object["metadata"]["resourceVersion"].clone());
            }
        }
        versions
    };
    let before = versions().await;
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    assert_eq!(versions().await, before);
}
