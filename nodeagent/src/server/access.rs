//! Who may do what: administrators everything, all others what the API says of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base::Clock;
use http::Method;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::reply::Refusal;

const ADMINISTRATORS: &str = "system:masters";
/// How long an answer of the API is believed.
const ALLOWED: Duration = Duration::from_secs(300);
const DENIED: Duration = Duration::from_secs(30);
/// The most answers that are kept.
const ANSWERS: usize = 1024;

/// Who a client is by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) user: String,
    pub(super) groups: Vec<String>,
}

impl Peer {
    /// The subject of a certificate that was verified: its common name and its organizations.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|name| name.as_str().ok().map(str::to_owned));
        Some(Self { user, groups: groups.collect() })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    user: String,
    groups: Vec<String>,
    verb: &'static str,
    subresource: &'static str,
}

pub(super) struct Access {
    client: kube::Client,
    clock: Clock,
    node_name: String,
    answers: Mutex<HashMap<Question, (bool, Instant)>>,
}

/// The verb and the subresource of `nodes` that a request needs.
fn attributes(method: &Method, path: &str) -> (&'static str, &'static str) {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let below =
        |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|r| r.starts_with('/'));
    let subresource = [("/stats", "stats"), ("/metrics", "metrics"), ("/logs", "log")]
        .into_iter()
        .find(|(prefix, _)| below(prefix))
        .map_or("proxy", |(_, subresource)| subresource);
    (verb, subresource)
}

impl Access {
    pub(super) fn new(client: kube::Client, clock: Clock, node_name: String) -> Self {
        Self { client, clock, node_name, answers: Mutex::default() }
    }

    /// Refuses what the client may not do.
    pub(super) async fn check(&self, peer: &Peer, method: &Method, path: &str) -> Result<(), Refusal> {
        if peer.groups.iter().any(|group| group == ADMINISTRATORS) {
            return Ok(());
        }
        let (verb, subresource) = attributes(method, path);
        let question = Question { user: peer.user.clone(), groups: peer.groups.clone(), verb, subresource };
        let words = format!("(user={}, verb={verb}, resource=nodes, subresource={subresource})", peer.user);
        let allowed = match self.known(&question) {
            Some(allowed) => allowed,
            None => {
                let allowed = self.ask(&question).await.map_err(|error| {
                    tracing::warn!(user = %peer.user, %error, "the API was not asked whether this is allowed");
                    Refusal::internal(format!("Authorization error {words}"))
                })?;
                self.learn(question, allowed);
                allowed
            }
        };
        if allowed {
            Ok(())
        } else {
            Err(Refusal::new(http::StatusCode::FORBIDDEN, format!("Forbidden {words}")))
        }
    }

    fn known(&self, question: &Question) -> Option<bool> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(question).filter(|(_, until)| self.clock.instant() < *until).map(|(allowed, _)| *allowed)
    }

    fn learn(&self, question: Question, allowed: bool) {
        let now = self.clock.instant();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS {
            answers.retain(|_, (_, until)| now < *until);
            if answers.len() >= ANSWERS {
                answers.clear();
            }
        }
        answers.insert(question, (allowed, now + if allowed { ALLOWED } else { DENIED }));
    }

    async fn ask(&self, question: &Question) -> Result<bool, kube::Error> {
        let attributes = ResourceAttributes {
            verb: Some(question.verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(question.subresource.to_owned()),
            name: Some(self.node_name.clone()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(question.user.clone()),
                groups: Some(question.groups.clone()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_needs_its_own_permission() {
        for (method, path, expected) in [
            (Method::GET, "/stats/summary", ("get", "stats")),
            (Method::GET, "/metrics/resource", ("get", "metrics")),
            (Method::GET, "/metrics", ("get", "metrics")),
            (Method::GET, "/metricsx", ("get", "proxy")),
            (Method::GET, "/containerLogs/a/b/c", ("get", "proxy")),
            (Method::POST, "/exec/a/b/c", ("create", "proxy")),
            (Method::HEAD, "/healthz", ("get", "proxy")),
        ] {
            assert_eq!(attributes(&method, path), expected, "{method} {path}");
        }
    }
}
