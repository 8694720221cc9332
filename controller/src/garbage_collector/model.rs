//! Random graphs under random deletions, seen through a cache that lags.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::marker::PhantomData;
use std::sync::Arc;

use base::Random;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::api::PropagationPolicy;

use super::decide::{BLOCKS, Decision, FOREGROUND, ORPHAN, Owner, decide, noticed};
use crate::harness::Metadata;

/// The API and what the collector knows of it. All objects are of one kind; their name is their UID.
struct World {
    random: Random,
    live: BTreeMap<String, ObjectMeta>,
    cached: BTreeMap<String, ObjectMeta>,
    /// Changes that the cache has not shown yet.
    coming: VecDeque<(String, Option<ObjectMeta>)>,
    queue: BTreeSet<Work>,
    version: u64,
    made: u64,
    /// What the collector deleted.
    collected: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Look(String),
    Gone(String),
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::seeded(seed),
            live: BTreeMap::new(),
            cached: BTreeMap::new(),
            coming: VecDeque::new(),
            queue: BTreeSet::new(),
            version: 0,
            made: 0,
            collected: 0,
        }
    }

    fn put(&mut self, mut object: ObjectMeta) {
        let uid = object.uid.clone().unwrap();
        let finished =
            object.deletion_timestamp.is_some() && object.finalizers.iter().flatten().next().is_none();
        self.version += 1;
        object.resource_version = Some(self.version.to_string());
        if finished {
            self.live.remove(&uid);
            self.coming.push_back((uid, None));
        } else {
            self.live.insert(uid.clone(), object.clone());
            self.coming.push_back((uid, Some(object)));
        }
    }

    fn delete(&mut self, uid: &str, policy: &PropagationPolicy) {
        let Some(mut object) = self.live.get(uid).cloned() else { return };
        let finalizers = object.finalizers.get_or_insert_default();
        finalizers.retain(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN);
        match policy {
            PropagationPolicy::Foreground => finalizers.push(FOREGROUND.to_owned()),
            PropagationPolicy::Orphan => finalizers.push(ORPHAN.to_owned()),
            PropagationPolicy::Background => {}
        }
        object.deletion_timestamp.get_or_insert(Time("2026-01-01T00:00:00Z".parse().unwrap()));
        self.put(object);
    }

    fn any(&self) -> Option<String> {
        let place = usize::try_from(self.random.below(self.live.len() as u64)).unwrap();
        self.live.keys().nth(place).cloned()
    }

    /// Something that a user does.
    fn act(&mut self) {
        match self.random.below(10) {
            0..6 => {
                self.made += 1;
                let count = self.random.below(3);
                let mut owners: BTreeMap<String, OwnerReference> = BTreeMap::new();
                for _ in 0..count {
                    let uid = match self.random.below(8) {
                        0 => format!("never{}", self.made),
                        _ => self.any().unwrap_or_else(|| "never".to_owned()),
                    };
                    owners.insert(uid.clone(), self.reference(uid));
                }
                self.put(ObjectMeta {
                    uid: Some(format!("o{:04}", self.made)),
                    owner_references: Some(owners.into_values().collect()),
                    ..ObjectMeta::default()
                });
            }
            6..8 => {
                let policies =
                    [PropagationPolicy::Background, PropagationPolicy::Foreground, PropagationPolicy::Orphan];
                let policy = &policies[usize::try_from(self.random.below(3)).unwrap()];
                if let Some(uid) = self.any() {
                    self.delete(&uid, policy);
                }
            }
            // Makes circles possible.
            _ => {
                let (Some(uid), Some(owner)) = (self.any(), self.any()) else { return };
                let mut object = self.live[&uid].clone();
                let owners = object.owner_references.get_or_insert_default();
                if uid != owner && owners.iter().all(|known| known.uid != owner) {
                    owners.push(self.reference(owner));
                    self.put(object);
                }
            }
        }
    }

    fn reference(&self, uid: String) -> OwnerReference {
        let block_owner_deletion = (self.random.below(2) == 0).then_some(true);
        OwnerReference { name: uid.clone(), uid, block_owner_deletion, ..OwnerReference::default() }
    }

    /// The cache shows one more change.
    fn deliver(&mut self) {
        let Some((uid, new)) = self.coming.pop_front() else { return };
        let old = self.cached.get(&uid).cloned();
        let noticed = noticed(new.as_ref(), old.as_ref());
        let owners: Vec<Work> = noticed.owners.iter().map(|owner| Work::Look(owner.uid.clone())).collect();
        self.queue.extend(owners);
        if noticed.look {
            self.queue.insert(Work::Look(uid.clone()));
        }
        match new {
            Some(new) => drop(self.cached.insert(uid, new)),
            None => {
                self.cached.remove(&uid);
                self.queue.insert(Work::Gone(uid));
            }
        }
    }

    fn owners(&self, object: &ObjectMeta, certain: bool) -> Vec<Owner> {
        let live = |owner: &OwnerReference| self.live.get(&owner.uid).map_or(Owner::Absent, Owner::of);
        let state = |owner: &OwnerReference| match self.cached.get(&owner.uid).map(Owner::of) {
            Some(Owner::Waiting) if certain => live(owner),
            Some(state) => state,
            None => live(owner),
        };
        object.owner_references.iter().flatten().map(state).collect()
    }

    fn shared(&self, uid: &str) -> Vec<Arc<Metadata>> {
        let share = |metadata| Arc::new(Metadata { types: None, metadata, _phantom: PhantomData });
        self.dependents(uid).into_iter().map(share).collect()
    }

    fn dependents(&self, uid: &str) -> Vec<ObjectMeta> {
        let depends =
            |object: &&ObjectMeta| object.owner_references.iter().flatten().any(|owner| owner.uid == uid);
        self.cached.values().filter(depends).cloned().collect()
    }

    /// The collector deals with one piece of work.
    fn work(&mut self) {
        let place = usize::try_from(self.random.below(self.queue.len() as u64)).unwrap();
        let Some(work) = self.queue.iter().nth(place).cloned() else { return };
        self.queue.remove(&work);
        let uid = match work {
            Work::Gone(uid) => {
                self.queue
                    .extend(self.dependents(&uid).into_iter().filter_map(|one| one.uid).map(Work::Look));
                return;
            }
            Work::Look(uid) => uid,
        };
        let Some(cached) = self.cached.get(&uid) else { return };
        match decide(cached, &self.owners(cached, false), |uid| self.shared(uid)) {
            Decision::Nothing => return,
            Decision::LookAtDependents => {
                let staying =
                    self.dependents(&uid).into_iter().filter(|one| one.deletion_timestamp.is_none());
                self.queue.extend(staying.filter_map(|one| one.uid).map(Work::Look));
                return;
            }
            _ => {}
        }
        let Some(live) = self.live.get(&uid).cloned() else { return };
        let mut changed = live.clone();
        let finish = |changed: &mut ObjectMeta, finalizer: &str| {
            changed.finalizers.get_or_insert_default().retain(|other| other != finalizer);
        };
        match decide(&live, &self.owners(&live, true), |uid| self.shared(uid)) {
            Decision::Nothing | Decision::LookAtDependents => return,
            Decision::Orphan => {
                for dependent in self.dependents(&uid) {
                    let id = dependent.uid.clone().unwrap();
                    let now = self.live.get(&id).cloned();
                    match now {
                        Some(mut now) if now.resource_version == dependent.resource_version => {
                            now.owner_references.get_or_insert_default().retain(|owner| owner.uid != uid);
                            self.put(now);
                        }
                        // Refused: tried again.
                        _ => drop(self.queue.insert(Work::Look(uid.clone()))),
                    }
                }
                if self.queue.contains(&Work::Look(uid.clone())) {
                    return;
                }
                finish(&mut changed, ORPHAN);
            }
            Decision::Finish => finish(&mut changed, FOREGROUND),
            Decision::Release(uids) => {
                changed.owner_references.get_or_insert_default().retain(|owner| !uids.contains(&owner.uid));
            }
            Decision::Unblock => {
                for owner in changed.owner_references.iter_mut().flatten() {
                    if owner.block_owner_deletion == BLOCKS {
                        owner.block_owner_deletion = Some(false);
                    }
                }
            }
            Decision::Delete(policy) => {
                let owners = live.owner_references.iter().flatten();
                let there: Vec<_> = owners
                    .filter_map(|owner| self.live.get(&owner.uid))
                    .filter(|owner| Owner::of(owner) == Owner::Solid)
                    .collect();
                assert!(there.is_empty(), "{uid} is deleted although it has {there:?}");
                self.collected += 1;
                self.delete(&uid, &policy);
                return;
            }
        }
        self.put(changed);
    }

    fn check(&self) {
        for (uid, object) in &self.live {
            let owners = object.owner_references.as_deref().unwrap_or_default();
            let there = owners.iter().filter(|owner| self.live.contains_key(&owner.uid)).count();
            assert!(owners.is_empty() || there > 0, "{uid} stays without any owner: {object:?}");
            assert!(object.deletion_timestamp.is_none(), "{uid} never finishes: {object:?}");
        }
    }
}

#[test]
fn nothing_owned_is_lost_and_nothing_disowned_stays() {
    let mut collected = 0;
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            match world.random.below(4) {
                0 => world.act(),
                1 => world.deliver(),
                _ => world.work(),
            }
        }
        let mut steps = 0;
        while !world.coming.is_empty() || !world.queue.is_empty() {
            world.deliver();
            world.work();
            steps += 1;
            assert!(steps < 100_000, "seed {seed} does not settle: {:?}", world.queue);
        }
        world.check();
        collected += world.collected;
    }
    assert!(collected > 1000, "the model has teeth: {collected}");
}
