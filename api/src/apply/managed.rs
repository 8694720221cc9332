//! Who owns which fields: the entries of `metadata.managedFields`.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use serde_json::Value;

use super::set::Set;

/// So many managers that update are kept apart; older ones are put together.
const MOST_UPDATERS: usize = 10;
/// The manager of what many old updates wrote.
const ANCIENT: &str = "ancient-changes";
const TYPE: &str = "FieldsV1";

/// How a manager came to own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    /// How entries name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who owns fields: by name, by what it does, and through which part of the object. One that updates has an entry for
/// each version; one that applies has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    pub name: String,
    pub operation: Operation,
    pub version: String,
    pub subresource: String,
}

/// What tells managers apart: name, operation, part of the object, and the version of an update.
pub(super) type Identity<'a> = (&'a str, Operation, &'a str, &'a str);

impl Manager {
    /// Whether both are the same one.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// What tells managers apart.
    pub(super) fn identity(&self) -> Identity<'_> {
        let version = if self.operation == Operation::Apply { "" } else { self.version.as_str() };
        (&self.name, self.operation, &self.subresource, version)
    }

    fn order(&self, other: &Self) -> Ordering {
        let by_name = self.name.cmp(&other.name).then_with(|| self.operation.cmp(&other.operation));
        by_name
            .then_with(|| self.version.cmp(&other.version))
            .then_with(|| self.subresource.cmp(&other.subresource))
    }

    /// As messages about conflicts show it.
    pub(super) fn show(&self) -> String {
        let mut shown = crate::field::quote(&self.name);
        if !self.subresource.is_empty() {
            shown += &format!(" with subresource {}", crate::field::quote(&self.subresource));
        }
        if self.operation == Operation::Update {
            shown += &format!(" using {}", self.version);
        }
        shown
    }
}

/// What one manager owns.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) manager: Manager,
    pub(super) time: Option<Time>,
    pub(super) set: Set,
}

/// Who owns which fields of an object.
#[derive(Clone, Debug, Default)]
pub struct Managed {
    pub(super) entries: Vec<Entry>,
}

/// Entries that somebody wrote are none; what is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadEntries(String);

impl Managed {
    /// Takes entries that this module wrote before.
    pub fn stored(entries: Option<Vec<ManagedFieldsEntry>>) -> Self {
        Self::take(entries.unwrap_or_default(), |value| Ok(Set::trusted(value))).unwrap_or_default()
    }

    /// Reads entries that somebody else wrote.
    pub fn read(entries: Vec<ManagedFieldsEntry>) -> Result<Self, BadEntries> {
        Self::take(entries, |value| Set::read(&value).map_err(|bad| bad.to_string()))
    }

    fn take(
        entries: Vec<ManagedFieldsEntry>,
        set: impl Fn(Value) -> Result<Set, String>,
    ) -> Result<Self, BadEntries> {
        let mut managed = Self { entries: Vec::with_capacity(entries.len()) };
        for (i, entry) in entries.into_iter().enumerate() {
            let operation = match entry.operation.as_deref() {
                Some("Apply") => Operation::Apply,
                Some("Update") => Operation::Update,
                _ => return Err(BadEntries("operation must be `Apply` or `Update`".to_owned())),
            };
            let version = entry.api_version.unwrap_or_default();
            if version.is_empty() {
                return Err(BadEntries("apiVersion must not be empty".to_owned()));
            }
            match entry.fields_type.as_deref().unwrap_or_default() {
                TYPE => {}
                "" => return Err(BadEntries(format!("missing fieldsType in managed fields entry {i}"))),
                other => {
                    let other = crate::field::quote(other);
                    return Err(BadEntries(format!(
                        "invalid fieldsType {other} in managed fields entry {i}"
                    )));
                }
            }
            let manager = Manager {
                name: entry.manager.unwrap_or_default(),
                operation,
                version,
                subresource: entry.subresource.unwrap_or_default(),
            };
            let fields =
                entry.fields_v1.map_or_else(|| Value::Object(serde_json::Map::new()), |fields| fields.0);
            let set =
                set(fields).map_err(|why| BadEntries(format!("error decoding versioned set: {why}")))?;
            managed.entries.push(Entry { manager, time: entry.time, set });
        }
        // Of several entries of one manager the last counts.
        let mut seen = HashSet::new();
        let last: Vec<bool> =
            managed.entries.iter().rev().map(|entry| seen.insert(entry.manager.identity())).collect();
        let mut last = last.into_iter().rev();
        managed.entries.retain(|_| last.next().unwrap_or_default());
        Ok(managed)
    }

    /// The entries as they are stored, in upstream's order; None for none.
    pub fn into_entries(mut self) -> Option<Vec<ManagedFieldsEntry>> {
        self.entries.sort_by(|a, b| {
            let by_operation = a.manager.operation.cmp(&b.manager.operation);
            by_operation
                .then_with(|| seconds(a).cmp(&seconds(b)))
                .then_with(|| a.manager.name.cmp(&b.manager.name))
                .then_with(|| a.manager.version.cmp(&b.manager.version))
                .then_with(|| a.manager.subresource.cmp(&b.manager.subresource))
        });
        if self.entries.is_empty() {
            return None;
        }
        let entries = self.entries.into_iter().map(|entry| ManagedFieldsEntry {
            api_version: Some(entry.manager.version),
            fields_type: Some(TYPE.to_owned()),
            fields_v1: Some(FieldsV1(entry.set.into_value())),
            manager: Some(entry.manager.name).filter(|name| !name.is_empty()),
            operation: Some(entry.manager.operation.name().to_owned()),
            subresource: Some(entry.manager.subresource).filter(|subresource| !subresource.is_empty()),
            time: entry.time,
        });
        Some(entries.collect())
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Gives what the managers that updated this field own to a manager that applies: a client that applied by its own
    /// means goes over to apply on the server. False if there is nothing to give.
    pub fn hand_over(&mut self, field: &[&str], to: &str) -> bool {
        let gives = |entry: &Entry| {
            let manager = &entry.manager;
            manager.operation == Operation::Update && manager.subresource.is_empty() && entry.set.has(field)
        };
        let (given, kept): (Vec<Entry>, Vec<Entry>) =
            std::mem::take(&mut self.entries).into_iter().partition(gives);
        self.entries = kept;
        let any = !given.is_empty();
        let given = given.into_iter().map(|mut entry| {
            entry.manager.operation = Operation::Apply;
            to.clone_into(&mut entry.manager.name);
            entry
        });
        self.join(given.collect());
        any
    }

    /// Adds entries; what is known of their managers and what is added becomes one.
    fn join(&mut self, entries: Vec<Entry>) {
        let owned = |manager: &Manager| -> (String, Operation, String, String) {
            let (name, operation, subresource, version) = manager.identity();
            (name.to_owned(), operation, subresource.to_owned(), version.to_owned())
        };
        let mut places: HashMap<_, usize> = HashMap::with_capacity(self.entries.len());
        for (i, entry) in self.entries.iter().enumerate() {
            places.entry(owned(&entry.manager)).or_insert(i);
        }
        for entry in entries {
            let place = *places.entry(owned(&entry.manager)).or_insert(self.entries.len());
            match self.entries.get_mut(place) {
                Some(same) => same.set.add(&entry.set),
                None => self.entries.push(entry),
            }
        }
    }

    pub(super) fn get(&self, manager: &Manager) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.manager.is(manager))
    }

    pub(super) fn get_mut(&mut self, manager: &Manager) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.manager.is(manager))
    }

    /// Drops the managers that own nothing.
    pub(super) fn tidy(&mut self) {
        self.entries.retain(|entry| !entry.set.is_empty());
    }

    /// Puts the oldest of too many updates of one version together under one name.
    pub(super) fn cap(&mut self) {
        let is_update = |entry: &Entry| entry.manager.operation == Operation::Update;
        let mut count = self.entries.iter().filter(|entry| is_update(entry)).count();
        if count <= MOST_UPDATERS {
            return;
        }
        let (mut updates, others): (Vec<Entry>, Vec<Entry>) =
            std::mem::take(&mut self.entries).into_iter().partition(is_update);
        updates.sort_by(|a, b| seconds(a).cmp(&seconds(b)).then_with(|| a.manager.order(&b.manager)));
        let mut kept: Vec<Entry> = Vec::with_capacity(MOST_UPDATERS);
        let mut first_of: HashMap<String, usize> = HashMap::new();
        for entry in updates {
            // The first one of a version only lends its place: it is put together with the next, if there is one.
            let place = first_of.get(&entry.manager.version).copied();
            match place.filter(|_| count > MOST_UPDATERS) {
                Some(place) => {
                    let bucket = &mut kept[place];
                    bucket.manager.name = ANCIENT.to_owned();
                    bucket.manager.subresource.clear();
                    bucket.set.add(&entry.set);
                    bucket.time = entry.time;
                    count -= 1;
                }
                None => {
                    first_of.entry(entry.manager.version.clone()).or_insert(kept.len());
                    kept.push(entry);
                }
            }
        }
        self.entries = others;
        // An older name for old updates may have been among them.
        self.join(kept);
    }
}

fn seconds(entry: &Entry) -> i64 {
    entry.time.as_ref().map_or(0, |time| time.0.as_second())
}

/// Whether two lists of entries differ in nothing but their times.
pub fn same_but_times(a: Option<&[ManagedFieldsEntry]>, b: Option<&[ManagedFieldsEntry]>) -> bool {
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            (&a.manager, &a.operation, &a.api_version, &a.subresource, &a.fields_type, &a.fields_v1)
                == (&b.manager, &b.operation, &b.api_version, &b.subresource, &b.fields_type, &b.fields_v1)
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entries(value: Value) -> Vec<ManagedFieldsEntry> {
        serde_json::from_value(value).expect("entries")
    }

    #[test]
    fn entries_are_read_and_written_in_upstreams_order() {
        let entry = |manager: &str, operation: &str, time: &str, subresource: Option<&str>| {
            let mut entry = json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": time,
                "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}});
            if let Some(subresource) = subresource {
                entry["subresource"] = subresource.into();
            }
            entry
        };
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
        let sorted = json!([
            entry("z", "Apply", early, None),
            entry("a", "Apply", late, None),
            entry("z", "Update", early, None),
            entry("a", "Update", late, None),
            entry("a", "Update", late, Some("status")),
        ]);
        let mut given = entries(sorted.clone());
        given.reverse();
        let written = Managed::read(given).expect("good").into_entries().expect("some");
        assert_eq!(serde_json::to_value(written).expect("JSON"), sorted);
    }

    #[test]
    fn bad_entries_are_told() {
        for (entry, expect) in [
            (json!({}), "operation must be `Apply` or `Update`"),
            (json!({"operation": "Apply"}), "apiVersion must not be empty"),
            (
                json!({"operation": "Apply", "apiVersion": "v1"}),
                "missing fieldsType in managed fields entry 0",
            ),
            (
                json!({"operation": "Apply", "apiVersion": "v1", "fieldsType": "x"}),
                "invalid fieldsType \"x\" in managed fields entry 0",
            ),
        ] {
            assert_eq!(Managed::read(entries(json!([entry]))).expect_err("bad").to_string(), expect);
        }
        let bad = json!([{"operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"a": {}}}]);
        assert!(Managed::read(entries(bad)).is_err());
    }

    #[test]
    fn what_a_client_applied_by_its_own_means_is_handed_over() {
        let annotation = &["metadata", "annotations", "x"][..];
        let entry = |manager: &str, operation: &str, fields: Value| {
            json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1",
                "fieldsV1": fields})
        };
        let own = json!({"f:metadata": {"f:annotations": {"f:x": {}}}, "f:data": {"f:a": {}}});
        let both = json!([
            entry("new", "Apply", json!({"f:data": {"f:b": {}}})),
            entry("old", "Update", own.clone()),
            entry("other", "Update", json!({"f:data": {"f:c": {}}})),
        ]);
        let mut managed = Managed::read(entries(both)).expect("good");
        assert!(managed.hand_over(annotation, "new"));
        let names: Vec<&str> = managed.entries.iter().map(|entry| entry.manager.name.as_str()).collect();
        assert_eq!(names, ["new", "other"]);
        assert_eq!(managed.entries[0].set.paths(), [".data.a", ".data.b", ".metadata.annotations.x"]);
        assert!(!managed.hand_over(annotation, "new"));
    }

    #[test]
    fn many_updates_are_put_together() {
        let mut managed = Managed::default();
        for i in 0..13_i64 {
            let manager = Manager {
                name: format!("m{i:02}"),
                operation: Operation::Update,
                version: if i == 1 { "v2" } else { "v1" }.to_owned(),
                subresource: String::new(),
            };
            let time = jiff::Timestamp::from_second(i).ok().map(Time);
            managed.entries.push(Entry { manager, time, set: Set::of(&[&[&format!("x{i:02}")]]) });
        }
        managed.cap();
        let names: Vec<String> = managed.entries.iter().map(|entry| entry.manager.name.clone()).collect();
        assert_eq!(names, ["ancient-changes", "m01", "m05", "m06", "m07", "m08", "m09", "m10", "m11", "m12"]);
        let bucket = &managed.entries[0];
        assert_eq!(bucket.set.paths(), [".x00", ".x02", ".x03", ".x04"]);
        assert_eq!(seconds(bucket), 4);
        managed.cap();
        assert_eq!(managed.entries.len(), 10);
    }
}
