//! Pulls from a registry of our own on a loopback port; needs root for unpacking.

use std::time::Duration;

use base::{Clock, Tasks};

use self::fake::{Fake, Login};
use super::registry::Registry;
use super::*;

mod fake;

const LIMIT: Duration = Duration::from_secs(60);

struct Node {
    images: Images,
    _dir: tempfile::TempDir,
}

fn node() -> Node {
    let dir = tempfile::tempdir().unwrap();
    // There is no such executable, so no built-in images.
    let images =
        Images::open(dir.path(), &dir.path().join("none"), Clock::system(), Tasks::new("test")).unwrap();
    Node { images, _dir: dir }
}

impl Node {
    async fn pull(&self, name: &str, auth: Option<cri::AuthConfig>) -> Outcome {
        tokio::time::timeout(LIMIT, self.images.pull(name, auth)).await.expect("the pull hangs")
    }
}

fn login(user: &str, password: &str) -> Option<cri::AuthConfig> {
    Some(cri::AuthConfig { username: user.to_owned(), password: password.to_owned(), ..Default::default() })
}

#[tokio::test]
async fn an_image_of_many_platforms_and_compressions_is_pulled_and_runs() {
    let registry = Fake::start(Login::None).await;
    let (index, id) = registry.add_multi_arch("app", "1");
    let node = node();
    let name = registry.name("app:1");
    let image = node.pull(&name, None).await.unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.repo_tags, std::slice::from_ref(&name));
    assert_eq!(image.repo_digests, [format!("{}@{index}", registry.name("app"))]);
    assert_eq!(image.config.cmd, ["run"]);
    assert_eq!(image.config.user, "1000:1000");
    let root = node.images.mount_rootfs(&image, "c1").await.unwrap();
    let content: Vec<String> =
        ["gzip", "zstd", "plain"].iter().filter_map(|f| std::fs::read_to_string(root.join(f)).ok()).collect();
    node.images.unmount_rootfs("c1").await.unwrap();
    assert_eq!(content, ["gzip", "zstd", "plain"]);
    for same in [&name, &id, &format!("{}@{index}", registry.name("app")), &id["sha256:".len()..]] {
        assert_eq!(node.images.resolve(same).expect(same).id, id);
    }
}

#[tokio::test]
async fn what_is_here_is_not_downloaded_again() {
    let registry = Fake::start(Login::None).await;
    registry.add("app", "1", &["base", "one"]);
    registry.add("app", "2", &["base", "two"]);
    let node = node();
    node.pull(&registry.name("app:1"), None).await.unwrap();
    // A config and two layers.
    assert_eq!(registry.blob_requests(), 3);
    node.pull(&registry.name("app:2"), None).await.unwrap();
    assert_eq!(registry.blob_requests(), 5);
    node.pull(&registry.name("app:2"), None).await.unwrap();
    assert_eq!(registry.blob_requests(), 6);
}

#[tokio::test]
async fn a_tag_that_moves_moves_here_too() {
    let registry = Fake::start(Login::None).await;
    let old = registry.add("app", "1", &["one"]).1;
    let node = node();
    node.pull(&registry.name("app:1"), None).await.unwrap();
    let new = registry.add("app", "1", &["two"]).1;
    assert_eq!(node.pull(&registry.name("app:1"), None).await.unwrap().id, new);
    let old = node.images.resolve(&old).unwrap();
    assert!(old.repo_tags.is_empty() && old.repo_digests.len() == 1);
}

#[tokio::test]
async fn an_image_is_pulled_by_digest_without_a_tag() {
    let registry = Fake::start(Login::None).await;
    let (digest, id) = registry.add("app", "1", &["one"]);
    let node = node();
    let image = node.pull(&format!("{}@{digest}", registry.name("app:1")), None).await.unwrap();
    assert_eq!((image.id.as_str(), image.repo_tags.len(), image.repo_digests.len()), (id.as_str(), 0, 1));
}

#[tokio::test]
async fn the_errors_are_containerds() {
    let registry = Fake::start(Login::None).await;
    registry.add_for_platform("foreign", "1", "s390x");
    let node = node();
    let name = registry.name("app:1");
    let error = node.pull(&name, None).await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        error.to_string(),
        format!(
            "failed to pull and unpack image {name:?}: failed to resolve reference {name:?}: {name}: not found"
        )
    );
    let foreign = registry.name("foreign:1");
    let error = node.pull(&foreign, None).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("failed to pull and unpack image {foreign:?}: no match for platform in manifest: not found")
    );
    let error = node.pull("skiff.local/hello:9", None).await.unwrap_err().to_string();
    assert!(error.ends_with("skiff.local/hello:9: not found"), "{error}");
    let error = node.pull("docker.io/UPPER/case", None).await.unwrap_err();
    assert!(error.is_invalid(), "{error}");
    // Nobody listens there.
    let error = node.pull("127.0.0.1:1/app:1", None).await.unwrap_err().to_string();
    assert!(
        error.contains("failed to resolve reference \"127.0.0.1:1/app:1\": failed to do request: "),
        "{error}"
    );
    assert!(error.contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn basic_credentials_are_asked_for_and_checked() {
    let registry = Fake::start(Login::Basic).await;
    registry.add("app", "1", &["one"]);
    let node = node();
    let name = registry.name("app:1");
    for wrong in [None, login("user", "wrong")] {
        let error = node.pull(&name, wrong).await.unwrap_err().to_string();
        assert!(error.contains("pull access denied, repository does not exist or may require"), "{error}");
    }
    node.pull(&name, login("user", "secret")).await.unwrap();
}

#[tokio::test]
async fn a_token_is_fetched_with_the_credentials() {
    let registry = Fake::start(Login::Token { anonymous: false }).await;
    registry.add("app", "1", &["one", "two"]);
    let node = node();
    let name = registry.name("app:1");
    for wrong in [None, login("user", "wrong")] {
        let error = node.pull(&name, wrong).await.unwrap_err().to_string();
        assert!(error.contains("pull access denied"), "{error}");
    }
    node.pull(&name, login("user", "secret")).await.unwrap();
    assert_eq!(registry.scopes(), ["repository:app:pull"]);
}

#[tokio::test]
async fn a_token_for_anybody_is_fetched_without_credentials() {
    let registry = Fake::start(Login::Token { anonymous: true }).await;
    registry.add("app", "1", &["one"]);
    node().pull(&registry.name("app:1"), None).await.unwrap();
}

#[tokio::test]
async fn content_that_is_not_what_it_claims_is_refused() {
    let registry = Fake::start(Login::None).await;
    let (digest, _) = registry.add("app", "1", &["one"]);
    registry.corrupt_layers();
    let node = node();
    let error = node.pull(&registry.name("app:1"), None).await.unwrap_err().to_string();
    assert!(error.contains("digest") || error.contains("larger"), "{error}");
    assert!(node.images.list().is_empty());
    registry.replace_manifest("app", &digest, b"{\"schemaVersion\":2}");
    let error = node.pull(&format!("{}@{digest}", registry.name("app")), None).await.unwrap_err();
    assert!(!error.is_not_found(), "{error}");
}

#[tokio::test]
async fn a_download_that_breaks_is_taken_up_where_it_broke() {
    for ranges in [true, false] {
        let registry = Fake::start(Login::None).await;
        registry.add("app", "1", &[&"large ".repeat(200_000)]);
        registry.break_next_layer(ranges);
        node().pull(&registry.name("app:1"), None).await.unwrap();
        assert_eq!(registry.broken(), 1, "the registry was to break one");
    }
}

#[tokio::test]
async fn a_registry_that_goes_silent_is_given_up() {
    let registry = Fake::start(Login::None).await;
    let (_, _) = registry.add("app", "1", &["one"]);
    let layer = registry.layer_of("app", "1");
    registry.stall_layers();
    let name = Reference::parse(&registry.name("app:1")).unwrap();
    let stall = Duration::from_millis(300);
    let connected =
        Registry::connect(&name, oci_client::secrets::RegistryAuth::Anonymous, true, stall).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    let download = tokio::time::timeout(LIMIT, connected.download(&layer, &path));
    let error = download.await.expect("it waits on").unwrap_err().to_string();
    assert!(error.contains("sent nothing for 300ms"), "{error}");
}

#[tokio::test]
async fn those_who_want_the_same_image_share_one_pull() {
    let registry = Fake::start(Login::None).await;
    registry.add("app", "1", &["one"]);
    let gate = registry.hold_manifests();
    let node = node();
    let name = registry.name("app:1");
    let (a, b, c, ()) = tokio::join!(
        node.pull(&name, None),
        node.pull(&name, None),
        node.pull(&name, login("else", "x")),
        async {
            // Two pulls reach the registry: one for both without credentials, one with.
            gate.reached(2).await;
            gate.open();
        }
    );
    assert_eq!(a.unwrap().id, b.unwrap().id);
    c.unwrap();
    assert_eq!(registry.manifest_requests(), 2);
    assert!(node.images.inner.pulls.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_ends_and_a_new_one_succeeds() {
    let registry = Fake::start(Login::None).await;
    registry.add("app", "1", &["one"]);
    let gate = registry.hold_manifests();
    let node = node();
    let name = registry.name("app:1");
    tokio::select! {
        _ = node.pull(&name, None) => panic!("the registry holds it"),
        () = gate.reached(1) => {}
    }
    let ended = async {
        while !node.images.inner.pulls.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, ended).await.expect("the pull goes on");
    gate.open();
    node.pull(&name, None).await.unwrap();
    assert_eq!(registry.manifest_requests(), 2);
}

#[tokio::test]
async fn an_image_that_does_not_fit_is_not_begun() {
    let registry = Fake::start(Login::None).await;
    let (digest, _) = registry.add("app", "1", &["one"]);
    registry.announce_layers_as("app", &digest, "2", 1 << 60);
    let error = node().pull(&registry.name("app:2"), None).await.unwrap_err().to_string();
    assert!(error.contains("no space left on device"), "{error}");
    // The config only.
    assert_eq!(registry.blob_requests(), 1);
}
