//! Which part of a request's path is the backend's.

use crate::RequestInfo;

/// A path in two parts. Escapes stay as the client wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Paths {
    /// Up to `proxy`, without a slash at its end.
    pub(super) prefix: String,
    /// What the backend is asked for: empty, or with a slash at its beginning.
    pub(super) inner: String,
}

impl Paths {
    /// Cuts the path of a request for a proxy.
    pub(super) fn of(info: &RequestInfo, path: &str) -> Self {
        let version = if info.group.is_empty() { 2 } else { 3 };
        let namespace = if info.namespace.is_empty() { 0 } else { 2 };
        // RESOURCE/NAME/proxy
        let own = version + namespace + 3;
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (own, rest) = segments.split_at(own.min(segments.len()));
        let mut inner: Vec<&str> = Vec::new();
        for segment in rest {
            // An escaped dot is a dot.
            match segment.replace("%2e", ".").replace("%2E", ".").as_str() {
                "" | "." => {}
                ".." => {
                    inner.pop();
                }
                _ => inner.push(segment),
            }
        }
        let mut joined: String = inner.iter().map(|segment| format!("/{segment}")).collect();
        if path.ends_with('/') {
            joined.push('/');
        }
        Self { prefix: format!("/{}", own.join("/")), inner: joined }
    }

    /// The whole path.
    pub(super) fn outer(&self) -> String {
        format!("{}{}", self.prefix, self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_proxy_is_the_backends() {
        for (path, prefix, inner) in [
            ("/api/v1/namespaces/a/pods/p:80/proxy", "/api/v1/namespaces/a/pods/p:80/proxy", ""),
            ("/api/v1/namespaces/a/pods/p/proxy/", "/api/v1/namespaces/a/pods/p/proxy", "/"),
            ("/api/v1/namespaces/a/services/s/proxy/x/y", "/api/v1/namespaces/a/services/s/proxy", "/x/y"),
            ("/api/v1/namespaces/a/pods/p/proxy/x%2Fy/", "/api/v1/namespaces/a/pods/p/proxy", "/x%2Fy/"),
            ("/api/v1/namespaces/a/pods/p/proxy//x/./../../z", "/api/v1/namespaces/a/pods/p/proxy", "/z"),
            ("/api/v1/namespaces/a/pods/p/proxy/x/%2e%2E/z", "/api/v1/namespaces/a/pods/p/proxy", "/z"),
            ("/api/v1/namespaces/a/pods/p/proxy/x/.%2E/%2e/z", "/api/v1/namespaces/a/pods/p/proxy", "/z"),
            ("/api/v1/nodes/n/proxy/proxy/pods", "/api/v1/nodes/n/proxy", "/proxy/pods"),
        ] {
            let info = RequestInfo::new(&http::Method::GET, path, "");
            let expected = Paths { prefix: prefix.to_owned(), inner: inner.to_owned() };
            assert_eq!(Paths::of(&info, path), expected, "{path}");
        }
    }
}
