//! Discovery and version: what the server can do, derived from the resource table.

use std::net::SocketAddr;

use api::discovery;
use api::resource::Table;
use api::status::Status;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, VARY};
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::routes::{ROUTES, RouteRequest};
use crate::{Body, respond};

/// The version of Kubernetes whose API this is.
pub const GIT_VERSION: &str = concat!("v1.36.0+skiff", env!("CARGO_PKG_VERSION"));

/// GET /
pub async fn index(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    only_get(request.parts)?;
    let table = request.server.registry.table();
    let mut paths: Vec<String> =
        ROUTES.iter().map(|route| route.path.to_owned()).filter(|path| path != "/").collect();
    for group in table.groups() {
        let base = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
        paths.extend(group.versions.iter().map(|version| format!("{base}/{version}")));
        paths.push(base);
    }
    paths.sort();
    paths.dedup();
    Ok(respond::json(&json!({"paths": paths})))
}

/// GET /version
pub async fn version(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    only_get(request.parts)?;
    let platform = format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    let value = json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc", "platform": platform,
    });
    pretty(&value)
}

/// GET /api and /api/v1
pub async fn api(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    only_get(request.parts)?;
    let table = request.server.registry.table();
    match segments(&request.info.path).as_slice() {
        [_] => match aggregated_version(request.parts) {
            Some(version) => aggregated(&table, true, version),
            None => {
                let config = &request.server.config;
                let address = SocketAddr::new(config.advertise_address, config.advertise_port);
                let everybody = discovery::ServerAddress {
                    client_cidr: "0.0.0.0/0".to_owned(),
                    server_address: address.to_string(),
                };
                Ok(respond::json(&discovery::api_versions(&table, &[everybody])))
            }
        },
        [_, version] => resources(&table, "", version),
        _ => Err(Status::unknown_path()),
    }
}

/// GET /apis, /apis/GROUP and /apis/GROUP/VERSION
pub async fn apis(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    only_get(request.parts)?;
    let table = request.server.registry.table();
    match segments(&request.info.path).as_slice() {
        [_] => match aggregated_version(request.parts) {
            Some(version) => aggregated(&table, false, version),
            None => Ok(respond::json(&discovery::group_list(&table))),
        },
        [_, name] => discovery::api_group(&table, name)
            .map(|group| respond::json(&group))
            .ok_or_else(Status::unknown_path),
        [_, name, version] if !name.is_empty() => resources(&table, name, version),
        _ => Err(Status::unknown_path()),
    }
}

/// Refuses what is not reading.
pub(crate) fn only_get(parts: &Parts) -> Result<(), Status> {
    if matches!(parts.method, http::Method::GET | http::Method::HEAD) {
        Ok(())
    } else {
        Err(Status::method_not_allowed())
    }
}

fn segments(path: &str) -> Vec<&str> {
    path.trim_matches('/').split('/').collect()
}

fn pretty(value: &Value) -> Result<Response<Body>, Status> {
    let text = serde_json::to_string_pretty(value).map_err(Status::internal)?;
    Ok(respond::with(StatusCode::OK, "application/json", text))
}

fn resources(table: &Table, group: &str, version: &str) -> Result<Response<Body>, Status> {
    discovery::resource_list(table, group, version)
        .map(|list| respond::json(&list))
        .ok_or_else(Status::unknown_path)
}

/// The version of aggregated discovery that the client prefers, if it asks for it.
fn aggregated_version(parts: &Parts) -> Option<&'static str> {
    let accept = parts.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accept.flat_map(|value| value.split(',')).find_map(|clause| {
        let has = |parameter: &str| clause.split(';').any(|part| part.trim() == parameter);
        let asked = clause.trim().starts_with("application/json")
            && has("g=apidiscovery.k8s.io")
            && has("as=APIGroupDiscoveryList");
        ["v2", "v2beta1"].into_iter().find(|version| asked && has(&format!("v={version}")))
    })
}

/// Discovery of all groups in one document.
fn aggregated(table: &Table, core: bool, version: &str) -> Result<Response<Body>, Status> {
    let mut response = respond::json(&discovery::aggregated(table, core, version));
    let media = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(&media).map_err(Status::internal)?);
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}
