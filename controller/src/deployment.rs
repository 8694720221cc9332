//! Deployments: roll a template out by growing its replica set and shrinking the others.
//!
//! [`plan`] works on copies: the [`Rollout`] changes replica sets and the deployment in memory, step by step
//! as the situation demands, and the difference to what was read becomes the plan.

mod amounts;
mod progress;
mod recreate;
mod rolling;
mod rollout;
mod scale;
mod set;
mod status;
mod template;

use std::collections::BTreeSet;
use std::sync::Arc;

use api::selector::LabelSelector;
use base::Clock;
use client::{Cache, Client, Key};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use crate::Config;
use crate::claim::{Claimant, Claims, claim, controller_of, controller_reference};
use crate::harness::{self, BY_OWNER, Context, Error, Plan, Reconciler, What, Worker, Write};
use crate::pods;
use rollout::Rollout;

/// The service account of this controller.
pub(crate) const ACCOUNT: &str = "deployment-controller";
const WORKERS: usize = 5;

/// Everything that a decision about one Deployment depends on.
#[derive(Debug)]
struct Situation {
    deployment: Arc<Deployment>,
    sets: Claims<ReplicaSet>,
    /// Names of all replica sets of the namespace that a new one of this deployment could clash with.
    taken: BTreeSet<String>,
    /// UIDs of the replica sets with pods that have not ended; filled for the `Recreate` strategy only.
    running: BTreeSet<String>,
    now: Timestamp,
}

struct Deployments {
    client: Client,
    clock: Clock,
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let (deployments, sets) = (context.caches.of::<Deployment>(), context.caches.of::<ReplicaSet>());
    let pods = context.caches.pods();
    let mut worker = Worker::new(context, "deployment", WORKERS);
    worker.watches(&deployments, |deployment| vec![Key::of(deployment)]);
    let known = deployments.clone();
    worker.watches(&sets, move |set| concerns(set, &known));
    // Changes of pods show in the status of their replica set.
    worker.reads(&pods);
    let (client, clock) = (context.client.clone(), context.clock.clone());
    harness::start(context, worker, Deployments { client, clock, deployments, sets, pods });
}

/// The deployment that a replica set belongs to, or those that could adopt it.
fn concerns(set: &ReplicaSet, deployments: &Cache<Deployment>) -> Vec<Key> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    match controller_of(set) {
        Some(owner) if owner.kind == "Deployment" => vec![Key::new(namespace, &owner.name)],
        Some(_) => Vec::new(),
        None => {
            let labels = set.metadata.labels.as_ref();
            let deployments = deployments.in_namespace(namespace);
            let matching = deployments
                .iter()
                .filter(|deployment| selector(deployment).is_ok_and(|own| own.matches(labels)));
            matching.map(|deployment| Key::of(&**deployment)).collect()
        }
    }
}

fn selector(deployment: &Deployment) -> Result<LabelSelector, Error> {
    let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
    LabelSelector::from_meta(selector)
        .map_err(|error| Error::Other(format!("selector of deployment {}: {error}", Key::of(deployment))))
}

fn claimant<'a>(deployment: &Deployment, selector: &'a LabelSelector) -> Claimant<'a> {
    Claimant {
        reference: controller_reference(deployment),
        selector,
        deleting: deployment.metadata.deletion_timestamp.is_some(),
    }
}

impl Reconciler for Deployments {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let Some(mut situation) = self.situation(key)? else { return Ok(Plan::nothing()) };
        if !situation.sets.adopt.is_empty() && !self.may_adopt(&situation.deployment).await? {
            situation.sets.adopt.clear();
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

impl Deployments {
    fn situation(&self, key: &Key) -> Result<Option<Situation>, Error> {
        let Some(deployment) = self.deployments.get_key(key) else { return Ok(None) };
        let selector = selector(&deployment)?;
        let all = self.sets.in_namespace(&key.namespace);
        let prefix = format!("{}-", key.name);
        let taken = all.iter().filter_map(|set| set.metadata.name.clone());
        let taken = taken.filter(|name| name.starts_with(&prefix)).collect();
        let sets = claim(&claimant(&deployment, &selector), all);
        let mut running = BTreeSet::new();
        if amounts::recreates(&deployment) {
            let uids = sets.all().filter_map(|set| set.metadata.uid.clone());
            running = uids
                .filter(|uid| self.pods.by(BY_OWNER, uid).iter().any(|pod| !pods::is_terminal(pod)))
                .collect();
        }
        Ok(Some(Situation { deployment, sets, taken, running, now: self.clock.now() }))
    }

    /// Asks the API server itself, because the cache may still show a deployment that was made anew.
    async fn may_adopt(&self, deployment: &Deployment) -> Result<bool, Error> {
        let key = Key::of(deployment);
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &key.namespace);
        let fresh = api
            .get_opt(&key.name)
            .await
            .map_err(|source| Error::Api { what: format!("get deployments {key}"), source })?;
        Ok(fresh.is_some_and(|fresh| {
            fresh.metadata.uid == deployment.metadata.uid && fresh.metadata.deletion_timestamp.is_none()
        }))
    }
}

/// The next step of a deployment, and its status.
fn plan(situation: &Situation) -> Result<Plan, Error> {
    let deployment = &situation.deployment;
    let selector = selector(deployment)?;
    let mut plan = Plan::nothing();
    plan.then_all(situation.sets.writes(&claimant(deployment, &selector)));
    let mut rollout = Rollout::new(situation);
    if deployment.metadata.deletion_timestamp.is_some() {
        rollout.count();
    } else {
        rollout.note_pause();
        if rollout.paused() || rollout.was_scaled() {
            rollout.adjust_new();
            rollout.scale();
            if rollout.paused() {
                rollout.clean_up();
            }
            rollout.count();
        } else if amounts::recreates(deployment) {
            rollout.recreate(&situation.running);
        } else {
            rollout.roll();
        }
    }
    Ok(rollout.into_plan(plan))
}

/// Writes that a replica set could not be created into the conditions.
fn plan_failure(situation: &Situation, write: &Write, failure: &str) -> Plan {
    // Only the cache was late if the very set exists.
    let late = failure.ends_with("already exists");
    let What::Create(created) = &write.what else { return Plan::nothing() };
    if late {
        return Plan::nothing();
    }
    let name = created.pointer("/metadata/name").and_then(|name| name.as_str()).unwrap_or_default();
    let mut rollout = Rollout::new(situation);
    rollout.note_creation_failure(name, failure);
    rollout.into_plan(Plan::nothing())
}

#[cfg(test)]
mod tests;
