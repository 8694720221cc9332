//! The walk: everything that a kind must be able to do, tried on every kind that the server says it serves.
//!
//! Which kinds there are is read from the server's discovery, so a new kind fails here until it has a sample. A sample
//! (`samples.yaml`) is one sound object and what is to be known of its kind; the steps are the same for all. Each step
//! makes objects of its own and takes them away. Everything that is wrong is collected, and told at the end.

mod applies;
#[path = "../api/common.rs"]
mod common;
mod deletes;
mod discovery;
mod filled;
mod forms;
mod lists;
mod methods;
mod parts;
mod patches;
mod sample;
mod served;
mod sizes;
mod strict;
mod tables;
mod walk;
mod watches;
mod writes;

use serde_json::json;

use crate::common::{Api, api};
use crate::sample::Sample;
use crate::served::Served;
use crate::walk::{NAMESPACE, Walk};

/// What the samples rely on.
async fn prepare(api: &Api) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    api.post("/api/v1/namespaces", &namespace).await.ok();
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    api.post(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), &account).await.ok();
}

/// All that can be done with a kind that is stored.
async fn walk_stored(walk: &mut Walk<'_>) {
    if !writes::create(walk).await {
        return;
    }
    writes::generated_name(walk).await;
    writes::update(walk).await;
    writes::count_generations(walk).await;
    lists::read(walk).await;
    lists::select(walk).await;
    lists::pages(walk).await;
    lists::versions(walk).await;
    watches::changes(walk).await;
    watches::forms(walk).await;
    patches::each_kind(walk).await;
    applies::owners(walk).await;
    parts::status(walk).await;
    parts::scale(walk).await;
    parts::others(walk).await;
    tables::columns_and_rows(walk).await;
    tables::partial(walk).await;
    forms::protobuf(walk).await;
    forms::cbor(walk).await;
    forms::yaml(walk).await;
    strict::unknown_and_twice(walk).await;
    deletes::preconditions(walk).await;
    deletes::finalizers(walk).await;
    deletes::dependents(walk).await;
    deletes::collection(walk).await;
}

/// The groups of kinds that are walked together, on a server of their own. What is in none of the first is in the last.
const PARTS: [&[&str]; 4] = [
    &[""],
    &["apps", "autoscaling", "batch", "events.k8s.io", "policy"],
    &["networking.k8s.io", "resource.k8s.io", "storage.k8s.io"],
    &[],
];

fn is_of(part: usize, group: &str) -> bool {
    PARTS.iter().position(|groups| groups.contains(&group)).unwrap_or(PARTS.len() - 1) == part
}

async fn walk_all(part: usize) {
    let api = api().await;
    prepare(&api).await;
    let samples = Sample::all();
    let samples: Vec<&Sample> = samples.iter().filter(|sample| is_of(part, &sample.group())).collect();
    let mut faults = Vec::new();
    let mut used = Vec::new();
    for served in Served::all(&api).await.iter().filter(|served| is_of(part, served.group())) {
        let sample = samples.iter().find(|sample| sample.is_of(served));
        used.extend(sample.map(|sample| sample.kind()));
        let nothing = Sample::default();
        let mut walk = Walk::new(&api, served, sample.unwrap_or(&&nothing));
        match (sample, served.can("create"), served.can("get")) {
            (None, true, _) => walk.fault("it has no sample"),
            (_, false, _) => tables::empty(&mut walk).await,
            (_, true, false) => forms::answered(&mut walk).await,
            (_, true, true) => walk_stored(&mut walk).await,
        }
        methods::refused(&mut walk).await;
        faults.append(&mut walk.faults);
    }
    let unused = samples.iter().map(|sample| sample.kind()).filter(|kind| !used.contains(kind));
    faults.extend(unused.map(|kind| format!("{kind}: a sample of a kind that is not served")));
    assert!(!used.is_empty());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_the_core_can_do_all_that_kinds_can_do() {
    walk_all(0).await;
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_workloads_can_do_all_that_kinds_can_do() {
    walk_all(1).await;
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_networks_storage_and_devices_can_do_all_that_kinds_can_do() {
    walk_all(2).await;
}

#[tokio::test(start_paused = true)]
async fn every_other_kind_can_do_all_that_kinds_can_do() {
    walk_all(3).await;
}
