//! The owner of an object's replicas is the owner of its Scale's replicas.
//!
//! Writes of a Scale are recorded under the version of the object that it belongs to.

use std::collections::HashMap;

use super::managed::{Entry, Managed};
use super::set::Set;

const REPLICAS: &[&str] = &["spec", "replicas"];

/// Who owns the replicas of an object of the version `version`, as owners of its Scale.
pub fn to_scale(parent: &Managed, version: &str) -> Managed {
    let owns = |entry: &&Entry| entry.manager.version == version && entry.set.has(REPLICAS);
    let entries = parent.entries.iter().filter(owns);
    Managed { entries: entries.map(|entry| Entry { set: Set::of(&[REPLICAS]), ..entry.clone() }).collect() }
}

/// The owners of an object after its Scale was written: who lost the replicas there loses them here, and who took them
/// there has them here.
pub fn from_scale(parent: Managed, scale: Managed, version: &str) -> Managed {
    let replicas = Set::of(&[REPLICAS]);
    let mut given = scale.entries;
    given.retain(|entry| entry.set.has(REPLICAS));
    let places: HashMap<_, usize> =
        given.iter().enumerate().map(|(i, entry)| (entry.manager.identity(), i)).collect();
    let mut kept = vec![false; given.len()];
    let mut entries = Vec::with_capacity(parent.entries.len() + 1);
    for mut entry in parent.entries {
        if entry.manager.version == version && entry.set.has(REPLICAS) {
            match places.get(&entry.manager.identity()) {
                Some(place) => {
                    entry.time.clone_from(&given[*place].time);
                    kept[*place] = true;
                }
                None => entry.set.remove(&replicas),
            }
        }
        if !entry.set.is_empty() {
            entries.push(entry);
        }
    }
    let new = given.iter().zip(kept).filter(|(_, kept)| !kept).map(|(entry, _)| entry.clone());
    entries.extend(new.map(|entry| Entry { set: replicas.clone(), ..entry }));
    Managed { entries }
}
