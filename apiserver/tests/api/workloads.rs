//! The kinds that run pods, and what scales them.

use crate::common::api;
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn an_autoscaler_is_the_same_in_both_versions() {
    let api = api().await;
    let [first, second] = ["v1", "v2"]
        .map(|version| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers"));
    let given = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "maxReplicas": 9,
            "metrics": [
                {"type": "Resource", "resource": {
                    "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}
                }},
                {"type": "Pods", "pods": {
                    "metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "5"}
                }}
            ]
        }
    });
    let created = api.post(&second, &given).await.ok();
    assert_eq!(created["status"], json!({"currentMetrics": null, "desiredReplicas": 0}));

    let mut seen = api.get(&format!("{first}/h")).await.ok();
    assert_eq!(seen["apiVersion"], "autoscaling/v1");
    assert_eq!(seen["spec"]["targetCPUUtilizationPercentage"], 60);
    assert_eq!(
        seen["metadata"]["annotations"],
        json!({
            "autoscaling.alpha.kubernetes.io/metrics":
                r#"[{"type":"Pods","pods":{"metricName":"hits","targetAverageValue":"5"}}]"#
        })
    );
    assert_eq!(seen["status"], json!({"currentReplicas": 0, "desiredReplicas": 0}));

    seen["spec"]["targetCPUUtilizationPercentage"] = json!(70);
    let updated = api.put(&format!("{first}/h"), &seen).await.ok();
    assert_eq!(updated["metadata"]["annotations"], seen["metadata"]["annotations"]);
    let mut now = api.get(&format!("{second}/h")).await.ok();
    let metrics = &now["spec"]["metrics"];
    assert_eq!(metrics[0]["pods"]["target"], json!({"type": "AverageValue", "averageValue": "5"}));
    assert_eq!(metrics[1]["resource"]["target"], json!({"type": "Utilization", "averageUtilization": 70}));
    assert_eq!(now["metadata"]["annotations"], json!(null));

    now["status"] = json!({"desiredReplicas": 3, "currentReplicas": 2, "currentMetrics": [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 55}}}
    ]});
    api.put(&format!("{second}/h/status"), &now).await.ok();
    let seen = api.get(&format!("{first}/h/status")).await.ok();
    assert_eq!(
        seen["status"],
        json!({"currentReplicas": 2, "desiredReplicas": 3, "currentCPUUtilizationPercentage": 55})
    );

    let refused = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "i"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "maxReplicas": 9, "targetCPUUtilizationPercentage": -1
        }
    });
    api.post(&first, &refused).await.refused(
        422,
        "Invalid",
        "HorizontalPodAutoscaler.autoscaling \"i\" is invalid: spec.metrics[0].resource.target.averageUtilization: \
         Invalid value: -1: must be greater than 0",
    );
    api.delete(&format!("{first}/h"), None).await.ok();
    assert_eq!(api.get(&format!("{second}/h")).await.code, 404);
}

#[tokio::test(start_paused = true)]
async fn the_second_version_of_autoscaling_is_preferred() {
    let group = api().await.get("/apis/autoscaling").await.ok();
    assert_eq!(group["preferredVersion"]["version"], "v2");
    let versions: Vec<_> = group["versions"].as_array().unwrap().iter().map(|v| &v["version"]).collect();
    assert_eq!(versions, ["v2", "v1"]);
}

#[tokio::test(start_paused = true)]
async fn what_has_replicas_can_be_scaled() {
    let api = api().await;
    let labels = json!({"app": "x"});
    let template =
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (group, kind, plural, selector) in [
        ("apis/apps/v1", "StatefulSet", "statefulsets", json!({"matchLabels": labels})),
        ("api/v1", "ReplicationController", "replicationcontrollers", labels.clone()),
    ] {
        let path = format!("/{group}/namespaces/default/{plural}");
        let version = group.split_once('/').map_or("", |(_, version)| version);
        let given = json!({
            "apiVersion": version, "kind": kind, "metadata": {"name": "x"},
            "spec": {"replicas": 2, "selector": selector, "template": template}
        });
        api.post(&path, &given).await.ok();
        let mut scale = api.get(&format!("{path}/x/scale")).await.ok();
        assert_eq!(scale["kind"], "Scale");
        assert_eq!(scale["spec"], json!({"replicas": 2}));
        assert_eq!(scale["status"], json!({"replicas": 0, "selector": "app=x"}));
        scale["spec"]["replicas"] = json!(5);
        api.put(&format!("{path}/x/scale"), &scale).await.ok();
        let scaled = api.get(&format!("{path}/x")).await.ok();
        assert_eq!((&scaled["spec"]["replicas"], &scaled["metadata"]["generation"]), (&json!(5), &json!(2)));
    }
}
