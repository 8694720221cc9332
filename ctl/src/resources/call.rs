//! One request to the API server, and what can come of it.

use std::fmt::Write as _;

use http::Method;
use serde_json::Value;

use crate::Failure;

/// The media type of plain JSON.
pub(crate) const JSON: &str = "application/json";
/// Server-side tables, with plain JSON for servers that can't make them.
pub(crate) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// A request: method, path, query, body and media types.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    target: String,
    has_query: bool,
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: &'static str,
    pub(crate) accept: &'static str,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        let target = path.into();
        let has_query = target.contains('?');
        Self { method, target, has_query, body: Vec::new(), content_type: JSON, accept: JSON }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::POST, path).body(body)
    }

    pub(crate) fn put(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::PUT, path).body(body)
    }

    /// A patch of a kind: `merge`, `strategic-merge` or `json` (`-patch+json`), or `apply`.
    pub(crate) fn patch(path: impl Into<String>, kind: Patch, body: &Value) -> Self {
        let mut call = Self::new(Method::PATCH, path).body(body);
        call.content_type = match kind {
            Patch::Json => "application/json-patch+json",
            Patch::Merge => "application/merge-patch+json",
            Patch::Strategic => "application/strategic-merge-patch+json",
            Patch::Apply => "application/apply-patch+yaml",
        };
        call
    }

    pub(crate) fn delete(path: impl Into<String>, options: &Value) -> Self {
        Self::new(Method::DELETE, path).body(options)
    }

    fn body(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self
    }

    pub(crate) fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.target.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        encode_into(&mut self.target, name);
        self.target.push('=');
        encode_into(&mut self.target, value.as_ref());
        self
    }

    /// The query parameter, if there is a value for it.
    pub(crate) fn query_if(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Only tries, if that is asked for.
    pub(crate) fn dry_run(self, on: bool) -> Self {
        if on { self.query("dryRun", "All") } else { self }
    }

    pub(crate) fn accept(mut self, media: &'static str) -> Self {
        self.accept = media;
        self
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }
}

/// The kinds of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patch {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// Percent-encodes what has a meaning in URLs.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode_into(&mut out, text);
    out
}

fn encode_into(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' => {
                out.push(byte.into())
            }
            // Writing to a String can't fail.
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

/// A Status with which the server refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) details: Value,
}

impl Refusal {
    /// From the body of an answer, which may be no Status at all.
    pub(crate) fn read(code: u16, body: &[u8]) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match serde_json::from_slice::<Value>(body) {
            Ok(status) if status["kind"] == "Status" || status["message"].is_string() => Self {
                code,
                reason: text(&status["reason"]),
                message: text(&status["message"]),
                details: status["details"].clone(),
            },
            _ => {
                let body = String::from_utf8_lossy(body);
                let message = match body.trim() {
                    "" => format!("the server answered with code {code}"),
                    body => body.to_owned(),
                };
                Self { code, message, ..Self::default() }
            }
        }
    }
}

/// A request that came to nothing.
#[derive(Clone, Debug)]
pub(crate) enum ApiError {
    Refused(Box<Refusal>),
    /// No server there.
    Down {
        server: String,
    },
    /// The server can't be talked to.
    Unreachable(String),
    /// The answer is not what it should be.
    Broken(String),
}

impl ApiError {
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.reason,
            _ => "",
        }
    }

    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::Refused(refusal) => refusal.code,
            _ => 0,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == 404 && self.reason() == "NotFound"
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    /// The same error, said to have come up when something was done with an object of a file.
    pub(crate) fn when(self, doing: &str, source: &str) -> Self {
        match self {
            Self::Refused(mut refusal) => {
                refusal.message = format!("error when {doing} {source:?}: {}", refusal.message);
                Self::Refused(refusal)
            }
            other => other,
        }
    }

    /// What kubectl prints.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal_text(refusal),
            Self::Down { server } => format!(
                "The connection to the server {server} was refused: is the cluster running? start it with `skiff up`"
            ),
            Self::Unreachable(why) => format!("Unable to connect to the server: {why}"),
            Self::Broken(what) => format!("error: {what}"),
        }
    }
}

fn refusal_text(refusal: &Refusal) -> String {
    let Refusal { reason, message, details, .. } = refusal;
    match reason.as_str() {
        "Unauthorized" => format!("error: You must be logged in to the server ({message})"),
        "Invalid" => invalid_text(message, details),
        "" | "Unknown" => format!("Error from server: {message}"),
        reason => format!("Error from server ({reason}): {message}"),
    }
}

fn invalid_text(message: &str, details: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&details["kind"]), text(&details["name"]));
    let causes = details["causes"].as_array().cloned().unwrap_or_default();
    let mut head = "The request is invalid".to_owned();
    if !kind.is_empty() || !name.is_empty() {
        head = format!("The {kind} {name:?} is invalid");
    } else if !message.is_empty() && causes.is_empty() {
        let _ = write!(head, ": {message}");
    }
    let mut lines: Vec<String> = Vec::new();
    for cause in &causes {
        let line = format!("{}: {}", text(&cause["field"]), text(&cause["message"]));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    match lines.as_slice() {
        [] => head,
        [one] => format!("{head}: {one}"),
        many => format!("{head}: \n* {}", many.join("\n* ")),
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::new(error.text())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn refusals_read_as_kubectl_words_them() {
        let status = |reason: &str, message: &str, details: Value| {
            let body = json!({"kind": "Status", "reason": reason, "message": message, "details": details});
            ApiError::Refused(Box::new(Refusal::read(400, body.to_string().as_bytes())))
        };
        let cause = |field: &str, message: &str| json!({"field": field, "message": message});
        for (error, text) in [
            (
                status("NotFound", "pods \"x\" not found", Value::Null),
                "Error from server (NotFound): pods \"x\" not found",
            ),
            (
                status("AlreadyExists", "pods \"x\" already exists", Value::Null).when("creating", "a.yaml"),
                "Error from server (AlreadyExists): error when creating \"a.yaml\": pods \"x\" already exists",
            ),
            (status("", "no", Value::Null), "Error from server: no"),
            (
                status("Unauthorized", "Unauthorized", Value::Null),
                "error: You must be logged in to the server (Unauthorized)",
            ),
            (
                status(
                    "Invalid",
                    "m",
                    json!({"kind": "Pod", "name": "x", "causes": [cause("a", "Required value")]}),
                ),
                "The Pod \"x\" is invalid: a: Required value",
            ),
            (
                status(
                    "Invalid",
                    "m",
                    json!({"kind": "Pod", "name": "x", "causes": [cause("a", "1"), cause("b", "2"), cause("a", "1")]}),
                ),
                "The Pod \"x\" is invalid: \n* a: 1\n* b: 2",
            ),
        ] {
            assert_eq!(error.text(), text);
        }
        let plain = ApiError::Refused(Box::new(Refusal::read(502, b"bad gateway\n")));
        assert_eq!(plain.text(), "Error from server: bad gateway");
    }

    #[test]
    fn queries_are_encoded() {
        let call = Call::get("/api/v1/pods").query("labelSelector", "a in (b,c)").query("limit", "5");
        assert_eq!(call.target(), "/api/v1/pods?labelSelector=a%20in%20%28b%2Cc%29&limit=5");
    }
}
