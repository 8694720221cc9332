//! Quotas: what objects use is charged with them.

use crate::common::{Api, api};
use futures::future::join_all;
use serde_json::{Value, json};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// A server with a quota that the controller has seen.
async fn with_quota(hard: Value, used: Value) -> Api {
    let api = api().await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}});
    let mut quota = api.post(QUOTAS, &quota).await.ok();
    quota["status"] = json!({"hard": hard, "used": used});
    api.put(&format!("{QUOTAS}/q/status"), &quota).await.ok();
    api
}

async fn used(api: &Api) -> Value {
    api.get(&format!("{QUOTAS}/q")).await.ok()["status"]["used"].clone()
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

#[tokio::test(start_paused = true)]
async fn what_an_object_uses_is_charged_when_it_is_made() {
    let hard = json!({"count/configmaps": "2", "configmaps": "5"});
    let api = with_quota(hard, json!({"count/configmaps": "0", "configmaps": "1"})).await;
    api.post(MAPS, &map("a")).await.ok();
    assert_eq!(used(&api).await, json!({"count/configmaps": "1", "configmaps": "2"}));
    // Nothing is charged for what is not stored.
    assert_eq!(api.post(MAPS, &map("a")).await.reason(), "AlreadyExists");
    api.post(&format!("{MAPS}?dryRun=All"), &map("b")).await.ok();
    assert_eq!(used(&api).await["count/configmaps"], "1");
    api.post(MAPS, &map("b")).await.ok();
    for target in [MAPS.to_owned(), format!("{MAPS}?dryRun=All")] {
        api.post(&target, &map("c")).await.refused(
            403,
            "Forbidden",
            "configmaps \"c\" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: \
             count/configmaps=2, limited: count/configmaps=2",
        );
    }
    assert_eq!(used(&api).await, json!({"count/configmaps": "2", "configmaps": "3"}));
    // Other namespaces have quotas of their own.
    api.post("/api/v1/namespaces/kube-public/configmaps", &map("c")).await.ok();
}

#[tokio::test(start_paused = true)]
async fn no_number_of_writers_exceeds_a_quota() {
    let api = with_quota(json!({"count/configmaps": "7"}), json!({"count/configmaps": "0"})).await;
    let maps: Vec<Value> = (0..20).map(|number| map(&format!("m{number}"))).collect();
    let answers = join_all(maps.iter().map(|map| api.post(MAPS, map))).await;
    let made = answers.iter().filter(|answer| answer.code == 201).count();
    assert_eq!(made, 7);
    assert!(
        answers.iter().all(|answer| answer.code == 201 || answer.message().contains("exceeded quota: q"))
    );
    assert_eq!(used(&api).await, json!({"count/configmaps": "7"}));
}

#[tokio::test(start_paused = true)]
async fn an_update_is_charged_the_difference() {
    let names = json!({"services": "9", "services.nodeports": "3"});
    let api = with_quota(names, json!({"services": "0", "services.nodeports": "0"})).await;
    let ports = |count: u16| -> Vec<Value> {
        (1..=count).map(|port| json!({"name": format!("p{port}"), "port": port})).collect()
    };
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": ports(1)},
    });
    let mut service = api.post(SERVICES, &service).await.ok();
    assert_eq!(used(&api).await, json!({"services": "1", "services.nodeports": "1"}));
    let target = format!("{SERVICES}/s");
    service["spec"]["ports"] = json!(ports(3));
    let mut service = api.put(&target, &service).await.ok();
    assert_eq!(used(&api).await, json!({"services": "1", "services.nodeports": "3"}));
    service["spec"]["ports"] = json!(ports(4));
    api.put(&target, &service).await.refused(
        403,
        "Forbidden",
        "services \"s\" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=3, \
         limited: services.nodeports=3",
    );
    // What is given back is counted by the controller.
    service["spec"]["ports"] = json!(ports(1));
    api.put(&target, &service).await.ok();
    assert_eq!(used(&api).await, json!({"services": "1", "services.nodeports": "3"}));
}

#[tokio::test(start_paused = true)]
async fn pods_say_what_they_use_where_it_is_limited() {
    let api = with_quota(json!({"pods": "5", "requests.cpu": "1"}), json!({"pods": "0"})).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    api.post(accounts, &account).await;
    let pod = |resources: Value| {
        let containers = json!([{"name": "c", "image": "i", "resources": resources}]);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}})
    };
    let pods = "/api/v1/namespaces/default/pods";
    api.post(pods, &pod(json!({}))).await.refused(
        403,
        "Forbidden",
        "pods \"p\" is forbidden: failed quota: q: must specify requests.cpu for: c",
    );
    let half = pod(json!({"requests": {"cpu": "600m"}}));
    api.post(pods, &half).await.refused(
        403,
        "Forbidden",
        "pods \"p\" is forbidden: status unknown for quota: q, resources: pods,requests.cpu",
    );
    let mut quota = api.get(&format!("{QUOTAS}/q")).await.ok();
    quota["status"]["used"] = json!({"pods": "0", "requests.cpu": "500m"});
    api.put(&format!("{QUOTAS}/q/status"), &quota).await.ok();
    api.post(pods, &half).await.refused(
        403,
        "Forbidden",
        "pods \"p\" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=500m, limited: \
         requests.cpu=1",
    );
    api.post(pods, &pod(json!({"requests": {"cpu": "500m"}}))).await.ok();
    assert_eq!(used(&api).await, json!({"pods": "1", "requests.cpu": "1"}));
}
