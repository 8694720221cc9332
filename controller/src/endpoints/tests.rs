use serde_json::{Value, json};

use super::*;
use crate::harness::What;

fn service(spec: Value) -> Service {
    let mut service = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "s1", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"],
                 "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]},
    });
    for (field, value) in spec.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    serde_json::from_value(service).unwrap()
}

fn pod(number: usize, ready: bool, ports: Value) -> Arc<Pod> {
    let ip = format!("10.244.{}.{}", number / 250, number % 250 + 1);
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{number}"), "namespace": "default", "uid": format!("u{number}")},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": ports}]},
            "status": {"podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": if ready {"True"} else {"False"}}]},
        }))
        .unwrap(),
    )
}

/// Ready addresses, other addresses and ports of each subset, in short.
fn short(subsets: &Value) -> Vec<String> {
    let list = |subset: &Value, field: &str, part: &str| {
        let items = subset[field].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item[part].to_string().replace('"', "")).collect::<Vec<_>>().join(",")
    };
    let subsets = subsets.as_array().cloned().unwrap_or_default();
    let one = |subset: &Value| {
        format!(
            "{} | {} : {}",
            list(subset, "addresses", "ip"),
            list(subset, "notReadyAddresses", "ip"),
            list(subset, "ports", "port")
        )
    };
    subsets.iter().map(one).collect()
}

fn written(service: &Service, pods: &[Arc<Pod>], current: Option<&Endpoints>) -> Option<Value> {
    let plan = plan(service, pods, current);
    plan.writes().next().map(|write| match &write.what {
        What::Create(body) | What::Replace(body) => body.clone(),
        other => panic!("{other:?}"),
    })
}

#[test]
fn ports_that_the_same_addresses_serve_stand_together() {
    let http = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let two =
        json!([{"name": "a", "port": 1, "targetPort": "a"}, {"name": "b", "port": 2, "targetPort": "b"}]);
    let both = json!([{"name": "a", "containerPort": 11}, {"name": "b", "containerPort": 12}]);
    let only_a = json!([{"name": "a", "containerPort": 11}]);
    let other_a = json!([{"name": "a", "containerPort": 21}]);
    for (name, spec, pods, wanted) in [
        ("none", json!({}), vec![], vec![]),
        (
            "two ready",
            json!({"ports": http}),
            vec![pod(0, true, json!([])), pod(1, true, json!([]))],
            vec!["10.244.0.1,10.244.0.2 |  : 8080"],
        ),
        (
            "by number, not by text",
            json!({"ports": http}),
            vec![pod(10, true, json!([])), pod(1, true, json!([]))],
            vec!["10.244.0.2,10.244.0.11 |  : 8080"],
        ),
        (
            "one waits",
            json!({"ports": http}),
            vec![pod(0, true, json!([])), pod(1, false, json!([]))],
            vec!["10.244.0.1 | 10.244.0.2 : 8080"],
        ),
        (
            "published",
            json!({"ports": http, "publishNotReadyAddresses": true}),
            vec![pod(1, false, json!([]))],
            vec!["10.244.0.2 |  : 8080"],
        ),
        (
            "both ports on both",
            json!({"ports": two}),
            vec![pod(0, true, both.clone()), pod(1, true, both.clone())],
            vec!["10.244.0.1,10.244.0.2 |  : 11,12"],
        ),
        (
            "one lacks a port",
            json!({"ports": two}),
            vec![pod(0, true, both.clone()), pod(1, true, only_a)],
            vec!["10.244.0.1,10.244.0.2 |  : 11", "10.244.0.1 |  : 12"],
        ),
        (
            "other numbers",
            json!({"ports": two}),
            vec![pod(0, true, both), pod(1, true, other_a)],
            vec!["10.244.0.1 |  : 11,12", "10.244.0.2 |  : 21"],
        ),
        (
            "headless without ports",
            json!({"ports": null, "clusterIP": "None"}),
            vec![pod(0, true, json!([]))],
            vec!["10.244.0.1 |  : "],
        ),
    ] {
        let service = service(spec);
        let body = written(&service, &pods, None).unwrap();
        assert_eq!(short(&body["subsets"]), wanted, "{name}");
        let stored: Endpoints = serde_json::from_value(body).unwrap();
        assert!(written(&service, &pods, Some(&stored)).is_none(), "{name}: written again");
    }
}

#[test]
fn labels_follow_the_service() {
    let body = written(&service(json!({})), &[], None).unwrap();
    assert_eq!(body["metadata"]["labels"], json!({"team": "a"}));
    let body = written(&service(json!({"clusterIP": "None"})), &[], None).unwrap();
    assert_eq!(body["metadata"]["labels"], json!({"team": "a", "service.kubernetes.io/headless": ""}));
    let stored: Endpoints = serde_json::from_value(body).unwrap();
    let body = written(&service(json!({})), &[], Some(&stored)).unwrap();
    assert_eq!(body["metadata"]["labels"], json!({"team": "a"}));
}

#[test]
fn at_most_a_thousand_are_shown_the_ready_ones_first() {
    for (ready, waiting, wanted) in
        [(1000, 0, (1000, 0, false)), (900, 300, (900, 100, true)), (1200, 300, (1000, 0, true))]
    {
        let pods: Vec<_> = (0..ready + waiting).map(|n| pod(n, n < ready, json!([]))).collect();
        let service = service(json!({}));
        let body = written(&service, &pods, None).unwrap();
        let stored: Endpoints = serde_json::from_value(body).unwrap();
        let subsets = stored.subsets.as_ref().unwrap();
        let count = |list: fn(&k8s_openapi::api::core::v1::EndpointSubset) -> usize| {
            subsets.iter().map(list).sum::<usize>()
        };
        let marked = stored.metadata.annotations.as_ref().is_some_and(|all| all.get(OVER_CAPACITY).is_some());
        let shown = count(|subset| subset.addresses.as_ref().map_or(0, Vec::len));
        let not_ready = count(|subset| subset.not_ready_addresses.as_ref().map_or(0, Vec::len));
        assert_eq!((shown, not_ready, marked), wanted);
        assert!(written(&service, &pods, Some(&stored)).is_none());
    }
}

#[test]
fn what_a_deleted_service_leaves_goes_unless_it_elects_a_leader() {
    let mut endpoints = Endpoints::default();
    assert_eq!(leftover(&endpoints).writes().count(), 1);
    endpoints.metadata.annotations = Some([(LEADER.to_owned(), String::new())].into());
    assert!(leftover(&endpoints).is_empty());
}
