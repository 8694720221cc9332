//! The kinds of the other groups.

use serde_json::json;

use super::{GONE, creates, updates};

const NO_NAME: &str = "metadata.name: Required value: name or generateName is required";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

#[tokio::test(start_paused = true)]
async fn a_deployment_is_refused_in_upstreams_words() {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"app": "d"}}, "strategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    });
    let rows = [
        (
            "/spec/replicas",
            json!(-1),
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"] as &[_],
        ),
        (
            "/spec/strategy/type",
            json!("X"),
            &[
                "spec.strategy: Unsupported value: {\"Type\":\"X\",\"RollingUpdate\":null}: supported values: \
               \"Recreate\", \"RollingUpdate\"",
            ],
        ),
        (
            "/spec/template/metadata/labels/app",
            json!("e"),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"e\"}: `selector` does not match template \
               `labels`",
            ],
        ),
        (
            "/spec/progressDeadlineSeconds",
            json!(-1),
            &[
                "spec.progressDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.progressDeadlineSeconds: Invalid value: -1: must be greater than minReadySeconds",
            ],
        ),
        ("/spec/template/spec", GONE, &["spec.template.spec.containers: Required value"]),
    ];
    creates("/apis/apps/v1/namespaces/default/deployments", deployment, &rows).await;
}

#[tokio::test(start_paused = true)]
async fn a_binding_is_refused_in_upstreams_words() {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "Group", "name": "g", "apiGroup": "rbac.authorization.k8s.io"}],
    });
    let collection = format!("{RBAC}/clusterrolebindings");
    let kind = "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"";
    let rows = [
        ("/roleRef/kind", json!("Role"), &[kind] as &[_]),
        ("/roleRef/name", GONE, &["roleRef.name: Required value"]),
        ("/subjects/0/name", json!(""), &["subjects[0].name: Required value"]),
        (
            "/subjects/0/apiGroup",
            json!("x"),
            &[
                "subjects[0].apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
            ],
        ),
    ];
    creates(&collection, binding.clone(), &rows).await;
    let changed = "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"ClusterRole\",\
                   \"Name\":\"view\"}: cannot change roleRef";
    updates(&collection, binding, &[("/roleRef/name", json!("view"), &[changed])]).await;
}

#[tokio::test(start_paused = true)]
async fn a_role_is_refused_in_upstreams_words() {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]},
    });
    let rows = [
        (
            "/rules/0/verbs",
            json!([]),
            &["rules[0].verbs: Required value: verbs must contain at least one value"] as &[_],
        ),
        (
            "/aggregationRule/clusterRoleSelectors",
            json!([]),
            &[
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if \
               aggregationRule is non-nil",
            ],
        ),
        (
            "/aggregationRule/clusterRoleSelectors/0/matchLabels/x",
            json!("Not Valid!"),
            &[
                "aggregationRule.clusterRoleSelectors[0].matchLabels: Invalid value: \"Not Valid!\": a valid label must \
                 be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
                 an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                 '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                "aggregationRule.clusterRoleSelectors[0]: Invalid value: null: invalid label selector.",
            ],
        ),
    ];
    creates(&format!("{RBAC}/clusterroles"), role, &rows).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_slice_is_refused_in_upstreams_words() {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "e"},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"port": 80}],
    });
    let rows = [
        (
            "/addressType",
            json!("X"),
            &["addressType: Unsupported value: \"X\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""]
                as &[_],
        ),
        (
            "/endpoints/0/addresses",
            json!([]),
            &["endpoints[0].addresses: Required value: must contain at least 1 address"],
        ),
        (
            "/ports/0/protocol",
            json!(""),
            &["ports[0].protocol: Unsupported value: \"\": supported values: \"SCTP\", \"TCP\", \"UDP\""],
        ),
    ];
    creates("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice, &rows).await;
}

#[tokio::test(start_paused = true)]
async fn a_runtime_class_is_checked_as_a_whole_on_every_update() {
    let class = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "r"}, "handler": "h",
        "scheduling": {"tolerations": [{"key": "k", "operator": "Exists"}]},
    });
    let collection = "/apis/node.k8s.io/v1/runtimeclasses";
    let operator = "scheduling.tolerations[0].operator: Unsupported value: \"X\": supported values: \"Equal\", \"Exists\"";
    let rows = [
        ("/metadata", GONE, &[NO_NAME] as &[_]),
        ("/scheduling/tolerations/0/operator", json!("X"), &[operator]),
        (
            "/scheduling/tolerations/-",
            json!({"key": "k", "operator": "Exists"}),
            &["scheduling.tolerations[1]: Duplicate value: {\"key\":\"k\",\"operator\":\"Exists\"}"],
        ),
    ];
    creates(collection, class.clone(), &rows).await;
    let rows = [
        ("/scheduling/tolerations/0/operator", json!("X"), &[operator] as &[_]),
        ("/handler", json!("i"), &["handler: Invalid value: \"i\": field is immutable"]),
    ];
    updates(collection, class, &rows).await;
}

#[tokio::test(start_paused = true)]
async fn other_kinds_are_refused_in_upstreams_words() {
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "Any Name"},
        "spec": {"minAvailable": 1},
    });
    let rows = [
        ("/metadata", GONE, &[NO_NAME] as &[_]),
        (
            "/spec/minAvailable",
            json!("x"),
            &[
                "spec.minAvailable: Invalid value: \"x\": a valid percent string must be a numeric string followed by an \
               ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            ],
        ),
    ];
    creates("/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget, &rows).await;

    let revision = json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"}, "revision": 1,
        "data": {"a": 1},
    });
    let rows = [
        (
            "/revision",
            json!(-1),
            &["revision: Invalid value: -1: must be greater than or equal to 0"] as &[_],
        ),
        ("/data", GONE, &["data: Required value: data is mandatory"]),
    ];
    creates("/apis/apps/v1/namespaces/default/controllerrevisions", revision, &rows).await;

    let class = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "p"}, "value": 1,
    });
    let rows = [("/preemptionPolicy", json!(""), &["preemptionPolicy: Required value"] as &[_])];
    creates("/apis/scheduling.k8s.io/v1/priorityclasses", class, &rows).await;

    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {},
    });
    let rows = [(
        "/spec/renewTime",
        json!("now"),
        &["Lease in version \"v1\" cannot be handled as a Lease: parsing time \"now\" as \
           \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"now\" as \"2006\""] as &[_],
    )];
    creates("/apis/coordination.k8s.io/v1/namespaces/default/leases", lease, &rows).await;
}
