//! PodDisruptionBudgets: how many pods may be evicted now.

mod stale;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::selector::LabelSelector;
use base::Clock;
use client::{Cache, Key, Reference};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::Config;
use crate::claim::controller_of;
use crate::harness::{self, Context, Error, Plan, Reconciler, Worker, Write};
use crate::pods;
use crate::scaled::{Round, scaled};

/// The service account of this controller.
pub(crate) const ACCOUNT: &str = "disruption-controller";
/// How long an evicted pod may take until its deletion shows.
const DELETION_LIMIT: Duration = Duration::from_secs(120);
const WORKERS: usize = 2;

/// What wants a pod to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// An object with this UID wants so many.
    By(String, i32),
    /// Nobody: it was made by itself.
    Nobody,
    /// A controller that is unknown or has no scale.
    Unknown,
}

/// Everything that a budget's status depends on.
#[derive(Debug)]
struct Situation {
    budget: Arc<PodDisruptionBudget>,
    pods: Vec<(Arc<Pod>, Wanted)>,
    now: Timestamp,
}

struct Budgets {
    clock: Clock,
    budgets: Cache<PodDisruptionBudget>,
    pods: Cache<Pod>,
    sets: Cache<ReplicaSet>,
    deployments: Cache<Deployment>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let (budgets, pods) = (context.caches.of::<PodDisruptionBudget>(), context.caches.pods());
    let (sets, deployments) = (context.caches.of::<ReplicaSet>(), context.caches.of::<Deployment>());
    let mut worker = Worker::new(context, "disruption", WORKERS);
    worker.watches(&budgets, |budget| vec![Key::of(budget)]);
    let known = budgets.clone();
    worker.watches(&pods, move |pod| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let selects = |budget: &&Arc<PodDisruptionBudget>| {
            selector(budget).is_ok_and(|selector| selector.matches(pod.metadata.labels.as_ref()))
        };
        let budgets = known.in_namespace(namespace);
        budgets.iter().filter(selects).map(|budget| Key::of(&**budget)).collect()
    });
    // Whoever is scaled may be the one that wants a budget's pods.
    let known = budgets.clone();
    worker.watches(&sets, move |set| of_namespace(&known, set.metadata.namespace.as_deref()));
    let known = budgets.clone();
    worker.watches(&deployments, move |deployment| {
        of_namespace(&known, deployment.metadata.namespace.as_deref())
    });
    stale::start(context, &pods);
    let clock = context.clock.clone();
    harness::start(context, worker, Budgets { clock, budgets, pods, sets, deployments });
}

fn of_namespace(budgets: &Cache<PodDisruptionBudget>, namespace: Option<&str>) -> Vec<Key> {
    budgets.in_namespace(namespace.unwrap_or_default()).iter().map(|budget| Key::of(&**budget)).collect()
}

fn selector(budget: &PodDisruptionBudget) -> Result<LabelSelector, Error> {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    LabelSelector::from_meta(selector).map_err(|error| {
        Error::Other(format!("selector of pod disruption budget {}: {error}", Key::of(budget)))
    })
}

impl Reconciler for Budgets {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let Some(budget) = self.budgets.get_key(key) else { return Ok(Plan::nothing()) };
        if budget.metadata.deletion_timestamp.is_some() {
            return Ok(Plan::nothing());
        }
        let selector = selector(&budget)?;
        let pods = self.pods.in_namespace(&key.namespace);
        let pods = pods.into_iter().filter(|pod| selector.matches(pod.metadata.labels.as_ref()));
        let pods = pods.map(|pod| (pod.clone(), self.wanted(&pod))).collect();
        Ok(plan(&Situation { budget, pods, now: self.clock.now() }))
    }
}

impl Budgets {
    fn wanted(&self, pod: &Pod) -> Wanted {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let Some(owner) = controller_of(pod) else { return Wanted::Nobody };
        let set = self.sets.get(namespace, &owner.name).filter(|_| owner.kind == "ReplicaSet");
        let Some(set) = set.filter(|set| set.metadata.uid.as_ref() == Some(&owner.uid)) else {
            return Wanted::Unknown;
        };
        let Some(above) = controller_of(&*set) else {
            let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
            return Wanted::By(owner.uid.clone(), replicas.unwrap_or(1));
        };
        let deployment = self.deployments.get(namespace, &above.name).filter(|_| above.kind == "Deployment");
        match deployment.filter(|deployment| deployment.metadata.uid.as_ref() == Some(&above.uid)) {
            Some(deployment) => {
                let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
                Wanted::By(above.uid.clone(), replicas.unwrap_or(1))
            }
            None => Wanted::Unknown,
        }
    }
}

/// Counts, and reports. When it cannot be known how many pods are wanted, none may be evicted.
fn plan(situation: &Situation) -> Plan {
    let Situation { budget, pods, now } = situation;
    let mut plan = Plan::nothing();
    let about = Reference::to(&**budget);
    let before = budget.status.clone().unwrap_or_default();
    if pods.is_empty() && before.observed_generation != budget.metadata.generation {
        plan.normal(&about, "NoPods", "No matching pods found");
    }
    let mut status = match demand(situation) {
        Ok((expected, desired)) => {
            let disrupted = disrupted(situation, &mut plan);
            let healthy = pods.iter().filter(|(pod, _)| {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                pod.metadata.deletion_timestamp.is_none()
                    && !disrupted.contains_key(name)
                    && pods::is_ready(pod)
            });
            let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
            let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
            PodDisruptionBudgetStatus {
                current_healthy: Some(healthy),
                desired_healthy: Some(desired),
                expected_pods: Some(expected),
                disruptions_allowed: Some(allowed),
                disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
                observed_generation: budget.metadata.generation,
                conditions: None,
            }
        }
        Err(failure) => {
            let text = format!("Failed to calculate the number of expected pods: {failure}");
            if before.disruptions_allowed != Some(0) || !has(&before, "SyncFailed") {
                plan.warning(&about, "CalculateExpectedPodCountFailed", text);
            }
            let mut status = before.clone();
            status.disruptions_allowed = Some(0);
            status.conditions = Some(conditions(&before, budget, "False", "SyncFailed", &failure, *now));
            report(budget, &before, status, &mut plan);
            return plan;
        }
    };
    let (truth, reason) = if status.disruptions_allowed > Some(0) {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    status.conditions = Some(conditions(&before, budget, truth, reason, "", *now));
    report(budget, &before, status, &mut plan);
    if !plan.is_empty() && needs_scale(budget) && pods.iter().any(|(_, wanted)| *wanted == Wanted::Nobody) {
        let selector = selector(budget).map(|selector| selector.to_string()).unwrap_or_default();
        let text = format!(
            "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a \
             result, the status of the PDB cannot be calculated correctly, which may result in undefined \
             behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an \
             integer value."
        );
        plan.warning(&about, "UnmanagedPods", text);
    }
    plan
}

fn has(status: &PodDisruptionBudgetStatus, reason: &str) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.reason == reason)
}

fn report(
    budget: &PodDisruptionBudget,
    before: &PodDisruptionBudgetStatus,
    status: PodDisruptionBudgetStatus,
    plan: &mut Plan,
) {
    // The counts are always there, so they can be compared as they are; only an empty map may be either.
    let mut before = before.clone();
    before.disrupted_pods = before.disrupted_pods.filter(|pods| !pods.is_empty());
    if status != before {
        let mut budget = budget.clone();
        budget.status = Some(status);
        plan.then(Write::replace_status(&budget));
    }
}

/// How many pods there should be, and how many of them must be healthy.
fn demand(situation: &Situation) -> Result<(i32, i32), String> {
    let Situation { budget, pods, .. } = situation;
    let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    let Some(spec) = &budget.spec else { return Ok((count, 0)) };
    let share = |value: &IntOrString, of| {
        scaled(value, of, Round::Up).ok_or_else(|| format!("invalid value for IntOrString: {value:?}"))
    };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(unavailable), _) => {
            let expected = scale(pods)?;
            Ok((expected, (expected - share(unavailable, expected)?).max(0)))
        }
        (None, Some(IntOrString::Int(available))) => Ok((count, *available)),
        (None, Some(available)) => {
            let expected = scale(pods)?;
            Ok((expected, share(available, expected)?))
        }
        (None, None) => Ok((count, 0)),
    }
}

/// The budget is a share of pods that others want, not just a number.
fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    budget.spec.as_ref().is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// The sizes of all that want these pods, each counted once.
fn scale(pods: &[(Arc<Pod>, Wanted)]) -> Result<i32, String> {
    let mut sizes = BTreeMap::new();
    for (pod, wanted) in pods {
        match wanted {
            Wanted::By(uid, replicas) => {
                sizes.insert(uid, *replicas);
            }
            Wanted::Nobody => {}
            Wanted::Unknown => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                return Err(format!("found no controllers for pod \"{name}\""));
            }
        }
    }
    Ok(sizes.values().fold(0_i32, |sum, size| sum.saturating_add(*size)))
}

/// The evicted pods whose deletion does not show yet. One that stays for too long was not deleted after all.
fn disrupted(situation: &Situation, plan: &mut Plan) -> BTreeMap<String, Time> {
    let budget = &situation.budget;
    let evicted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    let mut disrupted = BTreeMap::new();
    for (pod, _) in situation.pods.iter().filter(|(pod, _)| pod.metadata.deletion_timestamp.is_none()) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(Time(since)) = evicted.and_then(|evicted| evicted.get(&name)) else { continue };
        let left = (*since + DELETION_LIMIT).duration_since(situation.now);
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => {
                plan.look_again(left);
                disrupted.insert(name, Time(*since));
            }
            _ => {
                let key = Key::of(&**budget);
                let text = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
                plan.warning(&Reference::to(&**pod), "NotDeleted", text);
            }
        }
    }
    disrupted
}

fn conditions(
    before: &PodDisruptionBudgetStatus,
    budget: &PodDisruptionBudget,
    truth: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let mut conditions = before.conditions.clone().unwrap_or_default();
    let known = conditions.iter().position(|condition| condition.type_ == "DisruptionAllowed");
    let known = known.map(|at| conditions.remove(at)).filter(|condition| condition.status == truth);
    conditions.push(Condition {
        type_: "DisruptionAllowed".into(),
        status: truth.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: budget.metadata.generation,
        last_transition_time: known.map_or(Time(now), |condition| condition.last_transition_time),
    });
    conditions
}

#[cfg(test)]
mod tests;
