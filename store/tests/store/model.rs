//! The embedded store against a simple model, under random operations: every answer, every past state and
//! every watch must be the model's, also across compaction.

use std::collections::BTreeMap;

use base::{Clock, Random, Tasks};
use store::{Compare, Embedded, Error, EventKind, Op, Range, Store, Txn, Watch, WatchMessage};

/// The key space as it is at a revision: key to value and modification revision.
type State = BTreeMap<String, (String, i64)>;

struct Follower {
    watch: Watch,
    state: State,
    at: i64,
}

async fn run(seed: u64) {
    let (random, tasks) = (Random::seeded(seed), Tasks::new("model"));
    let store = Embedded::in_memory(Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap()), tasks.clone());
    let mut history: BTreeMap<i64, State> = BTreeMap::from([(1, State::new())]);
    let (mut now, mut compacted) = (1, 0);
    let mut followers: Vec<Follower> = Vec::new();
    for step in 0..400 {
        let key = |random: &Random| format!("/k/{}", random.below(8));
        match random.below(20) {
            0..12 => {
                let mut next = history[&now].clone();
                let guard = key(&random);
                let actual = next.get(&guard).map_or(0, |(_, revision)| *revision);
                let expected =
                    if random.below(3) == 0 { random.below(now as u64 + 1) as i64 } else { actual };
                let mut ops = BTreeMap::new();
                for _ in 0..=random.below(3) {
                    let key = key(&random);
                    let op = if random.below(3) == 0 {
                        Op::delete(&key)
                    } else {
                        Op::put(&key, format!("{step}"))
                    };
                    ops.insert(key, op);
                }
                let txn = Txn::of(ops.values().cloned().collect::<Vec<_>>());
                let answer = store.txn(txn.when(Compare::mod_revision(&guard, expected))).await.unwrap();
                assert_eq!(answer.succeeded, actual == expected, "seed {seed} step {step}");
                let mut wrote = false;
                for (key, op) in ops.iter().filter(|_| answer.succeeded) {
                    wrote |= match op {
                        Op::Put { .. } => {
                            next.insert(key.clone(), (step.to_string(), now + 1));
                            true
                        }
                        _ => next.remove(key).is_some(),
                    };
                }
                if wrote {
                    now += 1;
                    history.insert(now, next);
                }
                assert_eq!(answer.revision, now, "seed {seed} step {step}");
            }
            12..15 => {
                let at = 1 + random.below(now as u64) as i64;
                let limit = random.below(4) as usize;
                let answer = store.range(Range::prefix("/k/").at(at).limit(limit)).await;
                if at < compacted {
                    assert_eq!(
                        answer,
                        Err(Error::Compacted { revision: compacted }),
                        "seed {seed} step {step}"
                    );
                    continue;
                }
                let (answer, model) = (answer.unwrap(), &history[&at]);
                let found: Vec<_> = answer
                    .kvs
                    .iter()
                    .map(|kv| (kv.key.clone(), (kv.value.to_vec(), kv.mod_revision)))
                    .collect();
                let take = if limit == 0 { model.len() } else { limit };
                let expected: Vec<_> = model
                    .iter()
                    .take(take)
                    .map(|(k, (v, r))| (k.clone(), (v.clone().into_bytes(), *r)))
                    .collect();
                assert_eq!(found, expected, "seed {seed} step {step} at {at}");
                assert_eq!((answer.count, answer.more), (model.len() as i64, take < model.len()));
            }
            15 => {
                let from = 1 + random.below(now as u64 + 1) as i64;
                let range = Range::prefix("/k/");
                let watch = store.watch(range.start, range.end, from, true).await;
                if from <= compacted {
                    assert!(matches!(watch, Err(Error::Compacted { .. })), "seed {seed} step {step}");
                    continue;
                }
                // An empty store is at revision 1.
                let state = history.get(&(from - 1)).cloned().unwrap_or_default();
                followers.push(Follower { watch: watch.unwrap(), state, at: (from - 1).max(1) });
            }
            16 => {
                let at = 1 + random.below(now as u64) as i64;
                let expected =
                    if at <= compacted { Err(Error::Compacted { revision: compacted }) } else { Ok(()) };
                // Whoever lags may now be told so; these are caught up first to keep the model simple.
                for follower in &mut followers {
                    follow(follower, &history, now, seed).await;
                }
                assert_eq!(store.compact(at).await, expected, "seed {seed} step {step}");
                compacted = compacted.max(at);
            }
            17 if !followers.is_empty() => {
                let index = random.below(followers.len() as u64) as usize;
                follow(&mut followers[index], &history, now, seed).await;
            }
            _ => {}
        }
    }
    for follower in &mut followers {
        follow(follower, &history, now, seed).await;
    }
}

/// Follows until progress is told; after each revision the follower's state must be the model's.
async fn follow(follower: &mut Follower, history: &BTreeMap<i64, State>, now: i64, seed: u64) {
    follower.watch.request_progress();
    loop {
        match follower.watch.next().await.unwrap().unwrap() {
            WatchMessage::Progress(revision) => {
                assert_eq!(revision, now, "seed {seed}");
                assert!(follower.at == now || history[&now] == follower.state, "seed {seed}");
                return;
            }
            WatchMessage::Events { revision, events } => {
                assert!(revision == follower.at + 1, "seed {seed}: {} then {revision}", follower.at);
                follower.at = revision;
                for event in events {
                    let prev = event
                        .prev
                        .map(|kv| (String::from_utf8_lossy(&kv.value).into_owned(), kv.mod_revision));
                    let old = match event.kind {
                        EventKind::Delete => follower.state.remove(&event.kv.key),
                        EventKind::Put => {
                            let value = String::from_utf8_lossy(&event.kv.value).into_owned();
                            follower.state.insert(event.kv.key, (value, event.kv.mod_revision))
                        }
                    };
                    assert_eq!(prev, old, "seed {seed} at {revision}");
                }
                assert_eq!(follower.state, history[&revision], "seed {seed} at {revision}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_is_the_model_under_random_operations() {
    for seed in 0..100 {
        run(seed).await;
    }
}
