//! Server-side apply, and who owns what after each kind of write.

use serde_json::{Value, json};

use crate::common::{Answer, Api, api};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/a";

impl Api {
    async fn apply(&self, target: &str, query: &str, config: &Value) -> Answer {
        let target = format!("{target}?{query}");
        self.send("PATCH", &target, &[("content-type", "application/apply-patch+yaml")], config.to_string())
            .await
    }
}

fn web(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn whole(replicas: i32) -> Value {
    web(json!({
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "i", "ports": [{"containerPort": 80}]}]}
        }
    }))
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

/// `MANAGER OPERATION SUBRESOURCE` and the fields of each entry.
fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let owner = |entry: &Value| {
        let name =
            format!("{} {} {}", text(entry, "manager"), text(entry, "operation"), text(entry, "subresource"));
        (name.trim_end().to_owned(), entry["fieldsV1"].clone())
    };
    entries.iter().map(owner).collect()
}

fn names(object: &Value) -> Vec<String> {
    owners(object).into_iter().map(|(name, _)| name).collect()
}

#[tokio::test(start_paused = true)]
async fn an_apply_creates_changes_and_removes() {
    let api = api().await;
    let created = api.apply(WEB, "fieldManager=a", &whole(1)).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let entry = &created.value["metadata"]["managedFields"][0];
    assert_eq!(
        entry,
        &json!({
            "manager": "a", "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:template": {
                    "f:metadata": {"f:labels": {"f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {
                        ".": {}, "f:name": {}, "f:image": {},
                        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                            ".": {}, "f:containerPort": {}
                        }}
                    }}}
                }
            }}
        })
    );
    // The same again writes nothing.
    let again = api.apply(WEB, "fieldManager=a", &whole(1)).await;
    assert_eq!(again.code, 200);
    assert_eq!(again.value["metadata"], created.value["metadata"]);
    // Less is applied than before.
    let mut less = whole(1);
    less["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("ports");
    let after = api.apply(WEB, "fieldManager=a", &less).await.ok();
    assert_eq!(after["spec"]["template"]["spec"]["containers"][0].get("ports"), None);
    // The port is found by the default of its protocol, which the server filled in.
    let mut named = whole(1);
    named["spec"]["template"]["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": 80, "name": "http"}]);
    let after = api.apply(WEB, "fieldManager=a", &named).await.ok();
    assert_eq!(
        after["spec"]["template"]["spec"]["containers"][0]["ports"],
        json!([{"containerPort": 80, "name": "http", "protocol": "TCP"}])
    );
}

#[tokio::test(start_paused = true)]
async fn an_owner_is_asked_before_its_value_changes() {
    let api = api().await;
    api.apply(WEB, "fieldManager=a", &whole(1)).await.ok();
    let refused = api.apply(WEB, "fieldManager=b", &web(json!({"replicas": 2}))).await;
    refused.refused(409, "Conflict", "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    assert_eq!(
        refused.value["details"],
        json!({"causes": [
            {"reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".spec.replicas"}
        ]})
    );
    let forced = api.apply(WEB, "fieldManager=b&force=true", &web(json!({"replicas": 2}))).await.ok();
    assert_eq!(names(&forced), ["a Apply", "b Apply"]);
    assert_eq!(forced["spec"]["replicas"], 2);
    // An update takes what it changes.
    let mut object = forced.clone();
    object["spec"]["replicas"] = 3.into();
    let updated = api.put(&format!("{WEB}?fieldManager=u"), &object).await.ok();
    assert_eq!(names(&updated), ["a Apply", "u Update"]);
    assert_eq!(owners(&updated)[1].1, json!({"f:spec": {"f:replicas": {}}}));
    let refused = api.apply(WEB, "fieldManager=b", &web(json!({"replicas": 2}))).await;
    refused.refused(
        409,
        "Conflict",
        "Apply failed with 1 conflict: conflict with \"u\" using apps/v1: .spec.replicas",
    );
    // Equal values are shared. Who changes nothing has no time, and comes first.
    let shared = api.apply(WEB, "fieldManager=b", &web(json!({"replicas": 3}))).await.ok();
    assert_eq!(names(&shared), ["b Apply", "a Apply", "u Update"]);
    // What two applied stays when one lets go, and goes with the other.
    let (two, one) = (map(json!({"x": "1", "y": "1"})), map(json!({"y": "1"})));
    api.apply(MAP, "fieldManager=a", &two).await.ok();
    api.apply(MAP, "fieldManager=b", &one).await.ok();
    let left = api.apply(MAP, "fieldManager=a", &map(json!({}))).await.ok();
    assert_eq!(left["data"], json!({"y": "1"}));
    let left = api.apply(MAP, "fieldManager=b", &map(json!({"z": "1"}))).await.ok();
    assert_eq!(left["data"], json!({"z": "1"}));
}

#[tokio::test(start_paused = true)]
async fn every_write_has_an_owner() {
    let api = api().await;
    let agent = [("user-agent", "kubectl/v1.36.0 (linux/amd64)")];
    let created = api.send("POST", MAPS, &agent, map(json!({"x": "1"})).to_string()).await.ok();
    assert_eq!(owners(&created), [("kubectl Update".to_owned(), json!({"f:data": {".": {}, "f:x": {}}}))]);
    let merge = [("content-type", "application/merge-patch+json"), agent[0]];
    let patch = json!({"metadata": {"labels": {"l": "1"}}}).to_string();
    let patched = api.send("PATCH", &format!("{MAP}?fieldManager=m"), &merge, patch).await.ok();
    assert_eq!(names(&patched), ["kubectl Update", "m Update"]);
    assert_eq!(owners(&patched)[1].1, json!({"f:metadata": {"f:labels": {".": {}, "f:l": {}}}}));
    // Nothing changes, nothing is written.
    let patch = json!({"data": {"x": "1"}}).to_string();
    let same = api.send("PATCH", &format!("{MAP}?fieldManager=n"), &merge, patch).await.ok();
    assert_eq!(same, patched);
    // Without the entries an update keeps them.
    let mut object = same.clone();
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    object["data"]["y"] = "1".into();
    let updated = api.put(MAP, &object).await.ok();
    assert_eq!(names(&updated), ["kubectl Update", "m Update", "unknown Update"]);
    // What can't be read counts as nothing; what can is taken; one empty entry clears them.
    object = updated;
    object["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    let kept = api.put(MAP, &object).await.ok();
    assert_eq!(names(&kept).len(), 3);
    object = kept;
    object["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Update", "apiVersion": "v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:x": {}}}}]);
    let given = api.put(MAP, &object).await.ok();
    assert_eq!(names(&given), ["x Update"]);
    let clear = json!({"metadata": {"managedFields": [{}]}}).to_string();
    let cleared = api.send("PATCH", MAP, &merge, clear).await.ok();
    assert_eq!(cleared["metadata"].get("managedFields"), None);
    let patch = json!({"data": {"x": "2"}}).to_string();
    let after = api.send("PATCH", MAP, &merge, patch).await.ok();
    assert_eq!(after["metadata"].get("managedFields"), None);
    // From here an apply begins again.
    let applied = api.apply(MAP, "fieldManager=a", &map(json!({"z": "1"}))).await.ok();
    assert_eq!(names(&applied), ["a Apply", "before-first-apply Update"]);
}

#[tokio::test(start_paused = true)]
async fn status_and_object_are_owned_apart() {
    let api = api().await;
    let mut config = whole(1);
    config["status"] = json!({"replicas": 7});
    let created = api.apply(WEB, "fieldManager=a", &config).await.ok();
    assert_eq!(owners(&created)[0].1.get("f:status"), None);
    let mut object = created.clone();
    object["status"] = json!({"replicas": 1, "observedGeneration": 1});
    object["spec"]["replicas"] = 9.into();
    let updated = api.put(&format!("{WEB}/status?fieldManager=c"), &object).await.ok();
    assert_eq!(names(&updated), ["a Apply", "c Update status"]);
    assert_eq!(owners(&updated)[1].1, json!({"f:status": {"f:replicas": {}, "f:observedGeneration": {}}}));
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 4}, "status": {"replicas": 2}});
    let status_path = format!("{WEB}/status");
    let refused = api.apply(&status_path, "fieldManager=s", &status).await;
    refused.refused(
        409,
        "Conflict",
        "Apply failed with 1 conflict: conflict with \"c\" with subresource \"status\" using apps/v1: \
         .status.replicas",
    );
    let forced = api.apply(&status_path, "fieldManager=s&force=true", &status).await.ok();
    assert_eq!(names(&forced), ["a Apply", "s Apply status", "c Update status"]);
    assert_eq!(owners(&forced)[1].1, json!({"f:status": {"f:replicas": {}}}));
    assert_eq!((&forced["spec"]["replicas"], &forced["status"]["replicas"]), (&json!(1), &json!(2)));
    // There is nothing whose status could be created.
    let mut other = status;
    other["metadata"]["name"] = "none".into();
    assert_eq!(api.apply(&format!("{DEPLOYMENTS}/none/status"), "fieldManager=s", &other).await.code, 404);
}

#[tokio::test(start_paused = true)]
async fn the_replicas_are_owned_through_the_scale_too() {
    let api = api().await;
    let scale_path = format!("{WEB}/scale");
    api.apply(WEB, "fieldManager=a", &whole(1)).await.ok();
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"},
        "spec": {"replicas": 2}});
    let refused = api.apply(&scale_path, "fieldManager=s", &scale).await;
    refused.refused(409, "Conflict", "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    api.put(&format!("{scale_path}?fieldManager=u"), &scale).await.ok();
    let object = api.get(WEB).await.ok();
    assert_eq!(names(&object), ["a Apply", "u Update scale"]);
    assert_eq!(owners(&object)[1].1, json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(owners(&object)[0].1["f:spec"].get("f:replicas"), None);
    let refused = api.apply(WEB, "fieldManager=a", &whole(3)).await;
    refused.refused(
        409,
        "Conflict",
        "Apply failed with 1 conflict: conflict with \"u\" with subresource \"scale\" using apps/v1: .spec.replicas",
    );
    let forced = api.apply(&scale_path, "fieldManager=s&force=true", &scale).await.ok();
    assert_eq!(forced["spec"]["replicas"], 2);
    api.patch("merge-patch", &format!("{scale_path}?fieldManager=m"), &json!({"spec": {"replicas": 4}}))
        .await
        .ok();
    let object = api.get(WEB).await.ok();
    assert_eq!(names(&object), ["a Apply", "m Update scale"]);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_would_be_and_writes_nothing() {
    let api = api().await;
    let dry = api.apply(MAP, "fieldManager=a&dryRun=All", &map(json!({"x": "1"}))).await;
    assert_eq!((dry.code, names(&dry.value)), (201, vec!["a Apply".to_owned()]));
    assert_eq!(api.get(MAP).await.code, 404);
    api.apply(MAP, "fieldManager=a", &map(json!({"x": "1"}))).await.ok();
    let dry = api.apply(MAP, "fieldManager=a&dryRun=All", &map(json!({"x": "2"}))).await.ok();
    assert_eq!(dry["data"], json!({"x": "2"}));
    assert_eq!(api.get(MAP).await.ok()["data"], json!({"x": "1"}));
}

#[tokio::test(start_paused = true)]
async fn an_apply_that_can_not_be_is_refused_in_upstreams_words() {
    let api = api().await;
    let options = "PatchOptions.meta.k8s.io \"\" is invalid: ";
    let config = map(json!({"x": "1"}));
    for (query, expect) in [
        ("", format!("{options}fieldManager: Required value: is required for apply patch")),
        (
            "fieldManager=a%07b",
            format!(
                "{options}fieldManager: Invalid value: \"a\\ab\": invalid character U+0007 (at position 1)"
            ),
        ),
        (
            "fieldManager=a&dryRun=x",
            format!("{options}dryRun: Unsupported value: [\"x\"]: supported values: \"All\""),
        ),
    ] {
        let answer = api.apply(MAP, query, &config).await;
        assert_eq!(
            (answer.code, answer.reason(), answer.message()),
            (422, "Invalid", expect.as_str()),
            "{query}"
        );
    }
    let long = format!("fieldManager={}", "a".repeat(129));
    let answer = api.apply(MAP, &long, &config).await;
    assert!(
        answer.message().contains("fieldManager: Too long: may not be more than 128 bytes"),
        "{}",
        answer.text
    );
    let answer = api.patch("merge-patch", &format!("{MAP}?force=true"), &json!({})).await;
    assert_eq!(
        answer.message(),
        format!("{options}force: Forbidden: may not be specified for non-apply patch")
    );

    let with = |path: &str, value: Value| {
        let mut config = config.clone();
        *config.pointer_mut(path).unwrap() = value;
        config
    };
    let mut managed = config.clone();
    managed["metadata"]["managedFields"] = json!([{}]);
    let mut foreign = config.clone();
    foreign["metadata"]["uid"] = "x".into();
    for (config, code, reason, message) in [
        (managed, 400, "BadRequest", "metadata.managedFields must be nil"),
        (with("/kind", json!("Secret")), 400, "BadRequest", "invalid object type: /v1, Kind=Secret"),
        (
            with("/metadata/name", json!("b")),
            400,
            "BadRequest",
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            foreign,
            409,
            "Conflict",
            "Operation cannot be fulfilled on configmaps \"a\": uid mismatch: the provided object specified uid x, \
             and no existing object was found",
        ),
        (
            with("/data", json!({"x": 1})),
            500,
            "",
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .data.x: expected string, got \
             &value.valueUnstructured{Value:1}",
        ),
        (
            json!([]),
            400,
            "BadRequest",
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go \
             value of type map[string]interface {}",
        ),
    ] {
        let answer = api.apply(MAP, "fieldManager=a", &config).await;
        assert_eq!((answer.code, answer.reason(), answer.message()), (code, reason, message), "{config}");
    }
    // Given twice.
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: a}\ndata: {y: b}\n";
    let media = [("content-type", "application/apply-patch+yaml")];
    let strict =
        api.send("PATCH", &format!("{MAP}?fieldManager=a&fieldValidation=Strict"), &media, twice).await;
    assert_eq!(strict.code, 400);
    assert!(strict.message().starts_with("error strict decoding YAML: "), "{}", strict.text);
    let warned = api.send("PATCH", &format!("{MAP}?fieldManager=a"), &media, twice).await;
    assert_eq!(warned.code, 201);
    assert!(warned.headers.contains_key("warning"));
    // The version that was read is no more.
    let mut old = map(json!({"x": "2"}));
    old["metadata"]["resourceVersion"] = "1".into();
    let answer = api.apply(MAP, "fieldManager=a", &old).await;
    assert_eq!((answer.code, answer.reason()), (409, "Conflict"));
}

#[tokio::test(start_paused = true)]
async fn one_kind_under_two_groups_has_owners_of_both() {
    let api = api().await;
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "r", "message": "m", "type": "Normal"
    });
    let core = "/api/v1/namespaces/default/events";
    api.post(&format!("{core}?fieldManager=a"), &event).await.ok();
    let patch = json!({"metadata": {"labels": {"l": "1"}}});
    let patched = api.patch("merge-patch", &format!("{path}/e?fieldManager=b"), &patch).await.ok();
    assert_eq!(names(&patched), ["a Update", "b Update"]);
    let patch = json!({"message": "n"});
    let patched = api.patch("merge-patch", &format!("{core}/e?fieldManager=c"), &patch).await.ok();
    assert_eq!(names(&patched), ["a Update", "b Update", "c Update"]);
    assert_eq!(owners(&patched)[0].1.get("f:message"), None);
}

#[tokio::test(start_paused = true)]
async fn an_object_too_large_for_its_owners_is_kept_without_them() {
    let api = api().await;
    let data: serde_json::Map<String, Value> =
        (0..50_000).map(|i| (format!("k{i:05}"), json!("aaaaaaaaaa"))).collect();
    let created = api.post(MAPS, &map(Value::Object(data))).await.ok();
    assert_eq!(created["metadata"].get("managedFields"), None);
}

#[tokio::test(start_paused = true)]
async fn kubectl_may_hand_its_own_entries_from_one_operation_to_the_other() {
    let api = api().await;
    api.post(&format!("{MAPS}?fieldManager=kubectl-client-side-apply"), &map(json!({"x": "1"}))).await.ok();
    let object = api.get(MAP).await.ok();
    let mut entry = object["metadata"]["managedFields"][0].clone();
    entry["manager"] = "kubectl".into();
    entry["operation"] = "Apply".into();
    let patch = json!([
        {"op": "replace", "path": "/metadata/managedFields", "value": [entry]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": object["metadata"]["resourceVersion"]}
    ]);
    let moved = api.patch("json-patch", MAP, &patch).await.ok();
    assert_eq!(names(&moved), ["kubectl Apply"]);
    let applied = api.apply(MAP, "fieldManager=kubectl", &map(json!({"y": "1"}))).await.ok();
    assert_eq!(applied["data"], json!({"y": "1"}));
}

#[tokio::test(start_paused = true)]
async fn who_binds_a_pod_owns_nothing_of_it() {
    let api = api().await;
    let pods = "/api/v1/namespaces/default/pods";
    api.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let created = api.post(&format!("{pods}?fieldManager=a"), &pod).await.ok();
    // What admission adds belongs to nobody.
    assert_eq!(
        owners(&created)[0].1,
        json!({"f:spec": {
            "f:containers": {"k:{\"name\":\"c\"}": {
                ".": {}, "f:name": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:resources": {},
                "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}
            }},
            "f:dnsPolicy": {}, "f:enableServiceLinks": {}, "f:restartPolicy": {}, "f:schedulerName": {},
            "f:securityContext": {}, "f:terminationGracePeriodSeconds": {}
        }})
    );
    let binding =
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "n"}});
    api.post(&format!("{pods}/p/binding"), &binding).await.ok();
    assert_eq!(names(&api.get(&format!("{pods}/p")).await.ok()), ["a Update"]);
}
