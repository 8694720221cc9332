mod matrix;

use std::sync::Arc;

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, Role, RoleBinding};

use super::*;
use crate::Attributes;
use crate::auth::rbac::Rbac;
use crate::auth::source::fixed::Fixed;

/// RBAC over the bootstrap objects alone.
fn rbac() -> Rbac {
    let objects = Arc::new(Fixed::default());
    let [mut cluster_roles, roles, cluster_bindings, bindings] = objects::rbac();
    fill_aggregated(&mut cluster_roles);
    let kinds = [Kind::ClusterRole, Kind::Role, Kind::ClusterRoleBinding, Kind::RoleBinding];
    for (kind, all) in kinds.into_iter().zip([cluster_roles, roles, cluster_bindings, bindings]) {
        assert!(!all.is_empty());
        all.into_iter().for_each(|object| objects.put(kind, object));
    }
    // Somebody for each of the roles that people are given.
    for (user, role) in [("anna", "admin"), ("eddy", "edit"), ("vera", "view")] {
        objects.put(
            Kind::RoleBinding,
            json!({"metadata": {"namespace": "team", "name": user}, "roleRef": {"kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": user}]}),
        );
    }
    Rbac::new(objects)
}

#[test]
fn the_data_files_are_typed_objects() {
    let [cluster_roles, roles, cluster_bindings, bindings] = objects::rbac();
    fn all<T: serde::de::DeserializeOwned>(objects: &[Value]) {
        for object in objects {
            serde_json::from_value::<T>(object.clone()).unwrap_or_else(|error| panic!("{object}: {error}"));
        }
    }
    all::<ClusterRole>(&cluster_roles);
    all::<Role>(&roles);
    all::<ClusterRoleBinding>(&cluster_bindings);
    all::<RoleBinding>(&bindings);
    all::<k8s_openapi::api::scheduling::v1::PriorityClass>(&objects::priority_classes());
    let [levels, schemas] = objects::flow_control();
    all::<PriorityLevelConfiguration>(&levels);
    all::<FlowSchema>(&schemas);
    for schema in &schemas {
        let level = &schema["spec"]["priorityLevelConfiguration"]["name"];
        assert!(levels.iter().any(|other| other["metadata"]["name"] == *level), "{schema}");
    }
    assert!(node_rules().len() > 10);
    let names: Vec<String> =
        cluster_roles.iter().map(|role| role["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    for name in identity::CONTROLLERS {
        let role = format!("system:controller:{name}");
        if !names.contains(&role) {
            panic!("{role} is missing");
        }
    }
}

#[test]
fn every_group_that_is_served_is_registered() {
    let apis = local_apis(&Table::builtin());
    let find = |name: &str| apis.iter().find(|api| api["metadata"]["name"] == name);
    for (name, group, version) in [
        ("v1.", 18000, 1),
        ("v1.apps", 17800, 15),
        ("v2.autoscaling", 17500, 30),
        ("v1.autoscaling", 17500, 15),
    ] {
        let spec = &find(name).unwrap_or_else(|| panic!("{name} is missing"))["spec"];
        assert_eq!(
            (&spec["groupPriorityMinimum"], &spec["versionPriority"]),
            (&json!(group), &json!(version))
        );
    }
    assert!(find("v1.apiregistration.k8s.io").is_none());
    for api in &apis {
        assert_ne!(api["spec"]["groupPriorityMinimum"], 15800, "{api} has no place of its own");
    }
}

#[test]
fn the_network_of_services_is_named_by_its_first_address() {
    assert_eq!(network("10.96.1.2/16").as_deref(), Some("10.96.0.0/16"));
    assert_eq!(network("10.96.0.0/12").as_deref(), Some("10.96.0.0/12"));
    assert_eq!(network("10.96.0.0"), None);
}

#[test]
fn each_bootstrap_role_allows_what_it_is_for_and_no_more() {
    let rbac = rbac();
    let controller = |name: &str| identity::controller(name);
    let (anna, eddy, vera) =
        (UserInfo::new("anna", &[]), UserInfo::new("eddy", &[]), UserInfo::new("vera", &[]));
    let manager = identity::controller_manager();
    let node = identity::node("n");
    let scheduler = identity::scheduler();
    // user, verb, group, resource, namespace, name, allowed
    for (user, verb, group, resource, namespace, name, expect) in [
        (&anna, "create", "rbac.authorization.k8s.io", "rolebindings", "team", "", true),
        (&anna, "delete", "", "pods", "team", "p", true),
        (&anna, "get", "", "secrets", "team", "s", true),
        (&anna, "get", "", "pods", "other", "p", false),
        (&anna, "update", "", "resourcequotas", "team", "q", false),
        (&anna, "get", "", "nodes", "", "n", false),
        (&eddy, "create", "apps", "deployments", "team", "", true),
        (&eddy, "patch", "apps", "deployments/scale", "team", "d", true),
        (&eddy, "get", "", "pods/exec", "team", "p", true),
        (&eddy, "create", "", "pods/exec", "team", "p", true),
        (&eddy, "get", "", "secrets", "team", "s", true),
        (&eddy, "create", "", "serviceaccounts/token", "team", "s", true),
        (&eddy, "create", "coordination.k8s.io", "leases", "team", "", true),
        (&eddy, "create", "rbac.authorization.k8s.io", "roles", "team", "", false),
        (&eddy, "update", "", "endpoints", "team", "e", false),
        (&vera, "list", "", "pods", "team", "", true),
        (&vera, "get", "", "pods/log", "team", "p", true),
        (&vera, "watch", "discovery.k8s.io", "endpointslices", "team", "", true),
        (&vera, "get", "", "secrets", "team", "s", false),
        (&vera, "create", "", "pods/exec", "team", "p", false),
        (&vera, "delete", "", "pods", "team", "p", false),
        (&scheduler, "create", "", "pods/binding", "team", "p", true),
        (&scheduler, "list", "", "nodes", "", "", true),
        (&scheduler, "update", "coordination.k8s.io", "leases", "kube-system", "kube-scheduler", true),
        (&scheduler, "update", "coordination.k8s.io", "leases", "kube-system", "other", false),
        (&scheduler, "get", "", "secrets", "team", "s", false),
        (&scheduler, "create", "", "pods", "team", "", false),
        (&manager, "watch", "example.com", "things", "", "", true),
        (&manager, "delete", "", "pods", "team", "p", false),
        (&controller("deployment-controller"), "create", "apps", "replicasets", "team", "", true),
        (&controller("deployment-controller"), "create", "", "pods", "team", "", false),
        (&controller("replicaset-controller"), "create", "", "pods", "team", "", true),
        (&controller("replicaset-controller"), "update", "apps", "deployments", "team", "d", false),
        (
            &controller("endpointslice-controller"),
            "create",
            "discovery.k8s.io",
            "endpointslices",
            "team",
            "",
            true,
        ),
        (&controller("generic-garbage-collector"), "delete", "any.group", "things", "team", "t", true),
        (&controller("generic-garbage-collector"), "create", "", "pods", "team", "", false),
        (&controller("namespace-controller"), "deletecollection", "any.group", "things", "team", "", true),
        (&controller("namespace-controller"), "update", "", "namespaces/finalize", "", "team", true),
        (&controller("node-controller"), "delete", "", "pods", "team", "p", true),
        (&controller("node-controller"), "patch", "", "nodes", "", "n", true),
        (&controller("service-account-controller"), "create", "", "serviceaccounts", "team", "", true),
        (&controller("root-ca-cert-publisher"), "create", "", "configmaps", "team", "", true),
        (&controller("pod-garbage-collector"), "delete", "", "pods", "team", "p", true),
        (
            &controller("disruption-controller"),
            "update",
            "policy",
            "poddisruptionbudgets/status",
            "team",
            "b",
            true,
        ),
        (
            &controller("clusterrole-aggregation-controller"),
            "escalate",
            "rbac.authorization.k8s.io",
            "clusterroles",
            "",
            "admin",
            true,
        ),
        // RBAC itself gives nodes what their network needs; the rest is the Node authorizer's.
        (&node, "watch", "discovery.k8s.io", "endpointslices", "", "", true),
        (&node, "list", "", "nodes", "", "", true),
        (&node, "get", "", "secrets", "team", "s", false),
        (&node, "get", "", "pods", "team", "p", false),
        (&node, "create", "", "nodes", "", "", false),
        (&anna, "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", "", true),
        (&anna, "create", "authentication.k8s.io", "selfsubjectreviews", "", "", true),
        (&anna, "create", "authorization.k8s.io", "subjectaccessreviews", "", "", false),
    ] {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let request = Attributes {
            user: Arc::new(user.clone()),
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            resource_request: true,
            ..Attributes::default()
        };
        assert_eq!(
            rbac.authorize(&request).is_ok(),
            expect,
            "{} {verb} {group} {resource}/{subresource} {namespace}/{name}",
            user.name
        );
    }
}

#[test]
fn paths_are_open_to_whom_they_should_be() {
    let rbac = rbac();
    let robot = UserInfo::service_account("team", "robot");
    let monitor = UserInfo::new("m", &["system:monitoring"]);
    for (user, path, expect) in [
        (&UserInfo::anonymous(), "/version", true),
        (&UserInfo::anonymous(), "/readyz", true),
        (&UserInfo::anonymous(), "/metrics", false),
        (&UserInfo::anonymous(), "/api", false),
        (&UserInfo::anonymous(), "/openid/v1/jwks", false),
        (&UserInfo::new("x", &[]), "/api", true),
        (&UserInfo::new("x", &[]), "/apis/apps/v1", true),
        (&UserInfo::new("x", &[]), "/openapi/v3", true),
        (&UserInfo::new("x", &[]), "/metrics", false),
        (&UserInfo::new("x", &[]), "/openid/v1/jwks", false),
        (&robot, "/openid/v1/jwks", true),
        (&robot, "/.well-known/openid-configuration", true),
        (&monitor, "/metrics", true),
        (&monitor, "/livez/ping", true),
    ] {
        let request = Attributes {
            user: Arc::new(user.clone()),
            verb: "get".into(),
            path: path.into(),
            ..Attributes::default()
        };
        assert_eq!(rbac.authorize(&request).is_ok(), expect, "{} {path}", user.name);
    }
}

#[test]
fn the_well_known_addresses_are_the_first_and_the_tenth() {
    assert_eq!(service_address("10.96.0.0/16"), Some(Ipv4Addr::new(10, 96, 0, 1)));
    assert_eq!(dns_address("10.96.5.7/16"), Some(Ipv4Addr::new(10, 96, 0, 10)));
    for bad in ["", "10.96.0.0", "x/16", "10.96.0.0/31", "10.96.0.0/99", "fd00::/64"] {
        assert_eq!(service_address(bad), None, "{bad}");
    }
}

#[test]
fn objects_are_put_where_their_kind_lives() {
    for (kind, version, namespace, expect) in [
        ("Endpoints", "v1", Some("default"), "/api/v1/namespaces/default/endpoints"),
        ("PriorityClass", "scheduling.k8s.io/v1", None, "/apis/scheduling.k8s.io/v1/priorityclasses"),
        (
            "EndpointSlice",
            "discovery.k8s.io/v1",
            Some("default"),
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        ),
        ("Namespace", "v1", None, "/api/v1/namespaces"),
    ] {
        let object = json!({"kind": kind, "apiVersion": version, "metadata": {"namespace": namespace}});
        assert_eq!(collection(&object), expect);
    }
}
