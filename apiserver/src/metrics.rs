//! Counters, in Prometheus' text format at `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::status::Status;
use http::{Response, StatusCode};

use crate::routes::RouteRequest;
use crate::{Body, RequestInfo, respond};

/// What is counted of requests.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<BTreeMap<Labels, Count>>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    group: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Debug, Default)]
struct Count {
    requests: u64,
    time: Duration,
}

impl Metrics {
    /// Counts a request. What the table does not know is counted together, so that clients can't grow the counters.
    pub fn request(&self, info: &RequestInfo, code: StatusCode, time: Duration) {
        let known = info.resource_request && code != StatusCode::NOT_FOUND && code != StatusCode::FORBIDDEN;
        let text = |text: &str| if known { text.to_owned() } else { String::new() };
        let labels = Labels {
            verb: info.verb,
            group: text(&info.group),
            resource: text(&info.resource),
            subresource: text(&info.subresource),
            code: code.as_u16(),
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(labels).or_default();
        count.requests += 1;
        count.time += time;
    }
}

/// GET /metrics.
pub async fn answer(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    let server = request.server;
    let mut out = String::new();
    {
        let counts = server.metrics.0.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = |labels: &Labels| {
            format!(
                "{{verb=\"{}\",group=\"{}\",resource=\"{}\",subresource=\"{}\",code=\"{}\"}}",
                labels.verb, labels.group, labels.resource, labels.subresource, labels.code
            )
        };
        out += "# HELP apiserver_request_total Requests by verb, resource and code.\n# TYPE apiserver_request_total counter\n";
        for (key, count) in &*counts {
            // Writing to a String can't fail.
            let _ = writeln!(out, "apiserver_request_total{} {}", labels(key), count.requests);
        }
        out += "# HELP apiserver_request_duration_seconds_sum Time to the head of the answer.\n# TYPE apiserver_request_duration_seconds_sum counter\n";
        for (key, count) in &*counts {
            let _ = writeln!(
                out,
                "apiserver_request_duration_seconds_sum{} {}",
                labels(key),
                count.time.as_secs_f64()
            );
        }
    }
    out += "# HELP apiserver_storage_objects Objects by place in the store.\n# TYPE apiserver_storage_objects gauge\n";
    for cache in server.registry.caches.all() {
        let _ = writeln!(out, "apiserver_storage_objects{{resource=\"{}\"}} {}", cache.prefix(), cache.len());
    }
    out +=
        "# HELP apiserver_registered_watchers Running watches.\n# TYPE apiserver_registered_watchers gauge\n";
    for cache in server.registry.caches.all() {
        let _ = writeln!(
            out,
            "apiserver_registered_watchers{{resource=\"{}\"}} {}",
            cache.prefix(),
            cache.watchers()
        );
    }
    Ok(respond::with(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", out))
}
