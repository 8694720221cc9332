//! Feeds the engine from the shared caches and carries its decisions to the API.
//!
//! One task owns the engine's state, so decisions are serial. Changes reach it as a set of keys to look at
//! again: the set is as small as what changed, however often it changed. Binding, status and events are IO and
//! run beside it, a bounded number at a time.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{Clock, Random, Tasks};
use client::{Cache, CacheConfig, Change, Client, Events, Key, Reference, error};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::engine::{Cluster, Decision, PodKey, Queue, QueuedPod, Rejection, decide};
use crate::project;

/// The scheduler's name in `spec.schedulerName`.
const NAME: &str = "default-scheduler";
/// Bindings and status updates in flight.
const IN_FLIGHT: usize = 64;
/// Pauses between attempts to find out what became of a binding.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LAST_LOOK: Duration = Duration::from_secs(5);

/// What a scheduler needs.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    pub client: SharedClient,
    pub clock: Clock,
    pub random: Random,
}

/// A client that can be shown.
#[derive(Clone)]
pub struct SharedClient(pub Client);

/// The running scheduler.
#[derive(Debug)]
pub struct Scheduler {
    pods: Cache<Pod>,
    nodes: Cache<Node>,
}

/// What changed since the engine looked last.
#[derive(Debug, Default)]
struct Dirty {
    pods: BTreeSet<Key>,
    nodes: BTreeSet<String>,
    namespaces: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Changes {
    dirty: Mutex<Dirty>,
    arrived: Notify,
}

/// How an attempt to bind ended.
struct Outcome {
    pod: QueuedPod,
    bound: bool,
    /// The pod is gone or has another node: don't try again.
    gone: bool,
}

struct Driver {
    client: Client,
    clock: Clock,
    random: Random,
    tasks: Tasks,
    events: Events,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    namespaces: Cache<Namespace>,
    changes: Arc<Changes>,
    cluster: Cluster,
    queue: Queue,
    started: Instant,
    /// Pods that were given a node which the API does not show yet.
    /// With the pod's UID: another may take its name while it is being bound.
    assumed: HashMap<PodKey, String>,
    permits: Arc<Semaphore>,
    outcomes: mpsc::Sender<Outcome>,
}

impl Scheduler {
    /// Starts to schedule, once the caches are filled, until `tasks` is shut down.
    pub fn start(tasks: &Tasks, config: SchedulerConfig) -> Self {
        let SchedulerConfig { client: SharedClient(client), clock, random } = config;
        let pods: Cache<Pod> = Cache::start(
            tasks,
            client.clone(),
            clock.clone(),
            random.clone(),
            CacheConfig { trim: Some(project::trim_pod), ..CacheConfig::default() },
        );
        let nodes: Cache<Node> =
            Cache::start(tasks, client.clone(), clock.clone(), random.clone(), CacheConfig::default());
        let namespaces: Cache<Namespace> =
            Cache::start(tasks, client.clone(), clock.clone(), random.clone(), CacheConfig::default());
        let events = Events::start(tasks, client.clone(), clock.clone(), random.clone(), NAME, "");
        let (outcomes, results) = mpsc::channel(IN_FLIGHT);
        let driver = Driver {
            client,
            started: clock.instant(),
            clock,
            random,
            tasks: tasks.clone(),
            events,
            pods: pods.clone(),
            nodes: nodes.clone(),
            namespaces,
            changes: Arc::default(),
            cluster: Cluster::default(),
            queue: Queue::default(),
            assumed: HashMap::new(),
            permits: Arc::new(Semaphore::new(IN_FLIGHT)),
            outcomes,
        };
        tasks.spawn("scheduler", driver.run(results));
        Self { pods, nodes }
    }

    /// Returns once the scheduler knows the cluster.
    pub async fn ready(&self) {
        self.nodes.synced().await;
        self.pods.synced().await;
    }
}

impl Changes {
    fn note(&self, f: impl FnOnce(&mut Dirty) -> bool) {
        f(&mut self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        self.arrived.notify_one();
    }

    fn take(&self) -> Dirty {
        std::mem::take(&mut self.dirty.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The object behind a change.
fn changed<K>(change: &Change<K>) -> Option<&Arc<K>> {
    match change {
        Change::Applied(object, _) | Change::Deleted(object) => Some(object),
        Change::Missed => None,
    }
}

impl Driver {
    async fn run(mut self, mut results: mpsc::Receiver<Outcome>) {
        self.namespaces.synced().await;
        self.nodes.synced().await;
        self.pods.synced().await;
        self.follow();
        loop {
            self.look_again();
            while let Ok(outcome) = results.try_recv() {
                self.settle(outcome);
            }
            if let Some(pod) = self.queue.pop(self.now()) {
                self.attempt(pod).await;
                continue;
            }
            let wake = self.queue.next_wake().map(|at| self.started + at);
            tokio::select! {
                biased;
                () = self.changes.arrived.notified() => {}
                Some(outcome) = results.recv() => self.settle(outcome),
                () = wait_until(&self.clock, wake) => {}
            }
        }
    }

    fn follow(&self) {
        let changes = self.changes.clone();
        self.namespaces.on_change(move |change| {
            if let Some(object) = changed(change) {
                changes.note(|dirty| dirty.namespaces.insert(Key::of(&**object).name));
            }
        });
        let changes = self.changes.clone();
        self.nodes.on_change(move |change| {
            // Heartbeats change nothing that a decision depends on.
            if let Change::Applied(new, Some(old)) = change
                && project::node(new) == project::node(old)
            {
                return;
            }
            if let Some(object) = changed(change) {
                changes.note(|dirty| dirty.nodes.insert(Key::of(&**object).name));
            }
        });
        let changes = self.changes.clone();
        self.pods.on_change(move |change| {
            if let Some(object) = changed(change) {
                changes.note(|dirty| dirty.pods.insert(Key::of(&**object)));
            }
        });
    }

    fn now(&self) -> Duration {
        self.clock.instant() - self.started
    }

    /// Takes over the current state of everything that changed.
    fn look_again(&mut self) {
        let dirty = self.changes.take();
        let now = self.now();
        let mut events = Vec::new();
        for name in dirty.namespaces {
            let labels =
                self.namespaces.get("", &name).map(|found| found.metadata.labels.clone().unwrap_or_default());
            events.extend(self.cluster.set_namespace(&name, labels));
        }
        for name in dirty.nodes {
            match self.nodes.get("", &name) {
                Some(node) => events.extend(self.cluster.set_node(project::node(&node))),
                None => self.cluster.remove_node(&name),
            }
        }
        for key in dirty.pods {
            let pod_key = (key.namespace.clone(), key.name.clone());
            let pod = self.pods.get_key(&key);
            events.extend(match pod.as_deref().and_then(project::counted) {
                Some((counted, node)) => {
                    self.queue.remove(&pod_key);
                    self.assumed.remove(&pod_key);
                    self.cluster.assign(counted, &node)
                }
                None => self.pending(pod_key, pod, now),
            });
        }
        for event in events {
            self.queue.on_event(event, now);
        }
    }

    /// A pod that counts on no node by the API: it waits for one, or is gone.
    fn pending(
        &mut self,
        key: PodKey,
        pod: Option<Arc<Pod>>,
        now: Duration,
    ) -> Option<crate::engine::ClusterEvent> {
        let waits = pod.filter(|pod| {
            !project::has_ended(pod)
                && pod.metadata.deletion_timestamp.is_none()
                && pod
                    .spec
                    .as_ref()
                    .is_some_and(|spec| spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME)
        });
        match waits {
            Some(pod) => {
                let assumed = self.assumed.get(&key);
                if assumed.is_some() && assumed == pod.metadata.uid.as_ref() {
                    return None;
                }
                self.queue.add(Arc::new(project::pod(&pod)), now);
                // What was assumed was of a pod that is gone.
                self.assumed.remove(&key).and_then(|_| self.cluster.unassign(&key))
            }
            None => {
                self.queue.remove(&key);
                self.assumed.remove(&key);
                self.cluster.unassign(&key)
            }
        }
    }

    async fn attempt(&mut self, pod: QueuedPod) {
        match decide(&pod.pod, &self.cluster, self.random.u64()) {
            Decision::Placed { node, searched } => {
                self.cluster.searched(searched);
                let key = pod.pod.key();
                self.assumed.insert(key, pod.pod.uid.clone());
                let event = self.cluster.assign(pod.pod.clone(), &node);
                let now = self.now();
                if let Some(event) = event {
                    self.queue.on_event(event, now);
                }
                self.bind(pod, node).await;
            }
            Decision::Rejected(rejection) => {
                self.explain(&pod, &rejection).await;
                let now = self.now();
                self.queue.rejected(pod, rejection.plugins, now);
            }
        }
    }

    async fn bind(&self, pod: QueuedPod, node: String) {
        // Never closed.
        let Ok(permit) = self.permits.clone().acquire_owned().await else { return };
        let (client, events, outcomes) = (self.client.clone(), self.events.clone(), self.outcomes.clone());
        let clock = self.clock.clone();
        self.tasks.spawn("bind", async move {
            let about = reference(&pod);
            let (bound, gone) = match post_binding(&client, &pod, &node).await {
                Ok(()) => (true, false),
                Err(failure) => {
                    if !error::is_not_found(&failure) && !error::is_conflict(&failure) {
                        warn!(pod = %pod.pod.name, namespace = %pod.pod.namespace, error = %failure, "can't bind");
                        events.warning(&about, "FailedScheduling", format!("binding rejected: {failure}"));
                    }
                    what_became(&client, &clock, &pod).await
                }
            };
            if bound {
                let (namespace, name) = (&pod.pod.namespace, &pod.pod.name);
                let message = format!("Successfully assigned {namespace}/{name} to {node}");
                events.normal(&about, "Scheduled", message);
            }
            let outcome = Outcome { pod, bound, gone };
            drop(permit);
            // Fails only when the scheduler ends.
            let _ = outcomes.send(outcome).await;
        });
    }

    fn settle(&mut self, outcome: Outcome) {
        if outcome.bound {
            return;
        }
        let key = outcome.pod.pod.key();
        // The cache may have shown the truth in the meantime, or another pod of this name.
        if self.assumed.get(&key) != Some(&outcome.pod.pod.uid) {
            return;
        }
        self.assumed.remove(&key);
        let now = self.now();
        let event = self.cluster.unassign(&key);
        let waits = self.pods.get(&key.0, &key.1).is_some_and(|pod| {
            pod.metadata.uid.as_deref() == Some(&outcome.pod.pod.uid)
                && pod.metadata.deletion_timestamp.is_none()
        });
        if !outcome.gone || waits {
            self.queue.failed(outcome.pod, now);
        }
        if let Some(event) = event {
            self.queue.on_event(event, now);
        }
    }

    /// Says on the pod and in an event why it is pending.
    async fn explain(&self, pod: &QueuedPod, rejection: &Rejection) {
        let message = rejection.to_string();
        debug!(pod = %pod.pod.name, namespace = %pod.pod.namespace, message, "no node can run the pod");
        self.events.warning(&reference(pod), "FailedScheduling", message.clone());
        let shown = self.pods.get(&pod.pod.namespace, &pod.pod.name).is_some_and(|shown| {
            let conditions = shown.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.into_iter().flatten().any(|condition| {
                condition.type_ == "PodScheduled"
                    && condition.status == "False"
                    && condition.message.as_deref() == Some(&message)
            })
        });
        if shown {
            return;
        }
        let Ok(permit) = self.permits.clone().acquire_owned().await else { return };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.pod.namespace);
        let (name, uid) = (pod.pod.name.clone(), pod.pod.uid.clone());
        let patch = json!({
            "metadata": { "uid": uid },
            "status": { "conditions": [{
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
                "lastTransitionTime": self.clock.now(),
            }] },
        });
        self.tasks.spawn("explain", async move {
            if let Err(failure) =
                api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await
            {
                debug!(pod = name, error = %failure, "can't say why the pod is pending");
            }
            drop(permit);
        });
    }
}

async fn wait_until(clock: &Clock, at: Option<Instant>) {
    match at {
        Some(at) => clock.wait_until(at).await,
        None => std::future::pending().await,
    }
}

fn reference(pod: &QueuedPod) -> Reference {
    Reference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: pod.pod.namespace.clone(),
        name: pod.pod.name.clone(),
        uid: pod.pod.uid.clone(),
        field_path: String::new(),
    }
}

/// Whether a pod has a node or is gone, after its binding failed in whatever way: the answer may be lost of one that
/// was made. The pod counts on its node until this is known, else its place would be given away twice.
async fn what_became(client: &Client, clock: &Clock, pod: &QueuedPod) -> (bool, bool) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.pod.namespace);
    let mut pause = FIRST_LOOK;
    loop {
        match api.get_opt(&pod.pod.name).await {
            Ok(found) => {
                let found = found.filter(|found| found.metadata.uid.as_deref() == Some(&pod.pod.uid));
                let Some(found) = found else { return (false, true) };
                return (found.spec.is_some_and(|spec| spec.node_name.is_some()), false);
            }
            Err(failure) => {
                debug!(pod = pod.pod.name, error = %failure, "can't tell whether the pod was bound");
                clock.wait(pause).await;
                pause = (pause * 2).min(LAST_LOOK);
            }
        }
    }
}

async fn post_binding(client: &Client, pod: &QueuedPod, node: &str) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.pod.namespace);
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "name": pod.pod.name, "namespace": pod.pod.namespace, "uid": pod.pod.uid },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    let _: serde_json::Value =
        api.create_subresource("binding", &pod.pod.name, &PostParams::default(), &binding).await?;
    Ok(())
}

impl std::fmt::Debug for SharedClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}
