use api::resource::Table;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::*;
use crate::harness::What;

fn namespace(conditions: Value) -> Namespace {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Terminating", "conditions": conditions},
    }))
    .unwrap()
}

/// `count` objects of a kind, some of which stay, all with a finalizer if one is given.
fn content(plural: &str, count: usize, staying: usize, finalizer: Option<&str>) -> Content {
    let table = Table::builtin();
    let row = table.find(plural)[0].clone();
    let objects: Vec<ObjectMeta> = (0..count)
        .map(|number| {
            let deleted = (number >= staying).then_some("2026-01-01T00:00:00Z");
            let finalizers: Vec<&str> = finalizer.into_iter().collect();
            let object = json!({"namespace": "web", "deletionTimestamp": deleted, "finalizers": finalizers});
            serde_json::from_value(object).unwrap()
        })
        .collect();
    Content::of(&row, objects.iter())
}

/// The writes in short, and the namespace that the last one writes.
fn step(namespace: &Namespace, contents: &[Content]) -> (Vec<String>, Option<Namespace>) {
    let plan = plan(namespace, contents, "2026-01-01T00:01:00Z".parse().unwrap());
    let mut written = None;
    let short = plan
        .writes()
        .map(|write| match &write.what {
            What::DeleteCollection => format!("empty {}", write.resource),
            What::ReplaceStatus(body) => {
                written = Some(serde_json::from_value(body.clone()).unwrap());
                "status".to_owned()
            }
            What::ReplaceSubresource(name, body) => {
                assert_eq!(body["spec"]["finalizers"], json!([]));
                format!("{name} {}", body["metadata"]["name"])
            }
            other => panic!("{other:?}"),
        })
        .collect();
    (short, written)
}

#[test]
fn pods_go_first_then_the_rest_then_the_namespace() {
    for (name, contents, wanted) in [
        ("nothing left", vec![], vec!["finalize \"web\""]),
        (
            "pods and others",
            vec![content("secrets", 2, 2, None), content("pods", 3, 3, None)],
            vec!["empty pods"],
        ),
        ("some pods go", vec![content("pods", 3, 1, None)], vec!["empty pods"]),
        (
            "pods go, others wait",
            vec![content("secrets", 2, 2, None), content("pods", 3, 0, None)],
            vec!["status"],
        ),
        (
            "only others",
            vec![content("secrets", 2, 2, None), content("deployments", 1, 1, None)],
            vec!["empty secrets", "empty deployments"],
        ),
        ("all go", vec![content("secrets", 2, 0, Some("a/b"))], vec!["status"]),
    ] {
        assert_eq!(step(&namespace(json!(null)), &contents).0, wanted, "{name}");
    }
}

#[test]
fn conditions_tell_what_is_left_in_upstreams_words_and_are_written_once() {
    let contents = [content("secrets", 2, 0, Some("a/b")), content("deployments", 1, 0, Some("a/b"))];
    let (_, told) = step(&namespace(json!(null)), &contents);
    let told = told.unwrap();
    let shown: Vec<_> = told
        .status
        .as_ref()
        .unwrap()
        .conditions
        .as_ref()
        .unwrap()
        .iter()
        .map(|condition| {
            format!(
                "{} {} {} {}",
                condition.type_,
                condition.status,
                condition.reason.as_ref().unwrap(),
                condition.message.as_ref().unwrap()
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "NamespaceDeletionDiscoveryFailure False ResourcesDiscovered All resources successfully discovered",
            "NamespaceDeletionGroupVersionParsingFailure False ParsedGroupVersions All legacy kube types successfully parsed",
            "NamespaceDeletionContentFailure False ContentDeleted All content successfully deleted, may be waiting on finalization",
            "NamespaceContentRemaining True SomeResourcesRemain Some resources are remaining: deployments.apps has 1 resource instances, secrets. has 2 resource instances",
            "NamespaceFinalizersRemaining True SomeFinalizerRemain Some finalizers are remaining: a/b in 3 resource instances",
        ]
    );
    assert!(step(&told, &contents).0.is_empty(), "nothing new to tell");
    let (writes, removed) = step(&told, &[]);
    assert_eq!(writes, ["status"]);
    let removed = removed.unwrap();
    let last = removed.status.as_ref().unwrap().conditions.as_ref().unwrap()[4].clone();
    assert_eq!(
        (last.status.as_str(), last.message.as_deref()),
        ("False", Some("All content successfully removed"))
    );
    assert_eq!(step(&removed, &[]).0, ["finalize \"web\""]);
}

#[test]
fn a_namespace_that_stays_or_was_finalized_is_left_alone() {
    assert!(is_terminating(&namespace(json!(null))));
    let mut finalized = namespace(json!(null));
    finalized.spec = None;
    let mut staying = namespace(json!(null));
    staying.metadata.deletion_timestamp = None;
    assert!(!is_terminating(&finalized) && !is_terminating(&staying));
}
