//! What becomes of an object, by its owners and dependents: pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;

use crate::harness::Metadata;

/// The finalizer of an object whose dependents go first.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents stay.
pub(super) const ORPHAN: &str = "orphan";
/// `blockOwnerDeletion` of a dependent that an owner waits for.
pub(super) const BLOCKS: Option<bool> = Some(true);

/// The state of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// It is there.
    Solid,
    /// It waits for its dependents to go.
    Waiting,
    /// It is gone.
    Absent,
    /// It can't be told, so nothing can be decided.
    Unknown,
}

/// What is to be done with an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    Nothing,
    /// It waits for its dependents: see that they go.
    LookAtDependents,
    /// Take the reference to it from its dependents, and then the finalizer from it.
    Orphan,
    /// Take the finalizer from it that made it wait for its dependents.
    Finish,
    /// Take the references to these owners from it.
    Release(Vec<String>),
    /// Let no owner wait for it, because it waits itself for one of them: a circle.
    Unblock,
    Delete(PropagationPolicy),
}

/// What a change of an object concerns.
#[derive(Debug, PartialEq)]
pub(super) struct Noticed<'a> {
    /// The object itself is to be looked at.
    pub(super) look: bool,
    /// Owners that may have waited for it.
    pub(super) owners: Vec<&'a OwnerReference>,
}

impl Owner {
    /// The state of an owner that is there.
    pub(super) fn of(owner: &ObjectMeta) -> Self {
        if waits(owner) { Self::Waiting } else { Self::Solid }
    }
}

/// Whether the object is being deleted after its dependents.
fn waits(object: &ObjectMeta) -> bool {
    object.deletion_timestamp.is_some() && has(object, FOREGROUND)
}

fn has(object: &ObjectMeta, finalizer: &str) -> bool {
    object.finalizers.iter().flatten().any(|other| other == finalizer)
}

fn references(object: &ObjectMeta) -> &[OwnerReference] {
    object.owner_references.as_deref().unwrap_or_default()
}

fn blocks(object: &ObjectMeta) -> impl Iterator<Item = &OwnerReference> {
    references(object).iter().filter(|owner| owner.block_owner_deletion == BLOCKS)
}

fn blocks_uid(object: &ObjectMeta, uid: &str) -> bool {
    blocks(object).any(|owner| owner.uid == uid)
}

/// Whether the object waits for something that waits, perhaps through others, for the object.
fn waits_for_itself(uid: &str, dependents: impl Fn(&str) -> Vec<Arc<Metadata>>) -> bool {
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut next = vec![uid.to_owned()];
    while let Some(owner) = next.pop() {
        for dependent in dependents(&owner) {
            let dependent = &dependent.metadata;
            if !waits(dependent) || !blocks_uid(dependent, &owner) {
                continue;
            }
            let found = dependent.uid.clone().unwrap_or_default();
            if found == uid {
                return true;
            }
            if known.insert(found.clone()) {
                next.push(found);
            }
        }
    }
    false
}

/// What a change concerns: `old` became `new`; `None` is an object that was or is not there.
pub(super) fn noticed<'a>(new: Option<&'a ObjectMeta>, old: Option<&'a ObjectMeta>) -> Noticed<'a> {
    let before = old.map(references).unwrap_or_default();
    let after = new.map(references).unwrap_or_default();
    let look = new.is_some_and(|new| {
        let to_finish = new.deletion_timestamp.is_some() && (has(new, FOREGROUND) || has(new, ORPHAN));
        let begins =
            old.is_none_or(|old| old.deletion_timestamp.is_none() || old.finalizers != new.finalizers);
        !after.is_empty() && before != after || to_finish && begins
    });
    // One that still blocks the same owner is no news for it.
    let owners = old
        .into_iter()
        .flat_map(blocks)
        .filter(|owner| !new.is_some_and(|new| blocks(new).any(|other| other.uid == owner.uid)))
        .collect();
    Noticed { look, owners }
}

/// Decides. `owners` are the states of the object's owners, in the order of its references; `dependents` tells
/// what names a UID as an owner.
pub(super) fn decide(
    object: &ObjectMeta,
    owners: &[Owner],
    dependents: impl Fn(&str) -> Vec<Arc<Metadata>>,
) -> Decision {
    let uid = object.uid.as_deref().unwrap_or_default();
    if object.deletion_timestamp.is_some() {
        if has(object, ORPHAN) {
            return Decision::Orphan;
        }
        if has(object, FOREGROUND) {
            let blocking = |dependent: &Arc<Metadata>| blocks_uid(&dependent.metadata, uid);
            return if !dependents(uid).iter().any(blocking) {
                Decision::Finish
            } else if waits_for_itself(uid, dependents) {
                Decision::Unblock
            } else {
                Decision::LookAtDependents
            };
        }
        return Decision::Nothing;
    }
    if owners.is_empty() || owners.contains(&Owner::Unknown) {
        return Decision::Nothing;
    }
    if owners.contains(&Owner::Solid) {
        let gone = |state: &Owner| matches!(state, Owner::Absent | Owner::Waiting);
        let uids: Vec<String> = references(object)
            .iter()
            .zip(owners)
            .filter(|(_, state)| gone(state))
            .map(|(owner, _)| owner.uid.clone())
            .collect();
        return if uids.is_empty() { Decision::Nothing } else { Decision::Release(uids) };
    }
    if owners.contains(&Owner::Waiting) && !dependents(uid).is_empty() {
        return Decision::Delete(PropagationPolicy::Foreground);
    }
    // A wish of its own, made when it was created, stands.
    Decision::Delete(if has(object, ORPHAN) {
        PropagationPolicy::Orphan
    } else if has(object, FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    })
}
