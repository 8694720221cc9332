//! What is served beside the resources: one table of paths.

use std::sync::Arc;

use api::status::Status;
use futures::future::BoxFuture;
use http::Response;
use http::request::Parts;

use crate::body::RequestBody;
use crate::server::Server;
use crate::{Body, Connection, RequestInfo, UserInfo};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whom authorization allows the path and verb, as for every request.
    Authorized,
    /// Everybody: the handler itself looks at what the caller brings (a join token). It is given no user.
    Open,
}

/// A request for a route.
#[derive(Debug)]
pub struct RouteRequest<'a> {
    pub server: &'a Arc<Server>,
    pub info: &'a RequestInfo,
    pub parts: &'a Parts,
    pub user: Arc<UserInfo>,
    pub connection: &'a Connection,
    pub body: RequestBody,
}

/// Answers the requests of a route.
pub type Handler = for<'a> fn(RouteRequest<'a>) -> BoxFuture<'a, Result<Response<Body>, Status>>;

/// A path that is not a resource.
#[derive(Debug)]
pub struct Route {
    pub path: &'static str,
    /// True if everything below `path` is meant as well.
    pub below: bool,
    pub access: Access,
    pub handler: Handler,
}

/// The route for a path: the longest one that fits.
pub fn find(path: &str) -> Option<&'static Route> {
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    ROUTES
        .iter()
        .filter(|route| {
            let rest = path.strip_prefix(route.path);
            rest.is_some_and(|rest| {
                rest.is_empty() || route.below && (rest.starts_with('/') || route.path == "/")
            })
        })
        .max_by_key(|route| route.path.len())
}

macro_rules! route {
    ($path:literal, $below:literal, $access:ident, $handler:path) => {
        Route {
            path: $path,
            below: $below,
            access: Access::$access,
            handler: |request| Box::pin($handler(request)),
        }
    };
}

/// Every path that is not a resource.
pub static ROUTES: &[Route] = &[
    route!("/", false, Authorized, crate::discovery::index),
    route!("/.well-known/openid-configuration", false, Authorized, crate::auth::issuer::configuration),
    route!("/api", true, Authorized, crate::discovery::api),
    route!("/apis", true, Authorized, crate::discovery::apis),
    route!("/healthz", true, Authorized, crate::health::answer),
    route!("/livez", true, Authorized, crate::health::answer),
    route!("/metrics", false, Authorized, crate::metrics::answer),
    route!("/metrics/slis", false, Authorized, crate::metrics::slis),
    route!("/openapi/v2", false, Authorized, crate::openapi::v2),
    route!("/openapi/v3", true, Authorized, crate::openapi::v3),
    route!("/openid/v1/jwks", false, Authorized, crate::auth::issuer::keys),
    route!("/readyz", true, Authorized, crate::health::answer),
    route!("/skiff/ca", false, Open, crate::join::authority),
    route!("/skiff/join", false, Open, crate::join::join),
    route!("/version", false, Authorized, crate::discovery::version),
];
