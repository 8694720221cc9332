//! Takes back the announcement that a pod is about to be disrupted when nothing came of it.

use std::time::Duration;

use base::Clock;
use client::{Cache, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::ACCOUNT;
use crate::harness::{self, Context, Error, Plan, Reconciler, Worker, Write};
use crate::pods;

const CONDITION: &str = "DisruptionTarget";
/// How long the deletion may take to follow.
const LIMIT: Duration = Duration::from_secs(120);

struct Stale {
    clock: Clock,
    pods: Cache<Pod>,
}

pub(super) fn start(context: &Context, pods: &Cache<Pod>) {
    let mut worker = Worker::new(context, "stale_pod_disruption", 1);
    let announced = |pod: &Pod| announced_at(pod).map(|_| Key::of(pod)).into_iter().collect();
    worker.watches(pods, announced);
    harness::start(context, worker, Stale { clock: context.clock.clone(), pods: pods.clone() });
}

impl Reconciler for Stale {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        Ok(self.pods.get_key(key).map(|pod| plan(&pod, self.clock.now())).unwrap_or_default())
    }
}

/// When the disruption of a pod was announced that is still there. Announcements of the node itself stay:
/// ending a pod there takes as long as it takes.
fn announced_at(pod: &Pod) -> Option<Timestamp> {
    let condition = pods::condition(pod, CONDITION).filter(|condition| condition.status == "True")?;
    if !pods::is_active(pod) || condition.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    condition.last_transition_time.as_ref().map(|time| time.0)
}

fn plan(pod: &Pod, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(since) = announced_at(pod) else { return plan };
    match Duration::try_from((since + LIMIT).duration_since(now)) {
        Ok(left) if !left.is_zero() => plan.look_again(left),
        _ => {
            let condition = json!({"type": CONDITION, "status": "False", "lastTransitionTime": Time(now)});
            plan.then(Write::strategic_status(
                pod,
                json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}),
            ));
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodCondition;

    use super::*;
    use crate::pods::tests::{pod, time};

    fn announced(reason: &str) -> Pod {
        let mut pod = pod("p");
        pod.status.as_mut().unwrap().conditions = Some(vec![PodCondition {
            type_: CONDITION.into(),
            status: "True".into(),
            reason: Some(reason.into()),
            last_transition_time: Some(Time(time("00:59:00"))),
            ..PodCondition::default()
        }]);
        pod
    }

    #[test]
    fn an_announcement_that_nothing_follows_is_taken_back() {
        let evicted = announced("EvictionByEvictionAPI");
        assert_eq!(plan(&evicted, time("01:00:00")).again, Some(Duration::from_secs(60)));
        assert_eq!(plan(&evicted, time("01:01:00")).writes().count(), 1);
        let own = plan(&announced("TerminationByKubelet"), time("02:00:00"));
        assert!(own.is_empty() && own.again.is_none());
    }
}
