//! Finds objects by what a selector pins: the values of some selectable fields, and labels.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{Entry, Selector};

/// Objects that are looked up one by one cost so many times as much as objects that are passed in order.
const LOOKUP: usize = 4;

/// Keys of objects, in order; the text of a key is shared by all places where it is.
type Keys = BTreeSet<Arc<str>>;

/// The keys of objects by what they have.
#[derive(Default)]
pub(super) struct Index {
    /// Number and name of the selectable fields that are indexed.
    indexed: Vec<(usize, &'static str)>,
    fields: Pairs,
    labels: Pairs,
}

/// Name → value → keys.
#[derive(Default)]
struct Pairs(HashMap<Box<str>, HashMap<Box<str>, Keys>>);

impl Index {
    /// Of objects whose selectable fields of these numbers and names are indexed.
    pub(super) fn new(indexed: Vec<(usize, &'static str)>) -> Self {
        Self { indexed, ..Self::default() }
    }

    fn name(&self, number: usize) -> Option<&'static str> {
        self.indexed.iter().find(|(indexed, _)| *indexed == number).map(|(_, name)| *name)
    }

    /// Forgets every object.
    pub(super) fn clear(&mut self) {
        self.fields.0.clear();
        self.labels.0.clear();
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.fields.0.is_empty() && self.labels.0.is_empty()
    }

    /// Takes over that an object, if it was, is no more as it was, and is as it is, if it is. A change of neither fields
    /// nor labels costs a comparison.
    pub(super) fn replace(&mut self, was: Option<&Entry>, is: Option<&Entry>) {
        let Some(key) = is.or(was).map(Entry::shared_key) else { return };
        let indexed = &self.indexed;
        if !fields(indexed, was).eq(fields(indexed, is)) {
            fields(indexed, was).for_each(|pair| self.fields.remove(pair, key));
            fields(indexed, is).for_each(|pair| self.fields.insert(pair, key));
        }
        if !labels(was).eq(labels(is)) {
            labels(was).for_each(|pair| self.labels.remove(pair, key));
            labels(is).for_each(|pair| self.labels.insert(pair, key));
        }
    }

    /// The keys of the objects that have the rarest thing that the selector pins, unless to look at all of `total`
    /// objects is less work. The selector may want more of them than that.
    pub(super) fn narrow(&self, selector: &Selector, total: usize) -> Option<impl Iterator<Item = &str>> {
        let of_fields = selector
            .pinned_fields()
            .filter_map(|(number, value)| Some(self.fields.get(self.name(number)?, value)));
        let of_labels = selector.labels.pinned().map(|(name, value)| self.labels.get(name, value));
        let rarest = of_fields.chain(of_labels).min_by_key(|keys| keys.map_or(0, BTreeSet::len))?;
        let worth = rarest.map_or(0, BTreeSet::len) <= total / LOOKUP;
        worth.then(|| rarest.into_iter().flatten().map(|key| &**key))
    }
}

fn fields<'a>(
    indexed: &'a [(usize, &'static str)],
    entry: Option<&'a Entry>,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let of = move |entry: &'a Entry| indexed.iter().map(move |(number, name)| (*name, entry.field(*number)));
    entry.into_iter().flat_map(of).filter(|(_, value)| !value.is_empty())
}

fn labels(entry: Option<&Entry>) -> impl Iterator<Item = (&str, &str)> {
    entry.into_iter().flat_map(Entry::labels)
}

impl Pairs {
    fn get(&self, name: &str, value: &str) -> Option<&Keys> {
        self.0.get(name)?.get(value)
    }

    fn insert(&mut self, (name, value): (&str, &str), key: &Arc<str>) {
        if let Some(keys) = self.0.get_mut(name).and_then(|values| values.get_mut(value)) {
            keys.insert(key.clone());
            return;
        }
        self.0.entry(name.into()).or_default().entry(value.into()).or_default().insert(key.clone());
    }

    fn remove(&mut self, (name, value): (&str, &str), key: &str) {
        let Some(values) = self.0.get_mut(name) else { return };
        let Some(keys) = values.get_mut(value) else { return };
        keys.remove(key);
        if keys.is_empty() {
            values.remove(value);
        }
        if values.is_empty() {
            self.0.remove(name);
        }
    }
}
