//! Stateful sets as users send them, and what is refused of them.

use super::*;
use crate::field::aggregate;

/// A set in order, with the fields of `spec` instead of its own.
fn stateful_set(spec: Value) -> StatefulSet {
    let mut whole = json!({
        "serviceName": "svc", "selector": {"matchLabels": {"app": "a"}},
        "template": {
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [
                {"name": "c", "image": "i", "volumeMounts": [{"name": "d", "mountPath": "/d"}]}
            ]}
        },
        "volumeClaimTemplates": [{
            "metadata": {"name": "d"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        }]
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        whole[field] = value.clone();
    }
    let set = json!({"metadata": {"name": "ss"}, "spec": whole});
    let mut set: StatefulSet = serde_json::from_value(set).unwrap_or_default();
    set.set_defaults();
    set
}

#[test]
fn claims_are_volumes_of_the_pods() {
    assert_eq!(aggregate(&Kind::validate(&stateful_set(json!({})))), "");
    assert_eq!(
        aggregate(&Kind::validate(&stateful_set(json!({"volumeClaimTemplates": []})))),
        "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"d\""
    );
}

#[test]
fn what_makes_no_sense_is_refused_in_upstreams_words() {
    for (spec, text) in [
        (
            json!({"podManagementPolicy": "x"}),
            "spec.podManagementPolicy: Invalid value: \"x\": must be 'OrderedReady' or 'Parallel'",
        ),
        (
            json!({"updateStrategy": {"type": "x"}}),
            "spec.updateStrategy: Invalid value: {\"Type\":\"x\",\"RollingUpdate\":null}: must be 'RollingUpdate' or \
                 'OnDelete'",
        ),
        (
            json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}),
            "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":1,\"MaxUnavailable\":null}: only \
                 allowed for updateStrategy 'RollingUpdate'",
        ),
        (
            json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
        ),
        (
            json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "x"}}),
            "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: \"x\": supported values: \
                 \"Retain\", \"Delete\"",
        ),
        (
            json!({"ordinals": {"start": -1}}),
            "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
        ),
    ] {
        assert_eq!(aggregate(&Kind::validate(&stateful_set(spec))), text);
    }
}

#[test]
fn an_update_may_change_some_fields_only() {
    let old = stateful_set(json!({"serviceName": "Not Valid!"}));
    for (spec, forbidden) in [
        (json!({"replicas": 3, "ordinals": {"start": 2}, "minReadySeconds": 1}), false),
        (json!({"revisionHistoryLimit": 1, "updateStrategy": {"type": "OnDelete"}}), false),
        (json!({"podManagementPolicy": "Parallel"}), true),
        (json!({"volumeClaimTemplates": []}), true),
    ] {
        let mut spec = spec;
        spec["serviceName"] = "Not Valid!".into();
        let errors = stateful_set(spec.clone()).validate_update(&old);
        assert_eq!(errors.iter().any(|error| error.field == Path::new("spec")), forbidden, "{spec}");
    }
}
