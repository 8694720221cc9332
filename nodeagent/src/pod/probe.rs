//! The thresholds of a probe: how many results in a row change its word.

use k8s_openapi::api::core::v1::Probe;

/// One try of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The container answered no, with these words.
    Failure(String),
    /// The probe itself could not be made: says nothing about the container.
    Unknown(String),
}

/// Counts results in a row.
#[derive(Clone, Debug)]
pub struct Counter {
    success_threshold: i32,
    failure_threshold: i32,
    last: Option<bool>,
    run: i32,
}

impl Counter {
    pub fn new(probe: &Probe) -> Self {
        Self {
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
            last: None,
            run: 0,
        }
    }

    /// Counts an outcome; the probe's new word once enough of the same came in a row.
    pub fn observe(&mut self, outcome: &Outcome) -> Option<bool> {
        let success = match outcome {
            Outcome::Success => true,
            Outcome::Failure(_) => false,
            Outcome::Unknown(_) => return None,
        };
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        (self.run >= threshold).then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(success: i32, failure: i32, outcomes: &str) -> String {
        let probe =
            Probe { success_threshold: Some(success), failure_threshold: Some(failure), ..Probe::default() };
        let mut counter = Counter::new(&probe);
        let word = |letter| match counter.observe(&match letter {
            's' => Outcome::Success,
            'f' => Outcome::Failure("no".into()),
            _ => Outcome::Unknown("?".into()),
        }) {
            Some(true) => 'S',
            Some(false) => 'F',
            None => '.',
        };
        outcomes.chars().map(word).collect()
    }

    #[test]
    fn a_probe_changes_its_word_after_enough_results_in_a_row() {
        for (what, success, failure, outcomes, expected) in [
            ("one success is enough by default", 1, 3, "s", "S"),
            ("three failures in a row are needed", 1, 3, "ffsfff", "..S..F"),
            ("several successes may be needed", 2, 3, "sfss", "...S"),
            ("a probe that could not be made does not count", 1, 2, "f?f", "..F"),
        ] {
            assert_eq!(words(success, failure, outcomes), expected, "{what}");
        }
    }
}
