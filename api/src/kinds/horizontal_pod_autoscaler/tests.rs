//! Autoscalers in both versions, and what is refused of them.

use k8s_openapi::api::autoscaling::v1;
use serde_json::json;

use super::{
    conversion::{BEHAVIOR, CONDITIONS, CURRENT_METRICS, HPA, METRICS},
    *,
};
use crate::{field::aggregate, object::Object};

/// An autoscaler with these fields in its spec, as a user sends it.
fn given(spec: &Value) -> HorizontalPodAutoscaler {
    let mut whole = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d1"}, "maxReplicas": 9
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        whole[field] = value.clone();
    }
    let it = json!({"metadata": {"name": "h1"}, "spec": whole});
    let mut it: HorizontalPodAutoscaler = serde_json::from_value(it).unwrap_or_default();
    it.set_defaults();
    it
}

/// An autoscaler of autoscaling/v1.
fn first(it: Value) -> v1::HorizontalPodAutoscaler {
    let mut it: v1::HorizontalPodAutoscaler = serde_json::from_value(it).unwrap_or_default();
    it.set_defaults();
    it
}

#[test]
fn what_is_left_out_is_filled_in() {
    let spec = given(&json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}})).spec;
    assert_eq!(
        json!(spec),
        json!({
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d1"},
            "minReplicas": 1,
            "maxReplicas": 9,
            "metrics": [{
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
            }],
            "behavior": {
                "scaleUp": {
                    "stabilizationWindowSeconds": 0,
                    "selectPolicy": "Max",
                    "policies": [
                        {"type": "Pods", "value": 4, "periodSeconds": 15},
                        {"type": "Percent", "value": 100, "periodSeconds": 15}
                    ]
                },
                "scaleDown": {
                    "stabilizationWindowSeconds": 60,
                    "selectPolicy": "Max",
                    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]
                }
            }
        })
    );
}

#[test]
fn no_metrics_are_written_as_null() {
    let it = given(&json!({}));
    assert_eq!(it.to_value()["status"], json!({"currentMetrics": null, "desiredReplicas": 0}));
    let text = String::from_utf8(it.to_bytes()).unwrap_or_default();
    assert!(text.starts_with(r#"{"apiVersion":"autoscaling/v2","kind":"#), "{text}");
    assert!(text.ends_with(r#""status":{"currentMetrics":null,"desiredReplicas":0}}"#), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused_in_upstreams_words() {
    let behavior = |rules: Value| json!({"behavior": {"scaleDown": rules}});
    let metric = |metric: Value| json!({"metrics": [metric]});
    let cpu = |target: Value| json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
    let target = |version: &str| json!({"scaleTargetRef": {"apiVersion": version, "kind": "X", "name": "x"}});
    for (spec, text) in [
        (json!({}), ""),
        (
            json!({"maxReplicas": -1, "minReplicas": 0}),
            "[spec.minReplicas: Invalid value: 0: must be greater than or equal to 1, \
             spec.maxReplicas: Invalid value: -1: must be greater than 0, \
             spec.maxReplicas: Invalid value: -1: must be greater than or equal to `minReplicas`, \
             spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero \
             replicas]",
        ),
        (
            json!({"scaleTargetRef": {"apiVersion": "apps/v1"}}),
            "[spec.scaleTargetRef.kind: Required value, spec.scaleTargetRef.name: Required value]",
        ),
        (
            target("v1"),
            r#"spec.scaleTargetRef.apiVersion: Invalid value: "v1": apiVersion must specify API group"#,
        ),
        (
            target("a/b/c"),
            r#"spec.scaleTargetRef.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#,
        ),
        (json!({"scaleTargetRef": {"apiVersion": "v1", "kind": "ReplicationController", "name": "x"}}), ""),
        (
            metric(json!({})),
            "[spec.metrics[0].type: Required value: must specify a metric source type, \
             spec.metrics[0].type: Unsupported value: \"\": supported values: \"ContainerResource\", \"External\", \
             \"Object\", \"Pods\", \"Resource\"]",
        ),
        (
            metric(json!({"type": "Resource"})),
            "spec.metrics[0].resource: Required value: must populate information for the given metric source",
        ),
        (
            metric(cpu(json!({}))),
            "[spec.metrics[0].resource.target.type: Required value: must specify a metric target type, \
             spec.metrics[0].resource.target.type: Invalid value: \"\": must be either Utilization, Value, or \
             AverageValue, spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target \
             raw value or a target utilization]",
        ),
        (
            metric(cpu(json!({"type": "Utilization", "averageUtilization": -1}))),
            "spec.metrics[0].resource.target.averageUtilization: Invalid value: -1: must be greater than 0",
        ),
        (
            behavior(json!({"stabilizationWindowSeconds": -1, "policies": []})),
            "[spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to \
             zero, spec.behavior.scaleDown.policies: Required value: must specify at least one Policy]",
        ),
        (
            behavior(json!({"policies": [{"type": "", "value": 1, "periodSeconds": -1}]})),
            "[spec.behavior.scaleDown.policies[0].type: Unsupported value: \"\": supported values: \"Percent\", \
             \"Pods\", spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: -1: must be greater than zero]",
        ),
    ] {
        assert_eq!(aggregate(&Kind::validate(&given(&spec))), text, "{spec}");
    }
}

#[test]
fn an_odd_version_that_is_there_may_stay() {
    let odd = json!({"scaleTargetRef": {"apiVersion": "v1", "kind": "Deployment", "name": "x"}});
    let (odd, fine) = (given(&odd), given(&json!({})));
    assert_eq!(aggregate(&Kind::validate_update(&odd, &odd)), "");
    assert!(!Kind::validate_update(&odd, &fine).is_empty());
}

#[test]
fn what_v1_cannot_say_is_in_its_annotations() {
    let storage = json!({
        "apiVersion": "x", "kind": "x",
        "metadata": {"name": "h1", "annotations": {"a": "b"}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d1"},
            "minReplicas": 1, "maxReplicas": 9,
            "metrics": [
                {"type": "Pods", "pods": {
                    "metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "5"}
                }},
                {"type": "Object", "object": {
                    "describedObject": {"kind": "Service", "name": "s"},
                    "metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}},
                    "target": {"type": "Value", "value": "2k"}
                }},
                {"type": "ContainerResource", "containerResource": {
                    "name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 40}
                }},
                {"type": "External", "external": {
                    "metric": {"name": "e"}, "target": {"type": "AverageValue", "averageValue": "7"}
                }},
                {"type": "Resource", "resource": {
                    "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}
                }}
            ],
            "behavior": {
                "scaleUp": {
                    "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}],
                    "stabilizationWindowSeconds": 0, "tolerance": "50m"
                },
                "scaleDown": {"selectPolicy": "Disabled"}
            }
        },
        "status": {
            "desiredReplicas": 2,
            "currentMetrics": [{"type": "Resource", "resource": {
                "name": "cpu", "current": {"averageUtilization": 50, "averageValue": "100m"}
            }}],
            "conditions": [{
                "type": "AbleToScale", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z",
                "reason": "R", "message": "1 < 2"
            }]
        }
    });
    let Value::Object(mut map) = storage.clone() else { return };
    (HPA.from_storage)(&mut map);
    let metrics = concat!(
        r#"[{"type":"Pods","pods":{"metricName":"hits","targetAverageValue":"5"}},"#,
        r#"{"type":"Object","object":{"target":{"kind":"Service","name":"s"},"metricName":"m","targetValue":"2k","#,
        r#""selector":{"matchLabels":{"a":"b"}}}},"#,
        r#"{"type":"ContainerResource","containerResource":{"name":"cpu","targetAverageUtilization":40,"container":"c"}},"#,
        r#"{"type":"External","external":{"metricName":"e","targetAverageValue":"7"}}]"#
    );
    let behavior = concat!(
        r#"{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max","#,
        r#""Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15}],"Tolerance":"50m"},"#,
        r#""ScaleDown":{"StabilizationWindowSeconds":null,"SelectPolicy":"Disabled","Policies":null,"Tolerance":null}}"#
    );
    let conditions = concat!(
        r#"[{"type":"AbleToScale","status":"True","lastTransitionTime":"2026-01-02T03:04:05Z","#,
        r#""reason":"R","message":"1 \u003c 2"}]"#
    );
    let current = concat!(
        r#"[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":50,"#,
        r#""currentAverageValue":"100m"}}]"#
    );
    assert_eq!(
        Value::Object(map.clone()),
        json!({
            "apiVersion": "x", "kind": "x",
            "metadata": {"name": "h1", "annotations": {
                "a": "b", METRICS: metrics, BEHAVIOR: behavior, CONDITIONS: conditions, CURRENT_METRICS: current
            }},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d1"},
                "minReplicas": 1, "maxReplicas": 9, "targetCPUUtilizationPercentage": 60
            },
            "status": {"currentReplicas": 0, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 50}
        })
    );
    (HPA.to_storage)(&mut map);
    assert_eq!(Value::Object(map), storage);
}

#[test]
fn v1_is_checked_as_what_it_becomes() {
    let spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d1"}, "maxReplicas": 9
    });
    let mut it = first(json!({"spec": spec}));
    assert_eq!(aggregate(&Kind::validate(&it)), "");
    it.spec.target_cpu_utilization_percentage = Some(-1);
    assert_eq!(
        aggregate(&Kind::validate(&it)),
        "spec.metrics[0].resource.target.averageUtilization: Invalid value: -1: must be greater than 0"
    );
    it.metadata.annotations = Some([(METRICS.to_owned(), "x".to_owned())].into());
    assert_eq!(
        aggregate(&Kind::validate(&it)),
        "metadata.annotations[autoscaling.alpha.kubernetes.io/metrics]: Invalid value: \"x\": expected value at line 1 \
         column 1"
    );
}

#[test]
fn v1_keeps_what_is_not_for_the_endpoint() {
    let of = |sign: &str| {
        let annotations = json!({
            METRICS: sign, BEHAVIOR: sign, CONDITIONS: sign, CURRENT_METRICS: sign, "a": sign
        });
        first(json!({"metadata": {"annotations": annotations}, "spec": {"maxReplicas": 1}}))
    };
    let signs = |it: &v1::HorizontalPodAutoscaler| {
        let annotations = it.metadata.annotations.clone().unwrap_or_default();
        [METRICS, BEHAVIOR, CONDITIONS, CURRENT_METRICS, "a"]
            .map(|name| annotations.get(name).cloned().unwrap_or_default())
            .concat()
    };
    let mut it = of("n");
    it.prepare_create();
    assert_eq!(signs(&it), "nnn");
    let mut it = of("n");
    it.prepare_update(&of("o"));
    assert_eq!(signs(&it), "nnoon");
    let mut it = of("n");
    it.prepare_status(&of("o"));
    assert_eq!(signs(&it), "oonnn");
}

#[test]
fn a_table_shows_the_first_two_metrics() {
    let cpu = json!({"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}
    }});
    let memory = json!({"type": "Resource", "resource": {
        "name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}
    }});
    let hits = json!({"type": "Pods", "pods": {
        "metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "5"}
    }});
    let mut it = given(&json!({"metrics": [cpu, memory, hits]}));
    let shown = |it: &HorizontalPodAutoscaler| it.cells(Timestamp::UNIX_EPOCH)[2].clone();
    assert_eq!(shown(&it), "cpu: <unknown>/60%, memory: <unknown>/1Gi + 1 more...");
    it.status = serde_json::from_value(json!({"desiredReplicas": 1, "currentMetrics": [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}},
        {"type": "Resource", "resource": {"name": "memory", "current": {"averageValue": "5Mi"}}}
    ]}))
    .ok();
    assert_eq!(shown(&it), "cpu: 7%/60%, memory: 5Mi/1Gi + 1 more...");

    let one = first(json!({"spec": {
        "scaleTargetRef": {"kind": "Deployment", "name": "d1"}, "maxReplicas": 3,
        "targetCPUUtilizationPercentage": 70
    }, "status": {"currentReplicas": 2, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 9}}));
    let cells = one.cells(Timestamp::UNIX_EPOCH);
    assert_eq!(json!(cells[1..6]), json!(["Deployment/d1", "cpu: 9%/70%", "1", 3, 2]));
}
