//! The queue of pending pods.
//!
//! ```text
//!            add                      pop
//!   ──────────────► active ──────────────────► being decided
//!      ▲  gate      ▲    ▲                          │ rejected
//!      │ lifted     │    │ its backoff is over      ▼
//!    gated          │    └──── backing off ◄─── an event that could help ◄── unschedulable
//!                   └──────────────────────── (no backoff left) ◄──────────────┘
//! ```
//!
//! Pods leave in order of priority, then of age in the queue. A pod that failed waits until something changes
//! that one of the plugins that rejected it cares about, and for at least its backoff: 1 s doubling to 10 s.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::framework::ClusterEvent;
use super::plugins::PLUGINS;
use super::types::{PodKey, PodSpec};

const BACKOFF_START: Duration = Duration::from_secs(1);
const BACKOFF_LIMIT: Duration = Duration::from_secs(10);
/// A pod is tried again after this time even if nothing seems to have changed (upstream's safety net).
const UNSCHEDULABLE_LIMIT: Duration = Duration::from_secs(300);

/// Time since an arbitrary start.
pub type Now = Duration;

/// A pod with its history in the queue.
#[derive(Clone, Debug)]
pub struct QueuedPod {
    pub pod: Arc<PodSpec>,
    /// How often it was decided on.
    pub attempts: u32,
    /// When it came into the queue first.
    pub since: Now,
    /// The plugins that rejected it last time.
    rejected_by: BTreeSet<&'static str>,
    /// When it was put back last.
    returned: Now,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    BackingOff,
    Unschedulable,
    Gated,
}

type Order = (Reverse<i32>, Now, u64);

/// Pods that wait for a node.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<PodKey, (QueuedPod, Place, Order)>,
    active: BTreeMap<Order, PodKey>,
    backing_off: BTreeSet<(Now, PodKey)>,
    unschedulable: BTreeSet<(Now, PodKey)>,
    sequence: u64,
}

impl Queue {
    /// Takes a new pod, or the new state of one that waits. A changed pod is tried again.
    pub fn add(&mut self, pod: Arc<PodSpec>, now: Now) {
        let key = pod.key();
        let known = self.take(&key);
        let mut entry = match known {
            Some((old, _)) if old.pod.uid == pod.uid => QueuedPod { pod, ..old },
            _ => QueuedPod { pod, attempts: 0, since: now, rejected_by: BTreeSet::new(), returned: now },
        };
        if is_gated(&entry.pod) {
            self.put(entry, Place::Gated, now);
            return;
        }
        entry.rejected_by.clear();
        self.put_when_ready(entry, now);
    }

    /// Forgets a pod: it is gone, or bound.
    pub fn remove(&mut self, key: &PodKey) {
        self.take(key);
    }

    /// The next pod to decide on. It must come back by [`Queue::rejected`] or [`Queue::failed`], or is done.
    pub fn pop(&mut self, now: Now) -> Option<QueuedPod> {
        self.wake(now);
        let (_, key) = self.active.first_key_value()?;
        let key = key.clone();
        let (mut pod, _) = self.take(&key)?;
        pod.attempts += 1;
        Some(pod)
    }

    /// Puts a pod back that no node can run, until something changes for one of these plugins.
    pub fn rejected(&mut self, mut pod: QueuedPod, by: BTreeSet<&'static str>, now: Now) {
        pod.rejected_by = by;
        pod.returned = now;
        self.put_back(pod, Place::Unschedulable, now);
    }

    /// Puts a pod back whose binding failed; it is tried again after its backoff.
    pub fn failed(&mut self, mut pod: QueuedPod, now: Now) {
        pod.returned = now;
        self.put_back(pod, Place::BackingOff, now);
    }

    /// Moves the pods that this event could help.
    pub fn on_event(&mut self, event: ClusterEvent, now: Now) {
        let helped: Vec<PodKey> =
            self.unschedulable
                .iter()
                .filter(|(_, key)| {
                    self.pods.get(key).is_some_and(|(pod, ..)| {
                        PLUGINS.iter().any(|plugin| {
                            plugin.events.contains(&event) && pod.rejected_by.contains(plugin.name)
                        }) || pod.rejected_by.is_empty()
                    })
                })
                .map(|(_, key)| key.clone())
                .collect();
        for key in helped {
            if let Some((pod, _)) = self.take(&key) {
                self.put_when_ready(pod, now);
            }
        }
    }

    /// When [`Queue::pop`] may have something that it has not now; `None` if only an event can help.
    pub fn next_wake(&self) -> Option<Now> {
        let backoff = self.backing_off.first().map(|(at, _)| *at);
        let limit = self.unschedulable.first().map(|(at, _)| *at);
        backoff.into_iter().chain(limit).min()
    }

    /// How many pods are active, backing off, unschedulable and gated.
    pub fn lengths(&self) -> [usize; 4] {
        let gated = self.pods.len() - self.active.len() - self.backing_off.len() - self.unschedulable.len();
        [self.active.len(), self.backing_off.len(), self.unschedulable.len(), gated]
    }

    fn wake(&mut self, now: Now) {
        for set in [Place::BackingOff, Place::Unschedulable] {
            loop {
                let waiting = if set == Place::BackingOff { &self.backing_off } else { &self.unschedulable };
                let Some((at, key)) = waiting.first() else { break };
                if *at > now {
                    break;
                }
                let key = key.clone();
                let Some((pod, _)) = self.take(&key) else { break };
                self.put(pod, Place::Active, now);
            }
        }
    }

    fn put_back(&mut self, pod: QueuedPod, place: Place, now: Now) {
        // A newer state may have come while it was being decided on.
        if !self.pods.contains_key(&pod.pod.key()) {
            self.put(pod, place, now);
        }
    }

    fn put_when_ready(&mut self, pod: QueuedPod, now: Now) {
        let place = if pod.attempts > 0 && pod.returned + backoff(pod.attempts) > now {
            Place::BackingOff
        } else {
            Place::Active
        };
        self.put(pod, place, now);
    }

    fn put(&mut self, pod: QueuedPod, place: Place, now: Now) {
        let key = pod.pod.key();
        self.sequence += 1;
        let mut order = (Reverse(pod.pod.priority), now, self.sequence);
        match place {
            Place::Active => {
                self.active.insert(order, key.clone());
            }
            Place::BackingOff => {
                order.1 = pod.returned + backoff(pod.attempts);
                self.backing_off.insert((order.1, key.clone()));
            }
            Place::Unschedulable => {
                order.1 = pod.returned + UNSCHEDULABLE_LIMIT;
                self.unschedulable.insert((order.1, key.clone()));
            }
            Place::Gated => {}
        }
        self.pods.insert(key, (pod, place, order));
    }

    fn take(&mut self, key: &PodKey) -> Option<(QueuedPod, Place)> {
        let (pod, place, order) = self.pods.remove(key)?;
        match place {
            Place::Active => {
                self.active.remove(&order);
            }
            Place::BackingOff => {
                self.backing_off.remove(&(order.1, key.clone()));
            }
            Place::Unschedulable => {
                self.unschedulable.remove(&(order.1, key.clone()));
            }
            Place::Gated => {}
        }
        Some((pod, place))
    }
}

fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(8);
    (BACKOFF_START * 2_u32.pow(doublings)).min(BACKOFF_LIMIT)
}

fn is_gated(pod: &PodSpec) -> bool {
    PLUGINS.iter().filter_map(|plugin| plugin.gate).any(|gate| gate(pod).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pod(name: &str, priority: i32) -> Arc<PodSpec> {
        Arc::new(PodSpec { name: name.into(), uid: name.into(), priority, ..PodSpec::default() })
    }

    fn popped(queue: &mut Queue, now: Now) -> Option<String> {
        queue.pop(now).map(|pod| pod.pod.name.clone())
    }

    #[test]
    fn pods_leave_by_priority_and_then_in_order_of_arrival() {
        let mut queue = Queue::default();
        for (name, priority) in [("a", 0), ("b", 10), ("c", 0), ("d", 10)] {
            queue.add(pod(name, priority), Duration::ZERO);
        }
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue, Duration::ZERO)).collect();
        assert_eq!(order, ["b", "d", "a", "c"]);
    }

    #[test]
    fn a_rejected_pod_waits_for_an_event_of_the_plugin_that_rejected_it() {
        let mut queue = Queue::default();
        queue.add(pod("a", 0), Duration::ZERO);
        let rejected = queue.pop(Duration::ZERO).unwrap();
        queue.rejected(rejected, ["TaintToleration"].into(), Duration::ZERO);
        queue.on_event(ClusterEvent::AssignedPodDeleted, 5 * SECOND);
        assert_eq!(popped(&mut queue, 5 * SECOND), None);
        queue.on_event(ClusterEvent::NodeTaintsChanged, 5 * SECOND);
        assert_eq!(popped(&mut queue, 5 * SECOND).as_deref(), Some("a"));
    }

    #[test]
    fn backoff_doubles_from_one_second_to_ten() {
        let mut queue = Queue::default();
        queue.add(pod("a", 0), Duration::ZERO);
        let mut now = Duration::ZERO;
        for expected in [1, 2, 4, 8, 10, 10] {
            let entry = queue.pop(now).unwrap();
            queue.failed(entry, now);
            assert_eq!(queue.next_wake(), Some(now + expected * SECOND));
            assert_eq!(popped(&mut queue, now), None, "still backing off");
            now += expected * SECOND;
        }
    }

    #[test]
    fn an_unschedulable_pod_is_tried_again_after_five_minutes() {
        let mut queue = Queue::default();
        queue.add(pod("a", 0), Duration::ZERO);
        let rejected = queue.pop(Duration::ZERO).unwrap();
        queue.rejected(rejected, ["NodeResourcesFit"].into(), Duration::ZERO);
        assert_eq!(queue.next_wake(), Some(300 * SECOND));
        assert_eq!(popped(&mut queue, 300 * SECOND).as_deref(), Some("a"));
    }

    #[test]
    fn a_gated_pod_enters_when_its_last_gate_is_lifted() {
        let mut queue = Queue::default();
        let mut gated = PodSpec { name: "a".into(), uid: "a".into(), ..PodSpec::default() };
        gated.scheduling_gates = vec!["example.com/wait".into()];
        queue.add(Arc::new(gated.clone()), Duration::ZERO);
        assert_eq!((popped(&mut queue, Duration::ZERO), queue.lengths()), (None, [0, 0, 0, 1]));
        gated.scheduling_gates.clear();
        queue.add(Arc::new(gated), SECOND);
        assert_eq!(popped(&mut queue, SECOND).as_deref(), Some("a"));
    }

    #[test]
    fn a_state_that_came_during_the_decision_wins_over_the_returned_one() {
        let mut queue = Queue::default();
        queue.add(pod("a", 0), Duration::ZERO);
        let old = queue.pop(Duration::ZERO).unwrap();
        queue.add(pod("a", 7), Duration::ZERO);
        queue.rejected(old, ["NodeName"].into(), Duration::ZERO);
        assert_eq!(queue.pop(Duration::ZERO).unwrap().pod.priority, 7);
    }
}
