//! Jobs as users and controllers send them, and what is refused of them.

use serde_json::json;

use super::*;
use crate::field::aggregate;

/// A job with these fields in its spec, as a user sends it.
fn given(spec: Value) -> Job {
    let mut whole = json!({"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]
    }}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        whole[field] = value.clone();
    }
    let job = json!({"metadata": {"name": "j1", "uid": "u1"}, "spec": whole});
    let mut job: Job = serde_json::from_value(job).unwrap_or_default();
    job.set_defaults();
    job
}

/// The same as it is stored.
fn stored(spec: Value) -> Job {
    let mut job = given(spec);
    job.prepare_create();
    job
}

fn with_status(mut job: Job, status: Value) -> Job {
    job.status = serde_json::from_value(status).ok();
    job
}

#[test]
fn a_job_gets_labels_and_a_selector_of_its_own() {
    let job = stored(json!({}));
    let labels = json!({
        "batch.kubernetes.io/controller-uid": "u1", "batch.kubernetes.io/job-name": "j1",
        "controller-uid": "u1", "job-name": "j1"
    });
    assert_eq!(json!(job.metadata.labels), labels);
    let spec = job.spec.clone().unwrap_or_default();
    assert_eq!(json!(spec.template.metadata.unwrap_or_default().labels), labels);
    let selector = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}});
    assert_eq!(json!(spec.selector), selector);
    assert_eq!(aggregate(&Kind::validate(&job)), "");
}

#[test]
fn defaults_depend_on_what_is_given() {
    let spec = given(json!({"completions": 3, "backoffLimitPerIndex": 1})).spec.unwrap_or_default();
    assert_eq!((spec.completions, spec.parallelism, spec.backoff_limit), (Some(3), Some(1), Some(i32::MAX)));
    assert_eq!(text(&spec.pod_replacement_policy), "TerminatingOrFailed");
    let spec = given(json!({"parallelism": 2, "podFailurePolicy": {"rules": []}})).spec.unwrap_or_default();
    assert_eq!((spec.completions, spec.parallelism, spec.backoff_limit), (None, Some(2), Some(6)));
    assert_eq!(text(&spec.pod_replacement_policy), "Failed");
}

#[test]
fn what_makes_no_sense_is_refused_in_upstreams_words() {
    let indexed = |spec: Value| {
        let mut spec = spec;
        spec["completionMode"] = "Indexed".into();
        spec
    };
    let rule = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
    for (spec, text) in [
        (
            indexed(json!({"parallelism": 1})),
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        (
            json!({"completionMode": "x"}),
            r#"spec.completionMode: Unsupported value: "x": supported values: "NonIndexed", "Indexed""#,
        ),
        (
            json!({"backoffLimitPerIndex": 1}),
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        ),
        (
            indexed(json!({"completions": 3, "maxFailedIndexes": 2})),
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
        ),
        (
            indexed(json!({"completions": 100_001, "backoffLimitPerIndex": 1})),
            "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
        ),
        (
            json!({"managedBy": "x"}),
            r#"spec.managedBy: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")"#,
        ),
        (
            json!({"successPolicy": {"rules": [{"succeededIndexes": "1"}]}}),
            r#"spec.successPolicy: Invalid value: {"Rules":[{"SucceededIndexes":"1","SucceededCount":null}]}: requires indexed completion mode"#,
        ),
        (
            indexed(json!({"completions": 3, "successPolicy": {"rules": [
                {"succeededIndexes": "0-1", "succeededCount": 3}
            ]}})),
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number \
             of indexes in the specified succeededIndexes field)",
        ),
        (
            rule(json!({"action": "", "onPodConditions": [{"type": "DisruptionTarget"}]})),
            r#"spec.podFailurePolicy.rules[0].action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]"#,
        ),
        (
            rule(json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [2, 1, 0]}})),
            "[spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Invalid value: 0: must not be 0 for the In operator, \
             spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1,0]: must be ordered]",
        ),
        (
            rule(json!({"action": "Count"})),
            "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
        ),
        (
            json!({"podReplacementPolicy": "x"}),
            r#"spec.podReplacementPolicy: Unsupported value: "x": supported values: "Failed", "TerminatingOrFailed""#,
        ),
    ] {
        assert_eq!(aggregate(&Kind::validate(&stored(spec))), text);
    }
    let mut job = stored(json!({"completionMode": "Indexed", "completions": 3}));
    job.metadata.name = Some("a.b".to_owned());
    let errors = aggregate(&Kind::validate(&job));
    assert!(errors.contains("will not able to create pod with invalid DNS label: a.b-2"), "{errors}");
    assert!(errors.contains("spec.template.metadata.labels[job-name]: Invalid value"), "{errors}");
}

#[test]
fn the_template_changes_only_while_the_job_is_suspended() {
    let template = json!({"spec": {
        "restartPolicy": "Never", "nodeSelector": {"disk": "ssd"},
        "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}}}]
    }});
    let old = stored(json!({"suspend": true}));
    let mut new = given(json!({"suspend": true, "template": template}));
    generate_selector(new.spec.get_or_insert_default(), "j1", "u1");
    new.prepare_update(&old);
    assert_eq!(aggregate(&new.validate_update(&old)), "");

    let running = with_status(old.clone(), json!({"startTime": "2024-01-01T00:00:00Z", "active": 1}));
    let errors = new.validate_update(&running);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].field.as_str(), "spec.template");
    let conditions = json!([{"type": "Suspended", "status": "True"}]);
    let stopped =
        with_status(old, json!({"startTime": "2024-01-01T00:00:00Z", "active": 0, "conditions": conditions}));
    assert_eq!(aggregate(&new.validate_update(&stopped)), "");
}

#[test]
fn the_number_of_indexes_changes_with_the_parallelism_only() {
    let job = |completions: i32, parallelism: i32| {
        stored(json!({"completionMode": "Indexed", "completions": completions, "parallelism": parallelism}))
    };
    assert_eq!(aggregate(&job(5, 5).validate_update(&job(3, 3))), "");
    assert_eq!(
        aggregate(&job(5, 3).validate_update(&job(3, 3))),
        "spec.completions: Invalid value: 5: can only be modified in tandem with spec.parallelism"
    );
    let plain = |completions: i32| stored(json!({"completions": completions}));
    assert_eq!(
        aggregate(&plain(5).validate_update(&plain(3))),
        "spec.completions: Invalid value: 5: field is immutable"
    );
}

#[test]
fn a_status_is_checked_where_it_changes() {
    let start = "2024-01-01T00:00:00Z";
    let is =
        |types: &[&str]| -> Value { types.iter().map(|t| json!({"type": t, "status": "True"})).collect() };
    let done = json!({
        "startTime": start, "completionTime": "2024-01-01T00:01:00Z", "succeeded": 1,
        "conditions": is(&["SuccessCriteriaMet", "Complete"])
    });
    for (old, new, text) in [
        (json!({"startTime": start, "active": 1}), done.clone(), ""),
        (
            done.clone(),
            json!({"startTime": start, "succeeded": 1}),
            "[status.conditions: Invalid value: cannot disable the terminal Complete=True condition, status.conditions: \
             Invalid value: cannot disable the SuccessCriteriaMet=True condition]",
        ),
        (
            json!({"startTime": start, "failed": 2}),
            json!({"startTime": start, "failed": 1}),
            "status.failed: Invalid value: 1: cannot decrease the failed counter",
        ),
        (
            json!({}),
            json!({"startTime": start, "conditions": is(&["Failed"])}),
            "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            json!({}),
            json!({"startTime": start, "completionTime": start}),
            "status.completionTime: Invalid value: 2024-01-01 00:00:00 +0000 UTC: cannot set completionTime when there \
             is no Complete=True condition",
        ),
        (
            json!({}),
            json!({"active": 1, "ready": 2}),
            "status.ready: Invalid value: 2: cannot set more ready pods than active",
        ),
        (
            json!({}),
            json!({"completedIndexes": "0"}),
            "status.completedIndexes: Invalid value: \"0\": cannot set non-empty completedIndexes when non-indexed \
             completion mode",
        ),
        // What was odd before may stay odd.
        (json!({"active": 1, "ready": 2}), json!({"active": 1, "ready": 2, "failed": 1}), ""),
    ] {
        let (old, new) = (with_status(stored(json!({})), old), with_status(stored(json!({})), new));
        assert_eq!(aggregate(&new.validate_status(&old)), text);
    }
}
