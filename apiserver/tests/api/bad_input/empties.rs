//! What was given without content is not the same as what was not given, where upstream tells them apart.

use serde_json::json;

use super::{GONE, creates};
use crate::common::api;

#[tokio::test(start_paused = true)]
async fn a_selector_that_says_nothing_is_told_from_none() {
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (kind, plural, word) in [
        ("Deployment", "deployments", "deployment"),
        ("ReplicaSet", "replicasets", "deployment"),
        ("StatefulSet", "statefulsets", "statefulset"),
        ("DaemonSet", "daemonsets", "daemonset"),
    ] {
        let object = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "x"},
            "spec": {"serviceName": "s", "selector": {"matchLabels": {"a": "b"}}, "template": template},
        });
        let empty = format!("spec.selector: Invalid value: {{}}: empty selector is invalid for {word}");
        let missing = [
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
        ];
        let empty: &[&str] = &[&empty];
        // Upstream does not ask for it, and then finds that nothing is selected.
        let missing = if kind == "DaemonSet" { &missing[1..] } else { &missing };
        let rows = [
            ("/spec/selector", json!({}), empty),
            ("/spec/selector", json!({"matchLabels": {}, "matchExpressions": []}), empty),
            ("/spec/selector", GONE, missing),
        ];
        creates(&format!("/apis/apps/v1/namespaces/default/{plural}"), object, &rows).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_text_is_told_from_none() {
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"},
        "spec": {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Exact", "backend": backend}]}}]},
    });
    let types = "supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"";
    let field = "spec.rules[0].http.paths[0].pathType";
    let at = "/spec/rules/0/http/paths/0/pathType";
    let rows = [
        (at, GONE, &[format!("{field}: Required value: pathType must be specified")]),
        (at, json!(""), &[format!("{field}: Unsupported value: \"\": {types}")]),
    ];
    let rows = rows.each_ref().map(|(at, value, [text])| (*at, value.clone(), [text.as_str()]));
    let rows = rows.each_ref().map(|(at, value, texts)| (*at, value.clone(), texts as &[_]));
    creates("/apis/networking.k8s.io/v1/namespaces/default/ingresses", ingress, &rows).await;

    for kind in ["Validating", "Mutating"] {
        let hooks = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
            "metadata": {"name": "w"},
            "webhooks": [{
                "name": "a.example.org", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://127.0.0.1:1/x"},
            }],
        });
        let at = "/webhooks/0/sideEffects";
        let rows = [
            (
                at,
                GONE,
                &["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"]
                    as &[_],
            ),
            (
                at,
                json!(""),
                &[
                    "webhooks[0].sideEffects: Unsupported value: \"\": supported values: \"None\", \"NoneOnDryRun\"",
                ],
            ),
        ];
        let plural = format!("{}webhookconfigurations", kind.to_lowercase());
        creates(&format!("/apis/admissionregistration.k8s.io/v1/{plural}"), hooks, &rows).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_told_from_none() {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let policies = json!([{"type": "Pods", "value": 1, "periodSeconds": 10}]);
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {
            "scaleTargetRef": target, "maxReplicas": 3,
            "behavior": {"scaleDown": {"policies": policies}, "scaleUp": {"policies": policies}},
        },
    });
    let none = "policies: Required value: must specify at least one Policy";
    let [down, up] = ["scaleDown", "scaleUp"].map(|way| format!("spec.behavior.{way}.{none}"));
    let rows = [
        ("/spec/behavior/scaleDown/policies", json!([]), &[down.as_str()] as &[_]),
        ("/spec/behavior/scaleUp/policies", json!([]), &[up.as_str()]),
    ];
    creates("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", scaler, &rows).await;
}

#[tokio::test(start_paused = true)]
async fn items_that_are_no_schema_are_none() {
    let list = json!({"type": "array", "items": {"type": "string"}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.org"},
        "spec": {
            "group": "example.org", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"tags": list}}},
            }],
        },
    });
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties/tags/items";
    let none = "spec.validation.openAPIV3Schema.properties[tags].items: Required value: must be specified";
    let none: &[&str] = &[none];
    let rows = [json!("text"), json!(7), json!(true), json!([])].map(|value| (at, value, none));
    creates("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition, &rows).await;
}

#[tokio::test(start_paused = true)]
async fn flow_schemas_are_shown_in_the_order_in_which_they_match() {
    let api = api().await;
    let schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let rows = api.send("GET", schemas, &table, "").await.ok()["rows"].as_array().unwrap().clone();
    let key = |row: &serde_json::Value| (row["cells"][2].as_i64().unwrap(), row["cells"][0].to_string());
    let keys: Vec<_> = rows.iter().map(key).collect();
    assert!(keys.len() > 10 && keys.is_sorted(), "{keys:?}");
    let names = api.get(schemas).await.names();
    assert!(names.is_sorted() && names.len() == rows.len(), "{names:?}");
}
