//! What the node and its pods use: `/stats/summary` for people and tools of old, `/metrics/resource` for the metrics
//! server. Containers are measured by the runtime, the node by the kernel.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Context;
use super::reply::{self, Body, Refusal};

const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD: &str = "io.kubernetes.pod.name";
const UID: &str = crate::runtime::POD_UID_LABEL;
const CONTAINER: &str = "io.kubernetes.container.name";

/// The last two measurements of processor time of everything that is measured, to tell how fast it is used.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<String, Pace>>);

#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Nanoseconds since 1970, and of processor time.
    at: i64,
    used: u64,
    rate: Option<u64>,
}

/// What is known of one container, or of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Usage {
    at: i64,
    started: Option<i64>,
    cpu: Option<u64>,
    rate: Option<u64>,
    working_set: Option<u64>,
    usage: Option<u64>,
    available: Option<u64>,
    rss: Option<u64>,
    page_faults: Option<u64>,
    major_page_faults: Option<u64>,
    /// The container's own files.
    files: Option<u64>,
    inodes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PodKey {
    namespace: String,
    name: String,
    uid: String,
}

/// The containers of a pod by their names.
type Pods = BTreeMap<PodKey, BTreeMap<String, Usage>>;

impl Rates {
    /// Nanoseconds of processor time per second, from this measurement and the one before.
    fn rate(&self, id: &str, at: i64, used: u64) -> Option<u64> {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = paces.get(id).copied();
        let rate = match before {
            Some(before) if at > before.at && used >= before.used => {
                let passed = (at - before.at).unsigned_abs();
                let rate = u128::from(used - before.used) * 1_000_000_000 / u128::from(passed);
                u64::try_from(rate).ok()
            }
            Some(before) if at == before.at => return before.rate,
            _ => None,
        };
        paces.insert(id.to_owned(), Pace { at, used, rate });
        rate
    }

    /// Forgets what is no longer measured.
    fn keep(&self, ids: &[&str]) {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paces.retain(|id, _| ids.contains(&id.as_str()));
    }
}

fn container_usage(stats: &cri::ContainerStats, started: Option<i64>, rates: &Rates) -> Usage {
    let value = |value: &Option<cri::UInt64Value>| value.as_ref().map(|value| value.value);
    let mut usage = Usage { started, ..Usage::default() };
    let id = stats.attributes.as_ref().map(|attributes| attributes.id.as_str()).unwrap_or_default();
    if let Some(cpu) = &stats.cpu {
        usage.at = cpu.timestamp;
        usage.cpu = value(&cpu.usage_core_nano_seconds);
        let measured = usage.cpu.and_then(|used| rates.rate(id, cpu.timestamp, used));
        usage.rate = value(&cpu.usage_nano_cores).or(measured);
    }
    if let Some(memory) = &stats.memory {
        usage.at = usage.at.max(memory.timestamp);
        usage.working_set = value(&memory.working_set_bytes);
        usage.usage = value(&memory.usage_bytes);
        usage.available = value(&memory.available_bytes);
        usage.rss = value(&memory.rss_bytes);
        usage.page_faults = value(&memory.page_faults);
        usage.major_page_faults = value(&memory.major_page_faults);
    }
    if let Some(layer) = &stats.writable_layer {
        usage.files = value(&layer.used_bytes);
        usage.inodes = value(&layer.inodes_used);
    }
    usage
}

async fn pods(context: &Context) -> Result<Pods, Refusal> {
    let failed = |error: crate::runtime::RuntimeError| Refusal::internal(error.rpc_text());
    let (stats, containers) =
        tokio::try_join!(context.runtime.container_stats(), context.runtime.list_containers(None))
            .map_err(failed)?;
    let started: HashMap<&str, i64> =
        containers.iter().map(|container| (container.id.as_str(), container.created_at)).collect();
    let mut pods = Pods::new();
    let mut measured = vec![NODE];
    for one in &stats {
        let Some(attributes) = &one.attributes else { continue };
        let label = |name: &str| attributes.labels.get(name).cloned();
        let (Some(namespace), Some(name), Some(uid), Some(container)) =
            (label(NAMESPACE), label(POD), label(UID), label(CONTAINER))
        else {
            continue;
        };
        measured.push(&attributes.id);
        let usage = container_usage(one, started.get(attributes.id.as_str()).copied(), &context.rates);
        let pod = pods.entry(PodKey { namespace, name, uid }).or_default();
        // The newest run counts.
        if pod.get(&container).is_none_or(|known| known.started <= usage.started) {
            pod.insert(container, usage);
        }
    }
    context.rates.keep(&measured);
    Ok(pods)
}

/// What the pod's containers use together.
fn total(containers: &BTreeMap<String, Usage>) -> Usage {
    let sum = |of: fn(&Usage) -> Option<u64>| {
        containers
            .values()
            .filter_map(of)
            .fold(None, |sum: Option<u64>, value| Some(sum.unwrap_or_default().saturating_add(value)))
    };
    Usage {
        at: containers.values().map(|usage| usage.at).max().unwrap_or_default(),
        started: containers.values().filter_map(|usage| usage.started).min(),
        cpu: sum(|usage| usage.cpu),
        rate: sum(|usage| usage.rate),
        working_set: sum(|usage| usage.working_set),
        usage: sum(|usage| usage.usage),
        available: None,
        rss: sum(|usage| usage.rss),
        page_faults: sum(|usage| usage.page_faults),
        major_page_faults: sum(|usage| usage.major_page_faults),
        files: sum(|usage| usage.files),
        inodes: sum(|usage| usage.inodes),
    }
}

/// The node is kept among the rates under this name, which is no container's.
const NODE: &str = "";

async fn node(context: &Context) -> Usage {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (stat, memory) = context.tasks.blocking(move || (read("/proc/stat"), read("/proc/meminfo"))).await;
    let now = context.clock.now();
    let mut usage = node_usage(&stat, &memory);
    usage.at = i64::try_from(now.as_nanosecond()).unwrap_or_default();
    usage.rate = usage.cpu.and_then(|used| context.rates.rate(NODE, usage.at, used));
    usage
}

/// From the kernel's own words.
fn node_usage(stat: &str, memory: &str) -> Usage {
    let ticks: Vec<u64> = stat
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))
        .map(|rest| rest.split_whitespace().filter_map(|field| field.parse().ok()).collect())
        .unwrap_or_default();
    // user, nice, system, (idle, iowait,) irq, softirq, steal: in hundredths of a second.
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum::<u64>();
    let started = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok());
    let field = |name: &str| {
        let rest = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(rest.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    let total = field("MemTotal");
    let used = total.zip(field("MemFree")).map(|(total, free)| total.saturating_sub(free));
    let working_set = used.map(|used| used.saturating_sub(field("Inactive(file)").unwrap_or_default()));
    Usage {
        started: started.map(|seconds| seconds * 1_000_000_000),
        cpu: (!ticks.is_empty()).then_some(busy * 10_000_000),
        working_set,
        usage: used,
        available: total.zip(working_set).map(|(total, used)| total.saturating_sub(used)),
        rss: field("AnonPages"),
        ..Usage::default()
    }
}

fn time(nanoseconds: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Fields without a value are left out.
fn object<const N: usize>(at: i64, fields: [(&str, Option<u64>); N]) -> Value {
    let mut object = serde_json::Map::from_iter([("time".to_owned(), json!(time(at)))]);
    let known = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
    object.extend(known);
    Value::Object(object)
}

fn show(name: (&str, Value), usage: &Usage) -> Value {
    let cpu = [("usageNanoCores", usage.rate), ("usageCoreNanoSeconds", usage.cpu)];
    let memory = [
        ("availableBytes", usage.available),
        ("usageBytes", usage.usage),
        ("workingSetBytes", usage.working_set),
        ("rssBytes", usage.rss),
        ("pageFaults", usage.page_faults),
        ("majorPageFaults", usage.major_page_faults),
    ];
    let mut shown = json!({ "cpu": object(usage.at, cpu), "memory": object(usage.at, memory) });
    shown["startTime"] = usage.started.map_or(Value::Null, |started| json!(time(started)));
    shown[name.0] = name.1;
    if usage.files.is_some() {
        let files = [("usedBytes", usage.files), ("inodesUsed", usage.inodes)];
        shown["rootfs"] = object(usage.at, files);
    }
    shown
}

/// `GET /stats/summary`.
pub(super) async fn summary(context: &Context) -> Result<Response<Body>, Refusal> {
    let node = node(context).await;
    let mut shown = Vec::new();
    for (key, containers) in pods(context).await? {
        let reference = json!({ "name": key.name, "namespace": key.namespace, "uid": key.uid });
        let mut pod = show(("podRef", reference), &Usage { files: None, ..total(&containers) });
        let all = containers.iter().map(|(name, usage)| show(("name", json!(name)), usage));
        pod["containers"] = all.collect();
        shown.push(pod);
    }
    reply::json(&json!({ "node": show(("nodeName", json!(context.node_name)), &node), "pods": shown }))
}

/// `GET /metrics/resource`.
pub(super) async fn metrics(context: &Context) -> Result<Response<Body>, Refusal> {
    let node = node(context).await;
    let found = pods(context).await;
    if let Err(refusal) = &found {
        tracing::warn!(error = %refusal.text, "containers were not measured");
    }
    let text = exposition(&node, found.ok().as_ref());
    Ok(reply::with(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' values are floating point")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// In Prometheus' text format, with the names and labels of the kubelet. `None`: the runtime did not answer.
fn exposition(node: &Usage, pods: Option<&Pods>) -> String {
    type Sample<'a> = (String, &'a Usage);
    let mut of_containers: Vec<Sample<'_>> = Vec::new();
    let mut totals = Vec::new();
    for (key, containers) in pods.into_iter().flatten() {
        let pod = format!("namespace=\"{}\",pod=\"{}\"", key.namespace, key.name);
        for (name, usage) in containers {
            of_containers.push((format!("{{container=\"{name}\",{pod}}}"), usage));
        }
        totals.push((format!("{{{pod}}}"), total(containers)));
    }
    let of_pods: Vec<Sample<'_>> = totals.iter().map(|(labels, usage)| (labels.clone(), usage)).collect();
    let of_node: Vec<Sample<'_>> = vec![(String::new(), node)];
    let mut out = String::new();
    let mut family =
        |name: &str, kind: &str, help: &str, samples: &[Sample<'_>], of: fn(&Usage) -> Option<f64>, timed| {
            // Writing to a string can't fail.
            let _ = writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
            for (labels, usage) in samples {
                let Some(value) = of(usage) else { continue };
                let _ = match timed {
                    true => writeln!(out, "{name}{labels} {value} {}", usage.at / 1_000_000),
                    false => writeln!(out, "{name}{labels} {value}"),
                };
            }
        };
    let cpu = |usage: &Usage| usage.cpu.map(seconds);
    #[expect(clippy::cast_precision_loss, reason = "Prometheus' values are floating point")]
    let memory = |usage: &Usage| usage.working_set.map(|bytes| bytes as f64);
    let started = |usage: &Usage| usage.started.and_then(|at| u64::try_from(at).ok()).map(seconds);
    let cpu_help = |what: &str| format!("Cumulative cpu time consumed by the {what} in core-seconds");
    let memory_help = |what: &str| format!("Current working set of the {what} in bytes");
    for (what, samples) in [("container", &of_containers), ("node", &of_node), ("pod", &of_pods)] {
        let name = format!("{what}_cpu_usage_seconds_total");
        family(&name, "counter", &cpu_help(what), samples, cpu, true);
        let name = format!("{what}_memory_working_set_bytes");
        family(&name, "gauge", &memory_help(what), samples, memory, true);
    }
    let help = "Start time of the container since unix epoch in seconds";
    family("container_start_time_seconds", "gauge", help, &of_containers, started, false);
    let error = u8::from(pods.is_none());
    let _ = writeln!(
        out,
        "# HELP resource_scrape_error [STABLE] 1 if there was an error while getting container metrics, 0 otherwise\n\
         # TYPE resource_scrape_error gauge\n\
         resource_scrape_error {error}"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_from_two_measurements() {
        let rates = Rates::default();
        assert_eq!(rates.rate("a", 1_000_000_000, 500), None);
        assert_eq!(rates.rate("a", 1_000_000_000, 500), None);
        assert_eq!(rates.rate("a", 3_000_000_000, 1_000_000_500), Some(500_000_000));
        assert_eq!(rates.rate("a", 3_000_000_000, 1_000_000_500), Some(500_000_000), "asked twice");
        assert_eq!(rates.rate("a", 4_000_000_000, 5), None, "began anew");
        rates.keep(&["b"]);
        assert!(rates.0.lock().unwrap().is_empty());
    }

    #[test]
    fn the_node_is_read_from_the_kernels_words() {
        let stat = "cpu  100 10 50 9999 7 1 2 3 0 0\ncpu0 1 1 1 1\nbtime 1700000000\n";
        let memory = "MemTotal: 1000 kB\nMemFree: 400 kB\nInactive(file): 100 kB\nAnonPages: 50 kB\n";
        let usage = node_usage(stat, memory);
        assert_eq!(usage.cpu, Some(166 * 10_000_000));
        assert_eq!(
            (usage.usage, usage.working_set, usage.available),
            (Some(614_400), Some(512_000), Some(512_000))
        );
        assert_eq!(usage.started, Some(1_700_000_000_000_000_000));
        assert_eq!(node_usage("", ""), Usage::default());
    }

    #[test]
    fn metrics_have_the_kubelets_names() {
        let key = PodKey { namespace: "n".into(), name: "p".into(), uid: "u".into() };
        let one = Usage {
            at: 1_700_000_000_123_000_000,
            started: Some(1_700_000_000_000_000_000),
            cpu: Some(1_500_000_000),
            working_set: Some(4096),
            ..Usage::default()
        };
        let containers = BTreeMap::from([("a".to_owned(), one.clone()), ("b".to_owned(), one)]);
        let text = exposition(&Usage::default(), Some(&Pods::from([(key, containers)])));
        for line in [
            "container_cpu_usage_seconds_total{container=\"a\",namespace=\"n\",pod=\"p\"} 1.5 1700000000123",
            "pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 3 1700000000123",
            "pod_memory_working_set_bytes{namespace=\"n\",pod=\"p\"} 8192 1700000000123",
            "container_start_time_seconds{container=\"b\",namespace=\"n\",pod=\"p\"} 1700000000",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(exposition(&Usage::default(), None).contains("resource_scrape_error 1"));
    }
}
