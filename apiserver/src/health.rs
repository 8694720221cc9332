//! `/healthz`, `/livez` and `/readyz`.

use api::status::Status;
use http::{Response, StatusCode};

use crate::routes::RouteRequest;
use crate::{Body, respond};

/// Answers a health question, whole or one check of it (`/readyz/etcd`).
pub async fn answer(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    let mut parts = request.info.path.trim_matches('/').split('/');
    let kind = parts.next().unwrap_or_default().to_owned();
    let only = parts.next().map(str::to_owned);
    let server = request.server;
    let store = server.registry.store.revision().await;
    let mut checks = vec![("ping", true), ("etcd", store.is_ok())];
    if kind == "readyz" {
        checks.push(("informer-sync", server.registry.caches.revision() >= 0));
        checks.push(("poststarthook/bootstrap", server.ready()));
        checks.push(("shutdown", server.ready()));
    }
    if let Some(only) = only {
        let rest: Vec<&str> = parts.collect();
        let name = if rest.is_empty() { only } else { format!("{only}/{}", rest.join("/")) };
        checks.retain(|(check, _)| *check == name);
        if checks.is_empty() {
            return Err(Status::unknown_path());
        }
    }
    let excluded: Vec<&str> = request.info.query.all("exclude").collect();
    checks.retain(|(check, _)| !excluded.contains(check));
    let healthy = checks.iter().all(|(_, ok)| *ok);
    if healthy && !request.info.query.flag("verbose") {
        return Ok(respond::text(StatusCode::OK, "ok"));
    }
    let mut text = String::new();
    for (check, ok) in checks {
        text +=
            &if ok { format!("[+]{check} ok\n") } else { format!("[-]{check} failed: reason withheld\n") };
    }
    text += &format!("{kind} check {}\n", if healthy { "passed" } else { "failed" });
    Ok(respond::text(if healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }, text))
}
