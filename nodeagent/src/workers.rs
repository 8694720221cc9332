//! The workers of all pods: started for each pod of the API and for each that the runtime still has, and told
//! what happens to theirs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::Tasks;
use client::Change;
use k8s_openapi::api::core::v1::{Container, Lifecycle, Pod, PodSpec};

use crate::context::Context;
use crate::ledger::Ledger;
use crate::observe::{Found, Listing, Noted};
use crate::pod::sandbox::{POD_GRACE, POD_NAME, POD_NAMESPACE, PRE_STOP};
use crate::pod::{ContainerState, Observed, name, namespace, sandbox, uid};
use crate::server::{ContainerRef, PodDirectory};
use crate::worker::{Handle, Snapshot, Worker};

/// All workers, by the uid of their pods.
#[derive(Debug)]
pub(crate) struct Workers {
    context: Arc<Context>,
    ledger: Arc<Ledger>,
    tasks: Tasks,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    handles: HashMap<String, Arc<Handle>>,
    /// What an earlier agent has left running, until its pod's worker takes it over.
    inherited: HashMap<String, Found>,
}

impl Workers {
    pub(crate) fn new(context: Arc<Context>) -> Arc<Self> {
        let tasks = context.tasks.child("pods");
        Arc::new(Self { context, ledger: Arc::default(), tasks, state: Arc::default() })
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Starts to work for the pods of the API, which are known by now, on top of what the runtime has already; and
    /// ends what the runtime has of pods that are not in the API.
    pub(crate) fn adopt(self: &Arc<Self>, listing: Listing) {
        self.lock().inherited = listing.changed;
        let workers = Arc::downgrade(self);
        self.context.source.pods.on_change(move |change| {
            if let Some(workers) = workers.upgrade() {
                workers.on_change(change);
            }
        });
        let orphans = std::mem::take(&mut self.lock().inherited);
        for (uid, found) in orphans {
            self.end_orphan(&uid, found);
        }
    }

    /// Removes what is on the node of pods that neither the API nor the runtime knows.
    pub(crate) async fn sweep(&self) {
        for pod in self.context.host.leftovers().await {
            if self.handle(uid(&pod)).is_some() {
                continue;
            }
            tracing::info!(pod = uid(&pod), "removing what is left of a pod");
            if let Err(error) = self.context.host.clean_up(&pod).await {
                tracing::warn!(pod = uid(&pod), %error, "can't remove what is left of a pod");
            }
        }
    }

    /// Tells the workers what a listing has shown.
    pub(crate) fn take_in(self: &Arc<Self>, listing: Listing) {
        for (uid, found) in listing.changed {
            match self.handle(&uid) {
                Some(handle) => handle.inbox.tell(|news| {
                    found.observed.sandboxes().for_each(|sandbox| news.add_sandbox(sandbox.clone()));
                    found.observed.containers().for_each(|it| news.add_container(it.clone()));
                }),
                None => self.end_orphan(&uid, found),
            }
        }
        for (uid, id) in listing.removed {
            if let Some(handle) = self.handle(&uid) {
                handle.inbox.tell(|news| {
                    news.removed.insert(id);
                });
            }
        }
    }

    /// Tells a worker what an event of the runtime says.
    pub(crate) fn note(&self, uid: &str, noted: Noted) {
        let Some(handle) = self.handle(uid) else { return };
        handle.inbox.tell(|news| {
            noted.sandbox.into_iter().for_each(|sandbox| news.add_sandbox(sandbox));
            noted.containers.into_iter().for_each(|container| news.add_container(container));
            news.removed.extend(noted.removed);
        });
    }

    fn on_change(&self, change: &Change<Pod>) {
        match change {
            Change::Applied(pod, _) => match self.handle(uid(pod)) {
                Some(handle) => handle.inbox.tell(|news| news.pod = Some(pod.clone())),
                None => {
                    let found = self.lock().inherited.remove(uid(pod)).unwrap_or_default();
                    self.start(pod.clone(), found.observed, false);
                }
            },
            Change::Deleted(pod) => {
                if let Some(handle) = self.handle(uid(pod)) {
                    handle.inbox.tell(|news| {
                        news.pod = Some(pod.clone());
                        news.gone = true;
                    });
                }
            }
            Change::Missed => {}
        }
    }

    fn end_orphan(&self, uid: &str, found: Found) {
        tracing::info!(pod = uid, "ending a pod that is not in the API");
        self.start(Arc::new(pod_of(uid, &found)), found.observed, true);
    }

    fn start(&self, pod: Arc<Pod>, observed: Observed, gone: bool) {
        let id = uid(&pod).to_owned();
        let title = format!("{}/{}", namespace(&pod), name(&pod));
        let handle = Arc::new(Handle::new(pod.clone()));
        self.lock().handles.insert(id.clone(), handle.clone());
        let (context, ledger) = (self.context.clone(), self.ledger.clone());
        let state = self.state.clone();
        self.tasks.spawn(&title, async move {
            Worker::new(context, handle, ledger, pod, observed, gone).run().await;
            lock(&state).handles.remove(&id);
        });
    }

    fn handle(&self, uid: &str) -> Option<Arc<Handle>> {
        self.lock().handles.get(uid).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        let handles: Vec<Arc<Handle>> = self.lock().handles.values().cloned().collect();
        handles.iter().map(|handle| handle.snapshot()).collect()
    }
}

impl PodDirectory for Workers {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.snapshots().into_iter().map(|snapshot| snapshot.pod).collect()
    }

    fn container(&self, place: &str, pod: &str, container: &str, previous: bool) -> Option<ContainerRef> {
        // A pod that was replaced under its name may still be ending: the newer one is meant.
        let snapshots = self.snapshots();
        let named = snapshots.iter().filter(|it| namespace(&it.pod) == place && name(&it.pod) == pod);
        let snapshot = named.max_by_key(|it| it.pod.metadata.creation_timestamp.clone())?;
        let attempts = snapshot.observed.attempts(container);
        let found = attempts.into_iter().rev().nth(usize::from(previous))?;
        let log = sandbox::log_path(container, found.attempt);
        Some(ContainerRef {
            id: found.id.clone(),
            pod_uid: uid(&snapshot.pod).to_owned(),
            attempt: found.attempt,
            log_path: self.context.host.log_directory(&snapshot.pod).join(log),
            running: found.state == ContainerState::Running,
        })
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As much of a pod as its labels and annotations in the runtime tell: enough to end it well.
fn pod_of(uid: &str, found: &Found) -> Pod {
    let label = |key: &str| found.labels.get(key).cloned();
    let mut pod = Pod::default();
    pod.metadata.name = label(POD_NAME);
    pod.metadata.namespace = label(POD_NAMESPACE);
    pod.metadata.uid = Some(uid.to_owned());
    let grace = found.containers.values().find_map(|annotations| annotations.get(POD_GRACE)?.parse().ok());
    let container = |(name, annotations): (&String, &HashMap<String, String>)| Container {
        name: name.clone(),
        lifecycle: annotations
            .get(PRE_STOP)
            .and_then(|text| serde_json::from_str(text).ok())
            .map(|hook| Lifecycle { pre_stop: Some(hook), ..Lifecycle::default() }),
        ..Container::default()
    };
    pod.spec = Some(PodSpec {
        termination_grace_period_seconds: grace,
        containers: found.containers.iter().map(container).collect(),
        ..PodSpec::default()
    });
    pod
}
