//! Keeps the Endpoints of services with a selector, for clients that don't know EndpointSlices.

mod subsets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::Clock;
use client::{Cache, Change, Key, Reference};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use tokio::time::Instant;

use crate::Config;
use crate::harness::{self, Context, Error, Plan, Reconciler, Worker, Write, WriteEvents};
use crate::serving::{
    HEADLESS, Sources, TRIGGER_TIME, counts_as_ready, has_cluster_ip, has_endpoints, trigger,
};

/// Says that not all endpoints are shown.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const TRUNCATED: &str = "truncated";
/// Endpoints of this kind that hold the lease of an old leader election belong to no service.
pub(crate) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let endpoints = context.caches.of::<Endpoints>();
    let mut worker = Worker::new(context, "endpoint", 5);
    let sources = Sources::follow(context, &mut worker);
    let deleted: Deleted = Arc::default();
    let (note, clock) = (deleted.clone(), context.clock.clone());
    sources.services.on_change(move |change| {
        let mut deleted = note.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Applied(service, _) => drop(deleted.remove(&Key::of(&**service))),
            Change::Deleted(service) => drop(deleted.insert(Key::of(&**service), clock.instant())),
            Change::Missed => {}
        }
    });
    // Services may have been deleted while nobody looked.
    let (queue, note, clock) = (worker.queue(), deleted.clone(), context.clock.clone());
    let (all, services) = (endpoints.clone(), sources.services.clone());
    context.tasks.spawn("leftover endpoints", async move {
        services.synced().await;
        all.synced().await;
        for key in all.list().iter().map(|endpoints| Key::of(&**endpoints)) {
            if services.get_key(&key).is_none() {
                note.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), clock.instant());
                queue.add(key);
            }
        }
    });
    worker.watches(&endpoints, |endpoints| vec![Key::of(endpoints)]);
    let clock = context.clock.clone();
    harness::start(context, worker, EndpointsOfServices { sources, endpoints, deleted, clock });
}

/// When the deletion of services was seen. It is remembered for a while, because endpoints that were written just
/// before may show later.
type Deleted = Arc<Mutex<HashMap<Key, Instant>>>;

/// How long the deletion of a service is remembered.
const MEMORY: Duration = Duration::from_secs(60);

struct EndpointsOfServices {
    sources: Sources,
    endpoints: Cache<Endpoints>,
    /// Services whose deletion was seen. Endpoints without a service are otherwise left alone: somebody may
    /// be about to create their service.
    deleted: Deleted,
    clock: Clock,
}

impl Reconciler for EndpointsOfServices {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let current = self.endpoints.get_key(key);
        let Some(service) = self.sources.services.get_key(key) else {
            let mut deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(&seen) = deleted.get(key) else { return Ok(Plan::nothing()) };
            let mut plan = current.map_or_else(Plan::nothing, |endpoints| leftover(&endpoints));
            let age = self.clock.instant() - seen;
            if age < MEMORY {
                plan.look_again(MEMORY - age);
            } else if plan.is_empty() {
                deleted.remove(key);
            }
            return Ok(plan);
        };
        if !service.spec.as_ref().is_some_and(has_endpoints) {
            return Ok(Plan::nothing());
        }
        let pods = self.sources.selected(&service);
        Ok(plan(&service, &pods, current.as_deref()))
    }
}

/// Deletes the endpoints of a service that is gone.
fn leftover(endpoints: &Endpoints) -> Plan {
    let mut plan = Plan::nothing();
    if !endpoints.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(LEADER)) {
        plan.then(Write::delete(endpoints));
    }
    plan
}

fn plan(service: &Service, pods: &[Arc<Pod>], current: Option<&Endpoints>) -> Plan {
    let mut plan = Plan::nothing();
    let (subsets, truncated) = subsets::of(service, pods);
    let mut wanted = current.cloned().unwrap_or_default();
    wanted.metadata.labels = Some(labels(service)).filter(|labels| !labels.is_empty());
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), TRUNCATED.to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    if let Some(current) = current {
        let labels = |endpoints: &Endpoints| endpoints.metadata.labels.clone().unwrap_or_default();
        let marked = |endpoints: &Endpoints| {
            endpoints.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(OVER_CAPACITY))
        };
        let shown = subsets::canonical(current.subsets.clone().unwrap_or_default());
        if shown == subsets && labels(current) == labels(&wanted) && marked(current) == truncated {
            return plan;
        }
    }
    let spec = service.spec.clone().unwrap_or_default();
    let shown: HashMap<&str, bool> = current.map(shown).unwrap_or_default();
    let news = |pod: &Pod| {
        shown.get(pod.metadata.uid.as_deref().unwrap_or_default()) != Some(&counts_as_ready(&spec, pod))
    };
    let trigger = trigger(service, current.is_none(), pods, news);
    wanted.subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    match trigger {
        Some(time) => drop(annotations.insert(TRIGGER_TIME.to_owned(), time.to_string())),
        None => drop(annotations.remove(TRIGGER_TIME)),
    }
    wanted.metadata.name.clone_from(&service.metadata.name);
    wanted.metadata.namespace.clone_from(&service.metadata.namespace);
    let key = Key::of(service);
    let (write, failed) = match current {
        Some(_) => (
            Write::replace(&wanted),
            ("FailedToUpdateEndpoint", format!("Failed to update endpoint {key}: ")),
        ),
        None => (
            Write::create(&wanted),
            ("FailedToCreateEndpoint", format!("Failed to create endpoint for service {key}: ")),
        ),
    };
    plan.then(write.announced(WriteEvents {
        about: Reference::to(&wanted),
        done: ("", String::new()),
        failed,
    }));
    plan
}

/// The UIDs of the pods in these endpoints, and whether they are shown as ready.
fn shown(endpoints: &Endpoints) -> HashMap<&str, bool> {
    let mut shown = HashMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        for (list, ready) in [(&subset.not_ready_addresses, false), (&subset.addresses, true)] {
            let targets = list.iter().flatten().filter_map(|address| address.target_ref.as_ref());
            shown.extend(targets.filter_map(|target| Some((target.uid.as_deref()?, ready))));
        }
    }
    shown
}

/// The service's labels, and one that marks headless services.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if !service.spec.as_ref().is_some_and(has_cluster_ip) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}
