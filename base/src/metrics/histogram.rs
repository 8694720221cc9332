//! A histogram that is written without a lock.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many observations were at most how long.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds in seconds, rising.
    bounds: &'static [f64],
    /// One for each bound, and one for what is beyond. Not cumulative.
    counts: Box<[AtomicU64]>,
    nanos: AtomicU64,
}

impl Histogram {
    /// Nothing observed yet.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            nanos: AtomicU64::new(0),
        }
    }

    /// Counts one observation.
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Adds what another histogram of the same bounds has observed.
    pub fn add(&self, other: &Self) {
        for (to, from) in self.counts.iter().zip(&other.counts) {
            to.fetch_add(from.load(Relaxed), Relaxed);
        }
        self.nanos.fetch_add(other.nanos.load(Relaxed), Relaxed);
    }

    /// How many observations there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Writes buckets, sum and count; `labels` as `a="b",c="d"`, or nothing.
    pub fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (at, count) in self.counts.iter().enumerate() {
            total += count.load(Relaxed);
            // Writing to a String can't fail.
            let _ = match self.bounds.get(at) {
                Some(bound) => {
                    writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{}\"}} {total}", bound_text(*bound))
                }
                None => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}"),
            };
        }
        let sum = self.nanos.load(Relaxed) as f64 / 1e9;
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "{name}_sum{labels} {sum}\n{name}_count{labels} {total}");
    }
}

/// A bound as Go writes it.
fn bound_text(bound: f64) -> String {
    if bound >= 1e-4 {
        return bound.to_string();
    }
    let text = format!("{bound:e}");
    let (digits, exponent) = text.split_once("e-").unwrap_or((&text, "0"));
    format!("{digits}e-{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_bounds_are_written_as_go_does() {
        let texts = [1e-8, 9.999999999999999e-6, 0.005, 1.0, 10.0].map(bound_text);
        assert_eq!(texts, ["1e-08", "9.999999999999999e-06", "0.005", "1", "10"]);
    }

    #[test]
    fn buckets_are_cumulative_and_their_bounds_inclusive() {
        let histogram = Histogram::new(&[0.005, 1.0]);
        for millis in [5, 6, 1000, 5000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut out = String::new();
        histogram.write(&mut out, "x", "verb=\"GET\"");
        let expect = "x_bucket{verb=\"GET\",le=\"0.005\"} 1\nx_bucket{verb=\"GET\",le=\"1\"} 3\n\
                      x_bucket{verb=\"GET\",le=\"+Inf\"} 4\nx_sum{verb=\"GET\"} 6.011\nx_count{verb=\"GET\"} 4\n";
        assert_eq!(out, expect);
    }
}
