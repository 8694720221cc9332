//! Prints the figures of the README: how fast a cluster and its pods start, and what an idle cluster costs.
//! Run it as root on a quiet machine, with the binary in the same profile beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::cluster::{Cluster, eventually, of_app, skiff};
use e2e::machine;
use e2e::usage::Usage;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

/// How long the idle cluster is looked at.
const IDLE: Duration = Duration::from_secs(30);

fn main() {
    machine::isolate().expect("a network namespace: this needs root");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let size = std::fs::metadata(skiff()).map(|file| file.len()).unwrap_or_default();
    println!("binary: {:.1} MB", size as f64 / 1e6);
    let started = Instant::now();
    let cluster = Cluster::up(&[]);
    let client = cluster.client().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    let cache = cluster.cache::<Pod>().await;
    create(&pods, "first", 1).await;
    eventually("the first pod", &cache, |pods| running(pods, "first", 1)).await;
    println!(
        "`skiff up` on an empty directory to the first pod Running: {:.2} s",
        started.elapsed().as_secs_f64()
    );
    for round in 0..5 {
        let name = format!("alone-{round}");
        let started = Instant::now();
        create(&pods, &name, 1).await;
        eventually("one pod", &cache, |pods| running(pods, &name, 1)).await;
        println!("one pod, create to Running: {} ms", started.elapsed().as_millis());
    }
    let started = Instant::now();
    create(&pods, "many", 30).await;
    eventually("30 pods", &cache, |pods| running(pods, "many", 30)).await;
    println!("30 pods created at once, all Running: {:.2} s", started.elapsed().as_secs_f64());
    pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default())
        .await
        .expect("the pods are deleted");
    eventually("no pods", &cache, |pods| pods.is_empty().then_some(())).await;
    base::Clock::system().wait(IDLE / 2).await;
    let before = Usage::of(cluster.process());
    base::Clock::system().wait(IDLE).await;
    let after = Usage::of(cluster.process());
    let share = (after.processor - before.processor).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    println!("idle: {share:.2} % of a core, {:.1} MiB resident", after.resident as f64 / (1 << 20) as f64);
}

async fn create(pods: &Api<Pod>, name: &str, count: usize) {
    let one = |index: usize| {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("{name}-{index}"), "labels": {"app": name}},
            "spec": {"containers": [{"name": "hello", "image": "skiff.local/hello:1"}]},
        });
        async move {
            let pod = serde_json::from_value(pod).expect("a pod");
            pods.create(&PostParams::default(), &pod).await.expect("the pod is created");
        }
    };
    futures::future::join_all((0..count).map(one)).await;
}

fn running(pods: &[Arc<Pod>], app: &str, count: usize) -> Option<()> {
    let phase =
        |pod: &&Arc<Pod>| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    (of_app(pods, app).filter(phase).count() == count).then_some(())
}
