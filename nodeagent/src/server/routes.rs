//! From a request to its answer.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::access::Peer;
use super::reply::{self, Body, Refusal};
use super::{Context, container_logs, stats, streams};

/// The parameters of a request, decoded.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name, true), decode(value, true))
                })
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}

/// Undoes percent-encoding; in a query `+` is a blank.
fn decode(text: &str, in_query: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'%')
            .then(|| after.get(..2))
            .flatten()
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (byte, code) {
            (_, Some(code)) => bytes.push(code),
            (b'+', _) if in_query => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Answers a request. Errors are answers too.
pub(super) async fn answer(
    context: &Arc<Context>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = async {
        context.access.check(peer, &method, &path).await?;
        route(context, request).await
    };
    answer.await.unwrap_or_else(|refusal| {
        tracing::debug!(user = %peer.user, %method, path, code = %refusal.code, text = %refusal.text, "refused");
        refusal.response()
    })
}

async fn route(context: &Arc<Context>, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let parts: Vec<String> =
        request.uri().path().trim_start_matches('/').split('/').map(|part| decode(part, false)).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let query = Query::parse(request.uri().query());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let streams = matches!(*request.method(), Method::GET | Method::POST);
    match parts.as_slice() {
        ["healthz"] if reads => Ok(reply::text("ok")),
        ["pods"] if reads => pods(context),
        ["containerLogs", namespace, pod, container] if reads => {
            container_logs::get(context, namespace, pod, container, &query).await
        }
        ["stats", "summary"] if reads => stats::summary(context).await,
        ["metrics", "resource"] if reads => stats::metrics(context).await,
        // The form with the pod's uid is for pods that share a name over time.
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] if streams => {
            let target = streams::Target { namespace, pod, container, uid: uid_of(&parts) };
            streams::exec(context, &target, &query, request).await
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] if streams => {
            let target = streams::Target { namespace, pod, container, uid: uid_of(&parts) };
            streams::attach(context, &target, request).await
        }
        ["portForward", namespace, pod] if streams => {
            streams::port_forward(context, namespace, pod, None, &query, request).await
        }
        ["portForward", namespace, pod, uid] if streams => {
            streams::port_forward(context, namespace, pod, Some(*uid), &query, request).await
        }
        [
            "healthz" | "pods" | "containerLogs" | "stats" | "metrics" | "exec" | "attach" | "portForward",
            ..,
        ] if !reads && !streams => {
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"))
        }
        _ => Err(Refusal::not_found("404 page not found")),
    }
}

fn uid_of<'a>(parts: &[&'a str]) -> Option<&'a str> {
    (parts.len() == 5).then(|| parts[3])
}

fn pods(context: &Context) -> Result<Response<Body>, Refusal> {
    let mut items = Vec::new();
    for pod in context.pods.pods() {
        items.push(serde_json::to_value(&*pod).map_err(|error| Refusal::internal(error.to_string()))?);
    }
    reply::json(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse(Some("command=ls&command=-l%20%2F&tty=1&x=a+b&input=0&broken=%zz%+1"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["ls", "-l /"]);
        assert_eq!(
            (query.get("x"), query.get("broken"), query.get("none")),
            (Some("a b"), Some("%zz% 1"), None)
        );
        assert!(query.flag("tty") && !query.flag("input") && !query.flag("none"));
        assert_eq!(decode("a+b%2Fc", false), "a+b/c");
    }
}
