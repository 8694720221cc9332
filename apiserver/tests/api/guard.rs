//! How the server protects itself, and what it tells of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use apiserver::UserInfo;
use apiserver::body::{RequestBody, boxed};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Value, json};

use super::common::{Answer, Api, api, with};

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A body that begins and never ends.
fn endless() -> RequestBody {
    let first = Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"{")));
    let stream = futures::stream::once(async { first });
    boxed(StreamBody::new(futures::StreamExt::chain(stream, futures::stream::pending())))
}

async fn grant(api: &Api, user: &str) {
    let subject = json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user});
    let role =
        json!({"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": "cluster-admin"});
    let binding =
        json!({"metadata": {"name": format!("test-{user}")}, "roleRef": role, "subjects": [subject]});
    api.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.ok();
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_of_what_sort_the_request_was() {
    let api = api().await;
    let uid = |answer: Answer| answer.ok()["metadata"]["uid"].as_str().unwrap().to_owned();
    let schema = uid(api.get(&format!("{SCHEMAS}/global-default")).await);
    let level = uid(api.get(&format!("{LEVELS}/global-default")).await);
    // Also a request that is forbidden has had its turn.
    let answer = api.as_user(UserInfo::new("jane", &[])).get("/api/v1/pods").await;
    let told = ["x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"]
        .map(|name| answer.header(name).to_owned());
    assert_eq!((answer.code, told), (403, [schema, level]));
}

#[tokio::test(start_paused = true)]
async fn a_flood_waits_and_is_turned_away_while_others_work() {
    let api = with(|config| config.max_requests = 10).await;
    for user in ["flooder", "system:kube-scheduler"] {
        grant(&api, user).await;
    }
    let flooder = api.as_user(UserInfo::new("flooder", &[]));
    let (answers, mut answered) = tokio::sync::mpsc::channel(1000);
    // Each of them would send its body for ever.
    for _ in 0..400 {
        let (api, answers) = (flooder.as_user(UserInfo::new("flooder", &[])), answers.clone());
        flooder.tasks.spawn("flood", async move {
            let _ = answers.send(api.streamed("POST", MAPS, endless()).await).await;
        });
    }
    tokio::task::yield_now().await;
    let clock = &api.server.server().config.clock;
    let started = clock.instant();
    let node = api.as_user(UserInfo::node("n1"));
    let created = node.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let scheduler = api.as_user(UserInfo::new("system:kube-scheduler", &[]));
    let lease = json!({"metadata": {"name": "kube-scheduler"}, "spec": {"holderIdentity": "x"}});
    scheduler.post("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", &lease).await.ok();
    assert!(clock.instant() - started < Duration::from_secs(1), "others had to wait");
    // Six queues of fifty are full at once; who waits in them is turned away after a quarter of the time.
    let mut codes = BTreeMap::<u16, usize>::new();
    for _ in 0..400 {
        let answer = answered.recv().await.unwrap();
        *codes.entry(answer.code).or_default() += 1;
        if answer.code == 429 {
            assert_eq!(answer.text, "Too many requests, please try again later.\n");
            assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
            assert_ne!(answer.header("x-kubernetes-pf-flowschema-uid"), "");
        }
    }
    assert!(codes[&429] > 300 && codes[&504] < 50, "{codes:?}");
    assert!(clock.instant() - started < Duration::from_secs(100));
    // It is over: the flooder's seats are free again.
    flooder.post(MAPS, &json!({"metadata": {"name": "a"}})).await.ok();
}

#[tokio::test(start_paused = true)]
async fn a_request_ends_in_the_time_that_it_asks_for() {
    let api = api().await;
    let clock = &api.server.server().config.clock;
    for (timeout, seconds) in [("2s", 2), ("1m0.5s", 60), ("0", 60), ("5m", 60), ("", 60)] {
        let started = clock.instant();
        let answer = api.streamed("POST", &format!("{MAPS}?timeout={timeout}"), endless()).await;
        answer.refused(504, "Timeout", "Timeout: request did not complete within the allotted timeout");
        assert_eq!((clock.instant() - started).as_secs(), seconds, "{timeout}");
    }
    let answer = api.get(&format!("{MAPS}?timeout=soon")).await;
    let why = "invalid timeout specified in the request URL - time: invalid duration \"soon\"";
    answer.refused(400, "BadRequest", why);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_is_refused_in_upstreams_words() {
    let api = api().await;
    let body = format!(r#"{{"metadata": {{"name": "{}"}}}}"#, "x".repeat(3 << 20));
    let answer = api.send("POST", MAPS, &[], body).await;
    let why = "Request entity too large: limit is 3145728";
    answer.refused(413, "RequestEntityTooLarge", why);
}

#[tokio::test(start_paused = true)]
async fn a_flow_schema_tells_whether_its_level_is_there() {
    let api = api().await;
    let rules = json!([{"subjects": [{"kind": "Group", "group": {"name": "x"}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]);
    let schema = json!({"metadata": {"name": "mine"},
        "spec": {"priorityLevelConfiguration": {"name": "later"}, "rules": rules}});
    let created = api.post(SCHEMAS, &schema).await.ok();
    let version = created["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let target = format!("{SCHEMAS}?watch=1&fieldSelector=metadata.name%3Dmine&resourceVersion={version}");
    let mut watch = api.watch(&target).await;
    let condition = |event: Value| event["object"]["status"]["conditions"][0].clone();
    let told = condition(watch.next().await.unwrap());
    let message = "This FlowSchema references the PriorityLevelConfiguration object named \"later\" but there is no \
                   such object";
    assert_eq!(
        (&told["type"], &told["status"], &told["message"]),
        (&json!("Dangling"), &json!("True"), &json!(message))
    );
    let level = json!({"metadata": {"name": "later"},
        "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}});
    api.post(LEVELS, &level).await.ok();
    let told = condition(watch.next().await.unwrap());
    assert_eq!((&told["status"], &told["reason"]), (&json!("False"), &json!("Found")));
}

#[tokio::test(start_paused = true)]
async fn metrics_are_in_prometheus_format_under_upstreams_names() {
    let api = api().await;
    api.post(MAPS, &json!({"metadata": {"name": "a"}})).await.ok();
    api.get("/api/v1/pods").await.ok();
    let mut watch = api.watch(&format!("{MAPS}?watch=1")).await;
    watch.next().await.unwrap();
    let page = api.get("/metrics").await;
    assert_eq!((page.code, page.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let (mut types, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for line in page.text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{name} twice");
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(seen.insert(series.to_owned()), "{series} twice");
            let name = series.split('{').next().unwrap();
            let histogram = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|end| name.strip_suffix(end))
                .any(|name| types.get(name).is_some_and(|kind| kind == "histogram"));
            assert!(histogram || types.contains_key(name), "{name} has no type");
        }
    }
    for wanted in [
        "apiserver_request_total{verb=\"POST\",dry_run=\"\",group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\",scope=\"resource\",component=\"apiserver\",code=\"201\"} ",
        "apiserver_request_duration_seconds_count{verb=\"LIST\",dry_run=\"\",group=\"\",version=\"v1\",resource=\"pods\",subresource=\"\",scope=\"cluster\",component=\"apiserver\"} 1",
        "apiserver_longrunning_requests{verb=\"WATCH\",group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\",scope=\"namespace\",component=\"apiserver\"} 1",
        "apiserver_watch_events_total{group=\"\",version=\"v1\",resource=\"configmaps\"} 1",
        "apiserver_storage_objects{resource=\"configmaps\"}",
        "apiserver_storage_objects{resource=\"flowschemas.flowcontrol.apiserver.k8s.io\"} 11",
        "apiserver_current_inflight_requests{request_kind=\"mutating\"}",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245",
        "apiserver_flowcontrol_dispatched_requests_total{priority_level=\"exempt\",flow_schema=\"exempt\"}",
        "etcd_request_duration_seconds_count{operation=\"create\",type=\"configmaps\"}",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
    ] {
        assert!(page.text.lines().any(|line| line.starts_with(wanted)), "{wanted}");
    }
    drop(watch);
    let page = api.get("/metrics").await.text;
    let gone = "apiserver_longrunning_requests{verb=\"WATCH\",group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\",scope=\"namespace\",component=\"apiserver\"} 0";
    assert!(page.contains(gone));
}

#[tokio::test(start_paused = true)]
async fn health_is_reported_in_upstreams_form() {
    let api = api().await;
    for (target, code, text) in [
        ("/livez", 200, "ok"),
        ("/readyz", 200, "ok"),
        ("/readyz/etcd", 200, "ok"),
        ("/livez/poststarthook/bootstrap", 200, "ok"),
        (
            "/livez?verbose&exclude=etcd&exclude=nothing",
            200,
            "[+]ping ok\n[+]etcd excluded: ok\n[+]poststarthook/bootstrap ok\n\
             [+]poststarthook/priority-and-fairness-config-consumer ok\n\
             warn: some health checks cannot be excluded: no matches for \"nothing\"\nlivez check passed\n",
        ),
    ] {
        let answer = api.get(target).await;
        assert_eq!((answer.code, answer.text.as_str()), (code, text), "{target}");
    }
    assert_eq!(api.get("/readyz/nothing").await.code, 404);
    let page = api.get("/metrics/slis").await.text;
    assert!(page.contains("kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 1\n"), "{page}");
    assert!(
        page.contains("kubernetes_healthchecks_total{name=\"etcd\",status=\"success\",type=\"readyz\"} 1\n")
    );
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_idle_watches_take_little_memory() {
    fn resident() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }
    let api = api().await;
    let before = resident();
    let mut watches = Vec::new();
    for _ in 0..10_000 {
        watches.push(api.watch(&format!("{MAPS}?watch=1&resourceVersion=1")).await);
    }
    let each = resident().saturating_sub(before) / watches.len();
    println!("{each} bytes for each watch");
    assert!(each < 16 << 10, "{each} bytes");
    api.post(MAPS, &json!({"metadata": {"name": "a"}})).await.ok();
    for watch in [0, 5000, 9999] {
        assert_eq!(watches[watch].brief().await, "ADDED a");
    }
}
