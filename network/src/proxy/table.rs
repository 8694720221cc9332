//! What the kernel's maps hold, and which of their elements change: pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;

use super::model::{Backends, Class, Endpoint, Frontend, MAX_ENDPOINTS, Owner, Refusal, View};
use super::rules::{self, Entry};
use crate::addr::Cidr;
use crate::config::Protocol;

/// All frontends of a node, as wanted and as last handed out.
#[derive(Debug)]
pub struct Table {
    /// Whose addresses can turn out to be a client's own.
    pod_cidr: Cidr,
    owned: HashMap<Owner, BTreeSet<Frontend>>,
    claims: HashMap<Frontend, BTreeMap<Owner, Backends>>,
    programmed: HashMap<Frontend, Programmed>,
    /// In how many places an address of `pod_cidr` is an endpoint.
    hairpins: HashMap<Ipv4Addr, usize>,
    classes: HashSet<Class>,
    touched: BTreeSet<Frontend>,
}

/// What the kernel knows of a frontend.
#[derive(Debug)]
struct Programmed {
    class: Option<Class>,
    refusal: Refusal,
    /// An endpoint keeps its place while it lives, so that few elements change.
    slots: Vec<Endpoint>,
    /// What says where clients may come from.
    sources: Vec<Entry>,
}

/// Elements to add and delete.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub(crate) deleted: Vec<Entry>,
    pub(crate) added: Vec<Entry>,
    /// New classes, whose chains are to be made.
    pub(crate) classes: Vec<Class>,
    /// UDP frontends of which some endpoints went away, or which had none: connections to other endpoints than
    /// these are stale.
    pub(crate) stale: Vec<(Frontend, Vec<Endpoint>)>,
    /// What becomes of clients that stick to an endpoint which went away or got another number.
    pub(crate) reties: Vec<Retie>,
}

/// Clients that stick to one number of a frontend stick to another one from now on, or to none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retie {
    pub(crate) frontend: Frontend,
    pub(crate) old: u32,
    pub(crate) new: Option<u32>,
    pub(crate) seconds: u32,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.deleted.is_empty() && self.added.is_empty()
    }

    /// How many elements are added and deleted.
    pub fn len(&self) -> (usize, usize) {
        (self.added.len(), self.deleted.len())
    }
}

impl Table {
    pub fn new(pod_cidr: Cidr) -> Self {
        Self {
            pod_cidr,
            owned: HashMap::new(),
            claims: HashMap::new(),
            programmed: HashMap::new(),
            hairpins: HashMap::new(),
            classes: HashSet::new(),
            touched: BTreeSet::new(),
        }
    }

    /// All that this owner wants from now on. Takes effect in the next [`Table::changes`].
    pub fn set(&mut self, owner: &Owner, wanted: BTreeMap<Frontend, Backends>) {
        let before = self.owned.remove(owner).unwrap_or_default();
        for frontend in before.iter().filter(|frontend| !wanted.contains_key(frontend)) {
            if let Some(claims) = self.claims.get_mut(frontend) {
                claims.remove(owner);
                if claims.is_empty() {
                    self.claims.remove(frontend);
                }
            }
            self.touched.insert(*frontend);
        }
        if !wanted.is_empty() {
            self.owned.insert(owner.clone(), wanted.keys().copied().collect());
        }
        for (frontend, backends) in wanted {
            let claims = self.claims.entry(frontend).or_default();
            if claims.get(owner) != Some(&backends) {
                claims.insert(owner.clone(), backends);
                self.touched.insert(frontend);
            }
        }
    }

    /// The owners known now.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.owned.keys()
    }

    /// What differs from the last answer.
    pub fn changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        for frontend in std::mem::take(&mut self.touched) {
            self.change(frontend, &mut changes);
        }
        // A connection doesn't tell its view.
        for (frontend, endpoints) in &mut changes.stale {
            for view in [View::All, View::Inside] {
                let other = self.programmed.get(&Frontend { view, ..*frontend });
                endpoints.extend(other.iter().flat_map(|other| &other.slots));
            }
        }
        changes
    }

    /// Everything, as for an empty table.
    pub fn everything(&mut self) -> Changes {
        self.programmed.clear();
        self.hairpins.clear();
        self.classes.clear();
        self.touched = self.claims.keys().copied().collect();
        self.changes()
    }

    fn change(&mut self, frontend: Frontend, changes: &mut Changes) {
        let old = self.programmed.remove(&frontend);
        let winner = self.claims.get(&frontend).and_then(|claims| claims.first_key_value());
        let new = winner.map(|(_, backends)| Programmed {
            class: Class::of(&frontend, backends),
            refusal: backends.when_empty,
            sources: rules::source_entries(&frontend, &backends.sources),
            slots: arrange(old.as_ref().map_or(&[], |old| &old.slots), &backends.endpoints),
        });

        let head = |programmed: &Programmed| match programmed.class {
            Some(class) => Some(rules::class_entry(&frontend, class)),
            None => rules::refusal_entry(&frontend, programmed.refusal),
        };
        let (old_head, new_head) = (old.as_ref().and_then(head), new.as_ref().and_then(head));
        if old_head != new_head {
            changes.deleted.extend(old_head);
            changes.added.extend(new_head);
        }
        let sources = |programmed: &Option<Programmed>| -> Vec<Entry> {
            programmed.as_ref().map(|programmed| programmed.sources.clone()).unwrap_or_default()
        };
        let (old_sources, new_sources) = (sources(&old), sources(&new));
        if old_sources != new_sources {
            changes.deleted.extend(old_sources);
            changes.added.extend(new_sources);
        }
        if let Some(class) = new.as_ref().and_then(|new| new.class)
            && self.classes.insert(class)
        {
            changes.classes.push(class);
        }

        let numbered = |programmed: &Option<Programmed>| -> Vec<(Endpoint, u32)> {
            let Some(programmed) = programmed else { return Vec::new() };
            let Some(class) = programmed.class else { return Vec::new() };
            programmed
                .slots
                .iter()
                .enumerate()
                .map(|(index, endpoint)| (*endpoint, class.slot(index)))
                .collect()
        };
        let (old_slots, new_slots) = (numbered(&old), numbered(&new));
        for index in 0..old_slots.len().max(new_slots.len()) {
            let (before, after) = (old_slots.get(index), new_slots.get(index));
            if before == after {
                continue;
            }
            if let Some((endpoint, slot)) = before {
                changes.deleted.push(rules::endpoint_entry(&frontend, *slot, *endpoint));
                self.count_hairpin(endpoint.address, false, changes);
            }
            if let Some((endpoint, slot)) = after {
                changes.added.push(rules::endpoint_entry(&frontend, *slot, *endpoint));
                self.count_hairpin(endpoint.address, true, changes);
            }
        }

        let now: HashMap<Endpoint, u32> = new_slots.iter().copied().collect();
        let moved = old_slots.iter().filter(|(endpoint, slot)| now.get(endpoint) != Some(slot));
        let was_empty = old_slots.is_empty() && !new_slots.is_empty();
        let removed = old_slots.iter().any(|(endpoint, _)| !now.contains_key(endpoint));
        if frontend.protocol == Protocol::Udp && (removed || was_empty) {
            changes.stale.push((frontend, Vec::new()));
        }
        if old.as_ref().and_then(|old| old.class).is_some_and(|class| class.affinity > 0) {
            let seconds = new.as_ref().and_then(|new| new.class).map_or(0, |class| class.affinity);
            let new_slot = |endpoint| now.get(endpoint).copied().filter(|_| seconds > 0);
            changes.reties.extend(moved.map(|(endpoint, old)| Retie {
                frontend,
                old: *old,
                new: new_slot(endpoint),
                seconds,
            }));
        }
        if let Some(new) = new {
            self.programmed.insert(frontend, new);
        }
    }

    fn count_hairpin(&mut self, address: Ipv4Addr, up: bool, changes: &mut Changes) {
        if !self.pod_cidr.contains(address) {
            return;
        }
        let count = self.hairpins.entry(address).or_default();
        let entry = rules::hairpin_entry(address);
        if up {
            *count += 1;
            if *count == 1 {
                // Deleted earlier in this round: it never goes away.
                match changes.deleted.iter().position(|deleted| *deleted == entry) {
                    Some(position) => drop(changes.deleted.swap_remove(position)),
                    None => changes.added.push(entry),
                }
            }
            return;
        }
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.hairpins.remove(&address);
            match changes.added.iter().position(|added| *added == entry) {
                Some(position) => drop(changes.added.swap_remove(position)),
                None => changes.deleted.push(entry),
            }
        }
    }
}

/// The wanted endpoints in an order that leaves those which stay at their place as far as possible.
fn arrange(before: &[Endpoint], wanted: &[Endpoint]) -> Vec<Endpoint> {
    let wanted = &wanted[..wanted.len().min(MAX_ENDPOINTS)];
    let mut slots: Vec<Option<Endpoint>> = vec![None; wanted.len()];
    let mut unplaced: BTreeSet<Endpoint> = wanted.iter().copied().collect();
    for (slot, endpoint) in slots.iter_mut().zip(before) {
        if unplaced.remove(endpoint) {
            *slot = Some(*endpoint);
        }
    }
    let mut unplaced = unplaced.into_iter();
    slots.into_iter().filter_map(|slot| slot.or_else(|| unplaced.next())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::model::Masquerade;
    use super::*;

    fn frontend(port: u16) -> Frontend {
        Frontend {
            view: View::All,
            address: Some(Ipv4Addr::new(10, 96, 0, 1)),
            protocol: Protocol::Udp,
            port,
        }
    }

    fn backends(last: &[u8]) -> Backends {
        let endpoint = |last: &u8| Endpoint { address: Ipv4Addr::new(10, 244, 0, *last), port: 80 };
        Backends {
            endpoints: last.iter().map(endpoint).collect(),
            masquerade: Masquerade::Never,
            affinity: None,
            when_empty: Refusal::Reject,
            sources: Vec::new(),
        }
    }

    fn owner(name: &str) -> Owner {
        Owner::Service(client::Key::new("default", name))
    }

    fn table() -> Table {
        Table::new("10.244.0.0/24".parse().unwrap())
    }

    fn counts(changes: &Changes) -> (usize, usize) {
        (changes.deleted.len(), changes.added.len())
    }

    #[test]
    fn only_what_changed_is_touched() {
        let mut table = table();
        let a = owner("a");
        table.set(&a, [(frontend(1), backends(&[1, 2, 3]))].into());
        let first = table.changes();
        // One frontend, three endpoints, three addresses that may meet themselves.
        assert_eq!(counts(&first), (0, 7));
        assert_eq!(first.classes.len(), 1);
        assert_eq!(table.changes(), Changes::default());

        table.set(&a, [(frontend(1), backends(&[1, 2, 3, 4]))].into());
        // The frontend's class, the new endpoint and its address.
        assert_eq!(counts(&table.changes()), (1, 3));

        table.set(&a, [(frontend(1), backends(&[2, 3, 4]))].into());
        let changes = table.changes();
        // The class again; the last endpoint moves to the first place.
        assert_eq!(counts(&changes), (4, 2));
        assert!(changes.classes.is_empty());
        assert_eq!(changes.stale.len(), 1);

        table.set(&a, BTreeMap::new());
        assert_eq!(counts(&table.changes()), (7, 0));
        assert_eq!(table.owners().count(), 0);
    }

    #[test]
    fn a_contested_frontend_goes_to_the_first_owner_and_falls_back() {
        let mut table = table();
        table.set(&owner("b"), [(frontend(1), backends(&[1]))].into());
        table.changes();
        table.set(&owner("a"), [(frontend(1), backends(&[2]))].into());
        let changes = table.changes();
        assert!(changes.added.contains(&rules::endpoint_entry(&frontend(1), 0, backends(&[2]).endpoints[0])));
        table.set(&owner("a"), BTreeMap::new());
        let changes = table.changes();
        assert!(changes.added.contains(&rules::endpoint_entry(&frontend(1), 0, backends(&[1]).endpoints[0])));
    }

    #[test]
    fn everything_is_the_sum_of_all_changes() {
        let mut table = table();
        table.set(&owner("a"), [(frontend(1), backends(&[1, 2])), (frontend(2), backends(&[]))].into());
        table.set(&owner("b"), [(frontend(3), backends(&[1]))].into());
        let mut first = table.changes();
        let mut again = table.everything();
        first.added.sort();
        again.added.sort();
        assert_eq!(first.added, again.added);
        assert!(again.deleted.is_empty());
    }

    #[test]
    fn endpoints_that_stay_keep_their_place() {
        let endpoints = |last: &[u8]| backends(last).endpoints;
        assert_eq!(arrange(&endpoints(&[1, 2, 3]), &endpoints(&[1, 3])), endpoints(&[1, 3]));
        assert_eq!(arrange(&endpoints(&[1, 2, 3]), &endpoints(&[2, 3, 4])), endpoints(&[4, 2, 3]));
        assert_eq!(arrange(&[], &endpoints(&[5, 6])), endpoints(&[5, 6]));
    }
}
