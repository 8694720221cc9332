//! What long lists cost: twice the items, twice the time, whatever list of whatever kind it is.
//!
//! The time is that of the processor for this thread. Each list is measured short and long; what grows as the square of
//! the length can't be taken for what grows with the length, if it is long enough to be measured at all.
//!
//! There are some hundred lists: a usual run looks at one of every [`SHARE`], `SIZES=text` at all whose kind and name have
//! the text in them, `SIZES=` at all. That takes minutes.

use std::collections::HashSet;

use api::apply::{self, Managed, OneVersion, Set, Target, Write};
use api::object::Object;
use api::patch::strategic;
use api::resource::{Action, Resource, Table};
use api::schema::decode;
use api::status::Status;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value, json};

use crate::filled::{Items, Place, fill, places};
use crate::sample::Sample;

/// How many times as many items a long list has as a short one.
const TIMES: usize = 4;
/// How many times as long a long list may take; its square is 16.
const MOST: u64 = 8;
/// What takes less nanoseconds than this is not looked at: the kernel counts in ticks of some milliseconds.
const NOTHING: u64 = 40_000_000;
/// As many bytes may be said of anything, whatever it is.
const TALK: u64 = 8_000_000;
/// An item that takes no more nanoseconds than this is no part of a square: what is compared so often costs more.
const CHEAP: u64 = if cfg!(debug_assertions) { 60_000 } else { 4_000 };

/// A usual run looks at one of so many lists.
const SHARE: usize = 16;

/// The steps that an object goes through.
const STEPS: [&str; 4] = ["decode", "check", "apply", "patch"];

/// The time of the processor that this thread has used, in nanoseconds.
fn now() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// What an object cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// The time of each step.
    time: [u64; STEPS.len()],
    /// The bytes of all that was said of it.
    said: u64,
}

impl Cost {
    fn least(self, other: Self) -> Self {
        let mut time = self.time;
        time.iter_mut().zip(other.time).for_each(|(a, b)| *a = b.min(*a));
        Self { time, said: self.said }
    }

    /// Whether nothing can be wrong with so many items.
    fn is_cheap(self, count: usize) -> bool {
        let count = count as u64;
        self.time.iter().all(|time| *time < NOTHING.max(CHEAP * count)) && self.said < TALK
    }

    /// What grew too much from a short list to a long one.
    fn excess(short: Self, long: Self) -> Vec<String> {
        let mut found = Vec::new();
        for ((step, short), long) in STEPS.iter().zip(short.time).zip(long.time) {
            if long > MOST * short.max(NOTHING / (2 * MOST)) && long > NOTHING {
                found.push(format!("{step}: {} µs became {} µs", short / 1000, long / 1000));
            }
        }
        if long.said > MOST * short.said && long.said > TALK {
            found.push(format!("{} bytes of words became {}", short.said, long.said));
        }
        found
    }
}

/// What is said of an object as it is created, shown and changed.
fn check(row: &Resource, mut object: Box<dyn Object>) -> u64 {
    let rules = &row.rules;
    let now = Timestamp::default();
    let mut said = 0;
    let mut hear = |errors: &api::field::Errors| {
        said += Status::invalid("", "", "", errors).to_bytes().len() as u64;
    };
    rules.set_defaults(&mut *object);
    let given = object.clone();
    rules.prepare_create(&mut *object);
    rules.stamp(&mut *object, None, now);
    hear(&rules.validate(&*object));
    let mut words = rules.warnings(&*object, None);
    rules.cells(&*object, now);
    rules.fields(&*object);
    rules.grace_period(&*object, None);
    object.metadata_mut().resource_version = Some("1".to_owned());
    let old = object.clone();
    // What a client sends, beside what is stored.
    let new = || {
        let mut new = given.clone();
        new.metadata_mut().resource_version = Some("1".to_owned());
        new
    };
    let mut updated = new();
    rules.prepare_update(&mut *updated, &*old);
    hear(&rules.validate_update(&*updated, &*old));
    words.extend(rules.warnings(&*updated, Some(&*old)));
    // The stored object has the status that is sent, as if it had been sent before.
    for stored in [&old, &given] {
        let mut updated = new();
        rules.prepare_status(&mut *updated, &**stored);
        rules.stamp(&mut *updated, Some(&**stored), now);
        hear(&rules.validate_status(&*updated, &**stored));
    }
    for part in row.subresources.iter().filter(|part| part.action == Action::Change) {
        let mut updated = new();
        rules.prepare_subresource(&part.name, &mut *updated, &*old);
        hear(&rules.validate_subresource(&part.name, &*updated, &*old));
    }
    said + words.iter().map(|word| word.len() as u64).sum::<u64>()
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// Server-side apply of an object to nothing, to itself, and without its last items by the same manager.
fn apply(row: &Resource, object: &Value) {
    let gvk = row.gvk();
    let version = gvk.api_version();
    let versions = OneVersion { ty: &row.schema, version: &version };
    let target = Target { gvk: &gvk, ty: &row.schema, versions: &versions };
    let reset = Set::default();
    let write = |manager| Write {
        manager,
        version: &version,
        subresource: "",
        reset: &reset,
        now: Time(Timestamp::default()),
    };
    let nothing = Value::Object(Map::new());
    let Ok((live, managed)) = apply::apply(target, &write("a"), &nothing, object, Managed::default(), false)
    else {
        return;
    };
    let Ok((live, managed)) = apply::apply(target, &write("b"), &live, object, managed, true) else { return };
    let less = json!({"apiVersion": version, "kind": gvk.kind, "metadata": object["metadata"]});
    drop(apply::apply(target, &write("a"), &live, &less, managed, true));
}

/// The strategic patches from nothing to an object and back, made and applied.
fn patch(row: &Resource, object: &Value, less: &Value) {
    for (from, to) in [(less, object), (object, less)] {
        let Ok(patch) = strategic::diff(&row.schema, &map(from), &map(to)) else { continue };
        drop(strategic::apply(&row.schema, from.clone(), patch));
        drop(strategic::three_way(&row.schema, &map(from), &map(to), &map(from), false));
    }
    drop(strategic::apply(&row.schema, object.clone(), map(object)));
}

/// What an object costs; with `forms`, also as it is applied and patched.
fn cost(row: &Resource, object: Value, less: Option<Value>) -> Cost {
    let mut cost = Cost::default();
    if let Some(less) = less {
        let start = now();
        let text = object.to_string();
        let decoded = decode::decode(&row.schema, text.as_bytes());
        cost.time[0] = now() - start;
        let value = decoded.unwrap_or_else(|error| panic!("{}: {error}", row.kind)).value;
        let start = now();
        apply(row, &value);
        cost.time[2] = now() - start;
        let start = now();
        patch(row, &value, &less);
        cost.time[3] = now() - start;
    }
    let Ok(typed) = row.rules.decode(object) else { return cost };
    let start = now();
    cost.said = check(row, typed);
    cost.time[1] = now() - start;
    cost
}

/// What is wrong with how the cost of these places grows.
fn growth(row: &Resource, sample: &Sample, places: &[&Place], items: Items) -> Vec<String> {
    // Lists whose items are told apart are looked at item by item by what applies and patches them.
    let forms = items == Items::Distinct && places.iter().any(|place| place.is_keyed());
    let count = match items {
        Items::Distinct => 2000,
        // Of these it is looked at what is said.
        Items::Same | Items::Bad => 800,
    };
    let of = |count: usize| {
        let object = fill(row, sample, places, count, items);
        let less = forms.then(|| fill(row, sample, places, count / 2, items));
        cost(row, object, less)
    };
    let mut long = of(count);
    if long.is_cheap(count) {
        return Vec::new();
    }
    let mut short = of(count / TIMES);
    // Something else may have been in the way: what is measured again is at least as true.
    for _ in 0..3 {
        if Cost::excess(short, long).is_empty() {
            return Vec::new();
        }
        (short, long) = (short.least(of(count / TIMES)), long.least(of(count)));
    }
    let names: Vec<String> = places.iter().map(|place| place.name()).collect();
    let what =
        |excess| format!("{} {} {} ({items:?}): {excess}", row.api_version(), row.kind, names.join(" and "));
    Cost::excess(short, long).into_iter().map(what).collect()
}

/// The kinds with a sample; pods first, so that templates of pods need not be looked at again.
fn kinds(samples: &[Sample]) -> Vec<(std::sync::Arc<Resource>, &Sample)> {
    let table = Table::builtin();
    let is_of =
        |row: &Resource, sample: &Sample| sample.kind() == format!("{} {}", row.api_version(), row.kind);
    let mut kinds: Vec<_> = table
        .rows()
        .iter()
        .filter_map(|row| Some((row.clone(), samples.iter().find(|sample| is_of(row, sample))?)))
        .collect();
    kinds.sort_by_key(|(row, _)| row.plural != "pods");
    kinds
}

#[test]
fn a_long_list_of_any_kind_costs_in_proportion_to_its_length() {
    let samples = Sample::all();
    let mut seen = HashSet::new();
    let (mut faults, mut count) = (Vec::new(), 0);
    let wanted = std::env::var("SIZES").ok();
    for (row, sample) in kinds(&samples) {
        let places = places(&row, &mut seen);
        for (i, place) in places.iter().enumerate() {
            count += 1;
            let named = format!("{} {}", row.kind, place.name());
            if !wanted.as_ref().map_or(count % SHARE == 0, |text| named.contains(text)) {
                continue;
            }
            let start = now();
            for items in [Items::Distinct, Items::Same, Items::Bad] {
                faults.extend(growth(&row, sample, &[place], items));
            }
            // Lists of one value may be looked up in one another.
            let beside: Vec<&Place> = places.iter().filter(|other| other.is_beside(place)).collect();
            let is_first = !places[..i].iter().any(|other| other.is_beside(place));
            if beside.len() > 1 && is_first {
                faults.extend(growth(&row, sample, &beside, Items::Distinct));
            }
            println!("{named}: {} ms", (now() - start) / 1_000_000);
        }
    }
    assert!(count > 300, "{count} lists");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
