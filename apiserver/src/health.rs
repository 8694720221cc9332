//! `/healthz`, `/livez` and `/readyz`, in upstream's form, and what `/metrics/slis` says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use api::field::quote;
use api::status::Status;
use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::metrics::Text;
use crate::routes::RouteRequest;
use crate::server::Server;
use crate::{Body, respond};

const SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// How the checks went, by endpoint and name.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<BTreeMap<(&'static str, &'static str), Results>>);

#[derive(Clone, Copy, Debug, Default)]
struct Results {
    good: u64,
    bad: u64,
    last_good: bool,
}

/// A check, and what is wrong.
type Check = (&'static str, Result<(), String>);

/// Answers a health question, whole or one check of it (`/readyz/etcd`).
pub async fn answer(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    let path = request.info.path.trim_matches('/');
    let (endpoint, one) = path.split_once('/').map_or((path, None), |(endpoint, one)| (endpoint, Some(one)));
    let endpoint = ["healthz", "livez", "readyz"].into_iter().find(|known| *known == endpoint);
    let endpoint = endpoint.ok_or_else(Status::unknown_path)?;
    let checks = checks(request.server, endpoint).await;
    if let Some(one) = one {
        let found = checks.into_iter().find(|(name, _)| *name == one);
        return match found.ok_or_else(Status::unknown_path)?.1 {
            Ok(()) => Ok(text(StatusCode::OK, "ok".to_owned())),
            Err(why) => {
                Ok(text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")))
            }
        };
    }
    let excluded: BTreeSet<&str> = request.info.query.all("exclude").collect();
    request.server.health.count(endpoint, checks.iter().filter(|(name, _)| !excluded.contains(name)));
    let (report, healthy) = report(endpoint, &checks, &excluded);
    if healthy && request.info.query.all("verbose").next().is_none() {
        return Ok(text(StatusCode::OK, "ok".to_owned()));
    }
    Ok(text(if healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }, report))
}

/// All checks of an endpoint.
async fn checks(server: &Server, endpoint: &str) -> Vec<Check> {
    let says = |good: bool, why: &str| if good { Ok(()) } else { Err(why.to_owned()) };
    let store = server.registry.store.revision().await;
    let store = store.map(drop).map_err(|error| error.to_string());
    let mut checks = vec![("ping", Ok(())), ("etcd", store.clone())];
    if endpoint == "readyz" {
        checks.push(("etcd-readiness", store));
        let filled = server.registry.caches.revision() >= 0;
        checks.push(("informer-sync", says(filled, "the watch cache is not filled yet")));
    }
    let started = says(server.started(), "not finished");
    checks.push(("poststarthook/bootstrap", started.clone()));
    checks.push(("poststarthook/priority-and-fairness-config-consumer", started));
    if endpoint == "readyz" {
        checks.push(("shutdown", says(!server.ending(), "process is shutting down")));
    }
    checks
}

/// What is said of each check, and whether all that are not excluded are good.
fn report(endpoint: &str, checks: &[Check], excluded: &BTreeSet<&str>) -> (String, bool) {
    let mut unknown = excluded.clone();
    let (mut lines, mut healthy) = (String::new(), true);
    for (name, result) in checks {
        lines += &match result {
            _ if excluded.contains(name) => {
                unknown.remove(name);
                format!("[+]{name} excluded: ok\n")
            }
            Ok(()) => format!("[+]{name} ok\n"),
            // Everybody may ask, but not everybody may know.
            Err(_) => {
                healthy = false;
                format!("[-]{name} failed: reason withheld\n")
            }
        };
    }
    if !unknown.is_empty() {
        let unknown: Vec<String> = unknown.into_iter().map(quote).collect();
        let unknown = unknown.join(",");
        lines += &format!("warn: some health checks cannot be excluded: no matches for {unknown}\n");
    }
    lines += &format!("{endpoint} check {}\n", if healthy { "passed" } else { "failed" });
    (lines, healthy)
}

fn text(code: StatusCode, body: String) -> Response<Body> {
    let mut response = respond::text(code, body);
    response.headers_mut().insert(SNIFF, HeaderValue::from_static("nosniff"));
    response
}

impl Health {
    fn count<'a>(&self, endpoint: &'static str, checks: impl Iterator<Item = &'a Check>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, result) in checks {
            let results = all.entry((endpoint, name)).or_default();
            results.last_good = result.is_ok();
            *if result.is_ok() { &mut results.good } else { &mut results.bad } += 1;
        }
    }

    /// Writes how the checks went.
    pub(crate) fn write(&self, out: &mut Text) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let name = "kubernetes_healthcheck";
        out.metric(name, "gauge", "[STABLE] This metric records the result of a single healthcheck.");
        for ((endpoint, check), results) in &all {
            let labels = format!("name=\"{check}\",type=\"{endpoint}\"");
            out.sample(name, &labels, u8::from(results.last_good));
        }
        let name = "kubernetes_healthchecks_total";
        out.metric(name, "counter", "[STABLE] This metric records the results of all healthcheck.");
        for ((endpoint, check), results) in &all {
            for (status, count) in [("error", results.bad), ("success", results.good)] {
                if count > 0 {
                    let labels = format!("name=\"{check}\",status=\"{status}\",type=\"{endpoint}\"");
                    out.sample(name, &labels, count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_read_as_upstreams() {
        let checks = [("ping", Ok(())), ("etcd", Err("away".to_owned()))];
        let report = |excluded: &[&str]| report("readyz", &checks, &excluded.iter().copied().collect());
        assert_eq!(
            report(&[]),
            ("[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n".to_owned(), false)
        );
        let lines = "[+]ping ok\n[+]etcd excluded: ok\nwarn: some health checks cannot be excluded: no matches for \
                     \"a\",\"b\"\nreadyz check passed\n";
        assert_eq!(report(&["b", "etcd", "a"]), (lines.to_owned(), true));
    }
}
