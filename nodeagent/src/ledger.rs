//! Which pods the node has taken, so that two that start at the same moment can't both get the last of
//! something.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::pod::{Rejection, admission, uid};

/// The pods that hold a part of the node, by uid.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<BTreeMap<String, Arc<Pod>>>);

impl Ledger {
    /// Takes a pod if it fits beside those that were taken before.
    pub(crate) fn admit(
        &self,
        pod: &Arc<Pod>,
        node: &Node,
        allocatable: &BTreeMap<String, i64>,
    ) -> Result<(), Rejection> {
        let mut taken = self.lock();
        let others: Vec<&Pod> = taken.values().map(AsRef::as_ref).collect();
        admission::admit(pod, node, allocatable, &others)?;
        taken.insert(uid(pod).to_owned(), pod.clone());
        Ok(())
    }

    /// Takes a pod that the node has taken before.
    pub(crate) fn take(&self, pod: &Arc<Pod>) {
        self.lock().insert(uid(pod).to_owned(), pod.clone());
    }

    /// The pod no longer holds anything.
    pub(crate) fn release(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Pod>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
