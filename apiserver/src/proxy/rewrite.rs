//! Places in a backend's answer, as seen from outside of the proxy.

/// Leads links through the proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rewriter<'a> {
    /// The path of the proxy, without a slash at its end.
    pub(super) prefix: &'a str,
    /// The backend's host and port.
    pub(super) source_host: &'a str,
    /// The host that the client named.
    pub(super) request_host: &'a str,
}

impl Rewriter<'_> {
    /// The URL as the client must ask for it. One that leads elsewhere, or that is relative, stays as it is.
    pub(super) fn url(&self, url: &str) -> String {
        let Some((scheme, host, path)) = split(url) else { return url.to_owned() };
        let is_ours = host.is_empty() || host == self.source_host || host == self.request_host;
        if !is_ours || !path.starts_with('/') {
            return url.to_owned();
        }
        let place = if !host.is_empty() && host == self.request_host {
            format!("{scheme}//{host}")
        } else {
            String::new()
        };
        if path.starts_with(self.prefix) {
            return format!("{place}{path}");
        }
        format!("{place}{}{path}", self.prefix)
    }
}

/// Scheme with its colon, host with its port, and all that follows; `None` for what is no URL with a place.
fn split(url: &str) -> Option<(&str, &str, &str)> {
    let end = url.find(['/', '?', '#']).unwrap_or(url.len());
    let (scheme, rest) = match url[..end].find(':') {
        Some(colon) => url.split_at(colon + 1),
        None => ("", url),
    };
    let Some(after) = rest.strip_prefix("//") else {
        return scheme.is_empty().then_some(("", "", rest));
    };
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let (host, path) = after.split_at(end);
    Some((scheme, host, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_the_backend_lead_through_the_proxy() {
        let rewriter = Rewriter { prefix: "/p/proxy", source_host: "10.0.0.1:80", request_host: "api:6443" };
        for (url, expected) in [
            ("/x/y/?a=b#c", "/p/proxy/x/y/?a=b#c"),
            ("/", "/p/proxy/"),
            ("http://10.0.0.1:80/x", "/p/proxy/x"),
            ("http://api:6443/x", "http://api:6443/p/proxy/x"),
            ("//10.0.0.1:80/x", "/p/proxy/x"),
            ("/p/proxy/x", "/p/proxy/x"),
            ("x/y", "x/y"),
            ("?a", "?a"),
            ("#top", "#top"),
            ("", ""),
            ("http://example.org/x", "http://example.org/x"),
            ("http://10.0.0.1:80", "http://10.0.0.1:80"),
            ("mailto:a@b", "mailto:a@b"),
            ("javascript:go('/x')", "javascript:go('/x')"),
        ] {
            assert_eq!(rewriter.url(url), expected, "{url}");
        }
    }
}
