//! Requests that go wrong before the object itself is looked at, or beside it.

use serde_json::json;

use super::with_account;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(start_paused = true)]
async fn a_patch_that_makes_no_object_is_invalid_without_a_name() {
    let api = with_account().await;
    api.post(MAPS, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})).await.ok();
    let target = format!("{MAPS}/a");
    let answer = api.patch("merge-patch", &target, &json!({"metadata": {"labels": {"x": 1}}})).await;
    assert_eq!((answer.code, answer.reason()), (422, "Invalid"), "{}", answer.text);
    let message = answer.message();
    assert!(
        message.starts_with(" \"\" is invalid: patch: Invalid value: \"{\\\"apiVersion\\\":\\\"v1\\\""),
        "{message}"
    );
    let why =
        ": json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string";
    assert!(message.ends_with(why), "{message}");
    let answer = api.send("PATCH", &target, &[("content-type", "application/zzz")], "{}").await;
    answer.refused(415, "UnsupportedMediaType", "415: Unsupported Media Type");
}

#[tokio::test(start_paused = true)]
async fn text_that_ends_too_soon_is_refused_in_gos_words() {
    let api = with_account().await;
    for (text, why) in [
        (r#"{"a": "#, "unexpected end of JSON input"),
        (r#"{"a": "b"#, "unexpected end of JSON input"),
        (r#"{"a": tr"#, "invalid character ' ' in literal true (expecting 'u')"),
        (r#"{"a": -"#, "invalid character ' ' in numeric literal"),
    ] {
        let answer = api.send("POST", MAPS, &[], text).await;
        let message = format!(
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse \
             error: {why} ({text})"
        );
        answer.refused(400, "BadRequest", &message);
    }
}

#[tokio::test(start_paused = true)]
async fn pods_services_and_service_accounts_are_shown_when_they_are_deleted() {
    let api = with_account().await;
    for (plural, object) in [
        ("serviceaccounts", json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}})),
        (
            "services",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
                   "spec": {"ports": [{"port": 80}]}}),
        ),
        (
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {
                "containers": [{"name": "c", "image": "i"}]}}),
        ),
    ] {
        let collection = format!("/api/v1/namespaces/default/{plural}");
        api.post(&collection, &object).await.ok();
        let target = format!("{collection}/a");
        let deleted = api.delete(&target, Some(&json!({"gracePeriodSeconds": 0}))).await.ok();
        assert_eq!((&deleted["kind"], &deleted["metadata"]["name"]), (&object["kind"], &json!("a")));
        assert_eq!(api.get(&target).await.code, 404);
    }
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    api.post(MAPS, &map).await.ok();
    assert_eq!(api.delete(&format!("{MAPS}/a"), None).await.ok()["status"], "Success");
}
