//! The `RollingUpdate` strategy: never more pods than the surge allows, never fewer available than promised.

use super::amounts;
use super::rollout::Rollout;
use super::set::Set;

impl Rollout<'_> {
    /// One step: grow the new set, or else shrink the old ones, or else tidy up.
    pub(super) fn roll(&mut self) {
        if !self.ensure_new() {
            return;
        }
        if !self.grow_new() && !self.shrink_old() && self.is_complete() {
            self.clean_up();
        }
        self.report();
    }

    fn grow_new(&mut self) -> bool {
        let wanted = amounts::wanted(&self.deployment);
        let Some(new) = &self.new else { return false };
        let size = if new.replicas() > wanted { wanted } else { self.new_size() };
        self.resize(None, size)
    }

    fn shrink_old(&mut self) -> bool {
        if self.old.iter().all(|set| set.replicas() == 0) {
            return false;
        }
        let wanted = amounts::wanted(&self.deployment);
        let promised = wanted - amounts::max_unavailable(&self.deployment);
        // Pods of the new set that do not serve yet cannot replace old ones.
        let unavailable = self.new.as_ref().map_or(0, |new| new.replicas() - new.available());
        let removable = self.total() - promised - unavailable;
        if removable <= 0 {
            return false;
        }
        let cleaned = self.shrink_unhealthy(removable);
        self.shrink_available(promised) || cleaned
    }

    /// Takes away old pods that serve nobody first, because their going costs nothing and may unblock the
    /// rollout.
    fn shrink_unhealthy(&mut self, removable: i32) -> bool {
        let mut left = removable;
        for at in 0..self.old.len() {
            let set = &self.old[at];
            let unhealthy = (set.replicas() - set.available()).min(left).max(0);
            let size = set.replicas() - unhealthy;
            left -= unhealthy;
            self.resize(Some(at), size);
        }
        left < removable
    }

    /// Takes away old pods as far as enough others serve, from the oldest set first.
    fn shrink_available(&mut self, promised: i32) -> bool {
        let available: i32 = self.sets().map(Set::available).sum();
        let removable = (available - promised).max(0);
        let mut left = removable;
        for at in 0..self.old.len() {
            let set = &self.old[at];
            let fewer = set.replicas().min(left);
            let size = set.replicas() - fewer;
            left -= fewer;
            self.resize(Some(at), size);
        }
        left < removable
    }
}
