//! Who asks, and may they?

use std::sync::Arc;

use api::object::Object;
use api::resource::Answer;
use api::status::Status;
use http::request::Parts;
use k8s_openapi::api::authentication::v1::TokenRequest;

use crate::registry::Registry;
use crate::{Attributes, Config, Connection, MASTERS, UserInfo};

/// What an authorizer says to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Refused for good, whatever further authorizers would say.
    Deny(String),
    /// Not allowed by this authorizer; the words become part of the answer.
    NoOpinion(String),
}

/// Authentication and authorization of one API server.
#[derive(Debug)]
pub struct Auth {
    _registry: Arc<Registry>,
}

impl Auth {
    /// Reads what it decides by from the registry's caches.
    pub fn new(_config: &Config, registry: Arc<Registry>) -> Self {
        Self { _registry: registry }
    }

    /// Finds out who asks; `None` if the request carries no credentials at all.
    pub async fn authenticate(
        &self,
        _parts: &Parts,
        connection: &Connection,
    ) -> Result<Option<Arc<UserInfo>>, Status> {
        Ok(connection.identity.clone())
    }

    /// Answers one question.
    pub fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.in_group(MASTERS) { Decision::Allow } else { Decision::NoOpinion(String::new()) }
    }

    /// Answers a review: the object with its status filled in.
    pub fn review(
        &self,
        _user: &Arc<UserInfo>,
        _namespace: &str,
        _answer: Answer,
        _object: Box<dyn Object>,
    ) -> Result<Box<dyn Object>, Status> {
        Err(Status::method_not_allowed())
    }

    /// The service account tokens.
    pub fn tokens(&self) -> Tokens {
        Tokens
    }
}

/// Issues service account tokens.
#[derive(Debug)]
pub struct Tokens;

impl Tokens {
    /// Answers a request for a token of the service account.
    pub fn issue(
        &self,
        _namespace: &str,
        _name: &str,
        _request: TokenRequest,
    ) -> Result<TokenRequest, Status> {
        Err(Status::method_not_allowed())
    }
}
