//! I3: watches whose every event is compared with the log.
//!
//! A witness lists and watches like any client, under the same faults, but remembers where it is in the log: the
//! next event of its resource must be the next change of the log, a bookmark must not pass one over, and a list
//! must be the log's state at the list's revision.

use std::collections::BTreeMap;
use std::time::Duration;

use apiserver::UserInfo;
use base::Random;
use client::{Client, error};
use futures::TryStreamExt;
use serde::Deserialize;
use serde_json::Value;
use store::Revision;

use super::World;
use super::log::{Role, State};
use super::network::{Gate, Link};

/// Resource in the store, and path in the API.
const WATCHED: [(&str, &str); 5] = [
    ("pods", "/api/v1/pods"),
    ("replicasets", "/apis/apps/v1/replicasets"),
    ("endpointslices", "/apis/discovery.k8s.io/v1/endpointslices"),
    ("minions", "/api/v1/nodes"),
    ("poddisruptionbudgets", "/apis/policy/v1/poddisruptionbudgets"),
];

struct Witness {
    world: World,
    client: Client,
    random: Random,
    resource: &'static str,
    path: &'static str,
}

#[derive(Clone, Debug, Deserialize)]
struct Seen {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

#[derive(Clone, Debug, Deserialize)]
struct List {
    metadata: Value,
    items: Vec<Value>,
}

/// Why a watch ended.
enum Ended {
    Expired,
    Interrupted,
}

pub(crate) fn start(world: &World) {
    for (resource, path) in WATCHED {
        let name = format!("witness of {resource}");
        let user = UserInfo::new(name.clone(), &["system:masters"]);
        let (network, gate) = (world.network.clone(), Gate::new());
        let client = Link { network, gate, role: Role::User, user, server: None }.client();
        let witness = Witness { world: world.clone(), client, random: world.random(&name), resource, path };
        world.tasks.spawn(&name, witness.run());
    }
}

fn version(object: &Value) -> Revision {
    object
        .pointer("/metadata/resourceVersion")
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn key(resource: &str, object: &Value) -> String {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    match (text("/metadata/namespace"), text("/metadata/name").unwrap_or_default()) {
        (Some(namespace), name) => format!("/registry/{resource}/{namespace}/{name}"),
        (None, name) => format!("/registry/{resource}/{name}"),
    }
}

impl Witness {
    async fn run(self) {
        let mut position = None;
        loop {
            let at = match position {
                Some(at) => at,
                None => match self.list().await {
                    Ok(at) => *position.insert(at),
                    Err(_) => {
                        self.world.clock.wait(Duration::from_millis(200 + self.random.below(2000))).await;
                        continue;
                    }
                },
            };
            let mut reached = at;
            let ended = self.watch(&mut reached).await;
            position = match ended {
                Ended::Expired => None,
                // Now and then from an older revision: a client that was restarted, or simply forgets.
                Ended::Interrupted if self.random.below(4) == 0 => {
                    Some(reached.saturating_sub(i64::try_from(self.random.below(200)).unwrap_or(0)).max(1))
                }
                Ended::Interrupted => Some(reached),
            };
            self.world.clock.wait(Duration::from_millis(10 + self.random.below(500))).await;
        }
    }

    async fn list(&self) -> Result<Revision, kube::Error> {
        let floor = self.world.log.with(|state| state.revision_acknowledged);
        let request = http::Request::get(self.path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        let list: List = self.client.request(request).await?;
        let at = list.metadata["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
        self.world.log.with(|state| {
            if at < floor {
                let text = format!(
                    "a list of {} began after revision {floor} was acknowledged, and shows {at}",
                    self.resource
                );
                state.report("I4", text);
            }
            self.compare(state, at, &list.items);
            let seen = state.witnessed.entry(self.resource).or_default();
            *seen = at.max(*seen);
        });
        Ok(at)
    }

    /// A list is the state at its revision.
    fn compare(&self, state: &mut State, at: Revision, items: &[Value]) {
        let mut expected: BTreeMap<&str, Revision> = BTreeMap::new();
        for change in state.changes_of(self.resource).take_while(|change| change.revision <= at) {
            match change.deleted {
                true => drop(expected.remove(&*change.key)),
                false => drop(expected.insert(&change.key, change.revision)),
            }
        }
        let found: BTreeMap<String, Revision> =
            items.iter().map(|item| (key(self.resource, item), version(item))).collect();
        let same = found.len() == expected.len()
            && found
                .iter()
                .zip(&expected)
                .all(|((key, at), (other, revision))| key == other && at == revision);
        if !same {
            let odd = expected
                .iter()
                .find(|(key, at)| found.get(**key) != Some(at))
                .map(|(key, at)| format!("{key} at {at}"));
            let other = found.iter().find(|(key, at)| expected.get(key.as_str()) != Some(at));
            let text =
                format!("a list of {} at {at}: the log has {odd:?}, the list {other:?}", self.resource);
            state.report("I3", text);
        }
    }

    async fn watch(&self, reached: &mut Revision) -> Ended {
        let seconds = 30 + self.random.below(200);
        let target = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={reached}",
            self.path
        );
        let Ok(request) = http::Request::get(target).body(Vec::new()) else { return Ended::Interrupted };
        let events = match self.client.request_events::<Value>(request).await {
            Ok(events) => events,
            Err(failure) if error::is_expired(&failure) => return Ended::Expired,
            Err(_) => return Ended::Interrupted,
        };
        let mut events = std::pin::pin!(events);
        loop {
            let event = match events.try_next().await {
                Ok(Some(event)) => event,
                Ok(None) => return Ended::Interrupted,
                Err(failure) if error::is_expired(&failure) => return Ended::Expired,
                Err(_) => return Ended::Interrupted,
            };
            use kube::api::WatchEvent;
            let (kind, object) = match event {
                WatchEvent::Added(object) => ("ADDED", object),
                WatchEvent::Modified(object) => ("MODIFIED", object),
                WatchEvent::Deleted(object) => ("DELETED", object),
                WatchEvent::Bookmark(bookmark) => {
                    let at = bookmark.metadata.resource_version.parse().unwrap_or(0);
                    self.world.log.with(|state| self.passed(state, *reached, at));
                    *reached = at.max(*reached);
                    continue;
                }
                WatchEvent::Error(status) if status.code == 410 => return Ended::Expired,
                WatchEvent::Error(_) => return Ended::Interrupted,
            };
            let seen = Seen { kind: kind.to_owned(), object };
            self.world.log.with(|state| self.expect(state, *reached, &seen));
            *reached = version(&seen.object).max(*reached);
        }
    }

    /// The next event is the next change.
    fn expect(&self, state: &mut State, reached: Revision, seen: &Seen) {
        let at = version(&seen.object);
        let key = key(self.resource, &seen.object);
        // Only events of one transaction share a revision.
        let next =
            state.changes_of(self.resource).rev().take_while(|change| change.revision > reached).last();
        let text = match next {
            None => format!("{} {key} at {at}, although nothing happened after {reached}", seen.kind),
            Some(change) => {
                let kind = match (change.deleted, change.previous) {
                    (true, _) => "DELETED",
                    (false, 0) => "ADDED",
                    (false, _) => "MODIFIED",
                };
                if change.revision == at && *change.key == key && kind == seen.kind {
                    let last = state.witnessed.entry(self.resource).or_default();
                    *last = at.max(*last);
                    return;
                }
                format!(
                    "after {reached} came {} {key} at {at}, but {kind} {} at {} is next",
                    seen.kind, change.key, change.revision
                )
            }
        };
        state.report("I3", format!("watch of {}: {text}", self.resource));
    }

    /// A bookmark passes nothing over.
    fn passed(&self, state: &mut State, reached: Revision, at: Revision) {
        let missed = state
            .changes_of(self.resource)
            .rev()
            .take_while(|change| change.revision > reached)
            .filter(|change| change.revision <= at)
            .last()
            .map(|change| (change.key.clone(), change.revision));
        if let Some((key, revision)) = missed {
            let text =
                format!("watch of {}: a bookmark at {at} passes over {key} at {revision}", self.resource);
            state.report("I3", text);
        }
    }
}

/// After the rest every witness has seen the last change of its resource.
pub(crate) fn all_seen(state: &mut State) {
    for (resource, _) in WATCHED {
        let last = state.changes_of(resource).next_back().map_or(0, |change| change.revision);
        let seen = state.witnessed.get(resource).copied().unwrap_or(0);
        if seen < last {
            state.report("I3", format!("the watch of {resource} is at {seen} and never came to {last}"));
        }
    }
}
