use base::{Random, Tasks};
use http::Request;
use serde_json::json;

use super::source::Kind;
use super::source::fixed::Fixed;
use super::*;
use crate::pki::Pki;
use crate::pki::join_token::JoinToken;

struct Setup {
    auth: Auth,
    objects: Arc<Fixed>,
    pki: Arc<Pki>,
}

fn setup() -> Setup {
    let (clock, random) = (Clock::system(), Random::seeded(1));
    let pki = Arc::new(Pki::in_memory(clock.clone(), random.clone()).unwrap());
    let config = Config::new(clock, random, Tasks::new("test"), pki.clone(), "192.0.2.1".parse().unwrap());
    let objects = Arc::new(Fixed::default());
    Setup { auth: Auth::over(&config, objects.clone()), objects, pki }
}

impl Setup {
    async fn ask(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        connection: &Connection,
    ) -> Result<Option<Arc<UserInfo>>, Status> {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        self.auth.authenticate(&parts, connection).await
    }

    fn allow(&self, user: &str, verb: &str, resource: &str, group: &str) {
        let name = format!("{user}-{verb}-{resource}").replace('/', "-");
        self.objects.put(
            Kind::ClusterRole,
            json!({"metadata": {"name": name}, "rules": [{"verbs": [verb], "apiGroups": [group], "resources": [resource]}]}),
        );
        self.objects.put(
            Kind::ClusterRoleBinding,
            json!({"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": name}, "subjects": [{"kind": "User", "name": user}]}),
        );
    }
}

fn as_user(user: UserInfo) -> Connection {
    Connection { identity: Some(Arc::new(user)), ..Connection::default() }
}

#[tokio::test]
async fn nobody_sees_health_and_version_only() {
    let setup = setup();
    let nobody = Connection::default();
    for path in ["/healthz", "/livez", "/readyz", "/version", "/version/"] {
        assert!(setup.ask(path, &[], &nobody).await.unwrap().is_none(), "{path}");
    }
    for path in ["/", "/api", "/apis", "/api/v1/pods", "/metrics", "/openapi/v2", "/healthzz", "/readyz/ping"]
    {
        let status = setup.ask(path, &[], &nobody).await.unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (401, "Unauthorized"), "{path}");
    }
}

#[tokio::test]
async fn a_certificate_names_its_holder() {
    let setup = setup();
    let holder = |der| Connection { peer_certificates: vec![der], ..Connection::default() };
    let admin = setup
        .ask("/api", &[], &holder(setup.pki.admin().unwrap().certificate.clone()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(admin.name, "kubernetes-admin");
    assert_eq!(admin.groups, ["system:masters", "system:authenticated"]);
    assert!(admin.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
    let node = setup
        .ask("/api", &[], &holder(setup.pki.node_client("a").unwrap().certificate.clone()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(node::node_name(&node), Some("a"));
}

#[tokio::test]
async fn a_bearer_token_is_good_or_refused() {
    let setup = setup();
    setup
        .objects
        .put(Kind::ServiceAccount, json!({"metadata": {"namespace": "a", "name": "robot", "uid": "u"}}));
    let request = |audiences: serde_json::Value| {
        serde_json::from_value(json!({"metadata": {}, "spec": {"audiences": audiences}})).unwrap()
    };
    let issue = |audiences| {
        setup
            .auth
            .tokens()
            .issue(&identity::admin(), "a", "robot", request(audiences))
            .unwrap()
            .status
            .unwrap()
            .token
            .unwrap()
    };
    let (own, other) = (issue(json!([])), issue(json!(["vault"])));
    let nobody = Connection::default();
    let user =
        setup.ask("/api", &[("authorization", &format!("Bearer {own}"))], &nobody).await.unwrap().unwrap();
    assert_eq!(user.name, "system:serviceaccount:a:robot");
    for header in [
        format!("Bearer {other}"),
        "Bearer".into(),
        "Bearer ".into(),
        "Basic eDp5".into(),
        "Bearer nonsense".into(),
        own.clone(),
    ] {
        let status = setup.ask("/api", &[("authorization", &header)], &nobody).await.unwrap_err();
        assert_eq!(status.code, 401, "{header}");
        // Also where nobody may: credentials that are wrong are never ignored.
        assert!(setup.ask("/version", &[("authorization", &header)], &nobody).await.is_err());
    }
}

#[tokio::test]
async fn a_token_is_good_as_soon_as_it_is_made() {
    let setup = setup();
    let token = JoinToken::generate("ab".repeat(32), &Random::seeded(3));
    let authorization = [("authorization", format!("Bearer {}", token.bearer()))];
    let headers = authorization.each_ref().map(|(name, value)| (*name, value.as_str()));
    let nobody = Connection::default();
    assert!(setup.ask("/api", &headers, &nobody).await.is_err());
    // Stored, perhaps through another server, and not seen here yet.
    setup.objects.put_late(Kind::Secret, bootstrap_token::secret(&token, None, ""));
    let user = setup.ask("/api", &headers, &nobody).await.unwrap().unwrap();
    assert_eq!(user.name, format!("system:bootstrap:{}", token.id));
}

#[tokio::test]
async fn acting_as_another_needs_permission_for_every_part() {
    let setup = setup();
    let anna = as_user(UserInfo::new("anna", &[]));
    let act = [
        ("impersonate-user", "bert"),
        ("impersonate-group", "team"),
        ("impersonate-extra-scopes%2Fa", "view"),
    ];
    let status = setup.ask("/api", &act, &anna).await.unwrap_err();
    assert_eq!(
        status.message,
        r#"users "bert" is forbidden: User "anna" cannot impersonate resource "users" in API group "" at the cluster scope"#
    );
    setup.allow("anna", "impersonate", "users", "");
    assert!(
        setup.ask("/api", &act, &anna).await.unwrap_err().message.starts_with("groups \"team\" is forbidden")
    );
    setup.allow("anna", "impersonate", "groups", "");
    assert!(setup.ask("/api", &act, &anna).await.unwrap_err().message.contains("userextras/scopes/a"));
    setup.allow("anna", "impersonate", "userextras/scopes/a", "authentication.k8s.io");
    let bert = setup.ask("/api", &act, &anna).await.unwrap().unwrap();
    assert_eq!(
        (bert.name.as_str(), bert.groups.as_slice()),
        ("bert", &["team".to_owned(), "system:authenticated".to_owned()][..])
    );
    assert_eq!(bert.extra["scopes/a"], ["view"]);
    let robot = [("impersonate-user", "system:serviceaccount:a:robot")];
    assert!(setup.ask("/api", &robot, &anna).await.is_err());
    setup.allow("anna", "impersonate", "serviceaccounts", "");
    assert!(setup.ask("/api", &robot, &anna).await.unwrap().unwrap().in_group("system:serviceaccounts:a"));
    assert!(setup.ask("/api", &[("impersonate-group", "system:masters")], &anna).await.is_err());
}

#[tokio::test]
async fn refusals_are_in_upstreams_words() {
    let setup = setup();
    let user = Arc::new(UserInfo::new("x", &[]));
    let ask = |request: Attributes| match setup.auth.authorize(&request) {
        Decision::Allow => "allowed".to_owned(),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => forbidden(&request, &reason).message,
    };
    let of = |verb: &str, group: &str, resource: &str, namespace: &str, name: &str| Attributes {
        user: user.clone(),
        verb: verb.into(),
        group: group.into(),
        resource: resource.into(),
        namespace: namespace.into(),
        name: name.into(),
        resource_request: true,
        ..Attributes::default()
    };
    assert_eq!(
        ask(of("list", "", "pods", "default", "")),
        r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    assert_eq!(
        ask(of("get", "apps", "deployments", "", "d")),
        r#"deployments.apps "d" is forbidden: User "x" cannot get resource "deployments" in API group "apps" at the cluster scope"#
    );
    let exec = Attributes { subresource: "exec".into(), ..of("create", "", "pods", "a", "p") };
    assert_eq!(
        ask(exec),
        r#"pods "p" is forbidden: User "x" cannot create resource "pods/exec" in API group "" in the namespace "a""#
    );
    let path = Attributes {
        user: user.clone(),
        verb: "get".into(),
        path: "/metrics".into(),
        ..Attributes::default()
    };
    assert_eq!(ask(path), r#"forbidden: User "x" cannot get path "/metrics""#);
    let secret = Attributes { user: Arc::new(identity::node("n")), ..of("get", "", "secrets", "a", "s") };
    assert_eq!(
        ask(secret),
        r#"secrets "s" is forbidden: User "system:node:n" cannot get resource "secrets" in API group "" in the namespace "a": no relationship found between node 'n' and this object"#
    );
    let root = Attributes { user: Arc::new(identity::admin()), ..of("delete", "any", "thing", "", "t") };
    assert_eq!(ask(root), "allowed");
}

mod reviews {
    use api::object::Object;
    use api::resource::Answer;
    use futures::FutureExt;
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    use super::*;

    fn review<T: Object + DeserializeOwned>(
        setup: &Setup,
        user: &UserInfo,
        namespace: &str,
        answer: Answer,
        spec: Value,
    ) -> Result<Value, Status> {
        let object: T = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        setup
            .auth
            .review(&Arc::new(user.clone()), namespace, answer, Box::new(object))
            .now_or_never()
            .expect("objects in memory keep nobody waiting")
            .map(|object| object.to_value()["status"].clone())
    }

    #[tokio::test]
    async fn access_is_told_for_oneself_and_for_others() {
        use k8s_openapi::api::authorization::v1::{
            LocalSubjectAccessReview, SelfSubjectAccessReview, SubjectAccessReview,
        };
        let setup = setup();
        setup.allow("anna", "get", "pods", "");
        let anna = UserInfo::new("anna", &[]);
        let pods = |verb: &str| json!({"verb": verb, "resource": "pods", "namespace": "a"});
        let own = |verb| {
            review::<SelfSubjectAccessReview>(
                &setup,
                &anna,
                "",
                Answer::SelfSubjectAccessReview,
                json!({"resourceAttributes": pods(verb)}),
            )
            .unwrap()
        };
        assert_eq!(
            (own("get")["allowed"].clone(), own("list")["allowed"].clone()),
            (json!(true), json!(false))
        );
        let other = json!({"user": "anna", "resourceAttributes": pods("get")});
        let status = review::<SubjectAccessReview>(
            &setup,
            &identity::admin(),
            "",
            Answer::SubjectAccessReview,
            other.clone(),
        )
        .unwrap();
        assert_eq!(status["allowed"], true);
        let local = |namespace| {
            review::<LocalSubjectAccessReview>(
                &setup,
                &anna,
                namespace,
                Answer::LocalSubjectAccessReview,
                other.clone(),
            )
        };
        assert_eq!(local("a").unwrap()["allowed"], true);
        assert_eq!(local("b").unwrap_err().code, 400);
        for (spec, message) in [
            (
                json!({}),
                "SelfSubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.resourceAttributes: Invalid value",
            ),
            (
                json!({"resourceAttributes": {}, "nonResourceAttributes": {}}),
                "SelfSubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.nonResourceAttributes: Invalid value",
            ),
        ] {
            let status =
                review::<SelfSubjectAccessReview>(&setup, &anna, "", Answer::SelfSubjectAccessReview, spec)
                    .unwrap_err();
            assert!(status.message.starts_with(message), "{}", status.message);
        }
    }

    #[tokio::test]
    async fn a_token_is_reviewed_for_its_audience() {
        use k8s_openapi::api::authentication::v1::TokenReview;
        let setup = setup();
        setup
            .objects
            .put(Kind::ServiceAccount, json!({"metadata": {"namespace": "a", "name": "robot", "uid": "u"}}));
        let request =
            serde_json::from_value(json!({"metadata": {}, "spec": {"audiences": ["vault"]}})).unwrap();
        let token = setup
            .auth
            .tokens()
            .issue(&identity::admin(), "a", "robot", request)
            .unwrap()
            .status
            .unwrap()
            .token
            .unwrap();
        let ask = |spec| review::<TokenReview>(&setup, &identity::admin(), "", Answer::TokenReview, spec);
        let good = ask(json!({"token": token, "audiences": ["vault", "else"]})).unwrap();
        assert_eq!(
            (good["authenticated"].clone(), good["audiences"].clone()),
            (json!(true), json!(["vault"]))
        );
        assert_eq!(good["user"]["username"], "system:serviceaccount:a:robot");
        for spec in [json!({"token": token}), json!({"token": "nonsense"})] {
            let bad = ask(spec).unwrap();
            assert_ne!(bad["authenticated"], true);
            assert!(bad["error"].as_str().is_some_and(|error| !error.contains(&token)));
        }
        assert_eq!(ask(json!({"token": ""})).unwrap_err().code, 400);
    }

    #[tokio::test]
    async fn rules_and_self_are_told() {
        use k8s_openapi::api::authentication::v1::SelfSubjectReview;
        use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;
        let setup = setup();
        setup.allow("anna", "get", "pods", "");
        let ask = |user: &UserInfo| {
            review::<SelfSubjectRulesReview>(
                &setup,
                user,
                "",
                Answer::SelfSubjectRulesReview,
                json!({"namespace": "a"}),
            )
            .unwrap()
        };
        let status = ask(&UserInfo::new("anna", &[]));
        assert_eq!(
            status["resourceRules"],
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])
        );
        assert_eq!(status["incomplete"], false);
        assert_eq!(ask(&identity::admin())["resourceRules"][0]["verbs"], json!(["*"]));
        assert_eq!(ask(&identity::node("n"))["incomplete"], true);
        let review: SelfSubjectReview = serde_json::from_value(json!({"metadata": {}})).unwrap();
        let anna = Arc::new(UserInfo::new("anna", &["team"]));
        let answer = setup.auth.review(&anna, "", Answer::SelfSubjectReview, Box::new(review)).await.unwrap();
        assert_eq!(
            answer.to_value()["status"]["userInfo"],
            json!({"username": "anna", "groups": ["team", "system:authenticated"]})
        );
    }
}
