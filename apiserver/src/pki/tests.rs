use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;

fn start() -> (Clock, Random) {
    (Clock::system(), Random::seeded(1))
}

fn open(directory: &Path) -> Result<Pki, Error> {
    let (clock, random) = start();
    Pki::open(directory, clock, random)
}

#[test]
fn a_second_start_finds_what_the_first_one_made() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap();
    let admin = first.admin().unwrap();
    let token = first.tokens().sign(&json!({"sub": "x"})).unwrap();
    let second = open(directory.path()).unwrap();
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert_eq!(admin.certificate_pem, second.admin().unwrap().certificate_pem);
    assert_eq!(second.tokens().verify(&token), Some(json!({"sub": "x"})));
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        if file.file_name().to_string_lossy().ends_with(".key") {
            assert_eq!(mode, 0o600, "{:?}", file.file_name());
        }
    }
}

#[test]
fn a_crash_between_key_and_certificate_is_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap();
    first.admin().unwrap();
    std::fs::remove_file(directory.path().join("ca.crt")).unwrap();
    std::fs::copy(directory.path().join("sa.key"), directory.path().join("admin.key")).unwrap();
    let second = open(directory.path()).unwrap();
    let admin = second.admin().unwrap();
    let key = KeyPair::from_pem(admin.key_pem()).unwrap();
    assert!(certificate::belongs_to(&admin.certificate, &key));
}

#[test]
fn a_lost_key_is_an_error_that_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap();
    std::fs::remove_file(directory.path().join("ca.key")).unwrap();
    let error = open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("restore the key from a backup"), "{error}");
    std::fs::write(directory.path().join("ca.key"), "garbage").unwrap();
    assert!(open(directory.path()).unwrap_err().to_string().contains("ca.key"));
}

#[test]
fn a_certificate_is_issued_anew_when_its_names_change() {
    let (clock, random) = start();
    let pki = Pki::in_memory(clock, random).unwrap();
    let names = |names: &[&str]| {
        Profile::server("kube-apiserver", &[], names.iter().map(|&n| n.to_owned()).collect())
    };
    let one = pki.credential("apiserver", &names(&["localhost", "10.0.0.1"])).unwrap();
    assert_eq!(
        one.certificate,
        pki.credential("apiserver", &names(&["localhost", "10.0.0.1"])).unwrap().certificate
    );
    assert_ne!(
        one.certificate,
        pki.credential("apiserver", &names(&["localhost", "10.0.0.2"])).unwrap().certificate
    );
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_before_it_ends() {
    let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
    let pki = Pki::in_memory(clock.clone(), Random::seeded(1)).unwrap();
    let one = pki.admin().unwrap();
    clock.wait(LEAF_LIFE / 2).await;
    assert_eq!(one.certificate, pki.admin().unwrap().certificate);
    clock.wait(LEAF_LIFE / 4).await;
    assert_ne!(one.certificate, pki.admin().unwrap().certificate);
}

#[test]
fn a_certificate_names_user_and_groups() {
    let (clock, random) = start();
    let pki = Pki::in_memory(clock, random).unwrap();
    let admin = identity(&pki.admin().unwrap().certificate).unwrap();
    assert_eq!(
        (admin.common_name.as_str(), admin.organizations),
        ("kubernetes-admin", vec!["system:masters".to_owned()])
    );
    let scheduler = identity(&pki.component("system:kube-scheduler").unwrap().certificate).unwrap();
    assert_eq!((scheduler.common_name.as_str(), scheduler.organizations.len()), ("system:kube-scheduler", 0));
}

#[test]
fn a_node_gets_certificates_for_its_own_name_only() {
    let (clock, random) = start();
    let pki = Pki::in_memory(clock, random).unwrap();
    let address: IpAddr = "10.1.2.3".parse().unwrap();
    let client = |name: &str, groups: &[&str]| signing_request(&Profile::client(name, groups)).unwrap().0;
    let serving = client("system:node:a", &["system:nodes"]);
    let ours = client("system:node:a", &["system:nodes"]);
    let signed = pki.sign_node("a", &[address], &ours, &serving).unwrap();
    let der = CertificateDer::from_pem_slice(signed.client_pem.as_bytes()).unwrap();
    assert_eq!(identity(&der).unwrap().organizations, ["system:nodes"]);
    let der = CertificateDer::from_pem_slice(signed.serving_pem.as_bytes()).unwrap();
    assert!(certificate::fits(&der, &node_serving_profile("a", &[address]), pki.authority_der()));
    for bad in [
        client("system:node:b", &["system:nodes"]),
        client("system:node:a", &["system:masters"]),
        client("system:node:a", &["system:nodes", "system:masters"]),
        client("system:node:a", &[]),
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".to_owned(),
        String::new(),
    ] {
        assert!(pki.sign_node("a", &[address], &bad, &serving).is_err(), "{bad}");
        assert!(pki.sign_node("a", &[address], &ours, &bad).is_err(), "{bad}");
    }
}

#[test]
fn a_request_whose_signature_is_broken_is_refused() {
    let (clock, random) = start();
    let pki = Pki::in_memory(clock, random).unwrap();
    let profile = node_client_profile("a");
    let (request, _) = signing_request(&profile).unwrap();
    let der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(request.as_bytes()).unwrap();
    let mut bytes = der.as_ref().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    let broken = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    assert!(certificate::verify_request(&request, &profile).is_ok());
    assert!(certificate::verify_request(&broken, &profile).is_err());
    assert!(pki.sign_node("a", &[], &broken, &request).is_err());
}

#[test]
fn a_token_of_another_key_or_algorithm_is_no_token() {
    use base64::Engine;
    let (clock, random) = start();
    let (ours, theirs) =
        (Pki::in_memory(clock.clone(), random.clone()).unwrap(), Pki::in_memory(clock, random).unwrap());
    let token = ours.tokens().sign(&json!({"sub": "x"})).unwrap();
    assert!(ours.tokens().verify(&token).is_some());
    assert!(theirs.tokens().verify(&token).is_none());
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let none = format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(r#"{"sub":"x"}"#));
    let parts: Vec<&str> = token.split('.').collect();
    let swapped = format!("{}.{}.{}", parts[0], encode(r#"{"sub":"y"}"#), parts[2]);
    for bad in [none.as_str(), swapped.as_str(), "", ".", "..", "a.b.c", &token[..token.len() - 2]] {
        assert!(ours.tokens().verify(bad).is_none(), "{bad}");
    }
}

#[test]
fn debug_output_shows_no_key() {
    let (clock, random) = start();
    let pki = Pki::in_memory(clock, random).unwrap();
    let admin = pki.admin().unwrap();
    let shown = format!("{pki:?} {admin:?} {:?}", pki.tokens());
    assert!(!shown.contains("PRIVATE") && !shown.contains(&admin.key_pem()[40..80]), "{shown}");
}

#[test]
fn tls_configurations_are_made_from_issued_certificates() {
    let (clock, random) = start();
    let pki = Arc::new(Pki::in_memory(clock, random).unwrap());
    let names =
        tls::server_names(&["10.0.0.7".to_owned(), "localhost".to_owned()], "10.96.0.1", "cluster.local");
    assert_eq!(names.iter().filter(|name| *name == "localhost").count(), 1);
    tls::api_server(&pki, names).unwrap();
    let node = pki.node_serving("a", &["10.0.0.7".parse().unwrap()]).unwrap();
    tls::node_agent(pki.authority_pem(), &node.certificate_pem, node.key_pem()).unwrap();
    let admin = pki.admin().unwrap();
    tls::client(pki.authority_pem(), Some((&admin.certificate_pem, admin.key_pem()))).unwrap();
}
