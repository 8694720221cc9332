//! Service account tokens: bound to an audience, a time, and usually to the pod that uses them.
//!
//! A token is as good as what it is bound to: it ends with its time, and at once when its service account, or the pod,
//! secret or node that it names, is deleted or replaced by another of the same name.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::field::{FieldError, Path};
use api::status::{GroupResource, Status};
use base::{Clock, Random};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::source::{Kind, Objects};
use crate::UserInfo;
use crate::admission::node_restriction;
use crate::pki::Pki;

const SHORTEST: i64 = 10 * 60;
const LONGEST: i64 = 1 << 32;
const USUAL: i64 = 60 * 60;
/// A pod that ends may use its token for so long, to say good-bye.
const LEEWAY: i64 = 60;

/// An object by name and identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Bound {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Private {
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Bound>,
    serviceaccount: Bound,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Private,
    nbf: i64,
    sub: String,
}

/// The part of any object that bindings are checked by.
#[derive(Debug, Default, Deserialize)]
struct Part {
    metadata: MetaPart,
    #[serde(default)]
    spec: SpecPart,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MetaPart {
    uid: String,
    deletion_timestamp: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecPart {
    service_account_name: Option<String>,
    node_name: Option<String>,
}

/// Issues and checks service account tokens.
#[derive(Debug)]
pub struct Tokens {
    pki: Arc<Pki>,
    objects: Objects,
    clock: Clock,
    random: Random,
    issuer: String,
}

/// Who a token speaks for, and to whom.
#[derive(Debug)]
pub struct Verified {
    pub user: UserInfo,
    pub audiences: Vec<String>,
}

impl Tokens {
    /// Issues in the name of `https://kubernetes.default.svc.<cluster domain>`.
    pub fn new(pki: Arc<Pki>, objects: Objects, clock: Clock, random: Random, cluster_domain: &str) -> Self {
        Self {
            pki,
            objects,
            clock,
            random,
            issuer: format!("https://kubernetes.default.svc.{cluster_domain}"),
        }
    }

    /// The issuer of all tokens; also the audience of the API server itself.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Answers `user`'s request for a token of the service account.
    pub fn issue(
        &self,
        user: &UserInfo,
        namespace: &str,
        name: &str,
        mut request: TokenRequest,
    ) -> Result<TokenRequest, Status> {
        node_restriction::token(&self.objects, user, namespace, name, &request)?;
        let accounts = GroupResource::new("", "serviceaccounts");
        let account: Part = self
            .read(Kind::ServiceAccount, namespace, name)
            .ok_or_else(|| Status::not_found(accounts, name))?;
        let spec = request.spec.get_or_insert_default();
        let audiences = spec.audiences.get_or_insert_default();
        if audiences.is_empty() {
            audiences.push(self.issuer.clone());
        }
        let audiences = audiences.clone();
        let seconds = *spec.expiration_seconds.get_or_insert(USUAL);
        let path = Path::new("spec").child("expirationSeconds");
        let problem = match seconds {
            ..SHORTEST => Some("may not specify a duration less than 10 minutes"),
            SHORTEST..=LONGEST => None,
            _ => Some("may not specify a duration larger than 2^32 seconds"),
        };
        if let Some(problem) = problem {
            let error = FieldError::invalid(&path, seconds, problem);
            return Err(Status::invalid("authentication.k8s.io", "TokenRequest", name, &[error]));
        }
        let mut private = Private {
            namespace: namespace.to_owned(),
            serviceaccount: Bound { name: name.to_owned(), uid: account.metadata.uid },
            ..Private::default()
        };
        if let Some(reference) = &spec.bound_object_ref {
            self.bind(namespace, name, reference, &mut private)?;
        }
        let now = self.clock.now().as_second();
        let claims = Claims {
            aud: audiences,
            exp: now + seconds,
            iat: now,
            iss: self.issuer.clone(),
            jti: self.random.uuid(),
            kubernetes: private,
            nbf: now,
            sub: format!("system:serviceaccount:{namespace}:{name}"),
        };
        let claims = serde_json::to_value(&claims).map_err(Status::internal)?;
        let token = self.pki.tokens().sign(&claims).map_err(Status::internal)?;
        let expires = Timestamp::from_second(now + seconds).map_err(Status::internal)?;
        request.status =
            Some(TokenRequestStatus { expiration_timestamp: Some(Time(expires)), token: Some(token) });
        Ok(request)
    }

    fn bind(
        &self,
        namespace: &str,
        account: &str,
        reference: &BoundObjectReference,
        private: &mut Private,
    ) -> Result<(), Status> {
        let name = reference.name.clone().unwrap_or_default();
        let (kind, plural, of) =
            match (reference.api_version.as_deref(), reference.kind.as_deref().unwrap_or_default()) {
                (None | Some("" | "v1"), "Pod") => (Kind::Pod, "pods", namespace),
                (None | Some("" | "v1"), "Secret") => (Kind::Secret, "secrets", namespace),
                (None | Some("" | "v1"), "Node") => (Kind::Node, "nodes", ""),
                (version, kind) => {
                    let version = version.unwrap_or_default();
                    return Err(Status::bad_request(format!(
                        "cannot bind token to object of type {version}, Kind={kind}"
                    )));
                }
            };
        let resource = GroupResource::new("", plural);
        let object = self.read(kind, of, &name).ok_or_else(|| Status::not_found(resource, &name))?;
        let given = reference.uid.as_deref().unwrap_or_default();
        if !given.is_empty() && given != object.metadata.uid {
            return Err(Status::conflict(
                resource,
                &name,
                format_args!(
                    "the UID in the bound object reference ({given}) does not match the UID in record. \
                     The object might have been deleted and then recreated"
                ),
            ));
        }
        let bound = Bound { name: name.clone(), uid: object.metadata.uid };
        match kind {
            Kind::Pod => {
                if object.spec.service_account_name.as_deref().unwrap_or_default() != account {
                    return Err(Status::bad_request(format!(
                        "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                        api::field::quote(account)
                    )));
                }
                // The node is named too, so that services can tell where a token is used; the pod decides.
                private.node = object.spec.node_name.filter(|node| !node.is_empty()).map(|node| {
                    let uid =
                        self.read(Kind::Node, "", &node).map(|part| part.metadata.uid).unwrap_or_default();
                    Bound { name: node, uid }
                });
                private.pod = Some(bound);
            }
            Kind::Secret => private.secret = Some(bound),
            _ => private.node = Some(bound),
        }
        Ok(())
    }

    /// Whether this cluster has signed a token, however good it still is.
    pub fn is_own(&self, token: &str) -> bool {
        self.pki.tokens().verify(token).is_some()
    }

    /// Whom a token speaks for; `None` if it is no token of ours. An error if it was one and is not good (any more).
    pub fn verify(&self, token: &str) -> Option<Result<Verified, String>> {
        let claims: Claims = serde_json::from_value(self.pki.tokens().verify(token)?).ok()?;
        (claims.iss == self.issuer).then(|| self.check(claims))
    }

    fn check(&self, claims: Claims) -> Result<Verified, String> {
        let now = self.clock.now().as_second();
        if now >= claims.exp {
            return Err("service account token has expired".to_owned());
        }
        if now + LEEWAY < claims.nbf {
            return Err("service account token is not valid yet".to_owned());
        }
        let Private { namespace, node, pod, secret, serviceaccount } = claims.kubernetes;
        let name = serviceaccount.name.clone();
        if claims.sub != format!("system:serviceaccount:{namespace}:{name}") {
            return Err("service account token subject does not match its claims".to_owned());
        }
        self.alive(Kind::ServiceAccount, &namespace, &serviceaccount, "service account")?;
        let mut extra = BTreeMap::from([(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![format!("JTI={}", claims.jti)],
        )]);
        let mut note = |what: &str, bound: &Bound| {
            extra.insert(format!("authentication.kubernetes.io/{what}-name"), vec![bound.name.clone()]);
            if !bound.uid.is_empty() {
                extra.insert(format!("authentication.kubernetes.io/{what}-uid"), vec![bound.uid.clone()]);
            }
        };
        if let Some(secret) = &secret {
            self.alive(Kind::Secret, &namespace, secret, "secret")?;
        }
        if let Some(pod) = &pod {
            self.alive(Kind::Pod, &namespace, pod, "pod")?;
            note("pod", pod);
        }
        if let Some(node) = &node {
            // A token of a pod ends with the pod; whether the node is the same one does not matter then.
            if pod.is_none() {
                self.alive(Kind::Node, "", node, "node")?;
            }
            note("node", node);
        }
        let mut user = UserInfo::service_account(&namespace, &name);
        user.uid = serviceaccount.uid;
        user.extra = extra;
        Ok(Verified { user, audiences: claims.aud })
    }

    /// Refuses what is gone, is going, or is another object of the same name.
    fn alive(&self, kind: Kind, namespace: &str, bound: &Bound, what: &str) -> Result<(), String> {
        let place =
            if namespace.is_empty() { bound.name.clone() } else { format!("{namespace}/{}", bound.name) };
        let object = self
            .read(kind, namespace, &bound.name)
            .ok_or_else(|| format!("{what} {place} has been deleted"))?;
        if object.metadata.uid != bound.uid {
            return Err(format!("{what} {place} is not the one that the token was issued for"));
        }
        let gone = object
            .metadata
            .deletion_timestamp
            .is_some_and(|at| at.as_second() + LEEWAY < self.clock.now().as_second());
        if gone { Err(format!("{what} {place} has been deleted")) } else { Ok(()) }
    }

    fn read(&self, kind: Kind, namespace: &str, name: &str) -> Option<Part> {
        self.objects.get(kind, namespace, name)?.read()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::identity;
    use crate::auth::source::fixed::Fixed;

    struct Setup {
        objects: Arc<Fixed>,
        tokens: Tokens,
        clock: Clock,
    }

    fn setup() -> Setup {
        let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
        let random = Random::seeded(1);
        let objects = Arc::new(Fixed::default());
        objects.put(
            Kind::ServiceAccount,
            json!({"metadata": {"namespace": "a", "name": "robot", "uid": "sa-1"}}),
        );
        objects.put(
            Kind::Pod,
            json!({"metadata": {"namespace": "a", "name": "pod", "uid": "pod-1"}, "spec": {"serviceAccountName": "robot", "nodeName": "n"}}),
        );
        objects.put(Kind::Node, json!({"metadata": {"name": "n", "uid": "node-1"}}));
        let pki = Arc::new(Pki::in_memory(clock.clone(), random.clone()).unwrap());
        let tokens = Tokens::new(pki, objects.clone(), clock.clone(), random, "cluster.local");
        Setup { objects, tokens, clock }
    }

    fn request(spec: serde_json::Value) -> TokenRequest {
        let mut whole = json!({"metadata": {}, "spec": spec});
        if whole["spec"].get("audiences").is_none() {
            whole["spec"]["audiences"] = json!([]);
        }
        serde_json::from_value(whole).unwrap()
    }

    impl Setup {
        fn token(&self, spec: serde_json::Value) -> String {
            self.tokens
                .issue(&identity::admin(), "a", "robot", request(spec))
                .unwrap()
                .status
                .unwrap()
                .token
                .unwrap()
        }
        fn pod_token(&self) -> String {
            self.token(
                json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "pod", "uid": "pod-1"}}),
            )
        }
        fn ok(&self, token: &str) -> bool {
            self.tokens.verify(token).is_some_and(|result| result.is_ok())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_names_its_service_account_pod_and_node() {
        let setup = setup();
        let verified = setup.tokens.verify(&setup.pod_token()).unwrap().unwrap();
        let user = verified.user;
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:a:robot", "sa-1"));
        assert_eq!(
            user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]
        );
        for (key, value) in
            [("pod-name", "pod"), ("pod-uid", "pod-1"), ("node-name", "n"), ("node-uid", "node-1")]
        {
            assert_eq!(user.extra[&format!("authentication.kubernetes.io/{key}")], [value]);
        }
        assert_eq!(verified.audiences, ["https://kubernetes.default.svc.cluster.local"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_ends_with_its_time() {
        let setup = setup();
        let token = setup.token(json!({}));
        setup.clock.wait(std::time::Duration::from_secs(3599)).await;
        assert!(setup.ok(&token));
        setup.clock.wait(std::time::Duration::from_secs(1)).await;
        assert!(!setup.ok(&token));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_ends_with_what_it_is_bound_to() {
        for (kind, namespace, name) in [(Kind::Pod, "a", "pod"), (Kind::ServiceAccount, "a", "robot")] {
            let setup = setup();
            let token = setup.pod_token();
            assert!(setup.ok(&token));
            setup.objects.remove(kind, namespace, name);
            assert!(!setup.ok(&token), "{kind:?} deleted");
            setup
                .objects
                .put(kind, json!({"metadata": {"namespace": namespace, "name": name, "uid": "another"}}));
            assert!(!setup.ok(&token), "{kind:?} replaced");
        }
        let setup = setup();
        let token = setup.token(json!({"boundObjectRef": {"kind": "Node", "name": "n"}}));
        assert!(setup.ok(&token));
        setup.objects.remove(Kind::Node, "", "n");
        assert!(!setup.ok(&token));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_ends_keeps_its_token_for_a_minute() {
        let setup = setup();
        let token = setup.pod_token();
        let at = "2026-01-01T00:00:30Z";
        setup.objects.put(
            Kind::Pod,
            json!({"metadata": {"namespace": "a", "name": "pod", "uid": "pod-1", "deletionTimestamp": at}}),
        );
        setup.clock.wait(std::time::Duration::from_secs(90)).await;
        assert!(setup.ok(&token));
        setup.clock.wait(std::time::Duration::from_secs(1)).await;
        assert!(!setup.ok(&token));
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_not_be_issued_is_refused_in_upstreams_words() {
        let setup = setup();
        setup.objects.put(Kind::Pod, json!({"metadata": {"namespace": "a", "name": "other", "uid": "u"}, "spec": {"serviceAccountName": "x"}}));
        let bound = |kind: &str, name: &str, uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}});
        for (spec, code, message) in [
            (
                json!({"expirationSeconds": 599}),
                422,
                r#"TokenRequest.authentication.k8s.io "robot" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"#,
            ),
            (
                json!({"expirationSeconds": (1i64 << 32) + 1}),
                422,
                r#"TokenRequest.authentication.k8s.io "robot" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds"#,
            ),
            (bound("Pod", "gone", ""), 404, r#"pods "gone" not found"#),
            (
                bound("Pod", "pod", "else"),
                409,
                r#"Operation cannot be fulfilled on pods "pod": the UID in the bound object reference (else) does not match the UID in record. The object might have been deleted and then recreated"#,
            ),
            (
                bound("Pod", "other", ""),
                400,
                r#"cannot bind token for serviceaccount "robot" to pod running with different serviceaccount name."#,
            ),
            (bound("Deployment", "x", ""), 400, "cannot bind token to object of type v1, Kind=Deployment"),
        ] {
            let status = setup.tokens.issue(&identity::admin(), "a", "robot", request(spec)).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (code, message));
        }
        let status = setup.tokens.issue(&identity::admin(), "a", "nobody", request(json!({}))).unwrap_err();
        assert_eq!(status.message, r#"serviceaccounts "nobody" not found"#);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_gets_tokens_of_its_own_pods_only() {
        let setup = setup();
        let issue = |node: &str, spec: serde_json::Value| {
            setup
                .tokens
                .issue(&identity::node(node), "a", "robot", request(spec))
                .map_err(|status| status.message)
        };
        let bound = |uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "pod", "uid": uid}});
        assert!(issue("n", bound("pod-1")).is_ok());
        for (node, spec, why) in [
            ("n", json!({}), "node requested token not bound to a pod"),
            (
                "n",
                json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "node-1"}}),
                "node requested token not bound to a pod",
            ),
            ("n", bound(""), "node requested token with a pod binding without a uid"),
            (
                "n",
                bound("x"),
                "the UID in the bound object reference (x) does not match the UID in record. The object might have been deleted and then recreated",
            ),
            ("m", bound("pod-1"), "node requested token bound to a pod scheduled on a different node"),
        ] {
            assert_eq!(
                issue(node, spec).unwrap_err(),
                format!("serviceaccounts \"robot\" is forbidden: {why}")
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_token_of_ours_is_left_to_others() {
        let setup = setup();
        assert!(setup.tokens.verify("abcdef.0123456789abcdef").is_none());
        assert!(setup.tokens.verify("").is_none());
    }
}
