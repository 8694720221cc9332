use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, Service};
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

fn pod(number: usize, ready: bool) -> Arc<Pod> {
    // In the order of the numbers, also as text.
    let ip = format!("10.244.{}.{}", number / 100 + 100, number % 100 + 100);
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{number:04}"), "namespace": "default", "uid": format!("u{number}")},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": if ready {"True"} else {"False"}}]},
        }))
        .unwrap(),
    )
}

fn pods(numbers: std::ops::Range<usize>) -> Vec<Arc<Pod>> {
    numbers.map(|number| pod(number, true)).collect()
}

fn node(name: &str) -> Option<Arc<Node>> {
    let labels = json!({"metadata": {"name": name, "labels": {ZONE: "z1"}}});
    (name == "n1").then(|| Arc::new(serde_json::from_value(labels).unwrap()))
}

/// Slices as they are once the plan was carried out, and how many were created, updated, deleted.
fn carried_out(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: &[Arc<EndpointSlice>],
) -> (Vec<Arc<EndpointSlice>>, [usize; 3]) {
    let plan = plan::plan(service, pods, node, existing);
    let mut slices = existing.to_vec();
    let mut counts = [0; 3];
    for write in plan.writes() {
        let read = |body: &Value| serde_json::from_value::<EndpointSlice>(body.clone()).unwrap();
        match &write.what {
            What::Create(body) => {
                counts[0] += 1;
                let mut slice = read(body);
                let taken: BTreeSet<_> =
                    slices.iter().filter_map(|slice| slice.metadata.name.clone()).collect();
                let name = (0..).map(|n| format!("web-{n}")).find(|name| !taken.contains(name)).unwrap();
                slice.metadata.uid = Some(name.clone());
                slice.metadata.name = Some(name);
                slices.push(Arc::new(slice));
            }
            What::Replace(body) => {
                counts[1] += 1;
                let slice = read(body);
                let place = slices.iter().position(|old| old.metadata.name == slice.metadata.name).unwrap();
                slices[place] = Arc::new(slice);
            }
            What::Delete { uid, .. } => {
                counts[2] += 1;
                slices.retain(|slice| slice.metadata.uid.as_ref() != Some(uid));
            }
            other => panic!("{other:?}"),
        }
    }
    (slices, counts)
}

fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect()
}

#[test]
fn an_endpoint_shows_its_pod() {
    let (slices, _) = carried_out(&service(json!({})), &[pod(0, true)], &[]);
    let slice = serde_json::to_value(&*slices[0]).unwrap();
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"team": "a", "kubernetes.io/service-name": "web", MANAGED_BY: CONTROLLER})
    );
    assert_eq!(slice["metadata"]["generateName"], "web-");
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "s1");
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        slice["endpoints"],
        json!([{
            "addresses": ["10.244.100.100"], "nodeName": "n1", "zone": "z1",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "p0000", "uid": "u0"},
        }])
    );
}

#[test]
fn conditions_follow_readiness_deletion_and_the_services_wish() {
    for (ready, deleted, publish, wanted) in [
        (true, false, false, [true, true, false]),
        (false, false, false, [false, false, false]),
        (true, true, false, [false, true, true]),
        (false, true, false, [false, false, true]),
        (false, false, true, [true, false, false]),
        (true, true, true, [true, true, true]),
    ] {
        let mut one = Pod::clone(&pod(0, ready));
        if deleted {
            one.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        }
        let service = service(json!({"publishNotReadyAddresses": publish}));
        let (slices, _) = carried_out(&service, &[Arc::new(one)], &[]);
        let conditions = slices[0].endpoints.as_ref().unwrap()[0].conditions.clone().unwrap();
        let got = [conditions.ready, conditions.serving, conditions.terminating].map(Option::unwrap);
        assert_eq!(got, wanted, "{ready} {deleted} {publish}");
    }
}

#[test]
fn a_flip_of_readiness_is_one_write_and_nothing_new_is_none() {
    let service = service(json!({}));
    let mut some = pods(0..250);
    let (slices, counts) = carried_out(&service, &some, &[]);
    assert_eq!((sizes(&slices), counts), (vec![100, 100, 50], [3, 0, 0]));
    assert_eq!(carried_out(&service, &some, &slices).1, [0, 0, 0]);
    some[120] = pod(120, false);
    let (slices, counts) = carried_out(&service, &some, &slices);
    assert_eq!((sizes(&slices), counts), (vec![100, 100, 50], [0, 1, 0]));
}

#[test]
fn changes_go_where_they_cost_least() {
    let service = service(json!({}));
    let full = carried_out(&service, &pods(0..250), &[]).0;
    for (name, pods, wanted, writes) in [
        ("some more fit into the last", pods(0..260), vec![100, 100, 60], [0, 1, 0]),
        ("too many more make a new one", pods(0..310), vec![100, 100, 50, 60], [1, 0, 0]),
        ("one replaced is one write", pods(1..251), vec![100, 100, 50], [0, 1, 0]),
        ("a whole slice less is a deletion", pods(100..250), vec![100, 50], [0, 0, 1]),
        ("other pods in old slices", pods(1000..1250), vec![50, 100, 100], [0, 3, 0]),
        ("none leaves an empty one", vec![], vec![0], [0, 1, 2]),
    ] {
        let (slices, counts) = carried_out(&service, &pods, &full);
        assert_eq!((sizes(&slices), counts), (wanted, writes), "{name}");
        assert_eq!(carried_out(&service, &pods, &slices).1, [0; 3], "{name}: then nothing is left to do");
    }
}

#[test]
fn ports_named_by_the_pods_part_the_slices() {
    let named = |number: usize, port: i32| {
        let mut pod = Pod::clone(&pod(number, true));
        let container = json!([{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]);
        pod.spec.as_mut().unwrap().containers = serde_json::from_value(container).unwrap();
        Arc::new(pod)
    };
    let service = service(json!({"ports": [{"port": 80, "targetPort": "web"}]}));
    let (slices, _) = carried_out(&service, &[named(0, 80), named(1, 81), named(2, 80), pod(3, true)], &[]);
    let shown: Vec<_> = slices
        .iter()
        .map(|slice| {
            let ports: Vec<_> = slice.ports.iter().flatten().map(|port| port.port.unwrap()).collect();
            (ports, slice.endpoints.as_ref().map_or(0, Vec::len))
        })
        .collect();
    assert_eq!(shown, [(vec![], 1), (vec![80], 2), (vec![81], 1)]);
}

#[test]
fn a_service_without_endpoints_has_one_empty_slice() {
    let service = service(json!({}));
    let (slices, counts) = carried_out(&service, &[], &[]);
    assert_eq!((sizes(&slices), counts), (vec![0], [1, 0, 0]));
    assert_eq!(carried_out(&service, &[], &slices).1, [0; 3]);
    let (slices, counts) = carried_out(&service, &pods(0..1), &slices);
    assert_eq!((sizes(&slices), counts), (vec![1], [0, 1, 0]));
}

#[test]
fn headless_services_show_names_and_their_label() {
    let mut one = Pod::clone(&pod(0, true));
    let spec = one.spec.as_mut().unwrap();
    (spec.hostname, spec.subdomain) = (Some("db-0".into()), Some("web".into()));
    let service = service(json!({"clusterIP": "None", "ports": null}));
    let (slices, _) = carried_out(&service, &[Arc::new(one)], &[]);
    assert_eq!(slices[0].endpoints.as_ref().unwrap()[0].hostname.as_deref(), Some("db-0"));
    assert_eq!(slices[0].metadata.labels.as_ref().unwrap()["service.kubernetes.io/headless"], "");
    assert_eq!(slices[0].ports, Some(vec![]));
}

#[test]
fn families_have_slices_of_their_own() {
    let mut one = Pod::clone(&pod(0, true));
    one.status.as_mut().unwrap().pod_ips =
        serde_json::from_value(json!([{"ip": "10.244.0.1"}, {"ip": "fd00:0::1"}])).unwrap();
    let one = [Arc::new(one)];
    let (slices, _) = carried_out(&service(json!({"ipFamilies": ["IPv4", "IPv6"]})), &one, &[]);
    let shown: Vec<_> = slices
        .iter()
        .map(|slice| (slice.address_type.as_str(), slice.endpoints.as_ref().unwrap()[0].addresses.clone()))
        .collect();
    assert_eq!(shown, [("IPv4", vec!["10.244.0.1".to_owned()]), ("IPv6", vec!["fd00::1".to_owned()])]);
    let (slices, counts) = carried_out(&service(json!({})), &one, &slices);
    assert_eq!((slices.len(), counts), (1, [0, 0, 1]));
}

#[test]
fn pods_on_unknown_nodes_are_left_out_unless_all_addresses_are_published() {
    let mut one = Pod::clone(&pod(0, true));
    one.spec.as_mut().unwrap().node_name = Some("gone".into());
    let one = [Arc::new(one)];
    assert_eq!(sizes(&carried_out(&service(json!({})), &one, &[]).0), [0]);
    assert_eq!(sizes(&carried_out(&service(json!({"publishNotReadyAddresses": true})), &one, &[]).0), [1]);
}

#[test]
fn slices_of_an_earlier_service_of_the_name_are_deleted_and_not_reused() {
    let service = service(json!({}));
    let (slices, _) = carried_out(&service, &pods(0..1), &[]);
    let mut later = service.clone();
    later.metadata.uid = Some("s2".into());
    assert_eq!(carried_out(&later, &pods(0..1), &slices).1, [1, 0, 1]);
}

#[test]
fn hints_follow_the_traffic_distribution() {
    for (distribution, wanted) in [
        (json!(null), json!(null)),
        (json!("PreferClose"), json!({"forZones": [{"name": "z1"}]})),
        (json!("PreferSameZone"), json!({"forZones": [{"name": "z1"}]})),
        (json!("PreferSameNode"), json!({"forNodes": [{"name": "n1"}], "forZones": [{"name": "z1"}]})),
    ] {
        let service = service(json!({"trafficDistribution": distribution}));
        let (slices, _) = carried_out(&service, &[pod(0, true)], &[]);
        let slice = serde_json::to_value(&*slices[0]).unwrap();
        assert_eq!(slice["endpoints"][0]["hints"], wanted, "{distribution}");
    }
}
