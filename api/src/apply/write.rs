//! Ownership after a write: an update takes what it changes; an apply takes what it says, unless others object.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::compare::Changes;
use super::conflict::Conflict;
use super::extract::fields_of;
use super::managed::{Entry, Managed, Manager, Operation};
use super::merge::merge;
use super::prune::prune;
use super::set::Set;
use super::untracked;
use crate::schema::TypeRef;

/// The manager of what was there before anybody's ownership was recorded.
const BEFORE: &str = "before-first-apply";

/// A write, as far as ownership goes.
#[derive(Clone, Debug)]
pub struct Write<'a> {
    /// The name of who writes.
    pub manager: &'a str,
    /// The `apiVersion` in which it writes.
    pub version: &'a str,
    /// The part of the object through which it writes; empty for the object itself.
    pub subresource: &'a str,
    /// What writes through this part don't change, whatever they say.
    pub reset: &'a Set,
    pub now: Time,
}

impl Write<'_> {
    fn manager(&self, name: &str, operation: Operation) -> Manager {
        Manager {
            name: if name.is_empty() { "unknown" } else { name }.to_owned(),
            operation,
            version: self.version.to_owned(),
            subresource: self.subresource.to_owned(),
        }
    }
}

/// The versions of a kind. An object goes from one to another.
pub trait Versions {
    /// The type of the kind in a version; None if there is no such version any more.
    fn ty(&self, version: &str) -> Option<TypeRef>;
    /// An object of the version `from` as one of the version `to`.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value>;
}

/// A kind of which there is only one version.
#[derive(Debug)]
pub struct OneVersion<'a> {
    pub ty: &'a TypeRef,
    pub version: &'a str,
}

impl Versions for OneVersion<'_> {
    fn ty(&self, version: &str) -> Option<TypeRef> {
        (version == self.version).then(|| self.ty.clone())
    }
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        (from == to).then(|| object.clone())
    }
}

/// Who owns what after an object was written by other means than apply. `changes` is what the write changed, in its own
/// version; `others` says what it changed in another version, None if that version is gone.
pub fn update(
    write: &Write<'_>,
    mut managed: Managed,
    changes: Changes,
    mut others: impl FnMut(&str) -> Option<Changes>,
) -> Managed {
    let changes = changes.without(write.reset);
    let manager = write.manager(write.manager, Operation::Update);
    take_away(&mut managed, write, Some(&manager), &changes, &mut others);
    let mut own = changes.written();
    own.remove(untracked());
    if own.is_empty() {
        managed.tidy();
        return managed;
    }
    let time = Some(write.now.clone());
    match managed.get_mut(&manager) {
        Some(entry) => {
            entry.set.add(&own);
            entry.time = time;
        }
        None => managed.entries.push(Entry { manager, time, set: own }),
    }
    managed.tidy();
    managed.cap();
    managed
}

/// Takes from everybody what was changed or removed; what was changed from nobody who has it again at once.
fn take_away(
    managed: &mut Managed,
    write: &Write<'_>,
    again: Option<&Manager>,
    changes: &Changes,
    others: &mut dyn FnMut(&str) -> Option<Changes>,
) {
    let mut versions = ByVersion::new(write, others);
    managed.entries.retain_mut(|entry| {
        let version = entry.manager.version.as_str();
        if again.is_some_and(|manager| entry.manager.is(manager)) {
            entry.set.remove(&changes.removed);
            return true;
        }
        if version == write.version {
            lose(&mut entry.set, changes);
            return true;
        }
        match versions.of(version) {
            Some(changes) => lose(&mut entry.set, changes),
            None => return false,
        }
        true
    });
}

/// What a write changed in other versions than its own, found out once for each.
struct ByVersion<'a> {
    write: &'a Write<'a>,
    others: &'a mut dyn FnMut(&str) -> Option<Changes>,
    known: HashMap<String, Option<Changes>>,
}

impl<'a> ByVersion<'a> {
    fn new(write: &'a Write<'a>, others: &'a mut dyn FnMut(&str) -> Option<Changes>) -> Self {
        Self { write, others, known: HashMap::new() }
    }

    /// None if the version is gone.
    fn of(&mut self, version: &str) -> Option<&Changes> {
        if !self.known.contains_key(version) {
            let changes = (self.others)(version).map(|changes| changes.without(self.write.reset));
            self.known.insert(version.to_owned(), changes);
        }
        self.known.get(version)?.as_ref()
    }
}

fn lose(set: &mut Set, changes: &Changes) {
    for changed in [&changes.modified, &changes.added, &changes.removed] {
        set.remove(changed);
    }
}

/// What came of an apply.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) object: Value,
    pub(super) managed: Managed,
}

/// Merges `config` into `live`, and removes what the manager applied before and does not apply now. The objects are of
/// the version of the write and have no `managedFields`.
pub(super) fn apply(
    write: &Write<'_>,
    versions: &dyn Versions,
    ty: &TypeRef,
    live: &Value,
    config: &Value,
    mut managed: Managed,
    force: bool,
) -> Result<Applied, Vec<Conflict>> {
    if managed.is_empty() {
        let before = Write { manager: BEFORE, ..write.clone() };
        let changes = Changes::between(ty, &Value::Object(serde_json::Map::new()), live);
        managed = update(&before, managed, changes, |_| None);
    }
    let manager = write.manager(write.manager, Operation::Apply);
    let last = managed.get(&manager).cloned();
    managed.entries.retain(|entry| !entry.manager.is(&manager));

    let mut set = fields_of(ty, config);
    set.remove_below(write.reset);
    let merged = merge(ty, live, config);
    let object = match &last {
        Some(last) if !last.set.is_empty() => {
            pruned(write, versions, merged, last, &set, &managed).unwrap_or_else(|merged| merged)
        }
        _ => merged,
    };

    let changes = Changes::between(ty, live, &object).without(write.reset);
    let mut others = |version: &str| {
        let ty = versions.ty(version)?;
        let old = versions.convert(live, write.version, version)?;
        let new = versions.convert(&object, write.version, version)?;
        Some(Changes::between(&ty, &old, &new))
    };
    if !force {
        let conflicts = conflicts(write, &managed, &changes, &mut others);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
    }
    take_away(&mut managed, write, None, &changes, &mut others);
    managed.tidy();
    set.remove(untracked());
    if !set.is_empty() {
        let before = last.and_then(|last| last.time);
        let time = if object == *live { before } else { Some(write.now.clone()) };
        managed.entries.push(Entry { manager, time, set });
    }
    Ok(Applied { object, managed })
}

fn conflicts(
    write: &Write<'_>,
    managed: &Managed,
    changes: &Changes,
    others: &mut dyn FnMut(&str) -> Option<Changes>,
) -> Vec<Conflict> {
    let written = changes.clone().written();
    let mut versions = ByVersion::new(write, others);
    let of = |entry: &Entry| {
        let version = entry.manager.version.as_str();
        let fields = if version == write.version {
            entry.set.shared(&written)
        } else {
            entry.set.shared(&versions.of(version)?.clone().written())
        };
        (!fields.is_empty()).then(|| Conflict { manager: entry.manager.clone(), fields })
    };
    managed.entries.iter().filter_map(of).collect()
}

/// The merged object without what only the manager owned. The error is the object as it was, if the version in which
/// the manager applied last is gone.
fn pruned(
    write: &Write<'_>,
    versions: &dyn Versions,
    merged: Value,
    last: &Entry,
    set: &Set,
    managed: &Managed,
) -> Result<Value, Value> {
    let version = last.manager.version.as_str();
    let in_version = |ty: &TypeRef, object: &Value| {
        let mut owned = Set::default();
        for (of, fields) in owners(write, set, managed) {
            if of == version {
                owned.add(fields);
            } else if let Some(kept) = translated(versions, object, of, version, fields) {
                // What is owned in another version is kept by what it is called in this one.
                owned.add(&kept);
            }
        }
        prune(ty, object, &last.set, &owned)
    };
    let Some(ty) = versions.ty(version) else { return Err(merged) };
    if version == write.version {
        return Ok(in_version(&ty, &merged));
    }
    let back = versions
        .convert(&merged, write.version, version)
        .and_then(|object| versions.convert(&in_version(&ty, &object), version, write.version));
    back.ok_or(merged)
}

/// Everybody's fields after the apply, with the version that they are of.
fn owners<'a>(
    write: &'a Write<'_>,
    set: &'a Set,
    managed: &'a Managed,
) -> impl Iterator<Item = (&'a str, &'a Set)> {
    let others = managed.entries.iter().map(|entry| (entry.manager.version.as_str(), &entry.set));
    std::iter::once((write.version, set)).chain(others)
}

/// The fields of the version `of` as they are called in `version`: those that go if the object goes without them.
fn translated(versions: &dyn Versions, object: &Value, of: &str, version: &str, fields: &Set) -> Option<Set> {
    let (ty, other) = (versions.ty(version)?, versions.ty(of)?);
    let there = versions.convert(object, version, of)?;
    let without = versions.convert(&super::prune::leave_out(&other, &there, fields), of, version)?;
    Some(Changes::between(&ty, &without, object).written())
}
