use base::Random;
use serde_json::{Value, json};

use super::*;
use crate::auth::source::fixed::Fixed;

fn request(node: &str, verb: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
    let (group, resource) = resource.split_once(':').unwrap_or(("", resource));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        user: Arc::new(UserInfo::node(node)),
        verb: verb.into(),
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        resource_request: true,
        ..Attributes::default()
    }
}

/// A way to refer to an object of one kind from a pod.
fn refer(pod: &mut Value, what: Refers, name: &str, way: u64) {
    let push = |at: &mut Value, item: Value| {
        if at.is_null() {
            *at = json!([]);
        }
        at.as_array_mut().unwrap().push(item);
    };
    let spec = &mut pod["spec"];
    match (what, way % 6) {
        (Refers::ServiceAccount, _) => spec["serviceAccountName"] = name.into(),
        (Refers::Claim, _) => {
            push(&mut spec["volumes"], json!({"name": "v", "persistentVolumeClaim": {"claimName": name}}))
        }
        (Refers::Secret, 0) => push(&mut spec["imagePullSecrets"], json!({"name": name})),
        (Refers::Secret, 1) => {
            push(&mut spec["volumes"], json!({"name": "v", "secret": {"secretName": name}}))
        }
        (Refers::Secret, 2) => push(
            &mut spec["containers"][0]["env"],
            json!({"name": "E", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}),
        ),
        (Refers::Secret, 3) => {
            push(&mut spec["initContainers"][0]["envFrom"], json!({"secretRef": {"name": name}}))
        }
        (Refers::Secret, 4) => {
            push(&mut spec["ephemeralContainers"][0]["envFrom"], json!({"secretRef": {"name": name}}))
        }
        (Refers::Secret, _) => push(
            &mut spec["volumes"],
            json!({"name": "v", "projected": {"sources": [{"secret": {"name": name}}]}}),
        ),
        (Refers::ConfigMap, 0) => {
            push(&mut spec["volumes"], json!({"name": "v", "configMap": {"name": name}}))
        }
        (Refers::ConfigMap, 1) => push(
            &mut spec["containers"][0]["env"],
            json!({"name": "E", "valueFrom": {"configMapKeyRef": {"name": name, "key": "k"}}}),
        ),
        (Refers::ConfigMap, 2) => {
            push(&mut spec["containers"][0]["envFrom"], json!({"configMapRef": {"name": name}}))
        }
        (Refers::ConfigMap, _) => push(
            &mut spec["volumes"],
            json!({"name": "v", "projected": {"sources": [{"configMap": {"name": name}}]}}),
        ),
    }
}

/// In a random cluster that changes at random, a node reads exactly what its own pods refer to.
#[test]
fn a_node_reads_exactly_the_closure_of_its_pods() {
    const KINDS: [(Refers, &str, &str); 4] = [
        (Refers::Secret, "get", "secrets"),
        (Refers::ConfigMap, "watch", "configmaps"),
        (Refers::Claim, "get", "persistentvolumeclaims"),
        (Refers::ServiceAccount, "create", "serviceaccounts/token"),
    ];
    for seed in 0..12 {
        let random = Random::seeded(seed);
        let objects = Arc::new(Fixed::default());
        let authorizer = NodeAuthorizer::new(objects.clone(), Vec::new());
        let mut pods: HashMap<(String, String), (String, bool, References)> = HashMap::new();
        for _ in 0..30 {
            let (namespace, name) = (format!("ns{}", random.below(2)), format!("pod{}", random.below(6)));
            let key = (namespace.clone(), name.clone());
            if random.below(4) == 0 {
                objects.remove(Kind::Pod, &namespace, &name);
                pods.remove(&key);
            } else {
                let node = ["", "n0", "n1", "n2"][random.below(4) as usize].to_owned();
                let mirror = random.below(6) == 0;
                let mut pod = json!({"metadata": {"namespace": namespace, "name": name},
                    "spec": {"containers": [{}], "initContainers": [{}], "ephemeralContainers": [{}]}});
                if !node.is_empty() {
                    pod["spec"]["nodeName"] = node.clone().into();
                }
                if mirror {
                    pod["metadata"]["annotations"] = json!({MIRROR: "x"});
                }
                let mut refers = References::new();
                for _ in 0..random.below(5) {
                    let (what, ..) = KINDS[random.below(4) as usize];
                    let target = format!("o{}", random.below(4));
                    refer(&mut pod, what, &target, random.u64());
                    if what == Refers::ServiceAccount {
                        refers.retain(|(kind, _)| *kind != what);
                    }
                    refers.insert((what, target));
                }
                objects.put(Kind::Pod, pod);
                pods.insert(key, (node, mirror, refers));
            }
            for node in ["n0", "n1", "n2", "n3"] {
                for (what, verb, resource) in KINDS {
                    for namespace in ["ns0", "ns1"] {
                        for target in ["o0", "o1", "o2", "o3"] {
                            let expect = pods.iter().any(|((of, _), (on, mirror, refers))| {
                                of == namespace
                                    && on == node
                                    && !mirror
                                    && refers.contains(&(what, target.to_owned()))
                            });
                            let allowed = authorizer
                                .authorize(&request(node, verb, resource, namespace, target))
                                == Decision::Allow;
                            assert_eq!(
                                allowed, expect,
                                "seed {seed}: {node} {verb} {resource} {namespace}/{target}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_no_single_object_is_refused() {
    let objects = Arc::new(Fixed::default());
    objects.put(Kind::Pod, json!({"metadata": {"namespace": "a", "name": "p"}, "spec": {"nodeName": "n", "serviceAccountName": "s",
        "volumes": [{"name": "v", "secret": {"secretName": "x"}}, {"name": "w", "ephemeral": {}}, {"name": "z", "persistentVolumeClaim": {"claimName": "c"}}]}}));
    objects.put(
        Kind::PersistentVolume,
        json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "a", "name": "c"}}}),
    );
    objects.put(
        Kind::PersistentVolume,
        json!({"metadata": {"name": "other"}, "spec": {"claimRef": {"namespace": "b", "name": "c"}}}),
    );
    for (name, node) in [("own", "n"), ("others", "m")] {
        objects.put(Kind::ResourceSlice, json!({"metadata": {"name": name}, "spec": {"nodeName": node}}));
    }
    let authorizer = NodeAuthorizer::new(objects, Vec::new());
    for (verb, resource, namespace, name, expect) in [
        ("get", "secrets", "a", "x", ""),
        ("list", "secrets", "a", "x", ""),
        ("list", "secrets", "a", "", "No Object name found"),
        ("list", "secrets", "", "x", "can only read namespaced object of this type"),
        ("update", "secrets", "a", "x", "can only read resources of this type"),
        ("delete", "secrets", "a", "x", "can only read resources of this type"),
        ("get", "secrets", "b", "x", "no relationship found between node 'n' and this object"),
        ("get", "persistentvolumeclaims", "a", "p-w", ""),
        ("patch", "persistentvolumeclaims/status", "a", "c", ""),
        ("list", "persistentvolumeclaims", "a", "c", "can only get individual resources of this type"),
        ("get", "persistentvolumes", "", "pv", ""),
        ("get", "persistentvolumes", "", "other", "no relationship found between node 'n' and this object"),
        ("create", "serviceaccounts/token", "a", "s", ""),
        (
            "create",
            "serviceaccounts/token",
            "a",
            "default",
            "no relationship found between node 'n' and this object",
        ),
        ("get", "serviceaccounts", "a", "s", ""),
        ("get", "serviceaccounts", "a", "t", "no relationship found between node 'n' and this object"),
        ("list", "serviceaccounts", "a", "s", "can only create tokens for individual service accounts"),
        ("create", "resource.k8s.io:resourceslices", "", "", ""),
        ("update", "resource.k8s.io:resourceslices", "", "own", ""),
        (
            "delete",
            "resource.k8s.io:resourceslices",
            "",
            "others",
            "no relationship found between node 'n' and this object",
        ),
        ("create", "serviceaccounts", "a", "s", "can only create token subresource of serviceaccount"),
        ("get", "nodes", "", "n", ""),
        ("watch", "nodes", "", "n", ""),
        ("get", "nodes", "", "m", "node 'n' cannot read 'm', only its own Node object"),
        ("list", "nodes", "", "", "node 'n' cannot read all nodes, only its own Node object"),
        ("get", "pods", "a", "p", ""),
        ("get", "pods", "a", "q", "no relationship found between node 'n' and this object"),
        ("list", "pods", "", "", "can only list/watch pods with spec.nodeName field selector"),
        ("update", "coordination.k8s.io:leases", "kube-node-lease", "n", ""),
        (
            "update",
            "coordination.k8s.io:leases",
            "kube-node-lease",
            "m",
            "can only access node lease with the same name as the requesting node",
        ),
        (
            "update",
            "coordination.k8s.io:leases",
            "kube-system",
            "n",
            "can only access leases in the \"kube-node-lease\" system namespace",
        ),
        (
            "list",
            "coordination.k8s.io:leases",
            "kube-node-lease",
            "n",
            "can only get, create, update, patch, or delete a node lease",
        ),
    ] {
        let expect = if expect.is_empty() { Decision::Allow } else { Decision::NoOpinion(expect.to_owned()) };
        assert_eq!(
            authorizer.authorize(&request("n", verb, resource, namespace, name)),
            expect,
            "{verb} {resource} {namespace}/{name}"
        );
    }
    for (selector, expect) in [
        ("spec.nodeName=n", true),
        ("status.phase=Running,spec.nodeName==n", true),
        ("spec.nodeName=m", false),
        ("spec.nodeName!=n", false),
        ("metadata.name=n", false),
    ] {
        let asked = Attributes { field_selector: selector.into(), ..request("n", "watch", "pods", "", "") };
        assert_eq!(authorizer.authorize(&asked) == Decision::Allow, expect, "{selector}");
    }
}

#[test]
fn only_a_user_with_name_and_group_is_a_node() {
    assert_eq!(node_name(&UserInfo::node("a")), Some("a"));
    assert_eq!(node_name(&UserInfo::new("system:node:a", &[])), None);
    assert_eq!(node_name(&UserInfo::new("anna", &[NODES])), None);
    let authorizer = NodeAuthorizer::new(Arc::new(Fixed::default()), Vec::new());
    assert_eq!(
        authorizer.authorize(&request("", "get", "nodes", "", "")),
        no("unknown node for user \"system:node:\"")
    );
}
