//! Who asks, and may they?
//!
//! Authentication tries, in this order: the identity of an in-process transport, a client certificate, a bearer token
//! (service account or bootstrap token). What is wrong is refused with 401; a request without credentials is nobody's,
//! and nobody may see health and version only. A user may act as another one if it was allowed to ([`impersonate`]).
//!
//! Authorization asks, in this order: membership of `system:masters`, the [`node`] authorizer, [`rbac`].

pub mod bootstrap_token;
mod cached;
pub mod identity;
mod impersonate;
pub mod issuer;
pub mod node;
pub mod rbac;
mod reviews;
pub mod rules;
pub mod source;
pub mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::status::Status;
use base::Clock;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use tracing::debug;

use self::node::NodeAuthorizer;
use self::rbac::Rbac;
use self::source::Objects;
use self::tokens::Tokens;
use crate::registry::Registry;
use crate::{Attributes, Config, Connection, MASTERS, UserInfo, bootstrap, pki};

/// What an authorizer says to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Refused for good, whatever further authorizers would say.
    Deny(String),
    /// Not allowed by this authorizer; the words become part of the answer.
    NoOpinion(String),
}

/// What nobody in particular may ask for.
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// Authentication and authorization of one API server.
#[derive(Clone, Debug)]
pub struct Auth {
    clock: Clock,
    objects: Objects,
    tokens: Arc<Tokens>,
    rbac: Arc<Rbac>,
    node: Arc<NodeAuthorizer>,
}

impl Auth {
    /// Reads what it decides by from the registry's caches.
    pub fn new(config: &Config, registry: Arc<Registry>) -> Self {
        Self::over(config, Arc::new(cached::Cached::new(&registry)))
    }

    /// Decides by any objects.
    pub(crate) fn over(config: &Config, objects: Objects) -> Self {
        let (clock, random) = (config.clock.clone(), config.random.clone());
        Self {
            tokens: Arc::new(Tokens::new(
                config.pki.clone(),
                objects.clone(),
                clock.clone(),
                random,
                &config.cluster_domain,
            )),
            rbac: Arc::new(Rbac::new(objects.clone())),
            node: Arc::new(NodeAuthorizer::new(objects.clone(), bootstrap::node_rules())),
            objects,
            clock,
        }
    }

    /// Finds out as whom a request acts; `None` if it carries no credentials and needs none.
    pub async fn authenticate(
        &self,
        parts: &Parts,
        connection: &Connection,
    ) -> Result<Option<Arc<UserInfo>>, Status> {
        match self.identify(parts, connection).await? {
            Some(user) => self.impersonate(user, &parts.headers).map(Some),
            None => Ok(None),
        }
    }

    /// Finds out who asks; `None` if the request carries no credentials and needs none.
    pub(crate) async fn identify(
        &self,
        parts: &Parts,
        connection: &Connection,
    ) -> Result<Option<Arc<UserInfo>>, Status> {
        match self.credentials(&parts.headers, connection).await? {
            Some(user) => Ok(Some(user)),
            None if PUBLIC.contains(&parts.uri.path().trim_end_matches('/')) => Ok(None),
            None => Err(unauthorized()),
        }
    }

    /// Whom the credentials name, if there are any.
    async fn credentials(
        &self,
        headers: &HeaderMap,
        connection: &Connection,
    ) -> Result<Option<Arc<UserInfo>>, Status> {
        if let Some(user) = &connection.identity {
            return Ok(Some(user.clone()));
        }
        if let Some(certificate) = connection.peer_certificates.first() {
            let identity = pki::identity(certificate).ok_or_else(unauthorized)?;
            let groups: Vec<&str> = identity.organizations.iter().map(String::as_str).collect();
            let mut user = UserInfo::new(identity.common_name, &groups);
            let credential = format!("X509SHA256={}", pki::fingerprint(certificate));
            user.extra =
                BTreeMap::from([("authentication.kubernetes.io/credential-id".to_owned(), vec![credential])]);
            return Ok(Some(Arc::new(user)));
        }
        let Some(header) = headers.get(AUTHORIZATION) else { return Ok(None) };
        let token = header.to_str().ok().and_then(bearer).ok_or_else(unauthorized)?;
        let own = [self.tokens.issuer().to_owned()];
        self.token(token, &own).await.map(|(user, _)| Some(Arc::new(user))).map_err(|reason| {
            debug!(%reason, "a bearer token was refused");
            unauthorized()
        })
    }

    /// Whom a bearer token speaks for, and to which of `audiences`.
    async fn token(&self, token: &str, audiences: &[String]) -> Result<(UserInfo, Vec<String>), String> {
        let refused = match self.known_token(token, audiences) {
            Ok(known) => return Ok(known),
            Err(refused) => refused,
        };
        // What it depends on may be newer than what is known here: a token is used as soon as it is made.
        if !self.tokens.is_own(token) && !bootstrap_token::may_be(token) {
            return Err(refused);
        }
        self.objects.catch_up().await;
        self.known_token(token, audiences)
    }

    fn known_token(&self, token: &str, audiences: &[String]) -> Result<(UserInfo, Vec<String>), String> {
        if let Some(verified) = self.tokens.verify(token) {
            let verified = verified?;
            let meant: Vec<String> =
                audiences.iter().filter(|audience| verified.audiences.contains(audience)).cloned().collect();
            if meant.is_empty() {
                return Err(format!(
                    "token audiences {} is invalid for the target audiences {}",
                    rules::quoted(&verified.audiences),
                    rules::quoted(audiences)
                ));
            }
            return Ok((verified.user, meant));
        }
        // Bootstrap tokens know no audience: they are for the API server.
        let own = audiences
            .iter()
            .filter(|audience| *audience == self.tokens.issuer())
            .cloned()
            .collect::<Vec<_>>();
        match bootstrap_token::verify(&self.objects, token, self.clock.now()) {
            Some(user) if !own.is_empty() => Ok((user, own)),
            _ => Err("unknown token".to_owned()),
        }
    }

    /// Answers one question.
    pub fn authorize(&self, request: &Attributes) -> Decision {
        if request.user.in_group(MASTERS) {
            return Decision::Allow;
        }
        let node = match self.node.authorize(request) {
            Decision::NoOpinion(reason) => reason,
            decided => return decided,
        };
        let Err(rbac) = self.rbac.authorize(request) else { return Decision::Allow };
        let reasons: Vec<String> = [node, rbac].into_iter().filter(|reason| !reason.is_empty()).collect();
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// Why [`Auth::authorize`] allows it, in upstream's words. Dear: for the audit log only.
    pub(crate) fn why_allowed(&self, request: &Attributes) -> String {
        if request.user.in_group(MASTERS) || self.node.authorize(request) == Decision::Allow {
            return String::new();
        }
        self.rbac.why_allowed(request)
    }

    /// The RBAC authorizer, for the checks on who may grant what.
    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }

    /// The service account tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// What decisions are made by.
    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// 401, in upstream's words.
fn unauthorized() -> Status {
    Status::unauthorized("Unauthorized")
}

/// 403 for a request that nobody allows, in upstream's words.
pub fn forbidden(request: &Attributes, reason: &str) -> Status {
    use api::field::quote;
    use api::status::GroupResource;
    let Attributes { user, verb, group, resource, subresource, namespace, name, path, .. } = request;
    let user = quote(&user.name);
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if !request.resource_request {
        let what = format!("User {user} cannot {verb} path {}{because}", quote(path));
        return Status::forbidden(GroupResource::new("", ""), "", what);
    }
    let whole = if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
    let place = match namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {}", quote(namespace)),
    };
    let what = format!(
        "User {user} cannot {verb} resource {} in API group {} {place}{because}",
        quote(&whole),
        quote(group)
    );
    Status::forbidden(GroupResource::new(group, resource), name, what)
}

#[cfg(test)]
mod tests;
