//! Remembers which owners are gone, so that not each of their dependents has to ask the API.

use std::collections::{HashSet, VecDeque};

/// How many are remembered; what was forgotten is asked for again.
const MOST: usize = 1000;

/// Owners that are certainly gone. A UID is never used again, so this knowledge does not age; but it holds only
/// for the place where the owner was looked for.
#[derive(Default)]
pub(super) struct Absent {
    known: HashSet<String>,
    order: VecDeque<String>,
}

/// Kind, namespace and name.
type Place<'a> = (usize, &'a str, &'a str);

impl Absent {
    pub(super) fn insert(&mut self, place: Place<'_>, uid: &str) {
        let entry = entry(place, uid);
        if self.known.insert(entry.clone()) {
            self.order.push_back(entry);
            if self.order.len() > MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }

    pub(super) fn contains(&self, place: Place<'_>, uid: &str) -> bool {
        self.known.contains(&entry(place, uid))
    }
}

fn entry((kind, namespace, name): Place<'_>, uid: &str) -> String {
    format!("{kind}/{namespace}/{name}/{uid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_the_place_counts() {
        let mut absent = Absent::default();
        for number in 0..=MOST {
            absent.insert((1, "default", "web"), &number.to_string());
        }
        assert!(!absent.contains((1, "default", "web"), "0"));
        assert!(absent.contains((1, "default", "web"), "1"));
        assert!(!absent.contains((1, "other", "web"), "1"));
        assert_eq!(absent.known.len(), MOST);
    }
}
