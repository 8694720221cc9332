//! What a request asks for, read from its method, path and query alone.
//!
//! The same reading serves authorization, routing and admission, so that they can't disagree.

use std::sync::Arc;

use http::Method;

use crate::UserInfo;

/// Query parameters, percent-decoded, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`.
    pub fn parse(query: &str) -> Self {
        Self(
            query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (percent_decode(key, true), percent_decode(value, true))
                })
                .collect(),
        )
    }

    /// The first value of `key`; `None` if it is absent or empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of `key`.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// True if `key` is given with any value that Go's query conversion takes for true: anything but
    /// `false` and `0`, the empty value included.
    pub fn flag(&self, key: &str) -> bool {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .is_some_and(|(_, v)| !matches!(v.to_lowercase().as_str(), "false" | "0"))
    }
}

/// Decodes `%41` (and `+` to a space in queries); broken escapes stay as they are.
pub fn percent_decode(text: &str, plus: bool) -> String {
    if !(text.contains('%') || plus && text.contains('+')) {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => match bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok()) {
                Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                    out.push(u8::from_str_radix(hex, 16).unwrap_or(b'%'));
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            b'+' if plus => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// True for `/api/v1/…` and `/apis/GROUP/VERSION/…` paths below the version.
    pub resource_request: bool,
    /// The whole path, percent-decoded.
    pub path: String,
    /// get, list, watch, create, update, patch, delete, deletecollection; for other paths the method in lower case.
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    /// The namespace; for the namespaces resource itself the namespace's own name, as upstream has it.
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource (`proxy/PATH`), without a leading slash.
    pub rest: String,
    pub query: Query,
}

impl RequestInfo {
    /// Reads a request.
    pub fn new(method: &Method, path: &str, query: &str) -> Self {
        let mut info =
            Self { path: percent_decode(path, false), query: Query::parse(query), ..Self::default() };
        info.verb = match *method {
            Method::POST => "post",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "put",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            Method::OPTIONS => "options",
            _ => "unknown",
        };
        // Segments are decoded one by one, so that an escaped slash can't move a segment border.
        let segments: Vec<String> =
            path.trim_matches('/').split('/').map(|segment| percent_decode(segment, false)).collect();
        let mut parts: &[String] = match segments.first().map(String::as_str) {
            Some("api") if segments.len() >= 3 => {
                info.version.clone_from(&segments[1]);
                &segments[2..]
            }
            Some("apis") if segments.len() >= 4 => {
                info.group.clone_from(&segments[1]);
                info.version.clone_from(&segments[2]);
                &segments[3..]
            }
            _ => return info,
        };
        info.resource_request = true;
        let mut watch = info.query.flag("watch");
        if parts[0] == "watch" && parts.len() > 1 {
            watch = true;
            parts = &parts[1..];
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace.clone_from(&parts[1]);
            if parts.len() > 2 && parts[2] != "status" && parts[2] != "finalize" {
                parts = &parts[2..];
            }
        }
        let part = |index: usize| parts.get(index).cloned().unwrap_or_default();
        (info.resource, info.name, info.subresource) = (part(0), part(1), part(2));
        info.rest = parts.get(3..).map(|rest| rest.join("/")).unwrap_or_default();
        info.verb = match (*method).as_str() {
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" if info.name.is_empty() => "deletecollection",
            "DELETE" => "delete",
            "GET" | "HEAD" if watch && info.subresource.is_empty() => "watch",
            "GET" | "HEAD" if info.name.is_empty() => "list",
            "GET" | "HEAD" => "get",
            _ => "unknown",
        };
        // A list or watch of one name is authorized by that name.
        if info.name.is_empty()
            && matches!(info.verb, "list" | "watch" | "deletecollection")
            && let Some(name) = info.query.get("fieldSelector").and_then(name_in_selector)
        {
            info.name = name;
        }
        info
    }

    /// True for a request that may last: a watch, or one that goes on to a node, pod or service.
    pub fn is_long(&self) -> bool {
        self.verb == "watch" || self.is_passed_on()
    }

    /// True for a request that goes on to a node, pod or service.
    pub fn is_passed_on(&self) -> bool {
        matches!(self.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
    }

    /// The attributes that authorization decides by.
    pub fn attributes(&self, user: Arc<UserInfo>) -> Attributes {
        Attributes {
            user,
            verb: self.verb.to_owned(),
            group: self.group.clone(),
            version: self.version.clone(),
            resource: self.resource.clone(),
            subresource: self.subresource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            path: self.path.clone(),
            resource_request: self.resource_request,
            field_selector: self.query.get("fieldSelector").unwrap_or_default().to_owned(),
            label_selector: self.query.get("labelSelector").unwrap_or_default().to_owned(),
        }
    }
}

/// The name that a field selector pins with `metadata.name=NAME`.
fn name_in_selector(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let value = term.strip_prefix("metadata.name=")?;
        Some(value.strip_prefix('=').unwrap_or(value).to_owned()).filter(|name| !name.is_empty())
    })
}

/// One question to authorization: may `user` do `verb` to this?
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    pub user: Arc<UserInfo>,
    pub verb: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// The request's path; decides for requests that are not `resource_request`s.
    pub path: String,
    pub resource_request: bool,
    /// As the request gave them, for authorizers that look at them (Node).
    pub field_selector: String,
    pub label_selector: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, target: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let i = RequestInfo::new(&method.parse().unwrap(), path, query);
        if !i.resource_request {
            return format!("{} {}", i.verb, i.path);
        }
        format!(
            "{} g={} v={} ns={} r={} s={} n={} {}",
            i.verb, i.group, i.version, i.namespace, i.resource, i.subresource, i.name, i.rest
        )
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        for (method, target, expect) in [
            ("GET", "/version", "get /version"),
            ("GET", "/api/v1", "get /api/v1"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("GET", "/api/v1/pods", "list g= v=v1 ns= r=pods s= n= "),
            ("GET", "/api/v1/pods?watch=true", "watch g= v=v1 ns= r=pods s= n= "),
            ("GET", "/api/v1/pods?watch=0", "list g= v=v1 ns= r=pods s= n= "),
            ("GET", "/api/v1/watch/namespaces/a/pods", "watch g= v=v1 ns=a r=pods s= n= "),
            ("GET", "/api/v1/namespaces", "list g= v=v1 ns= r=namespaces s= n= "),
            ("GET", "/api/v1/namespaces/a", "get g= v=v1 ns=a r=namespaces s= n=a "),
            ("PUT", "/api/v1/namespaces/a/finalize", "update g= v=v1 ns=a r=namespaces s=finalize n=a "),
            ("PATCH", "/api/v1/namespaces/a/status", "patch g= v=v1 ns=a r=namespaces s=status n=a "),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection g=apps v=v1 ns=a r=deployments s= n= ",
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments/d",
                "delete g=apps v=v1 ns=a r=deployments s= n=d ",
            ),
            ("POST", "/api/v1/namespaces/a/pods/p/exec?command=x", "create g= v=v1 ns=a r=pods s=exec n=p "),
            ("GET", "/api/v1/namespaces/a/pods/p/proxy/x/y", "get g= v=v1 ns=a r=pods s=proxy n=p x/y"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list g= v=v1 ns= r=pods s= n=x "),
            ("GET", "/api/v1/namespaces/a%2Fb/pods", "list g= v=v1 ns=a/b r=pods s= n= "),
        ] {
            assert_eq!(read(method, target), expect, "{method} {target}");
        }
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(percent_decode("a%zz%4", true), "a%zz%4");
        assert_eq!(percent_decode("a%41+b", true), "aA b");
    }
}
