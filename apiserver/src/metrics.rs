//! `/metrics`: what the server counts of itself, under upstream's names, in Prometheus' text format.
//!
//! Counting takes atomics; whatever else it costs is paid by who reads the page.

mod process;
mod requests;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use api::status::Status;
use base::metrics::escaped;
use http::{Response, StatusCode};

pub(crate) use self::requests::{Requests, Series, What};
pub(crate) use self::store::{Operation, StoreTimes};
use crate::flow::Reason;
use crate::routes::RouteRequest;
use crate::server::Server;
use crate::{Body, RequestInfo, respond};
pub(crate) use base::metrics::{Histogram, Text};

const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What one API server counts.
#[derive(Debug, Default)]
pub struct Metrics {
    pub(crate) requests: Requests,
    read_only: InFlight,
    mutating: InFlight,
}

/// Requests that are being answered, and the most since the page was last read.
#[derive(Debug, Default)]
struct InFlight {
    now: AtomicI64,
    most: AtomicI64,
}

/// Counts a request as being answered, until it is dropped.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a InFlight);

/// Counts a request that lasts, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lasting(Arc<Series>);

impl Metrics {
    /// A request that does not last begins.
    pub(crate) fn running(&self, info: &RequestInfo) -> Running<'_> {
        let reads = matches!(info.verb, "get" | "list" | "watch" | "head" | "options");
        let kind = if reads { &self.read_only } else { &self.mutating };
        let now = kind.now.fetch_add(1, Relaxed) + 1;
        kind.most.fetch_max(now, Relaxed);
        Running(kind)
    }
}

impl Lasting {
    /// A request that lasts begins.
    pub(crate) fn new(series: Arc<Series>) -> Self {
        series.running.fetch_add(1, Relaxed);
        Self(series)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Relaxed);
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

/// GET /metrics.
pub async fn answer(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    let server = request.server;
    let mut text = Text::default();
    requests(&mut text, &server.metrics);
    audit(&mut text, server);
    objects(&mut text, server);
    flow_control(&mut text, server);
    for source in &server.config.more_metrics {
        source.write(&mut text);
    }
    process::write(&mut text);
    Ok(respond::with(StatusCode::OK, FORMAT, text.0))
}

/// GET /metrics/slis.
pub async fn slis(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    let mut text = Text::default();
    request.server.health.write(&mut text);
    Ok(respond::with(StatusCode::OK, FORMAT, text.0))
}

fn requests(text: &mut Text, metrics: &Metrics) {
    metrics.requests.write(text);
    let name = "apiserver_current_inflight_requests";
    let help = "Maximal number of currently used inflight request limit of this apiserver per request kind in last \
                second.";
    text.metric(name, "gauge", help);
    for (kind, in_flight) in [("mutating", &metrics.mutating), ("readOnly", &metrics.read_only)] {
        let most = in_flight.most.swap(in_flight.now.load(Relaxed), Relaxed);
        text.sample(name, &format!("request_kind=\"{kind}\""), most);
    }
}

fn audit(text: &mut Text, server: &Server) {
    let Some(audit) = &server.audit else { return };
    let (events, lost) = audit.counted();
    let help = "Counter of audit events generated and sent to the audit backend.";
    text.single("apiserver_audit_event_total", "counter", help, events);
    let name = "apiserver_audit_error_total";
    let help = "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by \
                the error.";
    text.metric(name, "counter", help);
    text.sample(name, "plugin=\"log\"", lost);
}

fn objects(text: &mut Text, server: &Server) {
    let table = server.registry.table();
    let stored = || table.stored().filter_map(|row| Some((row, server.registry.cache(row)?)));
    let name = "apiserver_storage_objects";
    let help = "Number of stored objects at the time of last check split by kind. In case of a fetching error, the \
                value will be -1.";
    text.metric(name, "gauge", help);
    for (row, cache) in stored() {
        text.sample(
            name,
            &format!("resource=\"{}\"", escaped(&row.group_resource().to_string())),
            cache.len(),
        );
    }
    let name = "apiserver_resource_objects";
    let help = "Number of stored objects at the time of last check split by kind. In case of a fetching error, the \
                value will be -1.";
    text.metric(name, "gauge", help);
    for (row, cache) in stored() {
        let labels = format!("group=\"{}\",resource=\"{}\"", escaped(&row.group), escaped(&row.plural));
        text.sample(name, &labels, cache.len());
    }
    let name = "apiserver_watch_events_total";
    text.metric(name, "counter", "Number of events sent in watch clients");
    for (row, cache) in stored() {
        let (group, version, resource) = (escaped(&row.group), escaped(&row.version), escaped(&row.plural));
        let sent = cache.sent.load(Relaxed);
        if sent > 0 {
            let labels = format!("group=\"{group}\",version=\"{version}\",resource=\"{resource}\"");
            text.sample(name, &labels, sent);
        }
    }
    let name = "etcd_request_duration_seconds";
    text.metric(name, "histogram", "Etcd request latency in seconds for each operation and object type.");
    for (row, cache) in stored() {
        for (operation, times) in cache.times.each() {
            let of = escaped(&row.group_resource().to_string());
            times.write(&mut text.0, name, &format!("operation=\"{operation}\",type=\"{of}\""));
        }
    }
}

fn flow_control(text: &mut Text, server: &Server) {
    let mut schemas = Vec::new();
    server.flow.each_schema(|level, schema, counters| {
        let labels = format!("priority_level=\"{}\",flow_schema=\"{}\"", escaped(level), escaped(schema));
        schemas.push((labels, counters.clone()));
    });
    let name = "apiserver_flowcontrol_rejected_requests_total";
    text.metric(name, "counter", "Number of requests rejected by API Priority and Fairness subsystem");
    for (labels, counters) in &schemas {
        for reason in Reason::ALL {
            let rejected = counters.rejected[reason as usize].load(Relaxed);
            if rejected > 0 {
                text.sample(name, &format!("{labels},reason=\"{}\"", reason.word()), rejected);
            }
        }
    }
    let name = "apiserver_flowcontrol_dispatched_requests_total";
    text.metric(name, "counter", "Number of requests executed by API Priority and Fairness subsystem");
    for (labels, counters) in &schemas {
        text.sample(name, labels, counters.dispatched.load(Relaxed));
    }
    let name = "apiserver_flowcontrol_current_inqueue_requests";
    let help = "Number of requests currently pending in queues of the API Priority and Fairness subsystem";
    text.metric(name, "gauge", help);
    for (labels, counters) in &schemas {
        text.sample(name, labels, counters.waiting.load(Relaxed));
    }
    let name = "apiserver_flowcontrol_current_executing_requests";
    let help = "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API \
                Priority and Fairness subsystem";
    text.metric(name, "gauge", help);
    for (labels, counters) in &schemas {
        text.sample(name, labels, counters.executing.load(Relaxed));
    }
    let name = "apiserver_flowcontrol_current_executing_seats";
    let help = "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any \
                stage otherwise) requests in the API Priority and Fairness subsystem";
    text.metric(name, "gauge", help);
    for (labels, counters) in &schemas {
        text.sample(name, labels, counters.executing_seats.load(Relaxed));
    }
    let name = "apiserver_flowcontrol_request_wait_duration_seconds";
    text.metric(name, "histogram", "Length of time a request spent waiting in its queue");
    for (labels, counters) in &schemas {
        if counters.waited.count() > 0 {
            counters.waited.write(&mut text.0, name, &format!("{labels},execute=\"true\""));
        }
    }
    let mut levels = Vec::new();
    server.flow.each_level(|level, figures| {
        levels.push((format!("priority_level=\"{}\"", escaped(level)), figures));
    });
    for (at, name, help) in [
        (0, "nominal", "Nominal number of execution seats configured for each priority level"),
        (1, "lower", "Configured lower bound on number of execution seats available to each priority level"),
        (2, "upper", "Configured upper bound on number of execution seats available to each priority level"),
        (3, "current", "current derived number of execution seats available to each priority level"),
    ] {
        let name = format!("apiserver_flowcontrol_{name}_limit_seats");
        text.metric(&name, "gauge", help);
        for (labels, figures) in &levels {
            text.sample(&name, labels, figures[at]);
        }
    }
}
