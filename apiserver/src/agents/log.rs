//! GET of a container's log.

use std::sync::Arc;

use api::status::{Reason, Status};
use http::{HeaderMap, Response, StatusCode};

use super::{ask, container, escape, options, passed_on, place, pod, words};
use crate::context::Context;
use crate::registry::fresh_failure;
use crate::server::Server;
use crate::{Body, respond};

/// Answers with the log as the agent sends it.
pub(crate) async fn log(server: &Arc<Server>, context: &Context<'_>) -> Result<Response<Body>, Status> {
    server.registry.caches.fresh().await.map_err(fresh_failure)?;
    let info = context.info;
    let query = options::of_log(context.info)?;
    let pod = pod(server, context)?;
    let container = container(&pod, info.query.get("container"))?;
    let Some(place) = place(server, &pod)? else {
        // There is none yet, which is not the same as an empty one.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    };
    let target = format!(
        "/containerLogs/{}/{}/{}?{query}",
        escape(&info.namespace),
        escape(&info.name),
        escape(&container)
    );
    let unverified = info.query.flag("insecureSkipTLSVerifyBackend");
    let response = ask(server, &place, &target, HeaderMap::new(), unverified).await?;
    let code = response.status();
    if code == StatusCode::OK {
        return Ok(respond::with(StatusCode::OK, "text/plain", passed_on(response.into_body())));
    }
    let text = words(response).await;
    Err(match code {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::INTERNAL_SERVER_ERROR => Status::internal(text),
        StatusCode::NOT_FOUND => {
            let what = format!("the server could not find the requested resource ( pods/log {})", info.name);
            Status::failure(404, Reason::NotFound, what)
        }
        code => {
            let code = if code.is_client_error() || code.is_server_error() { code.as_u16() } else { 500 };
            let what = format!("the node agent answered {code} for pods/log {}: {text}", info.name);
            Status::failure(code, Reason::Unknown, what)
        }
    })
}
