//! Takes pods away from nodes with `NoExecute` taints, as soon as they stop tolerating them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::Clock;
use client::{Cache, Key, Reference};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::Config;
use crate::harness::{self, BY_NODE, Context, Error, Plan, Reconciler, Worker, Write};
use crate::pods;

const WORKERS: usize = 4;

/// A node, its pods, and since when it has each `NoExecute` taint.
#[derive(Debug)]
struct Situation {
    taints: Vec<(Taint, Timestamp)>,
    pods: Vec<Arc<Pod>>,
    now: Timestamp,
}

struct Evictions {
    clock: Clock,
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    /// By node, key and value: when a taint that does not say since when it is there was first seen.
    seen: Mutex<BTreeMap<(String, String, String), Timestamp>>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let (nodes, pods) = (context.caches.of::<Node>(), context.caches.pods());
    let mut worker = Worker::new(context, "noexec_taint_pod", WORKERS);
    worker.watches(&nodes, |node| vec![Key::of(node)]);
    worker.watches(&pods, |pod| pods::node(pod).map(|node| Key::new("", node)).into_iter().collect());
    let clock = context.clock.clone();
    harness::start(context, worker, Evictions { clock, nodes, pods, seen: Mutex::default() });
}

impl Reconciler for Evictions {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let now = self.clock.now();
        let node = self.nodes.get_key(key);
        let taints = node.as_ref().and_then(|node| node.spec.as_ref()).and_then(|spec| spec.taints.as_ref());
        let taints: Vec<Taint> =
            taints.into_iter().flatten().filter(|taint| taint.effect == "NoExecute").cloned().collect();
        let taints = self.since(&key.name, taints, now);
        if taints.is_empty() {
            return Ok(Plan::nothing());
        }
        let pods = self.pods.by(BY_NODE, &key.name);
        Ok(plan(&Situation { taints, pods, now }))
    }
}

impl Evictions {
    fn since(&self, node: &str, taints: Vec<Taint>, now: Timestamp) -> Vec<(Taint, Timestamp)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(name, key, value), _| {
            let same =
                |taint: &Taint| taint.key == *key && taint.value.as_deref().unwrap_or_default() == value;
            name != node || taints.iter().any(same)
        });
        let since = |taint: Taint| {
            let value = taint.value.clone().unwrap_or_default();
            let first = *seen.entry((node.to_owned(), taint.key.clone(), value)).or_insert(now);
            let since = taint.time_added.as_ref().map_or(first, |time| time.0);
            (taint, since)
        };
        taints.into_iter().map(since).collect()
    }
}

/// Deletes the pods whose time is over, and looks again when the next one's is.
fn plan(situation: &Situation) -> Plan {
    let mut plan = Plan::nothing();
    let mut due = Vec::new();
    for pod in situation.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        match tolerates_until(pod, &situation.taints) {
            Until::Always => {}
            Until::Time(deadline) if deadline > situation.now => {
                let left = Duration::try_from(deadline.duration_since(situation.now)).unwrap_or_default();
                plan.look_again(left);
            }
            Until::Time(_) | Until::Never => due.push(pod),
        }
    }
    let mark = |pod: &Arc<Pod>| {
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": Time(situation.now),
        });
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        Write::strategic_status(&**pod, patch)
    };
    let unmarked =
        |pod: &&&Arc<Pod>| pods::condition(pod, "DisruptionTarget").is_none_or(|c| c.status != "True");
    plan.then_all(due.iter().filter(unmarked).map(|pod| mark(pod)).collect());
    plan.then_all(due.iter().map(|pod| Write::delete(&***pod)).collect());
    for pod in due {
        let text = format!("Marking for deletion Pod {}", Key::of(&**pod));
        plan.normal(&Reference::to(&**pod), "TaintManagerEviction", text);
    }
    plan
}

#[derive(Debug, PartialEq, Eq)]
enum Until {
    Always,
    Time(Timestamp),
    Never,
}

/// How long a pod stays in spite of taints: as long as the shortest toleration that it needs.
fn tolerates_until(pod: &Pod, taints: &[(Taint, Timestamp)]) -> Until {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let scheduled = pods::condition(pod, "PodScheduled").and_then(|c| c.last_transition_time.as_ref());
    let arrived = scheduled.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0);
    let mut until = Until::Always;
    for (taint, since) in taints {
        let Some(toleration) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else {
            return Until::Never;
        };
        let Some(seconds) = toleration.toleration_seconds else { continue };
        let Ok(seconds) = u64::try_from(seconds) else { return Until::Never };
        let since = arrived.map_or(*since, |arrived| arrived.max(*since));
        // A time beyond what can be told is never reached.
        let Ok(deadline) = since.checked_add(Duration::from_secs(seconds)) else { continue };
        until = match until {
            Until::Time(earlier) if earlier <= deadline => Until::Time(earlier),
            _ => Until::Time(deadline),
        };
    }
    until
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match text(&toleration.operator).as_str() {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
