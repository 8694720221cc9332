//! How fast pods may be driven away from nodes, by how many nodes of a zone are in trouble.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use super::health;

/// Between two nodes of a zone that are emptied.
const PAUSE: Duration = Duration::from_secs(10);
/// The same in a large zone with many nodes in trouble.
const LONG_PAUSE: Duration = Duration::from_secs(100);
const LARGE: usize = 50;
/// A zone is in disruption when this many percent of its nodes, and more than two, are not ready.
const DISRUPTED_PERCENT: usize = 55;

/// Whether a node may be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    Now,
    After(Duration),
    /// Not while so many nodes of its zone are in trouble.
    Never,
    /// Not while no node at all is ready; what was begun is taken back.
    Withdraw,
}

/// When the next node of each zone may be emptied.
#[derive(Debug, Default)]
pub(super) struct Zones {
    next: BTreeMap<String, Timestamp>,
}

#[derive(Debug, Default)]
struct Count {
    ready: usize,
    not_ready: usize,
}

fn zone(node: &Node) -> String {
    let label = |name: &str| {
        node.metadata.labels.as_ref().and_then(|labels| labels.get(name)).cloned().unwrap_or_default()
    };
    format!("{}:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

impl Zones {
    /// The permit for a node among `all`. One that `wants` to be emptied and may takes its zone's turn.
    pub(super) fn permit(&mut self, node: &Node, all: &[Arc<Node>], wants: bool, now: Timestamp) -> Permit {
        let mut zones: BTreeMap<String, Count> = BTreeMap::new();
        for node in all {
            let Some(ready) = health::ready(node) else { continue };
            let count = zones.entry(zone(node)).or_default();
            *(if ready == "True" { &mut count.ready } else { &mut count.not_ready }) += 1;
        }
        if !zones.is_empty() && zones.values().all(|count| count.ready == 0) {
            return Permit::Withdraw;
        }
        let own = zone(node);
        let pause = match zones.get(&own) {
            Some(Count { ready, not_ready })
                if *ready > 0
                    && *not_ready > 2
                    && not_ready * 100 >= DISRUPTED_PERCENT * (ready + not_ready) =>
            {
                if ready + not_ready <= LARGE {
                    return Permit::Never;
                }
                LONG_PAUSE
            }
            _ => PAUSE,
        };
        if !wants {
            return Permit::Now;
        }
        let next = self.next.entry(own).or_insert(now);
        match Duration::try_from(next.duration_since(now)) {
            Ok(wait) if !wait.is_zero() => Permit::After(wait),
            _ => {
                *next = now + pause;
                Permit::Now
            }
        }
    }
}
