//! The audit log, from the policy to the file.

use std::path::Path;
use std::time::Duration;

use apiserver::UserInfo;
use apiserver::audit::{LogSettings, Policy, Settings};
use serde_json::{Value, json};

use super::common::{Api, with};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn recorded(file: &Path, rules: &str) -> Api {
    let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}");
    let policy = Policy::read(policy.as_bytes()).unwrap();
    let log = LogSettings { path: file.to_owned(), max_age_days: 0, max_backups: 0, max_megabytes: 0 };
    with(|config| config.audit = Some(Settings { policy, log })).await
}

/// Ends the server; the events that it wrote of everybody but itself.
async fn events(api: Api, file: &Path) -> Vec<Value> {
    api.server.shutdown().await.unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["user"]["username"] != "system:apiserver").collect()
}

#[tokio::test]
async fn events_tell_what_was_asked_and_what_came_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.log");
    let rules = "omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, resources: [{group: '', resources: [events]}]}
- {level: RequestResponse, resources: [{group: '', resources: [configmaps]}]}
- {level: Metadata}";
    let api = recorded(&file, rules).await;
    let headers = [("audit-id", "mine"), ("user-agent", "tester"), ("x-forwarded-for", "1.2.3.4")];
    let map = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let created = api.send("POST", MAPS, &headers, map.to_string()).await;
    assert_eq!((created.code, created.header("audit-id")), (201, "mine"));
    let uid = created.value["metadata"]["uid"].clone();
    api.send("POST", MAPS, &headers, map.to_string()).await;
    let impersonating = [("impersonate-user", "jane"), ("impersonate-group", "dev")];
    assert_eq!(api.send("GET", "/api/v1/secrets", &impersonating, "").await.code, 403);
    drop(api.watch(&format!("{MAPS}?watch=1")).await);
    api.get("/version").await.ok();
    api.get("/api/v1/events").await.ok();
    let dns = api.as_user(UserInfo::service_account("kube-system", "deployment-controller"));
    dns.get("/apis/apps/v1/deployments").await.ok();
    let events = events(api, &file).await;
    let shown: Vec<String> = events
        .iter()
        .map(|event| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            format!(
                "{} {} {} {} {}",
                text(&event["level"]),
                text(&event["stage"]),
                text(&event["verb"]),
                text(&event["requestURI"]),
                event["responseStatus"]["code"]
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            format!("RequestResponse ResponseComplete create {MAPS} 201"),
            format!("RequestResponse ResponseComplete create {MAPS} 409"),
            "Metadata ResponseComplete list /api/v1/secrets 403".to_owned(),
            format!("RequestResponse ResponseStarted watch {MAPS}?watch=1 200"),
            format!("RequestResponse ResponseComplete watch {MAPS}?watch=1 200"),
            "Metadata ResponseComplete get /version 200".to_owned(),
            "Metadata ResponseComplete list /apis/apps/v1/deployments 200".to_owned(),
        ]
    );
    let first = &events[0];
    assert_eq!((&first["kind"], &first["apiVersion"]), (&json!("Event"), &json!("audit.k8s.io/v1")));
    assert_eq!((&first["auditID"], &first["userAgent"]), (&json!("mine"), &json!("tester")));
    assert_eq!(first["sourceIPs"], json!(["1.2.3.4"]));
    assert_eq!(
        first["user"],
        json!({"username": "admin", "groups": ["system:masters", "system:authenticated"]})
    );
    assert_eq!(
        first["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"})
    );
    assert_eq!(first["requestObject"], map);
    assert_eq!(
        (&first["responseObject"]["metadata"]["uid"], &first["responseObject"]["data"]),
        (&uid, &json!({"k": "v"}))
    );
    assert_eq!(first["responseObject"]["metadata"].get("managedFields"), None);
    assert_eq!(first["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(
        first["annotations"],
        json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""})
    );
    let stamp = first["requestReceivedTimestamp"].as_str().unwrap();
    assert_eq!((stamp.len(), &stamp[stamp.len() - 1..]), ("2026-01-01T00:00:00.000000Z".len(), "Z"));
    assert_eq!(events[1]["responseStatus"]["reason"], "AlreadyExists");
    let refused = &events[2];
    assert_eq!(refused["user"]["username"], "admin");
    assert_eq!(
        refused["impersonatedUser"],
        json!({"username": "jane", "groups": ["dev", "system:authenticated"]})
    );
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    let why = "RBAC: allowed by ClusterRoleBinding \"system:controller:deployment-controller\" of ClusterRole \
               \"system:controller:deployment-controller\" to ServiceAccount \"deployment-controller/kube-system\"";
    assert_eq!(events[6]["annotations"]["authorization.k8s.io/reason"], why);
}

#[tokio::test]
async fn pods_are_recorded_with_what_the_security_standards_say() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.log");
    let api =
        recorded(&file, "rules: [{level: Metadata, resources: [{group: '', resources: [pods]}]}]").await;
    let labels = json!({"pod-security.kubernetes.io/audit": "baseline"});
    api.post("/api/v1/namespaces", &json!({"metadata": {"name": "n", "labels": labels}})).await.ok();
    api.post("/api/v1/namespaces/n/serviceaccounts", &json!({"metadata": {"name": "default"}})).await.ok();
    let spec = json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]});
    api.post("/api/v1/namespaces/n/pods", &json!({"metadata": {"name": "p"}, "spec": spec})).await.ok();
    let events = events(api, &file).await;
    let stages: Vec<&str> = events.iter().map(|event| event["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
    assert_eq!(events[0].get("responseStatus"), None);
    let annotations = &events[1]["annotations"];
    assert_eq!(annotations["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
    let what = "would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    assert_eq!(annotations["pod-security.kubernetes.io/audit-violations"], what);
}

#[tokio::test]
async fn a_full_disk_holds_up_nobody() {
    let api = recorded(Path::new("/dev/full"), "rules: [{level: RequestResponse}]").await;
    for number in 0..50 {
        let map = json!({"metadata": {"name": format!("m{number}")}});
        tokio::time::timeout(Duration::from_secs(20), api.post(MAPS, &map)).await.unwrap().ok();
    }
    // Writing is another task's: its losses are counted when it gets to them.
    let lost = loop {
        let page = api.get("/metrics").await.text;
        let line =
            page.lines().find_map(|line| line.strip_prefix("apiserver_audit_error_total{plugin=\"log\"} "));
        match line.unwrap().parse::<u64>().unwrap() {
            0 => tokio::task::yield_now().await,
            lost => break lost,
        }
    };
    assert!(lost > 0);
}
