//! Pods.

use serde_json::json;

use super::{GONE, creates, updates};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod() -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"app": "a"}},
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "c", "image": "i", "command": ["x"],
                "ports": [{"name": "http", "containerPort": 80, "hostPort": 8080}],
                "env": [
                    {"name": "A", "value": "b"},
                    {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ],
                "resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "1Gi"}},
                "volumeMounts": [{"name": "v", "mountPath": "/data"}],
                "livenessProbe": {"httpGet": {"path": "/h", "port": 80}},
                "readinessProbe": {"exec": {"command": ["a"]}},
            }],
            "volumes": [{"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}}],
            "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
        },
    })
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_refused_in_upstreams_words() {
    const UNMOUNTED: &str = "spec.containers[0].volumeMounts[0].name: Not found: \"v\"";
    let rows = [
        ("/spec/containers/0/image", json!(""), &["spec.containers[0].image: Required value"] as &[_]),
        ("/spec/containers/0/name", GONE, &["spec.containers[0].name: Required value"]),
        (
            "/spec/containers/0/ports/0/name",
            json!("Not Valid!"),
            &[
                "spec.containers[0].ports[0].name: Invalid value: \"Not Valid!\": must contain only alpha-numeric \
               characters (a-z, 0-9), and hyphens (-)",
            ],
        ),
        (
            "/spec/containers/0/ports/0/hostPort",
            json!(-1),
            &[
                "spec.containers[0].ports[0].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive",
            ],
        ),
        ("/spec/containers/0/env/0/name", GONE, &["spec.containers[0].env[0].name: Required value"]),
        (
            "/spec/containers/0/env/1/valueFrom/fieldRef/fieldPath",
            json!("Not Valid!"),
            &[
                "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: \"Not Valid!\": error converting \
               fieldPath: field label not supported: Not Valid!",
            ],
        ),
        (
            "/spec/containers/0/env/2/valueFrom/secretKeyRef/key",
            GONE,
            &["spec.containers[0].env[2].valueFrom.secretKeyRef.key: Required value"],
        ),
        (
            "/spec/containers/0/resources/limits/memory",
            json!(7),
            &[
                "spec.containers[0].resources.requests: Invalid value: \"64Mi\": must be less than or equal to memory \
               limit of 7",
            ],
        ),
        (
            "/spec/containers/0/volumeMounts/0/name",
            json!("w"),
            &["spec.containers[0].volumeMounts[0].name: Not found: \"w\""],
        ),
        (
            "/spec/containers/0/readinessProbe/exec",
            GONE,
            &["spec.containers[0].readinessProbe: Required value: must specify a handler type"],
        ),
        ("/spec/volumes", json!([]), &[UNMOUNTED]),
        (
            "/spec/volumes/0/configMap/items/0/path",
            json!(""),
            &["spec.volumes[0].configMap.items[0].path: Required value", UNMOUNTED],
        ),
        (
            "/spec/tolerations/0/effect",
            json!(""),
            &[
                "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is \
               set",
            ],
        ),
        (
            "/spec/containers/0/resources/requests",
            json!("text"),
            &[
                "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field \
               ResourceRequirements.spec.containers.resources.requests of type v1.ResourceList",
            ],
        ),
        (
            "/spec/containers/0/livenessProbe/httpGet/port",
            json!(1_u64 << 40),
            &[
                "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal number 1099511627776 into Go \
               struct field HTTPGetAction.spec.containers.livenessProbe.httpGet.port of type int32",
            ],
        ),
        ("/spec", GONE, &["spec.containers: Required value"]),
    ];
    creates(PODS, pod(), &rows).await;
}

#[tokio::test(start_paused = true)]
async fn little_of_a_pod_can_be_changed() {
    let rows = [
        (
            "/spec/tolerations/0/key",
            json!("l"),
            &[
                "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
            ] as &[_],
        ),
        (
            "/metadata/name",
            GONE,
            &["the name of the object (p based on URL) was undeterminable: name must be provided"],
        ),
        (
            "/metadata/name",
            json!("q"),
            &["the name of the object (q) does not match the name on the URL (p)"],
        ),
        (
            "/metadata/namespace",
            json!("other"),
            &["the namespace of the object (other) does not match the namespace on the request (default)"],
        ),
    ];
    updates(PODS, pod(), &rows).await;
}
