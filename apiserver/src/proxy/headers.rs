//! Which headers go through a proxy.

use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, header};

/// Where the client finds what the backend is asked for.
pub(super) const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Headers that are for the next stop only.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Headers with which a backend would open itself to every page on the web, under the API server's name.
const CROSS_ORIGIN: [HeaderName; 4] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];

/// Sets a header, if the value can be one.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether the client wants the connection to become something else.
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && listed(headers).any(|name| name.eq_ignore_ascii_case("upgrade"))
}

/// The host that the client thinks it talks to.
pub(super) fn host(parts: &Parts) -> String {
    let header = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has no such header.
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    header.or(authority).unwrap_or_default().to_owned()
}

/// What `Connection` lists.
fn listed(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(CONNECTION).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

fn without_hops(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for name in listed(headers) {
        kept.remove(name);
    }
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}

/// The client's credentials, and whom it wants to be, are for the API server alone.
fn without_identity(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    let secret: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-") || name.as_str().starts_with("x-remote-"))
        .cloned()
        .collect();
    for name in secret {
        headers.remove(name);
    }
}

fn add_remote(headers: &mut HeaderMap, remote: Option<IpAddr>) {
    let Some(remote) = remote else { return };
    let before: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let whole = before.into_iter().map(str::to_owned).chain([remote.to_canonical().to_string()]);
    let whole = whole.collect::<Vec<_>>().join(", ");
    set(headers, FORWARDED_FOR, &whole);
}

/// The headers of a request for the backend.
pub(super) fn for_backend(headers: &HeaderMap, remote: Option<IpAddr>) -> HeaderMap {
    let mut kept = without_hops(headers);
    without_identity(&mut kept);
    add_remote(&mut kept, remote);
    kept
}

/// The same for one that is to become something else: those of the next stop are what it is about.
pub(super) fn for_upgrade(headers: &HeaderMap, remote: Option<IpAddr>) -> HeaderMap {
    let mut kept = headers.clone();
    without_identity(&mut kept);
    add_remote(&mut kept, remote);
    kept
}

/// The headers of an answer for the client.
pub(super) fn for_client(headers: HeaderMap) -> HeaderMap {
    let mut kept = without_hops(&headers);
    for name in CROSS_ORIGIN {
        kept.remove(name);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn headers_of_the_next_stop_and_credentials_stay_here() {
        let asked = map(&[
            ("accept", "text/html"),
            ("authorization", "Bearer secret"),
            ("connection", "keep-alive, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("impersonate-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-forwarded-for", "1.1.1.1"),
        ]);
        let remote = Some("2.2.2.2".parse().unwrap());
        let expected = map(&[("accept", "text/html"), ("x-forwarded-for", "1.1.1.1, 2.2.2.2")]);
        assert_eq!(for_backend(&asked, remote), expected);
        let upgrade = map(&[("connection", "Upgrade"), ("upgrade", "x"), ("authorization", "Bearer secret")]);
        assert!(wants_upgrade(&upgrade) && !wants_upgrade(&asked));
        assert_eq!(for_upgrade(&upgrade, None), map(&[("connection", "Upgrade"), ("upgrade", "x")]));
        let answered = map(&[("access-control-allow-origin", "*"), ("connection", "close"), ("x-a", "1")]);
        assert_eq!(for_client(answered), map(&[("x-a", "1")]));
    }
}
