//! Plugins that keep to what an administrator has said: of pods, of classes, of certificates, of owners.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::Ingress;

use super::*;

const GROUP: &str = "certificates.k8s.io";

fn namespace(name: &str, labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> = labels
        .iter()
        .map(|(mode, value)| (format!("pod-security.kubernetes.io/{mode}"), json!(value)))
        .collect();
    json!({"metadata": {"name": name, "labels": labels}})
}

fn privileged() -> Value {
    pod(
        "p",
        json!({"hostNetwork": true, "containers": [{"name": "c", "securityContext": {"privileged": true}}]}),
    )
}

const BASELINE: &str = "host namespaces (hostNetwork=true), privileged (container \"c\" must not set securityContext.privileged=true)";

#[tokio::test]
async fn a_pod_does_no_more_than_its_namespace_allows() {
    let setup = setup();
    let admin = identity::admin();
    let create = || setup.create::<Pod>(&admin, "pods", privileged()).map(drop);
    assert_eq!(create(), Ok(()));
    setup
        .objects
        .put(Kind::Namespace, namespace("a", &[("enforce", "baseline"), ("enforce-version", "v1.25")]));
    let why = format!("violates PodSecurity \"baseline:v1.25\": {BASELINE}");
    assert_eq!(create().unwrap_err(), format!("pods \"p\" is forbidden: {why}"));
    // What is there already may go on, as long as its containers stay.
    let update = |new: &Value, resource: &str| {
        setup.write::<Pod>(&admin, Operation::Update, resource, Some(new), Some(&privileged())).map(drop)
    };
    let mut labelled = privileged();
    labelled["metadata"]["labels"] = json!({"x": "y"});
    assert_eq!(update(&labelled, "pods"), Ok(()));
    let mut changed = privileged();
    changed["spec"]["containers"][0]["image"] = json!("other");
    assert_eq!(update(&changed, "pods").unwrap_err(), format!("pods \"p\" is forbidden: {why}"));
    assert_eq!(update(&changed, "pods/status"), Ok(()));
    assert_eq!(setup.warnings.take(), [""; 0]);

    setup.objects.put(Kind::Namespace, namespace("a", &[("warn", "baseline")]));
    assert_eq!(create(), Ok(()));
    assert_eq!(setup.warnings.take(), [format!("would violate PodSecurity \"baseline:latest\": {BASELINE}")]);
}

#[tokio::test]
async fn a_controller_is_told_of_pods_that_will_be_refused() {
    let setup = setup();
    setup.objects.put(Kind::Namespace, namespace("a", &[("enforce", "baseline")]));
    let deployment = json!({"metadata": {"namespace": "a", "name": "d"}, "spec": {
        "selector": {}, "template": {"spec": privileged()["spec"]}}});
    let write = |resource: &str| {
        let operation = Operation::Update;
        setup.write::<Deployment>(
            &identity::admin(),
            operation,
            resource,
            Some(&deployment),
            Some(&deployment),
        )
    };
    assert!(write("deployments").is_ok());
    assert_eq!(setup.warnings.take(), [format!("would violate PodSecurity \"baseline:latest\": {BASELINE}")]);
    assert!(write("deployments/status").is_ok());
    assert_eq!(setup.warnings.take(), [""; 0]);
}

#[tokio::test]
async fn a_namespace_that_becomes_stricter_tells_of_its_pods() {
    let setup = setup();
    let owned = |name: &str, owner: &str| {
        let mut pod = privileged();
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": owner, "controller": true}]);
        pod
    };
    for object in [owned("z", "1"), owned("y", "1"), owned("x", "2"), pod("fine", json!({}))] {
        setup.objects.put(Kind::Pod, object);
    }
    setup.objects.put(Kind::Pod, pod("host", json!({"hostPID": true})));
    let mut elsewhere = privileged();
    elsewhere["metadata"]["namespace"] = json!("b");
    setup.objects.put(Kind::Pod, elsewhere);
    let update = |old: &[(&str, &str)], new: &[(&str, &str)]| {
        let (old, new) = (namespace("a", old), namespace("a", new));
        let operation = Operation::Update;
        let result =
            setup.write::<Namespace>(&identity::admin(), operation, "namespaces", Some(&new), Some(&old));
        (result.map(drop), setup.warnings.take())
    };
    let told = [
        "existing pods in namespace \"a\" violate the new PodSecurity enforce level \"baseline:latest\"",
        "host: host namespaces",
        "x (and 2 other pods): host namespaces, privileged",
    ];
    assert_eq!(update(&[], &[("enforce", "baseline")]), (Ok(()), told.map(str::to_owned).into()));
    for (old, new) in [
        (&[("enforce", "baseline")][..], &[("enforce", "baseline")][..]),
        (&[("enforce", "restricted")], &[("enforce", "baseline")]),
        (&[], &[("enforce", "privileged"), ("enforce-version", "v1.20")]),
        (&[], &[("warn", "baseline")]),
        // What was wrong stays.
        (&[("warn", "strict")], &[("warn", "strict")]),
    ] {
        assert_eq!(update(old, new), (Ok(()), Vec::new()), "{new:?}");
    }
    let why = "Namespace \"a\" is invalid: metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \
               \"strict\": must be one of privileged, baseline, restricted";
    assert_eq!(update(&[], &[("warn", "strict")]).0.unwrap_err(), why);
    let create =
        setup.create::<Namespace>(&identity::admin(), "namespaces", namespace("n", &[("warn", "strict")]));
    assert_eq!(create.unwrap_err(), why.replace("\"a\"", "\"n\""));
}

#[tokio::test]
async fn an_ingress_without_a_class_gets_the_newest_default_one() {
    let setup = setup();
    let class = |ingress: &Value| {
        let ingress = setup.create::<Ingress>(&identity::admin(), "ingresses", ingress.clone()).unwrap();
        ingress["spec"]["ingressClassName"].clone()
    };
    let plain = json!({"metadata": {"namespace": "a", "name": "i"}, "spec": {}});
    assert_eq!(class(&plain), Value::Null);
    for (name, day, mark) in [("b", 1, "true"), ("a", 2, "true"), ("c", 2, "true"), ("d", 3, "false")] {
        let created = format!("2026-01-0{day}T00:00:00Z");
        setup.objects.put(
            Kind::IngressClass,
            json!({"metadata": {"name": name, "creationTimestamp": created,
                "annotations": {"ingressclass.kubernetes.io/is-default-class": mark}}}),
        );
    }
    assert_eq!(class(&plain), "a");
    let mut named = plain.clone();
    named["spec"]["ingressClassName"] = json!("own");
    assert_eq!(class(&named), "own");
    let mut before = plain;
    before["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "own"});
    assert_eq!(class(&before), Value::Null);
}

fn request(signer: &str, pem: &str, status: Value) -> Value {
    let pem = k8s_openapi::ByteString(pem.as_bytes().to_vec());
    json!({"metadata": {"name": "r"}, "spec": {"signerName": signer, "request": pem}, "status": status})
}

#[tokio::test]
async fn who_approves_and_signs_certificates_must_be_allowed_to_for_the_signer() {
    let setup = setup();
    let allow = |user: &str, verb: &str, names: &[&str]| {
        let rules = json!([{"verbs": [verb], "apiGroups": [GROUP], "resources": ["signers"], "resourceNames": names}]);
        setup.objects.put(Kind::ClusterRole, json!({"metadata": {"name": user}, "rules": rules}));
        setup.objects.put(
            Kind::ClusterRoleBinding,
            json!({"metadata": {"name": user}, "roleRef": {"kind": "ClusterRole", "name": user},
                "subjects": [{"kind": "User", "name": user}]}),
        );
    };
    allow("anna", "approve", &["example.com/a"]);
    allow("sam", "sign", &["example.com/*"]);
    let old = request("example.com/a", "", json!({}));
    let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let new = request("example.com/a", "", approved);
    let update = |user: &str, part: &str, new: &Value, old: &Value| {
        let (user, resource) = (UserInfo::new(user, &[]), format!("certificatesigningrequests/{part}"));
        let write = Setup::write::<CertificateSigningRequest>;
        write(&setup, &user, Operation::Update, &resource, Some(new), Some(old)).map(drop)
    };
    let refused = |verb: &str, signer: &str| {
        Err(format!(
            "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to {verb} requests \
             with signerName \"{signer}\""
        ))
    };
    assert_eq!(update("anna", "approval", &new, &old), Ok(()));
    assert_eq!(update("sam", "approval", &new, &old), refused("approve", "example.com/a"));
    let other = request("example.com/b", "", json!({}));
    assert_eq!(update("anna", "approval", &new, &other), refused("approve", "example.com/b"));
    assert_eq!(update("sam", "status", &new, &other), Ok(()));
    assert_eq!(update("anna", "status", &new, &old), refused("sign", "example.com/a"));
    assert_eq!(update("anna", "status", &new, &new), Ok(()), "nothing is signed");
}

#[tokio::test]
async fn nobody_asks_for_a_certificate_of_a_master() {
    let setup = setup();
    let create = |signer: &str, group: &str| {
        let (pem, _) = crate::pki::signing_request(&crate::pki::Profile::client("x", &[group])).unwrap();
        let object = request(signer, &pem, json!({}));
        let user = identity::admin();
        setup.create::<CertificateSigningRequest>(&user, "certificatesigningrequests", object).map(drop)
    };
    assert_eq!(create("kubernetes.io/kube-apiserver-client", "people"), Ok(()));
    assert_eq!(create("example.com/a", "system:masters"), Ok(()));
    assert_eq!(
        create("kubernetes.io/kube-apiserver-client", "system:masters").unwrap_err(),
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: use of kubernetes.io/kube-apiserver-client \
         signer with system:masters group is not allowed"
    );
}

#[tokio::test]
async fn owners_are_named_by_those_who_may_delete_if_that_is_asked_for() {
    let mut setup = setup();
    let rules = json!([{"verbs": ["update"], "apiGroups": ["apps"], "resources": ["deployments/finalizers"], "resourceNames": ["mine"]}]);
    setup.objects.put(Kind::Role, json!({"metadata": {"namespace": "a", "name": "r"}, "rules": rules}));
    setup.objects.put(
        Kind::RoleBinding,
        json!({"metadata": {"namespace": "a", "name": "r"}, "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "anna"}]}),
    );
    let map = |owners: Value| json!({"metadata": {"namespace": "a", "name": "m", "ownerReferences": owners}});
    let owner = |kind: &str, name: &str, blocks: bool| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": name, "blockOwnerDeletion": blocks}]);
    let anna = UserInfo::new("anna", &[]);
    let create = |setup: &Setup, owners: Value| {
        let result = setup.create::<ConfigMap>(&anna, "configmaps", map(owners)).map(drop);
        result.map_err(|why| why.replace("configmaps \"m\" is forbidden: cannot set ", ""))
    };
    assert_eq!(create(&setup, owner("Deployment", "other", true)), Ok(()), "off by default");
    setup.admission = setup.admission.with(&["OwnerReferencesPermissionEnforcement".to_owned()]);
    assert_eq!(create(&setup, owner("Deployment", "mine", true)), Ok(()));
    assert_eq!(create(&setup, owner("Deployment", "other", false)), Ok(()));
    assert_eq!(
        create(&setup, owner("Deployment", "other", true)).unwrap_err(),
        "blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>"
    );
    assert_eq!(
        create(&setup, owner("Thing", "t", true)).unwrap_err(),
        "blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion apps/v1 Kind Thing: no matches \
         for kind \"Thing\" in version \"apps/v1\""
    );
    let update = |new: Value, old: Value| {
        let (new, old) = (map(new), map(old));
        setup.write::<ConfigMap>(&anna, Operation::Update, "configmaps", Some(&new), Some(&old)).map(drop)
    };
    assert_eq!(update(owner("Thing", "t", true), owner("Thing", "t", true)), Ok(()), "nothing changes");
    let why = "configmaps \"m\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>";
    assert_eq!(update(owner("Deployment", "mine", true), json!([])).unwrap_err(), why);
}
