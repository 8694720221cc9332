//! The `Recreate` strategy: no new pod before the last old one is gone.

use std::collections::BTreeSet;

use super::amounts;
use super::rollout::Rollout;

impl Rollout<'_> {
    /// One step: end the old pods, wait for their end, start the new ones. `running` are the UIDs of the
    /// sets that have pods which have not ended.
    pub(super) fn recreate(&mut self, running: &BTreeSet<String>) {
        self.adjust_new();
        let mut shrunk = false;
        for at in 0..self.old.len() {
            shrunk |= self.resize(Some(at), 0);
        }
        let ending = self.old.iter().any(|set| {
            set.status().replicas > 0
                || set.set.metadata.uid.as_ref().is_some_and(|uid| running.contains(uid))
        });
        if !shrunk && !ending {
            if !self.ensure_new() {
                return;
            }
            self.resize(None, amounts::wanted(&self.deployment));
            if self.is_complete() {
                self.clean_up();
            }
        }
        self.report();
    }
}
