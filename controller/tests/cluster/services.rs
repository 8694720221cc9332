//! What services lead to.

use crate::common::{Cluster, cluster};
use k8s_openapi::api::core::v1::{Endpoints, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

const NAMESPACE: &str = "/api/v1/namespaces/default";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

async fn with_node() -> Cluster {
    let cluster = cluster().await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}}});
    cluster.create("/api/v1/nodes", node).await;
    let accounts = format!("{NAMESPACE}/serviceaccounts");
    cluster.until::<ServiceAccount>(&accounts, |accounts| !accounts.is_empty()).await;
    cluster
}

async fn pod(cluster: &Cluster, name: &str, ip: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]},
    });
    cluster.create(&format!("{NAMESPACE}/pods"), pod).await;
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
    Cluster::ok(cluster.send("PATCH", &format!("{NAMESPACE}/pods/{name}/status"), &status).await);
    ready(cluster, name, true).await;
}

async fn ready(cluster: &Cluster, name: &str, ready: bool) {
    let status = if ready { "True" } else { "False" };
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": cluster.clock.now().strftime("%FT%TZ").to_string()}]}});
    Cluster::ok(cluster.send("PATCH", &format!("{NAMESPACE}/pods/{name}/status"), &status).await);
}

async fn service(cluster: &Cluster) -> Value {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    });
    cluster.create(&format!("{NAMESPACE}/services"), service).await
}

/// Address and readiness of all endpoints, of one slice.
fn shown(slices: &[EndpointSlice]) -> Vec<(String, bool)> {
    let ours = slices.iter().filter(|slice| slice.metadata.name.as_ref().unwrap().starts_with("web-"));
    let endpoints = ours.flat_map(|slice| slice.endpoints.iter().flatten());
    let mut shown: Vec<_> = endpoints
        .map(|endpoint| {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
            (endpoint.addresses[0].clone(), ready.unwrap_or_default())
        })
        .collect();
    shown.sort();
    shown
}

#[tokio::test(start_paused = true)]
async fn slices_and_endpoints_follow_pods() {
    let cluster = with_node().await;
    service(&cluster).await;
    cluster
        .until::<EndpointSlice>(SLICES, |slices| {
            slices.iter().any(|slice| slice.metadata.generate_name.is_some())
        })
        .await;
    pod(&cluster, "a", "10.244.0.2").await;
    pod(&cluster, "b", "10.244.0.3").await;
    let both = [("10.244.0.2".to_owned(), true), ("10.244.0.3".to_owned(), true)];
    let slices = cluster.until::<EndpointSlice>(SLICES, |slices| shown(slices) == both).await;
    let slice = slices.iter().find(|slice| slice.metadata.generate_name.is_some()).unwrap();
    assert_eq!(slice.endpoints.as_ref().unwrap()[0].zone.as_deref(), Some("z1"));
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
    assert!(
        slice
            .metadata
            .annotations
            .as_ref()
            .unwrap()
            .contains_key("endpoints.kubernetes.io/last-change-trigger-time")
    );

    cluster.settle().await;
    ready(&cluster, "a", false).await;
    let waits = [("10.244.0.2".to_owned(), false), ("10.244.0.3".to_owned(), true)];
    let after = cluster.until::<EndpointSlice>(SLICES, |slices| shown(slices) == waits).await;
    cluster.settle().await;
    let settled = cluster.until::<EndpointSlice>(SLICES, |_| true).await;
    assert_eq!(after, settled, "one write");
    let endpoints = format!("{NAMESPACE}/endpoints?fieldSelector=metadata.name%3Dweb");
    cluster
        .until::<Endpoints>(&endpoints, |found| {
            let subset = found.first().and_then(|found| found.subsets.as_ref()?.first());
            subset.is_some_and(|subset| {
                let ip = |list: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
                    list.as_ref().map(|list| list[0].ip.clone())
                };
                (ip(&subset.addresses), ip(&subset.not_ready_addresses))
                    == (Some("10.244.0.3".into()), Some("10.244.0.2".into()))
            })
        })
        .await;

    Cluster::ok(
        cluster.send("DELETE", &format!("{NAMESPACE}/pods/b?gracePeriodSeconds=0"), &Value::Null).await,
    );
    cluster.until::<EndpointSlice>(SLICES, |slices| shown(slices) == waits[..1]).await;
    Cluster::ok(cluster.send("DELETE", &format!("{NAMESPACE}/services/web"), &Value::Null).await);
    cluster.until::<Endpoints>(&endpoints, |found| found.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_services_without_a_selector_are_left_alone_and_mirrored() {
    let cluster = with_node().await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "own"}, "spec": {"ports": [{"port": 80}]}});
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "own"},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}],
    });
    cluster.create(&format!("{NAMESPACE}/endpoints"), endpoints).await;
    cluster.settle().await;
    cluster.create(&format!("{NAMESPACE}/services"), service).await;
    cluster.settle().await;
    let path = format!("{NAMESPACE}/endpoints?fieldSelector=metadata.name%3Down");
    let found = cluster.until::<Endpoints>(&path, |_| true).await;
    assert_eq!(found[0].subsets.as_ref().unwrap()[0].addresses.as_ref().unwrap()[0].ip, "192.0.2.1");
    let mirrored = |slices: &[EndpointSlice]| {
        let endpoints = |slice: &EndpointSlice| slice.endpoints.as_ref().map_or(0, Vec::len);
        let of = slices.iter().filter(|slice| slice.metadata.generate_name.as_deref() == Some("own-"));
        of.map(endpoints).sum::<usize>()
    };
    cluster.until::<EndpointSlice>(SLICES, |slices| mirrored(slices) == 1).await;
    let more = json!({"subsets": [{"addresses": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}], "ports": [{"port": 80}]}]});
    Cluster::ok(cluster.send("PATCH", &format!("{NAMESPACE}/endpoints/own"), &more).await);
    cluster.until::<EndpointSlice>(SLICES, |slices| mirrored(slices) == 2).await;
    Cluster::ok(cluster.send("DELETE", &format!("{NAMESPACE}/services/own"), &Value::Null).await);
    cluster.until::<Endpoints>(&path, |found| found.is_empty()).await;
    cluster.until::<EndpointSlice>(SLICES, |slices| mirrored(slices) == 0).await;
}
