use serde_json::{Value, json};

use super::*;
use crate::endpoint_slice::SERVICE;
use crate::harness::What;

fn endpoints(subsets: Value) -> Endpoints {
    serde_json::from_value(json!({
        "metadata": {"name": "db", "namespace": "default", "uid": "e1", "labels": {"team": "a"},
                     "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "n"}},
        "subsets": subsets,
    }))
    .unwrap()
}

fn two_families() -> Endpoints {
    endpoints(json!([
        {"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}],
         "ports": [{"name": "sql", "port": 5432}]},
    ]))
}

/// The slices as the API would have them.
fn stored(slices: Vec<EndpointSlice>) -> Vec<Arc<EndpointSlice>> {
    let named = slices.into_iter().enumerate().map(|(number, mut slice)| {
        slice.metadata.name = Some(format!("db-{number}"));
        slice.metadata.resource_version = Some("1".into());
        Arc::new(slice)
    });
    named.collect()
}

fn kinds(plan: &Plan) -> Vec<&'static str> {
    let kind = |write: &Write| match write.what {
        What::Create(_) => "create",
        What::Replace(_) => "replace",
        What::Delete { .. } => "delete",
        _ => "another",
    };
    plan.writes().map(kind).collect()
}

#[test]
fn each_address_family_and_set_of_ports_has_a_slice() {
    let (slices, skipped) = desired::slices(&two_families());
    assert_eq!(skipped, desired::Skipped::default());
    let shown: Vec<_> = slices
        .iter()
        .map(|slice| {
            let endpoints = slice.endpoints.iter().flatten();
            let ready = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
                (endpoint.addresses[0].clone(), endpoint.conditions.as_ref().unwrap().ready.unwrap())
            };
            (slice.address_type.as_str(), endpoints.map(ready).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("IPv4", vec![("192.0.2.1".to_owned(), true), ("192.0.2.2".to_owned(), false)]),
            ("IPv6", vec![("2001:db8::1".to_owned(), true)]),
        ]
    );
    let metadata = &slices[0].metadata;
    assert_eq!(metadata.generate_name.as_deref(), Some("db-"));
    assert_eq!(metadata.labels.as_ref().unwrap()[SERVICE], "db");
    assert_eq!(metadata.labels.as_ref().unwrap()["team"], "a");
    assert_eq!(metadata.annotations.as_ref().unwrap().keys().collect::<Vec<_>>(), ["note"]);
    assert_eq!(metadata.owner_references.as_ref().unwrap()[0].kind, "Endpoints");
}

#[test]
fn what_is_shown_already_is_not_written() {
    let (slices, _) = desired::slices(&two_families());
    assert!(plan(&two_families(), &stored(slices)).is_empty());
}

#[test]
fn a_change_is_one_write_and_what_is_left_over_is_deleted() {
    let (slices, _) = desired::slices(&two_families());
    let existing = stored(slices);
    let after =
        endpoints(json!([{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"name": "sql", "port": 5432}]}]));
    assert_eq!(kinds(&plan(&after, &existing)), ["replace", "delete"]);
    assert_eq!(kinds(&plan(&endpoints(json!([])), &existing)), ["delete", "delete"]);
    assert_eq!(kinds(&nothing_left(&existing)), ["delete", "delete"]);
}

#[test]
fn too_many_and_unreadable_addresses_are_skipped() {
    let many: Vec<Value> =
        (0..1001).map(|number| json!({"ip": format!("10.0.{}.{}", number / 250, number % 250)})).collect();
    let (slices, skipped) = desired::slices(&endpoints(json!([{"addresses": many, "ports": [{"port": 1}]}])));
    assert_eq!(slices[0].endpoints.as_ref().unwrap().len(), 1000);
    assert_eq!(skipped, desired::Skipped { invalid: 0, too_many: 1 });
    let (slices, skipped) = desired::slices(&endpoints(json!([{"addresses": [{"ip": "nowhere"}]}])));
    assert!(slices.is_empty());
    assert_eq!(skipped, desired::Skipped { invalid: 1, too_many: 0 });
}

#[test]
fn what_says_so_is_not_mirrored() {
    let with = |part: &str, key: &str, value: &str| {
        let mut endpoints = endpoints(json!([]));
        let map = match part {
            "labels" => &mut endpoints.metadata.labels,
            _ => &mut endpoints.metadata.annotations,
        };
        map.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        is_mirrored(&endpoints)
    };
    assert!(with("labels", "a", "b"));
    assert!(!with("labels", SKIP, "true"));
    assert!(with("labels", SKIP, "false"));
    assert!(!with("annotations", LEADER, "{}"));
}
