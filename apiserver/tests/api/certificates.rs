//! Requests for certificates from their creation to their end, and what a new cluster holds of the groups beside.

use apiserver::pki::{Profile, signing_request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::api;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn request(name: &str, pem: &str) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {
            "request": STANDARD.encode(pem), "signerName": "example.com/signer", "usages": ["client auth"],
            "username": "somebody else",
        },
        "status": {"conditions": [{"type": "Approved", "status": "True"}]},
    })
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_asked_for_approved_and_issued() {
    let api = api().await;
    let (pem, _) = signing_request(&Profile::client("anna", &["people"])).unwrap();
    let created = api.post(REQUESTS, &request("a", &pem)).await.ok();
    assert_eq!(created["spec"]["username"], "admin");
    assert_eq!(created["spec"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(created["status"], json!({}));
    api.post(REQUESTS, &request("b", "nothing")).await.refused(
        422,
        "Invalid",
        "CertificateSigningRequest.certificates.k8s.io \"b\" is invalid: spec.request: Invalid value: \"bm90aGluZw==\": \
         PEM block type must be CERTIFICATE REQUEST",
    );

    let own = format!("{REQUESTS}/a");
    let mut approved = created.clone();
    approved["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "Known"}]});
    // Neither the object itself nor its status is the place to approve.
    let unchanged = api.put(&own, &approved).await.ok();
    assert_eq!(unchanged["status"], json!({}));
    assert_eq!(api.put(&format!("{own}/status"), &approved).await.code, 422);
    let approved = api.put(&format!("{own}/approval"), &approved).await.ok();
    let now = "2026-01-01T00:00:00Z";
    assert_eq!(
        approved["status"]["conditions"],
        json!([{"type": "Approved", "status": "True", "reason": "Known", "lastUpdateTime": now, "lastTransitionTime": now}])
    );

    let mut issued = approved.clone();
    issued["status"]["certificate"] = json!(STANDARD.encode("nothing"));
    api.put(&format!("{own}/status"), &issued).await.refused(
        422,
        "Invalid",
        "CertificateSigningRequest.certificates.k8s.io \"a\" is invalid: status.certificate: Invalid value: \
         \"<certificate data>\": must contain at least one CERTIFICATE PEM block",
    );
    let certificate = api.server.server().config.pki.authority_pem();
    issued["status"]["certificate"] = json!(STANDARD.encode(certificate));
    let issued = api.put(&format!("{own}/status"), &issued).await.ok();
    assert_eq!(issued["status"]["conditions"], approved["status"]["conditions"]);
    let found = api.get(&format!("{REQUESTS}?fieldSelector=spec.signerName%3Dexample.com/signer")).await;
    assert_eq!(found.names(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_cluster_knows_its_apis_its_network_and_how_requests_are_sorted() {
    let api = api().await;
    let network = api.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes").await.ok();
    assert_eq!(network["spec"]["cidrs"], json!(["10.96.0.0/16"]));
    assert_eq!(network["status"]["conditions"][0]["type"], "Ready");
    let local = api.get("/apis/apiregistration.k8s.io/v1/apiservices/v1.apps").await.ok();
    assert_eq!(local["status"]["conditions"][0]["reason"], "Local");
    let core = api.get("/apis/apiregistration.k8s.io/v1/apiservices/v1.").await.ok();
    assert_eq!(core["spec"], json!({"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}));
    let flow = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let levels = api.get(&format!("{flow}/prioritylevelconfigurations")).await.names();
    assert!(levels.iter().any(|name| name == "exempt"), "{levels:?}");
    let schemas = api.get(&format!("{flow}/flowschemas")).await.names();
    assert!(schemas.iter().any(|name| name == "catch-all"), "{schemas:?}");
}
