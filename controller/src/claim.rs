//! Which objects belong to an owner: adoption of matching objects without one, release of those that no
//! longer match.

use std::sync::Arc;

use api::selector::LabelSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use serde_json::json;

use crate::harness::Write;

/// The owner's side of the question.
#[derive(Debug)]
pub(crate) struct Claimant<'a> {
    /// The reference that its objects carry.
    pub reference: OwnerReference,
    pub selector: &'a LabelSelector,
    /// It is being deleted: it takes and gives nothing.
    pub deleting: bool,
}

/// What belongs to an owner.
#[derive(Debug)]
pub(crate) struct Claims<K> {
    /// Refer to the owner and match.
    pub owned: Vec<Arc<K>>,
    /// Match and have no owner.
    pub adopt: Vec<Arc<K>>,
    /// Refer to the owner and do not match.
    pub release: Vec<Arc<K>>,
}

/// The reference of a controlling owner, as its objects carry it.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The owner that controls an object.
pub(crate) fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.meta().owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Sorts out which of `candidates`, objects of the owner's namespace, are the owner's.
pub(crate) fn claim<K: Resource>(
    claimant: &Claimant<'_>,
    candidates: impl IntoIterator<Item = Arc<K>>,
) -> Claims<K> {
    let mut claims = Claims { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for candidate in candidates {
        let meta = candidate.meta();
        let matches = claimant.selector.matches(meta.labels.as_ref());
        match controller_of(&*candidate) {
            Some(owner) if owner.uid != claimant.reference.uid => {}
            Some(_) if matches => claims.owned.push(candidate),
            Some(_) if claimant.deleting => {}
            Some(_) => claims.release.push(candidate),
            None if claimant.deleting || !matches || meta.deletion_timestamp.is_some() => {}
            None => claims.adopt.push(candidate),
        }
    }
    claims
}

impl<K: Resource<DynamicType = ()>> Claims<K> {
    /// The writes that make the claims true. They hold only for the objects as they were read.
    pub(crate) fn writes(&self, claimant: &Claimant<'_>) -> Vec<Write> {
        let adoptions = self.adopt.iter().map(|object| {
            let mut owners = object.meta().owner_references.clone().unwrap_or_default();
            owners.push(claimant.reference.clone());
            patch(&**object, &owners)
        });
        let releases = self.release.iter().map(|object| {
            let mut owners = object.meta().owner_references.clone().unwrap_or_default();
            owners.retain(|owner| owner.uid != claimant.reference.uid);
            patch(&**object, &owners)
        });
        adoptions.chain(releases).collect()
    }

    /// The owner's objects once the writes are done.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<K>> {
        self.owned.iter().chain(&self.adopt)
    }
}

fn patch<K: Resource<DynamicType = ()>>(object: &K, owners: &[OwnerReference]) -> Write {
    let meta = object.meta();
    Write::merge(
        object,
        json!({"metadata": {
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
            "ownerReferences": owners,
        }}),
    )
}
