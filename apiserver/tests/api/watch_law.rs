//! A watch is the difference of lists: whatever is written, however slowly it is read, and wherever it is resumed.

use std::collections::BTreeMap;
use std::time::Duration;

use base::Random;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::common::{Api, Watch, api};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// More than a watcher may lag behind.
const BURST: u64 = 1100;

type State = BTreeMap<String, Value>;

/// What the lists showed after each write.
#[derive(Default)]
struct History(BTreeMap<i64, State>);

fn revision(object: &Value) -> i64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

async fn list(api: &Api, query: &str) -> (i64, State) {
    let list = api.get(&format!("{MAPS}?{query}")).await.ok();
    let with_kind = |item: &Value| {
        let mut item = item.clone();
        item["apiVersion"] = json!("v1");
        item["kind"] = json!("ConfigMap");
        (name(&item), item)
    };
    (revision(&list), list["items"].as_array().unwrap().iter().map(with_kind).collect())
}

/// Creates, changes or deletes one of a few objects.
async fn write(api: &Api, random: &Random, history: &mut History) {
    let target = format!("{MAPS}/m{}", random.below(6));
    let label = if random.below(2) == 0 { "yes" } else { "no" };
    let data = random.u64().to_string();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"k": data},
        "metadata": {"name": target.rsplit('/').next().unwrap(), "labels": {"shown": label}},
    });
    match random.below(4) {
        0 => drop(api.delete(&target, None).await),
        1 => drop(api.post(MAPS, &map).await),
        _ => drop(api.put(&target, &map).await),
    }
    let (revision, state) = list(api, "").await;
    history.0.insert(revision, state);
}

impl History {
    /// What a list with this selector showed as of an object's revision: in the first list after it was written.
    fn at(&self, revision: i64, follower: &Follower) -> State {
        follower.selected(self.0.range(revision..).next().unwrap().1)
    }
}

/// A client: what it knows, and up to where.
struct Follower {
    selector: Option<&'static str>,
    watch: Option<Watch>,
    known: State,
    at: i64,
    relisted: u32,
    resumed: u32,
}

impl Follower {
    fn new(selector: Option<&'static str>) -> Self {
        Self { selector, watch: None, known: State::new(), at: 0, relisted: 0, resumed: 0 }
    }

    fn query(&self) -> String {
        self.selector.map_or_else(String::new, |value| format!("labelSelector=shown%3D{value}"))
    }

    fn selected(&self, state: &State) -> State {
        let shown =
            |object: &Value| self.selector.is_none_or(|value| object["metadata"]["labels"]["shown"] == value);
        state
            .iter()
            .filter(|(_, object)| shown(object))
            .map(|(name, object)| (name.clone(), object.clone()))
            .collect()
    }

    /// Watches from where it is; lists anew if that is too long ago.
    async fn connect(&mut self, api: &Api) {
        loop {
            if self.at == 0 {
                (self.at, self.known) = list(api, &self.query()).await;
                self.relisted += 1;
            }
            let target = format!("{MAPS}?watch=1&resourceVersion={}&{}", self.at, self.query());
            let response = api.raw("GET", &target, &[], "").await;
            match response.status().as_u16() {
                200 => {
                    self.watch = Some(Watch::of(response));
                    self.resumed += 1;
                    return;
                }
                410 => self.at = 0,
                other => panic!("{other}"),
            }
        }
    }

    /// Reads up to `most` events, and holds each against the lists.
    async fn read(&mut self, api: &Api, history: &History, most: u64) {
        if self.watch.is_none() {
            self.connect(api).await;
        }
        for _ in 0..most {
            let Some(watch) = &mut self.watch else { return };
            let Ok(event) = timeout(Duration::from_millis(1), watch.next()).await else { return };
            match event {
                None => self.watch = None,
                Some(event) => self.apply(&event, history),
            }
        }
    }

    fn apply(&mut self, event: &Value, history: &History) {
        let object = &event["object"];
        let (now, name) = (revision(object), name(object));
        assert!(now > self.at, "{now} comes after {}", self.at);
        // Nothing that it was not told of happened in between.
        let after = *history.0.range(now..).next().unwrap().0;
        for (at, state) in history.0.range(self.at..after).filter(|(at, _)| **at > self.at) {
            assert_eq!(self.selected(state), self.known, "a change at {at} was skipped");
        }
        let before = match event["type"].as_str().unwrap() {
            "ADDED" => self.known.insert(name, object.clone()).is_none(),
            "MODIFIED" => self.known.insert(name, object.clone()).is_some(),
            "DELETED" => self.known.remove(&name).is_some(),
            other => panic!("{other}"),
        };
        assert!(before, "{event} does not fit what is known");
        self.at = now;
        assert_eq!(self.known, history.at(now, self), "after {event}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_equals_the_differences_of_lists() {
    for seed in 0..4 {
        let (api, random) = (api().await, Random::seeded(seed));
        let mut history = History::default();
        let (start, state) = list(&api, "").await;
        history.0.insert(start, state);
        let mut followers = [None, None, Some("yes"), Some("no"), Some("yes")].map(Follower::new);
        for step in 0..400 {
            let one = random.below(5) as usize;
            match random.below(40) {
                0..24 => write(&api, &random, &mut history).await,
                24..36 => followers[one].read(&api, &history, 1 + random.below(20)).await,
                36..38 => followers[one].watch = None,
                38 => {
                    let now = api.store.revision().await.unwrap();
                    drop(api.store.compact(now).await);
                }
                _ => tokio::time::advance(Duration::from_secs(random.below(120))).await,
            }
            if step == 200 {
                for _ in 0..BURST {
                    write(&api, &random, &mut history).await;
                }
            }
        }
        let (_, present) = list(&api, "").await;
        for follower in &mut followers {
            // A watch that was closed ends first, and is resumed then.
            while follower.known != follower.selected(&present) || follower.watch.is_none() {
                follower.read(&api, &history, BURST).await;
            }
        }
        let (relisted, resumed) =
            followers.iter().fold((0, 0), |sum, f| (sum.0 + f.relisted, sum.1 + f.resumed));
        assert!(relisted > 5 && resumed > relisted, "{relisted} lists, {resumed} watches");
    }
}
