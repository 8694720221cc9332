//! What the queues count, under upstream's names.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use base::Clock;
use base::metrics::{Histogram, Text, escaped};

use super::queue::{Figures, WorkQueue};

/// Upstream's bounds, in seconds; powers of ten, as Go multiplies them.
const BOUNDS: &[f64] =
    &[1e-8, 1e-7, 1e-6, 9.999999999999999e-6, 9.999999999999999e-5, 0.001, 0.01, 0.1, 1.0, 10.0];

/// What one queue has counted.
#[derive(Debug)]
pub(super) struct Counters {
    /// Keys that were added and were not there already.
    pub(super) adds: AtomicU64,
    /// Keys that were to be looked at later, be it after a failure.
    pub(super) retries: AtomicU64,
    /// How long keys waited for a worker.
    pub(super) waited: Histogram,
    /// How long workers held them.
    pub(super) worked: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        let (adds, retries) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { adds, retries, waited: Histogram::new(BOUNDS), worked: Histogram::new(BOUNDS) }
    }
}

/// The queues of a process by name. Controllers that begin again, with new queues, go on counting.
#[derive(Clone, Debug, Default)]
pub struct Queues(Arc<Mutex<BTreeMap<String, (Arc<Counters>, Weak<WorkQueue>)>>>);

impl Queues {
    /// A new queue of this name.
    pub fn queue(&self, name: &str, clock: &Clock) -> Arc<WorkQueue> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (counters, latest) = queues.entry(name.to_owned()).or_default();
        let queue = Arc::new(WorkQueue::new(clock.clone(), counters.clone()));
        *latest = Arc::downgrade(&queue);
        queue
    }

    /// Writes what they have counted, and how they are.
    pub fn write(&self, text: &mut Text) {
        let queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<(String, &Counters, Figures)> = queues
            .iter()
            .map(|(name, (counters, queue))| {
                let figures = queue.upgrade().map(|queue| queue.figures()).unwrap_or_default();
                (format!("name=\"{}\"", escaped(name)), &**counters, figures)
            })
            .collect();
        if all.is_empty() {
            return;
        }
        let name = "workqueue_adds_total";
        text.metric(name, "counter", "Total number of adds handled by workqueue");
        for (labels, counters, _) in &all {
            text.sample(name, labels, counters.adds.load(Relaxed));
        }
        let name = "workqueue_depth";
        text.metric(name, "gauge", "Current depth of workqueue");
        for (labels, _, figures) in &all {
            text.sample(name, labels, figures.depth);
        }
        let name = "workqueue_longest_running_processor_seconds";
        let help = "How many seconds has the longest running processor for workqueue been running.";
        text.metric(name, "gauge", help);
        for (labels, _, figures) in &all {
            text.sample(name, labels, figures.longest.as_secs_f64());
        }
        let name = "workqueue_queue_duration_seconds";
        let help = "How long in seconds an item stays in workqueue before being requested.";
        text.metric(name, "histogram", help);
        for (labels, counters, _) in &all {
            counters.waited.write(&mut text.0, name, labels);
        }
        let name = "workqueue_retries_total";
        text.metric(name, "counter", "Total number of retries handled by workqueue");
        for (labels, counters, _) in &all {
            text.sample(name, labels, counters.retries.load(Relaxed));
        }
        let name = "workqueue_unfinished_work_seconds";
        let help = "How many seconds of work has done that is in progress and hasn't been observed by work_duration. \
                    Large values indicate stuck threads. One can deduce the number of stuck threads by observing the \
                    rate at which this increases.";
        text.metric(name, "gauge", help);
        for (labels, _, figures) in &all {
            text.sample(name, labels, figures.unfinished.as_secs_f64());
        }
        let name = "workqueue_work_duration_seconds";
        text.metric(name, "histogram", "How long in seconds processing an item from workqueue takes.");
        for (labels, counters, _) in &all {
            counters.worked.write(&mut text.0, name, labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use client::Key;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_queue_tells_how_much_it_has_and_how_long_that_takes() {
        let (queues, clock) = (Queues::default(), Clock::system());
        let key = |name: &str| Key::new("default", name);
        let sample = |name: &str| {
            let mut text = Text::default();
            queues.write(&mut text);
            let begin = format!("{name} ");
            let found = text.0.lines().find_map(|line| line.strip_prefix(&begin).map(str::to_owned));
            found.unwrap_or_else(|| panic!("no {name} in {}", text.0))
        };
        let queue = queues.queue("q", &clock);
        for name in ["a", "b", "a"] {
            queue.add(key(name));
        }
        clock.wait(Duration::from_secs(2)).await;
        let held = queue.take().await;
        clock.wait(Duration::from_secs(3)).await;
        for (name, value) in [
            ("workqueue_adds_total{name=\"q\"}", "2"),
            ("workqueue_depth{name=\"q\"}", "1"),
            ("workqueue_unfinished_work_seconds{name=\"q\"}", "3"),
            ("workqueue_longest_running_processor_seconds{name=\"q\"}", "3"),
            ("workqueue_queue_duration_seconds_sum{name=\"q\"}", "2"),
            ("workqueue_work_duration_seconds_count{name=\"q\"}", "0"),
        ] {
            assert_eq!(sample(name), value, "{name}");
        }
        queue.failed(&held);
        for (name, value) in [
            ("workqueue_retries_total{name=\"q\"}", "1"),
            ("workqueue_unfinished_work_seconds{name=\"q\"}", "0"),
            ("workqueue_work_duration_seconds_sum{name=\"q\"}", "3"),
            ("workqueue_work_duration_seconds_bucket{name=\"q\",le=\"1e-08\"}", "0"),
            ("workqueue_work_duration_seconds_bucket{name=\"q\",le=\"10\"}", "1"),
        ] {
            assert_eq!(sample(name), value, "{name}");
        }
        drop(queue);
        assert_eq!(sample("workqueue_depth{name=\"q\"}"), "0", "nobody looks at what was in it");
        queues.queue("q", &clock).add(key("c"));
        assert_eq!(sample("workqueue_adds_total{name=\"q\"}"), "3", "the next one goes on counting");
    }
}
