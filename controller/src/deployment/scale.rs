//! Changing the deployment's size, also in the middle of a rollout.

use std::cmp::Reverse;

use super::amounts;
use super::rollout::Rollout;
use super::set::{DESIRED_REPLICAS, MAX_REPLICAS, Set};

impl Rollout<'_> {
    /// Distributes the deployment's size over its sets: all to the only one in use, or in proportion to the
    /// sizes that they have in a rollout, so that scaling neither hastens nor hinders it.
    pub(super) fn scale(&mut self) {
        let wanted = amounts::wanted(&self.deployment);
        if let Some(at) = self.only_or_latest() {
            self.resize(at, wanted);
            self.note_sizes();
            return;
        }
        if self.new.as_ref().is_some_and(|new| is_saturated(new, wanted)) {
            for at in 0..self.old.len() {
                self.resize(Some(at), 0);
            }
            return;
        }
        if amounts::recreates(&self.deployment) {
            // The old sets are about to shrink to nothing anyway.
            self.note_sizes();
        } else {
            self.scale_in_proportion();
        }
    }

    /// The only set with a size (`Some(None)` is the new set), or the latest if none has; `None` if several
    /// have.
    fn only_or_latest(&self) -> Option<Option<usize>> {
        let active: Vec<Option<usize>> = self.active();
        match active[..] {
            [] if self.new.is_some() => Some(None),
            [] => self.old.len().checked_sub(1).map(Some),
            [only] => Some(only),
            _ => None,
        }
    }

    fn active(&self) -> Vec<Option<usize>> {
        let old = (0..self.old.len()).filter(|at| self.old[*at].replicas() > 0).map(Some);
        let new = self.new.iter().filter(|new| new.replicas() > 0).map(|_| None);
        old.chain(new).collect()
    }

    fn at(&self, at: Option<usize>) -> Option<&Set> {
        match at {
            Some(at) => self.old.get(at),
            None => self.new.as_ref(),
        }
    }

    /// Notes the deployment's size on all sets in use, so that it does not look scaled again.
    fn note_sizes(&mut self) {
        for set in self.old.iter_mut().chain(&mut self.new).filter(|set| set.replicas() > 0) {
            set.note_size(&self.deployment);
        }
    }

    fn scale_in_proportion(&mut self) {
        let wanted = amounts::wanted(&self.deployment);
        let allowed = if wanted > 0 { wanted + amounts::max_surge(&self.deployment) } else { 0 };
        let to_add = allowed - self.total();
        let mut active = self.active();
        let age = |at: &Option<usize>| self.at(*at).and_then(Set::born);
        let size = |at: &Option<usize>| self.at(*at).map_or(0, Set::replicas);
        // The largest get what remains; among equals a new set grows and an old one shrinks.
        if to_add > 0 {
            active.sort_by_key(|at| (Reverse(size(at)), Reverse(age(at))));
        } else {
            active.sort_by_key(|at| (Reverse(size(at)), age(at)));
        }
        let mut added = 0;
        let mut sizes: Vec<(Option<usize>, i32)> = Vec::with_capacity(active.len());
        for at in active {
            let Some(set) = self.at(at) else { continue };
            let share = self.share(set, to_add, added);
            added += share;
            sizes.push((at, set.replicas() + share));
        }
        if let Some((_, largest)) = sizes.first_mut() {
            *largest = (*largest + to_add - added).max(0);
        }
        for (at, size) in sizes {
            self.resize(at, size);
        }
        self.note_sizes();
    }

    /// The part of `to_add` that falls to `set`, when `added` is given away already.
    fn share(&self, set: &Set, to_add: i32, added: i32) -> i32 {
        if set.replicas() == 0 || to_add == 0 || to_add == added {
            return 0;
        }
        let (share, rest) = (self.growth(set), to_add - added);
        if to_add > 0 { share.min(rest) } else { share.max(rest) }
    }

    /// How much a set would grow if it kept its share of the deployment's maximal size.
    fn growth(&self, set: &Set) -> i32 {
        let wanted = amounts::wanted(&self.deployment);
        if wanted == 0 {
            return -set.replicas();
        }
        let after = i64::from(wanted + amounts::max_surge(&self.deployment));
        let known = set.number(MAX_REPLICAS).filter(|before| *before > 0);
        let reported = || self.deployment.status.as_ref().and_then(|status| status.replicas).map(i64::from);
        let Some(before) = known.or_else(reported).filter(|before| *before > 0) else { return 0 };
        let product = i64::from(set.replicas()) * after;
        let rounded = (2 * product + before) / (2 * before);
        i32::try_from(rounded).unwrap_or(i32::MAX) - set.replicas()
    }
}

/// The set is all of the deployment, and works.
fn is_saturated(set: &Set, wanted: i32) -> bool {
    set.number(DESIRED_REPLICAS) == Some(i64::from(wanted))
        && set.replicas() == wanted
        && set.status().available_replicas.unwrap_or(0) == wanted
}
