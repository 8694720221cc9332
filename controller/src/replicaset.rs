//! ReplicaSets: as many pods of a template as are wanted.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::selector::LabelSelector;
use base::Clock;
use client::{Cache, Client, Key, Reference};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;

use crate::Config;
use crate::claim::{Claimant, Claims, claim, controller_of, controller_reference};
use crate::harness::{self, BY_OWNER, Context, Error, Plan, Reconciler, What, Worker, Write, WriteEvents};
use crate::pods;

/// The service account of this controller.
pub(crate) const ACCOUNT: &str = "replicaset-controller";
/// Pods that one plan creates or deletes at most.
const BURST: usize = 500;
const WORKERS: usize = 5;

/// Everything that a decision about one ReplicaSet depends on.
#[derive(Debug)]
struct Situation {
    set: Arc<ReplicaSet>,
    pods: Claims<Pod>,
    /// Active pods of this set and its siblings (the sets of the same owner), by node.
    crowd: BTreeMap<String, usize>,
    now: Timestamp,
}

struct ReplicaSets {
    client: Client,
    clock: Clock,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let (sets, pods) = (context.caches.of::<ReplicaSet>(), context.caches.pods());
    let mut worker = Worker::new(context, "replicaset", WORKERS);
    worker.watches(&sets, |set| vec![Key::of(set)]);
    let known = sets.clone();
    worker.watches(&pods, move |pod| concerns(pod, &known));
    let (client, clock) = (context.client.clone(), context.clock.clone());
    harness::start(context, worker, ReplicaSets { client, clock, sets, pods });
}

/// The set that a pod belongs to, or those that could adopt it.
fn concerns(pod: &Pod, sets: &Cache<ReplicaSet>) -> Vec<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match controller_of(pod) {
        Some(owner) if owner.kind == "ReplicaSet" => vec![Key::new(namespace, &owner.name)],
        Some(_) => Vec::new(),
        None => {
            let labels = pod.metadata.labels.as_ref();
            let matching = |set: &Arc<ReplicaSet>| selector(set).is_ok_and(|own| own.matches(labels));
            sets.in_namespace(namespace)
                .iter()
                .filter(|set| matching(set))
                .map(|set| Key::of(&**set))
                .collect()
        }
    }
}

fn selector(set: &ReplicaSet) -> Result<LabelSelector, Error> {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    LabelSelector::from_meta(selector)
        .map_err(|error| Error::Other(format!("selector of replica set {}: {error}", Key::of(set))))
}

impl Reconciler for ReplicaSets {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let Some(mut situation) = self.situation(key)? else { return Ok(Plan::nothing()) };
        if !situation.pods.adopt.is_empty() && !self.may_adopt(&situation.set).await? {
            situation.pods.adopt.clear();
        }
        plan(&situation)
    }

    fn failed(&self, key: &Key, write: &Write, failure: &str) -> Plan {
        match self.situation(key) {
            Ok(Some(situation)) => plan_failure(&situation, write, failure),
            _ => Plan::nothing(),
        }
    }
}

impl ReplicaSets {
    fn situation(&self, key: &Key) -> Result<Option<Situation>, Error> {
        let Some(set) = self.sets.get_key(key) else { return Ok(None) };
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut candidates = self.pods.by(BY_OWNER, uid);
        let orphans = self.pods.by(BY_OWNER, "");
        candidates.extend(orphans.into_iter().filter(|pod| pod.metadata.namespace == set.metadata.namespace));
        let selector = selector(&set)?;
        let pods = claim(&claimant(&set, &selector), candidates);
        let too_many = pods.all().filter(|pod| pods::is_active(pod)).count() > wanted(&set);
        let crowd = if too_many { self.crowd(&set) } else { BTreeMap::new() };
        Ok(Some(Situation { set, pods, crowd, now: self.clock.now() }))
    }

    fn crowd(&self, set: &ReplicaSet) -> BTreeMap<String, usize> {
        let siblings = match controller_of(set) {
            Some(owner) => self.sets.by(BY_OWNER, &owner.uid),
            None => vec![Arc::new(set.clone())],
        };
        let mut crowd = BTreeMap::new();
        for sibling in siblings {
            for pod in self.pods.by(BY_OWNER, sibling.metadata.uid.as_deref().unwrap_or_default()) {
                if let Some(node) = pods::node(&pod).filter(|_| pods::is_active(&pod)) {
                    *crowd.entry(node.to_owned()).or_default() += 1;
                }
            }
        }
        crowd
    }

    /// Asks the API server itself, because the cache may still show a set that was deleted and made anew.
    async fn may_adopt(&self, set: &ReplicaSet) -> Result<bool, Error> {
        let key = Key::of(set);
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &key.namespace);
        let fresh = api
            .get_opt(&key.name)
            .await
            .map_err(|source| Error::Api { what: format!("get replicasets {key}"), source })?;
        Ok(fresh.is_some_and(|fresh| {
            fresh.metadata.uid == set.metadata.uid && fresh.metadata.deletion_timestamp.is_none()
        }))
    }
}

fn claimant<'a>(set: &ReplicaSet, selector: &'a LabelSelector) -> Claimant<'a> {
    Claimant {
        reference: controller_reference(set),
        selector,
        deleting: set.metadata.deletion_timestamp.is_some(),
    }
}

fn wanted(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

/// First whose pods they are, then how many there are, then what is reported.
fn plan(situation: &Situation) -> Result<Plan, Error> {
    let Situation { set, pods, .. } = situation;
    let selector = selector(set)?;
    let mut plan = Plan::nothing();
    plan.then_all(pods.writes(&claimant(set, &selector)));
    if set.metadata.deletion_timestamp.is_none() {
        plan.then_all(manage(situation));
    }
    let mut status = status(situation);
    status.conditions = conditions(set, None, situation.now);
    report(set, status, &mut plan);
    if let Some(delay) = next_available(situation) {
        plan.look_again(delay);
    }
    Ok(plan)
}

/// Creates the missing pods, or deletes the superfluous ones that cost least.
fn manage(situation: &Situation) -> Vec<Write> {
    let Situation { set, pods, crowd, now } = situation;
    let mut active: Vec<&Arc<Pod>> = pods.all().filter(|pod| pods::is_active(pod)).collect();
    let wanted = wanted(set);
    let about = Reference::to(&**set);
    if active.len() < wanted {
        let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else {
            return Vec::new();
        };
        let key = Key::of(&**set);
        let pod = pods::from_template(
            template,
            &key.namespace,
            format!("{}-", key.name),
            controller_reference(&**set),
        );
        let create = Write::create(&pod).announced(WriteEvents {
            about,
            done: ("SuccessfulCreate", "Created pod: {name}".into()),
            failed: ("FailedCreate", "Error creating: ".into()),
        });
        return vec![create; (wanted - active.len()).min(BURST)];
    }
    let surplus = (active.len() - wanted).min(BURST);
    active.sort_by(|a, b| pods::deletion_order(a, b, crowd, *now));
    let delete = |pod: &Arc<Pod>| {
        Write::delete(&**pod).announced(WriteEvents {
            about: about.clone(),
            done: ("SuccessfulDelete", "Deleted pod: {name}".into()),
            failed: ("FailedDelete", "Error deleting: ".into()),
        })
    };
    active.into_iter().take(surplus).map(delete).collect()
}

/// The status but for its conditions.
fn status(situation: &Situation) -> ReplicaSetStatus {
    let Situation { set, pods, now, .. } = situation;
    let spec = set.spec.as_ref();
    let labels = spec
        .and_then(|spec| spec.template.as_ref())
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.as_ref());
    let template = LabelSelector::from_labels(labels.into_iter().flatten());
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let [mut replicas, mut labeled, mut ready, mut available] = [0; 4];
    for pod in pods.all().filter(|pod| pods::is_active(pod)) {
        replicas += 1;
        labeled += i32::from(template.matches(pod.metadata.labels.as_ref()));
        ready += i32::from(pods::is_ready(pod));
        available += i32::from(pods::available_in(pod, min_ready, *now).is_some_and(|wait| wait.is_zero()));
    }
    let terminating = pods.all().filter(|pod| pods::is_terminating(pod)).count();
    let some = |count: i32| (count > 0).then_some(count);
    ReplicaSetStatus {
        replicas,
        fully_labeled_replicas: some(labeled),
        ready_replicas: some(ready),
        available_replicas: some(available),
        terminating_replicas: Some(i32::try_from(terminating).unwrap_or(i32::MAX)),
        observed_generation: set.metadata.generation,
        conditions: None,
    }
}

/// How long until the next pod becomes available, if one is on its way.
fn next_available(situation: &Situation) -> Option<std::time::Duration> {
    let Situation { set, pods, now, .. } = situation;
    let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let active = pods.all().filter(|pod| pods::is_active(pod));
    active.filter_map(|pod| pods::available_in(pod, min_ready, *now)).filter(|wait| !wait.is_zero()).min()
}

/// The conditions with or without `ReplicaFailure`. A failure that is known already stays as it is.
fn conditions(
    set: &ReplicaSet,
    failure: Option<(&str, &str)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let known = conditions.iter().any(|condition| condition.type_ == "ReplicaFailure");
    match failure {
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
        Some(_) if known => {}
        Some((reason, message)) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            last_transition_time: Some(Time(now)),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
        }),
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// Writes that pods could not be created or deleted into the conditions.
fn plan_failure(situation: &Situation, write: &Write, failure: &str) -> Plan {
    let reason = match write.what {
        What::Create(_) => "FailedCreate",
        What::Delete { .. } => "FailedDelete",
        _ => return Plan::nothing(),
    };
    let mut plan = Plan::nothing();
    let mut status = status(situation);
    status.conditions = conditions(&situation.set, Some((reason, failure)), situation.now);
    report(&situation.set, status, &mut plan);
    plan
}

fn report(set: &ReplicaSet, status: ReplicaSetStatus, plan: &mut Plan) {
    let mut before = set.status.clone().unwrap_or_default();
    for count in
        [&mut before.fully_labeled_replicas, &mut before.ready_replicas, &mut before.available_replicas]
    {
        *count = count.filter(|count| *count > 0);
    }
    before.conditions = before.conditions.filter(|conditions| !conditions.is_empty());
    if status != before {
        let mut set = set.clone();
        set.status = Some(status);
        plan.then(Write::replace_status(&set));
    }
}

#[cfg(test)]
mod tests;
