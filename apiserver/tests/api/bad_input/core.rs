//! The other kinds of the core group.

use serde_json::{Value, json};

use super::{GONE, creates, updates};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"type": "NodePort", "selector": {"app": "a"}, "ports": [{"port": 80}]},
    })
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_the_addresses_of_a_service_is_all_that_is_said() {
    let headless = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"clusterIP": "None", "selector": {"app": "a"}},
    });
    let why = "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
    creates(SERVICES, headless.clone(), &[("/spec/clusterIP", json!("x"), &[why])]).await;
    updates(SERVICES, headless, &[("/spec/clusterIP", json!("x"), &[why])]).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_is_refused_in_upstreams_words() {
    let rows = [
        ("/spec/ports", GONE, &["spec.ports: Required value"] as &[_]),
        (
            "/spec/ports/0/port",
            json!(-1),
            &[
                "spec.ports[0].port: Invalid value: -1: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: -1: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            "/spec/ports/0/protocol",
            json!("X"),
            &[
                "spec.ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ],
        ),
    ];
    creates(SERVICES, service(), &rows).await;
    // The address stays: only another name for something elsewhere has none.
    let why = "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \
               \"NodePort\"";
    updates(SERVICES, service(), &[("/spec/type", json!("X"), &[why])]).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_is_checked_as_a_whole_on_every_update() {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"],
                 "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]},
    });
    let invalid = "spec.podCIDRs[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let rows = [
        ("/spec/podCIDR", json!("x"), &[invalid] as &[_]),
        ("/spec/taints/0/effect", json!(""), &["metadata.taints[0].effect: Required value"]),
    ];
    creates("/api/v1/nodes", node.clone(), &rows).await;
    let effect = "metadata.taints[0].effect: Unsupported value: \"X\": supported values: \"NoSchedule\", \
                  \"PreferNoSchedule\", \"NoExecute\"";
    let rows = [
        (
            "/spec/podCIDR",
            json!("x"),
            &[
                invalid,
                "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
            ] as &[_],
        ),
        // Twice, as upstream does.
        ("/spec/taints/0/effect", json!("X"), &[effect, effect]),
    ];
    updates("/api/v1/nodes", node, &rows).await;
}

#[tokio::test(start_paused = true)]
async fn configuration_is_refused_in_upstreams_words() {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "kubernetes.io/tls",
        "data": {"tls.crt": "YQ==", "tls.key": "Yg=="},
    });
    let rows = [
        ("/data", GONE, &["data[tls.crt]: Required value", "data[tls.key]: Required value"] as &[_]),
        (
            "/data/tls.key",
            json!("Not Valid!"),
            &["Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 3"],
        ),
        ("/metadata", GONE, &["metadata.name: Required value: name or generateName is required"]),
    ];
    creates("/api/v1/namespaces/default/secrets", secret.clone(), &rows).await;
    let rows = [("/type", json!("Opaque"), &["type: Invalid value: \"Opaque\": field is immutable"] as &[_])];
    updates("/api/v1/namespaces/default/secrets", secret, &rows).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_needs_a_name_in_either_group() {
    let name = "metadata.name: Required value: name or generateName is required";
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
    });
    let rows = [
        ("/metadata", GONE, &[name] as &[_]),
        ("/metadata/name", json!("a/b"), &["metadata.name: Invalid value: \"a/b\": may not contain '/'"]),
        (
            "/involvedObject/namespace",
            json!("x"),
            &["involvedObject.namespace: Invalid value: \"x\": does not match event.namespace"],
        ),
    ];
    creates("/api/v1/namespaces/default/events", event, &rows).await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2024-01-01T00:00:00.000000Z", "reportingController": "example.org/c",
        "reportingInstance": "i", "action": "a", "reason": "r", "type": "Normal",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
    });
    let rows = [
        ("/metadata/name", GONE, &[name] as &[_]),
        ("/type", json!("X"), &["type: Invalid value: \"\": has invalid value: X"]),
        ("/reportingInstance", json!(""), &["reportingInstance: Required value"]),
        (
            "/eventTime",
            json!(""),
            &["Event in version \"v1\" cannot be handled as a Event: parsing time \"\" as \
               \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"\" as \"2006\""],
        ),
    ];
    creates("/apis/events.k8s.io/v1/namespaces/default/events", event, &rows).await;
}
