//! What is counted of requests: one series for each row, subresource, verb and scope that was ever asked for.
//!
//! A request looks its series up by numbers, under a lock that is shared, and then touches atomics only. What the
//! table does not know is counted together, so that clients can't grow the series.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::resource::Resource;
use http::StatusCode;

use crate::RequestInfo;
use base::metrics::Histogram;
use base::metrics::{Text, escaped};

/// Upstream's bounds of the times of requests, in seconds.
const BOUNDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
/// The codes that are counted one by one; what a backend answers beside them is counted together.
const CODES: [u16; 28] = [
    0, 101, 200, 201, 202, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 405, 406, 409, 410, 413, 415,
    422, 429, 431, 500, 502, 503, 504,
];

/// The series of all requests.
#[derive(Debug, Default)]
pub(crate) struct Requests(RwLock<HashMap<Key, Arc<Series>>>);

/// What a request is for.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Resource(Arc<Resource>),
    Path(&'static str),
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// The address of the row or of the path, which the series keeps alive.
    what: usize,
    subresource: u16,
    verb: &'static str,
    scope: &'static str,
    dry_run: &'static str,
}

/// The requests of one kind.
#[derive(Debug)]
pub(crate) struct Series {
    labels: Labels,
    codes: [AtomicU64; CODES.len()],
    times: Histogram,
    pub(super) running: AtomicI64,
    _what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    dry_run: &'static str,
    /// `group="",version="v1",resource="pods",subresource="",scope="namespace",component="apiserver"`
    rest: String,
}

impl Requests {
    /// The series that a request belongs to.
    pub(crate) fn series(&self, what: &What, info: &RequestInfo, apply: bool) -> Arc<Series> {
        let (address, subresource) = match what {
            What::Resource(row) => {
                let number = row.subresources.iter().position(|part| part.name == info.subresource);
                (Arc::as_ptr(row).addr(), number.and_then(|n| u16::try_from(n + 1).ok()).unwrap_or(0))
            }
            What::Path(path) => (path.as_ptr().addr(), 0),
            What::Unknown => (0, 0),
        };
        let (verb, scope) = (verb(info, apply), scope(info));
        let key = Key { what: address, subresource, verb, scope, dry_run: dry_run(info) };
        if let Some(found) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return found.clone();
        }
        let new = || Arc::new(Series::new(what.clone(), &key));
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert_with(new).clone()
    }

    /// Writes everything that is counted.
    pub(super) fn write(&self, text: &mut Text) {
        let all: Vec<Arc<Series>> =
            self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        // Rows that were defined anew have the same labels.
        let mut sorted: BTreeMap<Labels, Vec<&Series>> = BTreeMap::new();
        for series in &all {
            sorted.entry(series.labels.clone()).or_default().push(series);
        }
        let name = "apiserver_request_total";
        let help = "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, \
                    scope, component, and HTTP response code.";
        text.metric(name, "counter", help);
        for (labels, series) in &sorted {
            for (at, code) in CODES.iter().enumerate() {
                let count: u64 = series.iter().map(|series| series.codes[at].load(Relaxed)).sum();
                if count > 0 {
                    let code = if *code == 0 { "other".to_owned() } else { code.to_string() };
                    text.sample(name, &format!("{},code=\"{code}\"", labels.whole()), count);
                }
            }
        }
        let name = "apiserver_request_duration_seconds";
        let help = "Response latency distribution in seconds for each verb, dry run value, group, version, resource, \
                    subresource, scope and component.";
        text.metric(name, "histogram", help);
        for (labels, series) in &sorted {
            let sum = Histogram::new(BOUNDS);
            series.iter().for_each(|series| sum.add(&series.times));
            if sum.count() > 0 {
                sum.write(&mut text.0, name, &labels.whole());
            }
        }
        let name = "apiserver_longrunning_requests";
        let help = "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, \
                    scope and component. Not all requests are tracked this way.";
        text.metric(name, "gauge", help);
        for (labels, series) in &sorted {
            let running: i64 = series.iter().map(|series| series.running.load(Relaxed)).sum();
            if matches!(labels.verb, "WATCH" | "CONNECT") {
                text.sample(name, &format!("verb=\"{}\",{}", labels.verb, labels.rest), running);
            }
        }
    }
}

impl Series {
    fn new(what: What, key: &Key) -> Self {
        let (group, version, resource, subresource) = match &what {
            What::Resource(row) => {
                let part = key.subresource.checked_sub(1).and_then(|n| row.subresources.get(usize::from(n)));
                (&*row.group, &*row.version, &*row.plural, part.map_or("", |part| &*part.name))
            }
            What::Path(path) => ("", "", "", *path),
            What::Unknown => ("", "", "", ""),
        };
        let component = if matches!(what, What::Resource(_)) { "apiserver" } else { "" };
        let mut rest = String::new();
        // Writing to a String can't fail.
        let _ = write!(
            rest,
            "group=\"{}\",version=\"{}\",resource=\"{}\",subresource=\"{}\",scope=\"{}\",component=\"{component}\"",
            escaped(group),
            escaped(version),
            escaped(resource),
            escaped(subresource),
            key.scope
        );
        Self {
            labels: Labels { verb: key.verb, dry_run: key.dry_run, rest },
            codes: Default::default(),
            times: Histogram::new(BOUNDS),
            running: AtomicI64::new(0),
            _what: what,
        }
    }

    /// Counts a request that has come to its end.
    pub(crate) fn ended(&self, code: StatusCode, time: Duration) {
        let at = CODES.binary_search(&code.as_u16()).unwrap_or(0);
        self.codes[at].fetch_add(1, Relaxed);
        self.times.observe(time);
    }
}

impl Labels {
    fn whole(&self) -> String {
        format!("verb=\"{}\",dry_run=\"{}\",{}", self.verb, self.dry_run, self.rest)
    }
}

/// The verb as upstream reports it: the method, with lists, watches, applies and streams told apart.
fn verb(info: &RequestInfo, apply: bool) -> &'static str {
    match info.verb {
        _ if info.resource_request && info.is_passed_on() => "CONNECT",
        "get" | "head" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" if apply => "APPLY",
        "patch" => "PATCH",
        "delete" | "deletecollection" => "DELETE",
        _ => "other",
    }
}

fn scope(info: &RequestInfo) -> &'static str {
    match (info.resource_request, info.name.is_empty(), info.namespace.is_empty()) {
        (false, ..) => "",
        (true, false, _) => "resource",
        (true, true, _) if info.verb == "create" => "resource",
        (true, true, false) => "namespace",
        (true, true, true) => "cluster",
    }
}

fn dry_run(info: &RequestInfo) -> &'static str {
    match info.query.all("dryRun").collect::<Vec<_>>().as_slice() {
        [] => "",
        given if given.iter().all(|value| *value == "All") => "All",
        _ => "invalid",
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn codes_are_sorted_so_that_they_can_be_searched() {
        assert!(CODES.is_sorted());
    }

    #[test]
    fn requests_are_counted_under_upstreams_labels() {
        let requests = Requests::default();
        let table = api::resource::Table::builtin();
        let pods = What::Resource(table.resource("", "v1", "pods").unwrap().clone());
        for (method, target, what) in [
            ("GET", "/api/v1/pods", &pods),
            ("GET", "/api/v1/pods", &pods),
            ("GET", "/api/v1/namespaces/a/pods?watch=1", &pods),
            ("POST", "/api/v1/namespaces/a/pods?dryRun=All", &pods),
            ("GET", "/api/v1/namespaces/a/pods/x/log", &pods),
            ("GET", "/readyz", &What::Path("/readyz")),
            ("GET", "/nonsense", &What::Unknown),
        ] {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let info = RequestInfo::new(&method.parse::<Method>().unwrap(), path, query);
            requests.series(what, &info, false).ended(StatusCode::OK, Duration::from_millis(30));
        }
        let mut text = Text::default();
        requests.write(&mut text);
        let lines: Vec<&str> =
            text.0.lines().filter_map(|line| line.strip_prefix("apiserver_request_total")).collect();
        let pod = "group=\"\",version=\"v1\",resource=\"pods\"";
        assert_eq!(
            lines,
            [
                format!(
                    "{{verb=\"CONNECT\",dry_run=\"\",{pod},subresource=\"log\",scope=\"resource\",component=\"apiserver\",code=\"200\"}} 1"
                ),
                "{verb=\"GET\",dry_run=\"\",group=\"\",version=\"\",resource=\"\",subresource=\"\",scope=\"\",component=\"\",code=\"200\"} 1".to_owned(),
                "{verb=\"GET\",dry_run=\"\",group=\"\",version=\"\",resource=\"\",subresource=\"/readyz\",scope=\"\",component=\"\",code=\"200\"} 1".to_owned(),
                format!(
                    "{{verb=\"LIST\",dry_run=\"\",{pod},subresource=\"\",scope=\"cluster\",component=\"apiserver\",code=\"200\"}} 2"
                ),
                format!(
                    "{{verb=\"POST\",dry_run=\"All\",{pod},subresource=\"\",scope=\"resource\",component=\"apiserver\",code=\"200\"}} 1"
                ),
                format!(
                    "{{verb=\"WATCH\",dry_run=\"\",{pod},subresource=\"\",scope=\"namespace\",component=\"apiserver\",code=\"200\"}} 1"
                ),
            ]
        );
    }
}
