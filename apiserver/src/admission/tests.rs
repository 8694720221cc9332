mod policy;

use api::resource::Table;
use base::{Clock, Random, Tasks};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::Config;
use crate::auth::identity;
use crate::auth::node::MIRROR;
use crate::auth::source::Kind;
use crate::auth::source::fixed::Fixed;
use crate::pki::Pki;

struct Setup {
    admission: Admission,
    objects: Arc<Fixed>,
    table: Arc<Table>,
    /// What the writers were told.
    warnings: Warnings,
}

fn setup() -> Setup {
    let (clock, random) = (Clock::system(), Random::seeded(1));
    let pki = Arc::new(Pki::in_memory(clock.clone(), random.clone()).unwrap());
    let config = Config::new(clock, random.clone(), Tasks::new("test"), pki, "192.0.2.1".parse().unwrap());
    let objects = Arc::new(Fixed::default());
    objects.put(Kind::Namespace, json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}}));
    objects.put(Kind::Namespace, json!({"metadata": {"name": "ending"}, "status": {"phase": "Terminating"}}));
    objects.put(Kind::Namespace, json!({"metadata": {"name": "kube-node-lease"}}));
    objects.put(Kind::ServiceAccount, json!({"metadata": {"namespace": "a", "name": "default"}}));
    let admission = Admission::new(&Auth::over(&config, objects.clone()), random);
    Setup { admission, objects, table: Table::builtin(), warnings: Warnings::default() }
}

impl Setup {
    /// Runs both phases; the object as it would be stored, or the message of the refusal.
    fn write<T: Object + DeserializeOwned>(
        &self,
        user: &UserInfo,
        operation: Operation,
        resource: &str,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Value, String> {
        let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let row = self.table.find(plural).first().cloned().unwrap_or_else(|| panic!("no resource {plural}"));
        let typed =
            |value: Option<&Value>| value.map(|value| serde_json::from_value::<T>(value.clone()).unwrap());
        let text = |field: &str| {
            object.or(old).and_then(|o| o["metadata"][field].as_str()).unwrap_or_default().to_owned()
        };
        let (namespace, user) = (text("namespace"), Arc::new(user.clone()));
        let context = AdmissionContext {
            user: &user,
            operation,
            resource: row,
            subresource,
            namespace: &namespace,
            name: text("name"),
            dry_run: false,
            warnings: &self.warnings,
        };
        let (mut object, old) = (typed(object), typed(old));
        let old = old.as_ref().map(|old| old as &dyn Object);
        if let Some(object) = &mut object {
            self.admission.admit(&context, object, old).map_err(|status| status.message)?;
        }
        let new = object.as_ref().map(|object| object as &dyn Object);
        self.admission.validate(&context, new, old).map_err(|status| status.message)?;
        Ok(new.map(|object| object.to_value()).unwrap_or_default())
    }

    fn create<T: Object + DeserializeOwned>(
        &self,
        user: &UserInfo,
        resource: &str,
        object: Value,
    ) -> Result<Value, String> {
        self.write::<T>(user, Operation::Create, resource, Some(&object), None)
    }

    fn pod(&self, spec: Value) -> Result<Value, String> {
        self.create::<Pod>(&identity::admin(), "pods", pod("p", spec)).map(|pod| pod["spec"].clone())
    }
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"namespace": "a", "name": name}, "spec": spec});
    if pod["spec"].get("containers").is_none() {
        pod["spec"]["containers"] = json!([{"name": "c"}]);
    }
    pod
}

#[tokio::test]
async fn nothing_is_made_in_a_namespace_that_is_not_there() {
    let setup = setup();
    let map = |namespace: &str| json!({"metadata": {"namespace": namespace, "name": "m"}});
    let create =
        |namespace: &str| setup.create::<ConfigMap>(&identity::admin(), "configmaps", map(namespace));
    assert!(create("a").is_ok());
    assert_eq!(create("b").unwrap_err(), r#"namespaces "b" not found"#);
    assert_eq!(
        create("ending").unwrap_err(),
        r#"configmaps "m" is forbidden: unable to create new content in namespace ending because it is being terminated"#
    );
    let update = |namespace: &str| {
        setup.write::<ConfigMap>(
            &identity::admin(),
            Operation::Update,
            "configmaps",
            Some(&map(namespace)),
            Some(&map(namespace)),
        )
    };
    assert!(update("ending").is_ok());
    assert!(
        setup
            .write::<ConfigMap>(
                &identity::admin(),
                Operation::Delete,
                "configmaps",
                None,
                Some(&map("ending"))
            )
            .is_ok()
    );
}

#[tokio::test]
async fn three_namespaces_stay() {
    use k8s_openapi::api::core::v1::Namespace;
    let setup = setup();
    for (name, ok) in [
        ("default", false),
        ("kube-system", false),
        ("kube-public", false),
        ("kube-node-lease", true),
        ("a", true),
    ] {
        let old = json!({"metadata": {"name": name}});
        let result =
            setup.write::<Namespace>(&identity::admin(), Operation::Delete, "namespaces", None, Some(&old));
        match ok {
            true => assert!(result.is_ok(), "{name}"),
            false => assert_eq!(
                result.unwrap_err(),
                format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted")
            ),
        }
    }
}

#[tokio::test]
async fn a_pod_gets_its_service_account_and_token() {
    let setup = setup();
    let spec = setup.pod(json!({"containers": [{"name": "c"}, {"name": "d", "volumeMounts": [{"name": "x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}], "initContainers": [{"name": "i"}]})).unwrap();
    assert_eq!(
        (spec["serviceAccountName"].clone(), spec["serviceAccount"].clone()),
        (json!("default"), json!("default"))
    );
    let volume = &spec["volumes"][0];
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-") && name.len() == "kube-api-access-".len() + 5, "{name}");
    let mount = json!([{"name": name, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    assert_eq!(
        (&spec["containers"][0]["volumeMounts"], &spec["initContainers"][0]["volumeMounts"]),
        (&mount, &mount)
    );
    assert_eq!(spec["containers"][1]["volumeMounts"][0]["name"], "x");
    assert_eq!(
        volume["projected"],
        json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]})
    );
}

#[tokio::test]
async fn the_token_is_left_out_where_pod_or_account_say_so() {
    let setup = setup();
    setup.objects.put(
        Kind::ServiceAccount,
        json!({"metadata": {"namespace": "a", "name": "quiet"}, "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "registry"}]}),
    );
    for (account, automount, expect) in [
        ("default", None, true),
        ("default", Some(false), false),
        ("quiet", None, false),
        ("quiet", Some(true), true),
    ] {
        let mut spec = json!({"serviceAccountName": account});
        if let Some(automount) = automount {
            spec["automountServiceAccountToken"] = automount.into();
        }
        assert_eq!(!setup.pod(spec).unwrap()["volumes"].is_null(), expect, "{account} {automount:?}");
    }
    assert_eq!(
        setup.pod(json!({"serviceAccountName": "quiet"})).unwrap()["imagePullSecrets"],
        json!([{"name": "registry"}])
    );
    let own = json!({"serviceAccountName": "quiet", "imagePullSecrets": [{"name": "own"}]});
    assert_eq!(setup.pod(own).unwrap()["imagePullSecrets"], json!([{"name": "own"}]));
    assert_eq!(
        setup.pod(json!({"serviceAccountName": "nobody"})).unwrap_err(),
        r#"pods "p" is forbidden: error looking up service account a/nobody: serviceaccount "nobody" not found"#
    );
}

#[tokio::test]
async fn priority_is_that_of_the_class() {
    let setup = setup();
    let number = |spec: Value| {
        setup.pod(spec).map(|spec| (spec["priority"].clone(), spec["preemptionPolicy"].clone()))
    };
    assert_eq!(number(json!({})).unwrap(), (json!(0), json!("PreemptLowerPriority")));
    setup.objects.put(
        Kind::PriorityClass,
        json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}),
    );
    setup
        .objects
        .put(Kind::PriorityClass, json!({"metadata": {"name": "usual"}, "value": 5, "globalDefault": true}));
    assert_eq!(number(json!({"priorityClassName": "high"})).unwrap(), (json!(1000), json!("Never")));
    assert_eq!(number(json!({})).unwrap(), (json!(5), json!("PreemptLowerPriority")));
    assert_eq!(setup.pod(json!({})).unwrap()["priorityClassName"], "usual");
    for (spec, why) in [
        (json!({"priorityClassName": "none"}), "no PriorityClass with name none was found"),
        (
            json!({"priorityClassName": "high", "priority": 7}),
            "the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 1000 from the given PriorityClass name",
        ),
        (
            json!({"priorityClassName": "high", "preemptionPolicy": "PreemptLowerPriority"}),
            "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority admission controller computed Never from the given PriorityClass name",
        ),
    ] {
        assert_eq!(setup.pod(spec).unwrap_err(), format!("pods \"p\" is forbidden: {why}"));
    }
    let another = json!({"metadata": {"name": "other"}, "value": 6, "globalDefault": true});
    assert_eq!(
        setup.create::<PriorityClass>(&identity::admin(), "priorityclasses", another).unwrap_err(),
        r#"priorityclasses.scheduling.k8s.io "other" is forbidden: PriorityClass usual is already marked as default. Only one default can exist"#
    );
    let old = pod("p", json!({"priority": 1000, "preemptionPolicy": "Never"}));
    let new = setup
        .write::<Pod>(&identity::admin(), Operation::Update, "pods", Some(&pod("p", json!({}))), Some(&old))
        .unwrap();
    assert_eq!(
        (new["spec"]["priority"].clone(), new["spec"]["preemptionPolicy"].clone()),
        (json!(1000), json!("Never"))
    );
}

#[tokio::test]
async fn a_pod_is_patient_with_its_node_unless_it_says_otherwise() {
    let setup = setup();
    let wait = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    let (not_ready, unreachable) = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable");
    let own = json!({"key": not_ready, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
    let all = json!({"operator": "Exists"});
    let other = json!({"key": not_ready, "operator": "Exists", "effect": "NoSchedule"});
    for (given, expect) in [
        (json!([]), json!([wait(not_ready), wait(unreachable)])),
        (json!([own]), json!([own, wait(unreachable)])),
        (json!([all]), json!([all])),
        (json!([other]), json!([other, wait(not_ready), wait(unreachable)])),
    ] {
        assert_eq!(setup.pod(json!({"tolerations": given})).unwrap()["tolerations"], expect);
    }
}

#[tokio::test]
async fn a_new_node_takes_no_pods_yet() {
    let setup = setup();
    let node = setup.create::<Node>(&identity::admin(), "nodes", json!({"metadata": {"name": "n"}})).unwrap();
    assert_eq!(
        node["spec"]["taints"],
        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])
    );
}

#[tokio::test]
async fn a_runtime_class_adds_its_cost_and_its_nodes() {
    let setup = setup();
    setup.objects.put(
        Kind::RuntimeClass,
        json!({"metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "1"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}}),
    );
    let spec = setup
        .pod(json!({"runtimeClassName": "vm", "nodeSelector": {"x": "y"}, "overhead": {"cpu": "1000m"}}))
        .unwrap();
    assert_eq!(spec["overhead"], json!({"cpu": "1"}));
    assert_eq!(spec["nodeSelector"], json!({"vm": "yes", "x": "y"}));
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 3);
    for (spec, why) in [
        (json!({"runtimeClassName": "no"}), "pod rejected: RuntimeClass \"no\" not found"),
        (
            json!({"runtimeClassName": "vm", "overhead": {"cpu": "2"}}),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            json!({"overhead": {"cpu": "2"}}),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            json!({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no",
        ),
    ] {
        assert_eq!(setup.pod(spec).unwrap_err(), format!("pods \"p\" is forbidden: {why}"));
    }
}

#[tokio::test]
async fn a_node_writes_its_own_node_only() {
    let setup = setup();
    let user = identity::node("n");
    let node = |name: &str, labels: Value, spec: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": spec});
    let plain = || node("n", json!({}), json!({}));
    let create = |object: Value| setup.create::<Node>(&user, "nodes", object).map(drop);
    let update = |new: Value| {
        setup.write::<Node>(&user, Operation::Update, "nodes/status", Some(&new), Some(&plain())).map(drop)
    };
    assert_eq!(
        create(node("m", json!({}), json!({}))).unwrap_err(),
        r#"nodes "m" is forbidden: node "n" is not allowed to modify node "m""#
    );
    for label in [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/any",
        "kubelet.kubernetes.io/x",
        "example.com/x",
        "plain",
    ] {
        assert_eq!(create(node("n", json!({label: "v"}), json!({}))), Ok(()), "{label}");
        assert_eq!(update(node("n", json!({label: "v"}), json!({}))), Ok(()), "{label}");
    }
    for label in [
        "node-restriction.kubernetes.io/x",
        "a.node-restriction.kubernetes.io/x",
        "node-role.kubernetes.io/control-plane",
        "k8s.io/x",
        "any.k8s.io/x",
    ] {
        assert_eq!(
            create(node("n", json!({label: "v"}), json!({}))).unwrap_err(),
            format!(
                "nodes \"n\" is forbidden: node \"n\" is not allowed to set the following labels: {label}"
            )
        );
        assert_eq!(
            update(node("n", json!({label: "v"}), json!({}))).unwrap_err(),
            format!("nodes \"n\" is forbidden: is not allowed to modify labels: {label}")
        );
    }
    assert_eq!(
        update(node("n", json!({}), json!({"taints": [{"key": "x", "effect": "NoSchedule"}]}))).unwrap_err(),
        r#"nodes "n" is forbidden: node "n" is not allowed to modify taints"#
    );
    let mut owned = plain();
    owned["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"}]);
    assert_eq!(
        update(owned).unwrap_err(),
        r#"nodes "n" is forbidden: node "n" is not allowed to modify ownerReferences"#
    );
    assert_eq!(
        create(node("n", json!({}), json!({"taints": [{"key": "x", "effect": "NoSchedule"}]}))),
        Ok(())
    );
}

#[tokio::test]
async fn a_node_writes_the_status_of_its_own_pods_only() {
    let setup = setup();
    let user = identity::node("n");
    for (name, node) in [("own", "n"), ("other", "m")] {
        let mut object = pod(name, json!({"nodeName": node}));
        object["metadata"]["uid"] = "u".into();
        setup.objects.put(Kind::Pod, object);
    }
    let on = |node: &str| pod("p", json!({"nodeName": node}));
    let status = |old: &Value, new: &Value| {
        setup.write::<Pod>(&user, Operation::Update, "pods/status", Some(new), Some(old)).map(drop)
    };
    assert_eq!(status(&on("n"), &on("n")), Ok(()));
    assert!(
        status(&on("m"), &on("m"))
            .unwrap_err()
            .ends_with(r#"node "n" can only update pod status for pods with spec.nodeName set to itself"#)
    );
    assert!(status(&on("m"), &on("n")).is_err(), "taking a pod over");
    let mut labelled = on("n");
    labelled["metadata"]["labels"] = json!({"x": "y"});
    assert!(
        status(&on("n"), &labelled)
            .unwrap_err()
            .ends_with(r#"node "n" cannot update labels through pod status"#)
    );
    assert!(setup.write::<Pod>(&user, Operation::Update, "pods", Some(&on("n")), Some(&on("n"))).is_err());
    assert!(
        setup
            .write::<Pod>(
                &user,
                Operation::Update,
                "pods/ephemeralcontainers",
                Some(&on("n")),
                Some(&on("n"))
            )
            .is_err()
    );
    assert!(setup.write::<Pod>(&user, Operation::Delete, "pods", None, Some(&on("n"))).is_ok());
    assert!(setup.write::<Pod>(&user, Operation::Delete, "pods", None, Some(&on("m"))).is_err());
    let evict = |name: &str| {
        setup
            .create::<Eviction>(&user, "pods/eviction", json!({"metadata": {"namespace": "a", "name": name}}))
            .map(drop)
    };
    assert_eq!(evict("own"), Ok(()));
    assert!(
        evict("other").unwrap_err().contains("node n can only evict pods with spec.nodeName set to itself")
    );
    assert_eq!(evict("gone").unwrap_err(), r#"pods "gone" not found"#);
    let lease = |name: &str| {
        setup
            .create::<Lease>(
                &user,
                "leases",
                json!({"metadata": {"namespace": "kube-node-lease", "name": name}, "spec": {}}),
            )
            .map(drop)
    };
    assert_eq!(lease("n"), Ok(()));
    assert!(lease("m").is_err());
}

#[tokio::test]
async fn a_node_creates_mirror_pods_that_refer_to_nothing() {
    let setup = setup();
    let user = identity::node("n");
    setup.objects.put(Kind::Node, json!({"metadata": {"name": "n", "uid": "node-1"}}));
    let owner = |name: &str, uid: &str| json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid, "controller": true}]);
    let mirror = |owners: Value, spec: Value| {
        let mut object = pod("p", spec);
        object["spec"]["nodeName"] = "n".into();
        object["metadata"]["annotations"] = json!({MIRROR: "x"});
        object["metadata"]["ownerReferences"] = owners;
        object
    };
    let create = |object: Value| setup.create::<Pod>(&user, "pods", object).map(drop);
    assert_eq!(create(mirror(owner("n", "node-1"), json!({}))), Ok(()));
    for (object, why) in [
        (
            pod("p", json!({"nodeName": "n"})),
            format!("pod does not have \"{MIRROR}\" annotation, node \"n\" can only create mirror pods"),
        ),
        (
            mirror(json!([]), json!({})),
            "node \"n\" can only create pods with an owner reference set to itself".to_owned(),
        ),
        (
            mirror(owner("m", "node-1"), json!({})),
            "node \"n\" can only create pods with an owner reference set to itself".to_owned(),
        ),
        (
            mirror(owner("n", "node-2"), json!({})),
            "node n UID mismatch: expected node-2 got node-1".to_owned(),
        ),
        (
            mirror(owner("n", "node-1"), json!({"serviceAccountName": "default"})),
            "node \"n\" can not create pods that reference serviceaccounts".to_owned(),
        ),
        (
            mirror(owner("n", "node-1"), json!({"imagePullSecrets": [{"name": "s"}]})),
            "node \"n\" can not create pods that reference secrets".to_owned(),
        ),
        (
            mirror(owner("n", "node-1"), json!({"volumes": [{"name": "v", "configMap": {"name": "s"}}]})),
            "node \"n\" can not create pods that reference configmaps".to_owned(),
        ),
        (
            mirror(
                owner("n", "node-1"),
                json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
            ),
            "node \"n\" can not create pods that reference serviceaccounts (via projected volumes)"
                .to_owned(),
        ),
        (
            mirror(
                owner("n", "node-1"),
                json!({"resourceClaims": [{"name": "c", "resourceClaimName": "d"}]}),
            ),
            "node \"n\" can not create pods that reference resourceclaims".to_owned(),
        ),
    ] {
        assert_eq!(create(object).unwrap_err(), format!("pods \"p\" is forbidden: {why}"));
    }
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let setup = setup();
    let rules = |verbs: &[&str], resource: &str| json!([{"verbs": verbs, "apiGroups": [""], "resources": [resource]}]);
    let grant = |user: &str, name: &str, rules: Value| {
        setup.objects.put(Kind::ClusterRole, json!({"metadata": {"name": name}, "rules": rules}));
        setup.objects.put(
            Kind::ClusterRoleBinding,
            json!({"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": name}, "subjects": [{"kind": "User", "name": user}]}),
        );
    };
    grant("anna", "reader", rules(&["get", "list"], "pods"));
    setup
        .objects
        .put(Kind::ClusterRole, json!({"metadata": {"name": "strong"}, "rules": rules(&["*"], "*")}));
    let anna = UserInfo::new("anna", &[]);
    let role = |rules: Value| json!({"metadata": {"namespace": "a", "name": "r"}, "rules": rules});
    let create = |user: &UserInfo, rules: Value| setup.create::<Role>(user, "roles", role(rules)).map(drop);
    assert_eq!(create(&anna, rules(&["get"], "pods")), Ok(()));
    assert_eq!(
        create(&anna, rules(&["get", "delete", "create"], "pods")).unwrap_err(),
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"anna\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"create\"]}"
    );
    assert_eq!(create(&identity::admin(), rules(&["*"], "*")), Ok(()));
    let strong = role(rules(&["*"], "*"));
    let unchanged = setup.write::<Role>(&anna, Operation::Update, "roles", Some(&strong), Some(&strong));
    assert!(unchanged.is_ok(), "what is not changed needs no permission");
    let aggregate = json!({"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]}});
    assert_eq!(
        setup.create::<ClusterRole>(&anna, "clusterroles", aggregate.clone()).unwrap_err(),
        r#"clusterroles.rbac.authorization.k8s.io "r" is forbidden: must have cluster-admin privileges to use the aggregationRule"#
    );
    let bind = |user: &UserInfo, name: &str| {
        let binding = json!({"metadata": {"namespace": "a", "name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}});
        setup.create::<RoleBinding>(user, "rolebindings", binding).map(drop)
    };
    assert_eq!(bind(&anna, "reader"), Ok(()));
    assert!(
        bind(&anna, "strong")
            .unwrap_err()
            .contains("attempting to grant RBAC permissions not currently held")
    );
    assert_eq!(bind(&anna, "gone").unwrap_err(), r#"clusterrole.rbac.authorization.k8s.io "gone" not found"#);
    assert_eq!(bind(&identity::admin(), "gone"), Ok(()));
    let verbs = |verb: &str, names: Value| json!([{"verbs": [verb], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "clusterroles"], "resourceNames": names}]);
    grant("anna", "binder", verbs("bind", json!(["strong"])));
    assert_eq!(bind(&anna, "strong"), Ok(()));
    assert!(bind(&anna, "gone").is_err());
    grant("anna", "escalator", verbs("escalate", json!(["r"])));
    assert_eq!(create(&anna, rules(&["*"], "*")), Ok(()));
    assert!(setup.create::<ClusterRole>(&anna, "clusterroles", aggregate).is_ok());
    let everywhere = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system"}});
    assert!(setup.create::<ClusterRoleBinding>(&anna, "clusterrolebindings", everywhere).is_err());
}

fn range(setup: &Setup, limit: Value) {
    let spec = json!({"limits": [limit]});
    setup.objects.put(Kind::LimitRange, json!({"metadata": {"namespace": "a", "name": "r"}, "spec": spec}));
}

#[tokio::test]
async fn containers_get_what_the_limit_range_says_and_stay_in_it() {
    let setup = setup();
    range(
        &setup,
        json!({
            "type": "Container", "defaultRequest": {"cpu": "100m"}, "default": {"cpu": "200m", "memory": "1Gi"},
            "min": {"cpu": "50m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}
        }),
    );
    let spec = |resources: Value| json!({"containers": [{"name": "c", "resources": resources}]});
    let made = setup.create::<Pod>(&identity::admin(), "pods", pod("p", spec(json!({})))).unwrap();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "1Gi"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu, memory limit for container c"
    );
    for (requests, limits, wanted) in [
        (
            "10m",
            "20m",
            r#"pods "p" is forbidden: minimum cpu usage per Container is 50m, but request is 10m"#,
        ),
        ("1", "2", r#"pods "p" is forbidden: maximum cpu usage per Container is 1, but limit is 2"#),
        (
            "100m",
            "300m",
            r#"pods "p" is forbidden: cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"#,
        ),
    ] {
        let resources = json!({"requests": {"cpu": requests}, "limits": {"cpu": limits}});
        assert_eq!(setup.pod(spec(resources)).unwrap_err(), wanted);
    }
    assert!(setup.pod(spec(json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}}))).is_ok());
    let twice = json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "2"}});
    assert_eq!(
        setup.pod(spec(twice)).unwrap_err(),
        r#"pods "p" is forbidden: [minimum cpu usage per Container is 50m, but request is 10m, maximum cpu usage per Container is 1, but limit is 2, cpu max limit to request ratio per Container is 2, but provided ratio is 200.000000]"#
    );
}

#[tokio::test]
async fn pods_as_a_whole_and_claims_stay_in_the_limit_range() {
    use k8s_openapi::api::core::v1::PersistentVolumeClaim;
    let setup = setup();
    range(&setup, json!({"type": "Pod", "max": {"memory": "1Gi"}}));
    let container = |name: &str| json!({"name": name, "resources": {"limits": {"memory": "600Mi"}}});
    assert!(setup.pod(json!({"containers": [container("a")]})).is_ok());
    assert_eq!(
        setup.pod(json!({"containers": [container("a"), container("b")]})).unwrap_err(),
        r#"pods "p" is forbidden: maximum memory usage per Pod is 1Gi, but limit is 1200Mi"#
    );
    range(
        &setup,
        json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}),
    );
    let claim = |size: &str| {
        let spec = json!({"resources": {"requests": {"storage": size}}});
        let claim = json!({"metadata": {"namespace": "a", "name": "c"}, "spec": spec});
        setup.create::<PersistentVolumeClaim>(&identity::admin(), "persistentvolumeclaims", claim)
    };
    assert!(claim("1Gi").is_ok());
    for (size, wanted) in [
        ("1Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"),
        ("3Gi", "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"),
    ] {
        assert_eq!(claim(size).unwrap_err(), format!("persistentvolumeclaims \"c\" is forbidden: {wanted}"));
    }
}

#[tokio::test]
async fn claims_get_the_default_class_and_grow_only_where_it_allows_that() {
    use k8s_openapi::api::core::v1::PersistentVolumeClaim;
    let setup = setup();
    let class = |name: &str, made: &str, allows: bool| {
        let annotations = json!({"storageclass.kubernetes.io/is-default-class": "true"});
        let metadata = json!({"name": name, "creationTimestamp": made, "annotations": annotations});
        let class = json!({"metadata": metadata, "provisioner": "x", "allowVolumeExpansion": allows});
        setup.objects.put(Kind::StorageClass, class);
    };
    class("old", "2026-01-01T00:00:00Z", false);
    class("new", "2026-01-02T00:00:00Z", true);
    let claim = |name: Option<&str>, size: &str| {
        let mut spec = json!({"resources": {"requests": {"storage": size}}});
        if let Some(name) = name {
            spec["storageClassName"] = json!(name);
        }
        let status = json!({"phase": "Bound"});
        json!({"metadata": {"namespace": "a", "name": "c"}, "spec": spec, "status": status})
    };
    let row = "persistentvolumeclaims";
    let create = |claim| setup.create::<PersistentVolumeClaim>(&identity::admin(), row, claim).unwrap();
    let made = create(claim(None, "1Gi"));
    assert_eq!(made["spec"]["storageClassName"], "new");
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    assert_eq!(create(claim(Some(""), "1Gi"))["spec"]["storageClassName"], "");

    let grow = |class: &str, phase: &str| {
        let mut old = claim(Some(class), "1Gi");
        old["status"]["phase"] = json!(phase);
        let new = claim(Some(class), "2Gi");
        let done = setup.write::<PersistentVolumeClaim>(
            &identity::admin(),
            Operation::Update,
            row,
            Some(&new),
            Some(&old),
        );
        done.map(|_| ()).map_err(|message| message.split_once(": ").unwrap().1.to_owned())
    };
    assert_eq!(grow("new", "Bound"), Ok(()));
    assert_eq!(grow("new", "Pending"), Err("Only bound persistent volume claims can be expanded".to_owned()));
    let only = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                support resize";
    for class in ["old", "missing", ""] {
        assert_eq!(grow(class, "Bound"), Err(only.to_owned()), "{class}");
    }
}

#[tokio::test]
async fn a_node_tells_of_its_own_devices_only() {
    let setup = setup();
    let user = identity::node("n");
    let slice = |node: &str| {
        json!({"metadata": {"name": "s"}, "spec": {
            "driver": "d.example.org", "nodeName": node, "devices": [],
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
        }})
    };
    let write = |operation, new: Option<&Value>, old: Option<&Value>| {
        setup.write::<ResourceSlice>(&user, operation, "resourceslices", new, old).map(drop)
    };
    let refused =
        |word: &str| format!("can only {word} ResourceSlice with the same NodeName as the requesting node");
    assert_eq!(write(Operation::Create, Some(&slice("n")), None), Ok(()));
    assert!(write(Operation::Create, Some(&slice("m")), None).unwrap_err().ends_with(&refused("create")));
    assert_eq!(write(Operation::Delete, None, Some(&slice("n"))), Ok(()));
    assert!(write(Operation::Delete, None, Some(&slice("m"))).unwrap_err().ends_with(&refused("delete")));
}
