use serde_json::json;

use super::*;
use crate::auth::source::fixed::Fixed;

pub(super) fn request(node: &str, verb: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
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
        (
            "list",
            "resource.k8s.io:resourceslices",
            "",
            "",
            "can only list/watch/deletecollection resourceslices with nodeName field selector",
        ),
        ("update", "resource.k8s.io:resourceslices", "", "", "No Object name found"),
        (
            "list",
            "storage.k8s.io:volumeattachments",
            "",
            "",
            "can only get individual resources of this type",
        ),
        ("get", "resource.k8s.io:resourceclaims/status", "a", "x", "cannot get subresource"),
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
        let slices = request("n", "deletecollection", "resource.k8s.io:resourceslices", "", "");
        let asked = Attributes { field_selector: selector.into(), ..slices };
        assert_eq!(authorizer.authorize(&asked) == Decision::Allow, expect, "slices {selector}");
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
