//! The answer to a request that failed: `metav1.Status`, with one constructor per upstream reason and upstream's words.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::field::{self, FieldError, quote};

/// The message of a conflict caused by a stale resourceVersion.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Why a request failed, in the word that clients match on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    #[default]
    #[serde(rename = "")]
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

/// One cause among several, usually one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Machine readable.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The path of the field, if it is about one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What the failed request was about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The plural name of the resource, or the kind where the object was invalid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A request that failed: HTTP code, reason, message and details.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The list metadata of the wire form.
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default = "failure")]
    status: String,
    #[serde(default)]
    pub message: String,
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub reason: Reason,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    #[serde(default)]
    pub code: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ListMeta {
    #[serde(rename = "continue", default, skip_serializing_if = "String::is_empty")]
    continued: String,
}

fn failure() -> String {
    "Failure".to_owned()
}

fn is_unknown(reason: &Reason) -> bool {
    *reason == Reason::Unknown
}

/// A resource by group and plural name, as messages show it: `pods`, `deployments.apps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupResource<'a> {
    /// The API group, empty for the core.
    pub group: &'a str,
    /// The plural name, with `/subresource` where it is about one.
    pub resource: &'a str,
}

impl<'a> GroupResource<'a> {
    /// A resource of a group.
    pub fn new(group: &'a str, resource: &'a str) -> Self {
        Self { group, resource }
    }
}

impl fmt::Display for GroupResource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            "" => f.write_str(self.resource),
            group => write!(f, "{}.{group}", self.resource),
        }
    }
}

impl Status {
    /// Any failure; prefer the constructors named after a reason.
    pub fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            metadata: ListMeta::default(),
            status: failure(),
            message: message.into(),
            reason,
            details: None,
            code,
        }
    }

    fn about(mut self, of: GroupResource<'_>, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: of.group.to_owned(),
            kind: of.resource.to_owned(),
            ..Details::default()
        }));
        self
    }

    /// Adds the time after which the client should try again.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// Adds the token with which a list can be continued all the same.
    pub fn continuing(mut self, token: impl Into<String>) -> Self {
        self.metadata.continued = token.into();
        self
    }

    /// Adds a cause.
    pub fn cause(mut self, cause: Cause) -> Self {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// 404: `pods "x" not found`
    pub fn not_found(of: GroupResource<'_>, name: &str) -> Self {
        let message = format!("{of} {} not found", quote(name));
        Self::failure(404, Reason::NotFound, message).about(of, name)
    }

    /// 404 for a path that no resource has.
    pub fn unknown_path() -> Self {
        Self::failure(404, Reason::NotFound, "the server could not find the requested resource")
            .about(GroupResource::new("", ""), "")
    }

    /// 409: `pods "x" already exists`
    pub fn already_exists(of: GroupResource<'_>, name: &str) -> Self {
        let message = format!("{of} {} already exists", quote(name));
        Self::failure(409, Reason::AlreadyExists, message).about(of, name)
    }

    /// 409 after every generated name was taken.
    pub fn generate_name_conflict(of: GroupResource<'_>, name: &str, retry: u32) -> Self {
        let message = format!(
            "{of} {} already exists, the server was not able to generate a unique name for the object",
            quote(name)
        );
        Self::failure(409, Reason::AlreadyExists, message).about(of, name).retry_after(retry)
    }

    /// 401
    pub fn unauthorized(message: &str) -> Self {
        let message = if message.is_empty() { "not authorized" } else { message };
        Self::failure(401, Reason::Unauthorized, message)
    }

    /// 403: `pods "x" is forbidden: why`
    pub fn forbidden(of: GroupResource<'_>, name: &str, why: impl fmt::Display) -> Self {
        let message = match (of.group.is_empty() && of.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{of} is forbidden: {why}"),
            (false, false) => format!("{of} {} is forbidden: {why}", quote(name)),
        };
        Self::failure(403, Reason::Forbidden, message).about(of, name)
    }

    /// 409: `Operation cannot be fulfilled on pods "x": why`
    pub fn conflict(of: GroupResource<'_>, name: &str, why: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {of} {}: {why}", quote(name));
        Self::failure(409, Reason::Conflict, message).about(of, name)
    }

    /// 409 because the object changed since the writer read it.
    pub fn modified(of: GroupResource<'_>, name: &str) -> Self {
        Self::conflict(of, name, MODIFIED)
    }

    /// 409 of server-side apply: other managers own the fields.
    pub fn apply_conflict(causes: Vec<Cause>, message: impl Into<String>) -> Self {
        let mut status = Self::failure(409, Reason::Conflict, message);
        status.details = Some(Box::new(Details { causes, ..Details::default() }));
        status
    }

    /// 410 for something that will not come back.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Gone, message)
    }

    /// 410 for a resourceVersion that is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Expired, message)
    }

    /// 422: `Pod "x" is invalid: [..]`; the kind carries its group as in `Deployment.apps`.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let of = GroupResource::new(group, kind);
        let message = match errors {
            [] => format!("{of} {} is invalid", quote(name)),
            errors => format!("{of} {} is invalid: {}", quote(name), field::aggregate(errors)),
        };
        let mut status = Self::failure(422, Reason::Invalid, message).about(of, name);
        status.details.get_or_insert_default().causes = errors
            .iter()
            .map(|e| Cause {
                reason: e.kind.cause().to_owned(),
                message: e.body(),
                field: e.field.to_string(),
            })
            .collect();
        status
    }

    /// 400
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, Reason::BadRequest, message)
    }

    /// 429, with the time after which to try again.
    pub fn too_many_requests(message: impl Into<String>, retry: u32) -> Self {
        Self::failure(429, Reason::TooManyRequests, message).retry_after(retry)
    }

    /// 503
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, Reason::ServiceUnavailable, message)
    }

    /// 405: `delete is not supported on resources of kind "pods"`
    pub fn method_not_supported(of: GroupResource<'_>, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind {}", quote(&of.to_string()));
        Self::failure(405, Reason::MethodNotAllowed, message).about(of, "")
    }

    /// 405 for a method that the path doesn't have.
    pub fn method_not_allowed() -> Self {
        Self::failure(
            405,
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
        .about(GroupResource::new("", ""), "")
    }

    /// 422 for what does not fit the object that it is about, without saying why.
    pub fn rejected() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::failure(422, Reason::Invalid, message).about(GroupResource::new("", ""), "")
    }

    /// 500 for a passing failure; the client should try again.
    pub fn server_timeout(of: GroupResource<'_>, operation: &str, retry: u32) -> Self {
        let message = format!(
            "The {operation} operation against {of} could not be completed at this time, please try again."
        );
        Self::failure(500, Reason::ServerTimeout, message).about(of, operation).retry_after(retry)
    }

    /// 500: `Internal error occurred: why`
    pub fn internal(why: impl fmt::Display) -> Self {
        let why = why.to_string();
        Self::failure(500, Reason::InternalError, format!("Internal error occurred: {why}"))
            .cause(Cause { message: why, ..Cause::default() })
    }

    /// 504: `Timeout: why`
    pub fn timeout(why: impl fmt::Display, retry: u32) -> Self {
        Self::failure(504, Reason::Timeout, format!("Timeout: {why}")).retry_after(retry)
    }

    /// 504 for a resourceVersion that this server has not reached yet.
    pub fn too_large_resource_version(timeout_seconds: u32, requested: u64, current: u64) -> Self {
        let _ = timeout_seconds;
        Self::timeout(format_args!("Too large resource version: {requested}, current: {current}"), 1).cause(
            Cause {
                reason: "ResourceVersionTooLarge".to_owned(),
                message: "Too large resource version".to_owned(),
                field: String::new(),
            },
        )
    }

    /// 413: `Request entity too large: why`
    pub fn request_entity_too_large(why: impl fmt::Display) -> Self {
        Self::failure(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {why}"))
    }

    /// 406, with the media types that could be given.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::failure(406, Reason::NotAcceptable, message)
    }

    /// 415, with the media types that could be read.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::failure(415, Reason::UnsupportedMediaType, message)
    }

    /// The wire form.
    pub fn to_value(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.insert("kind".to_owned(), "Status".into());
            map.insert("apiVersion".to_owned(), "v1".into());
        }
        value
    }

    /// The wire form as JSON text.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = br#"{"kind":"Status","apiVersion":"v1","#.to_vec();
        // A Status is a plain struct of strings and numbers: writing it to memory cannot fail.
        let body = serde_json::to_vec(self).unwrap_or_default();
        bytes.extend_from_slice(body.get(1..).unwrap_or(b"}"));
        bytes
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Path;

    const PODS: GroupResource<'static> = GroupResource { group: "", resource: "pods" };
    const DEPLOYMENTS: GroupResource<'static> = GroupResource { group: "apps", resource: "deployments" };

    #[test]
    fn messages_and_codes_are_upstreams() {
        let missing = FieldError::required(&Path::new("spec"), "");
        let two = [missing.clone(), FieldError::required(&Path::new("b"), "")];
        for (status, code, message) in [
            (Status::not_found(PODS, "x"), 404, r#"pods "x" not found"#),
            (Status::not_found(DEPLOYMENTS, "x"), 404, r#"deployments.apps "x" not found"#),
            (Status::already_exists(PODS, "x"), 409, r#"pods "x" already exists"#),
            (
                Status::modified(PODS, "x"),
                409,
                "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your \
                 changes to the latest version and try again",
            ),
            (Status::invalid("", "Pod", "x", &[missing]), 422, r#"Pod "x" is invalid: spec: Required value"#),
            (
                Status::invalid("apps", "Deployment", "x", &two),
                422,
                r#"Deployment.apps "x" is invalid: [spec: Required value, b: Required value]"#,
            ),
            (Status::forbidden(PODS, "", "no"), 403, "pods is forbidden: no"),
            (Status::forbidden(PODS, "x", "no"), 403, r#"pods "x" is forbidden: no"#),
            (Status::internal("boom"), 500, "Internal error occurred: boom"),
            (
                Status::method_not_supported(PODS, "delete"),
                405,
                r#"delete is not supported on resources of kind "pods""#,
            ),
        ] {
            assert_eq!((status.code, status.message.as_str()), (code, message));
        }
    }

    #[test]
    fn the_wire_form_is_a_metav1_status() {
        let status = Status::not_found(PODS, "x");
        let expect = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "pods \"x\" not found", "reason": "NotFound",
            "details": {"name": "x", "kind": "pods"}, "code": 404,
        });
        assert_eq!(status.to_value(), expect);
        assert_eq!(serde_json::from_slice::<Value>(&status.to_bytes()).ok(), Some(expect.clone()));
        assert_eq!(serde_json::from_value::<Status>(expect).ok(), Some(status));
    }
}
