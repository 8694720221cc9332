//! A node agent without containers: it registers its node, keeps its lease, and runs pods as the real one does.
//!
//! The machine outlives the agent: containers go on while the agent is cut off or down, and end with the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use apiserver::UserInfo;
use base::{Random, Tasks};
use client::{Cache, CacheConfig, Change, Client, Key, error};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};
use store::Revision;
use tokio::sync::{Notify, mpsc, watch};

use super::World;
use super::log::Role;
use super::network::{Gate, Link};

const RENEW: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(1);

/// What chaos does to a node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blow {
    /// The agent's process ends and starts again after a while; containers go on.
    Agent(Duration),
    /// The machine is off for a while.
    Machine(Duration),
}

/// One simulated node.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) gate: Gate,
    blows: mpsc::Sender<Blow>,
    calm: watch::Sender<bool>,
}

/// What a container's machine knows.
#[derive(Default)]
struct Machine {
    /// The pods whose containers run, by UID.
    running: BTreeMap<String, Containers>,
    /// Pods whose containers ended for good.
    ended: BTreeSet<String>,
}

#[derive(Clone)]
struct Containers {
    ip: String,
    restarts: u32,
    ready: bool,
    since: jiff::Timestamp,
}

/// The agent's process.
#[derive(Clone)]
struct Agent {
    world: World,
    name: String,
    client: Client,
    random: Random,
    machine: Arc<Mutex<Machine>>,
    pods: Cache<Pod>,
    workers: Arc<Mutex<BTreeMap<String, Arc<Notify>>>>,
    tasks: Tasks,
    calm: watch::Receiver<bool>,
    /// Where the store was when this process started to look.
    born: Revision,
}

impl Node {
    pub(crate) fn start(world: &World, number: u64) -> Self {
        let name = format!("node-{number}");
        let (blows, received) = mpsc::channel(8);
        let (calm, calmed) = watch::channel(false);
        let gate = Gate::new();
        let life = live(world.clone(), name.clone(), gate.clone(), received, calmed);
        world.tasks.spawn(&name, life);
        Self { name, gate, blows, calm }
    }

    pub(crate) fn hit(&self, blow: Blow) {
        // Full only if it was hit several times at the same instant.
        let _ = self.blows.try_send(blow);
    }

    /// No container crashes any more.
    pub(crate) fn calm(&self) {
        self.calm.send_replace(true);
    }
}

async fn live(
    world: World,
    name: String,
    gate: Gate,
    mut blows: mpsc::Receiver<Blow>,
    calm: watch::Receiver<bool>,
) {
    let random = world.random(&name);
    let machine: Arc<Mutex<Machine>> = Arc::default();
    loop {
        let tasks = Tasks::new(name.clone());
        Agent::start(&world, &name, &gate, &random, &machine, &tasks, &calm);
        let Some(blow) = blows.recv().await else { return };
        tasks.token().cancel();
        drop(tasks);
        let down = match blow {
            Blow::Agent(down) => down,
            Blow::Machine(down) => {
                // Within the blow, so that nothing of the old process comes after it.
                lock(&machine).running.clear();
                down
            }
        };
        world.clock.wait(down).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn shows_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

impl Agent {
    fn start(
        world: &World,
        name: &str,
        gate: &Gate,
        random: &Random,
        machine: &Arc<Mutex<Machine>>,
        tasks: &Tasks,
        calm: &watch::Receiver<bool>,
    ) {
        let link = Link {
            network: world.network.clone(),
            gate: gate.clone(),
            role: Role::Agent(name.to_owned()),
            user: UserInfo::node(name),
            server: None,
        };
        let client = link.client();
        let config = CacheConfig { fields: Some(format!("spec.nodeName={name}")), ..CacheConfig::default() };
        let pods = Cache::start(tasks, client.clone(), world.clock.clone(), random.clone(), config);
        let agent = Self {
            world: world.clone(),
            name: name.to_owned(),
            client,
            random: random.clone(),
            machine: machine.clone(),
            pods,
            workers: Arc::default(),
            tasks: tasks.clone(),
            calm: calm.clone(),
            born: world.log.with(|state| state.revision),
        };
        tasks.spawn("node", agent.clone().keep_node());
        tasks.spawn("pods", agent.keep_pods());
    }

    /// Registers the node, renews its lease, and writes its status when it is not as it should be.
    async fn keep_node(self) {
        let api: Api<NodeObject> = Api::all(self.client.clone());
        let mut written = None;
        loop {
            let now = self.world.clock.instant();
            let wait = match self.heartbeat(&api, &mut written, now).await {
                Ok(()) => RENEW,
                Err(_) => RETRY,
            };
            self.world.clock.wait(self.random.jitter(wait, 0.04)).await;
        }
    }

    async fn heartbeat(
        &self,
        api: &Api<NodeObject>,
        written: &mut Option<tokio::time::Instant>,
        now: tokio::time::Instant,
    ) -> Result<(), kube::Error> {
        let node = match api.get_opt(&self.name).await? {
            Some(node) => node,
            None => {
                let node = json!({
                    "apiVersion": "v1", "kind": "Node",
                    "metadata": {"name": self.name, "labels": {"kubernetes.io/hostname": self.name}},
                    "status": self.status(),
                });
                let node: NodeObject = serde_json::from_value(node).map_err(kube::Error::SerdeError)?;
                api.create(&PostParams::default(), &node).await?
            }
        };
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready =
            conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        if !ready || written.is_none_or(|written| now - written >= REPORT) {
            let patch = Patch::Strategic(json!({"status": self.status()}));
            api.patch_status(&self.name, &PatchParams::default(), &patch).await?;
            *written = Some(now);
        }
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let spec = json!({
            "holderIdentity": self.name,
            "leaseDurationSeconds": 40,
            "renewTime": format!("{:.6}", self.world.clock.now()),
        });
        let patch = Patch::Merge(json!({"spec": spec}));
        match leases.patch(&self.name, &PatchParams::default(), &patch).await {
            Err(failure) if error::is_not_found(&failure) => {
                let owner =
                    json!({"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": node.metadata.uid});
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": self.name, "ownerReferences": [owner]},
                    "spec": spec,
                });
                let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
                leases.create(&PostParams::default(), &lease).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    fn status(&self) -> Value {
        let now = self.world.clock.now();
        let conditions = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"].map(|kind| {
            let status = if kind == "Ready" { "True" } else { "False" };
            json!({"type": kind, "status": status, "lastHeartbeatTime": seconds(now), "lastTransitionTime": seconds(now)})
        });
        let resources = json!({"cpu": "4", "memory": "8Gi", "pods": "40"});
        json!({"conditions": conditions, "capacity": resources, "allocatable": resources})
    }

    /// One worker for each pod of this node.
    async fn keep_pods(self) {
        self.pods.synced().await;
        // What ran here and is not known to the API any more ends.
        let listed: BTreeSet<String> = self.pods.list().iter().map(|pod| uid(pod)).collect();
        lock(&self.machine).running.retain(|uid, _| listed.contains(uid));
        let (tell, mut told) = mpsc::unbounded_channel();
        self.pods.on_change(move |change| {
            if let Change::Applied(pod, _) | Change::Deleted(pod) = change {
                // Fails only when this loop has ended.
                let _ = tell.send((Key::of(&**pod), uid(pod)));
            }
        });
        while let Some((key, uid)) = told.recv().await {
            let known = lock(&self.workers).get(&uid).cloned();
            match known {
                Some(worker) => worker.notify_one(),
                None if self.look(&key, &uid).is_some() => {
                    let wake: Arc<Notify> = Arc::default();
                    lock(&self.workers).insert(uid.clone(), wake.clone());
                    let agent = self.clone();
                    self.tasks.spawn("pod", async move {
                        agent.run_pod(&key, &uid, &wake).await;
                        lock(&agent.machine).running.remove(&uid);
                        lock(&agent.workers).remove(&uid);
                        // It may have come back between the last look and now: never, for a UID.
                    });
                }
                None => {}
            }
        }
    }

    fn look(&self, key: &Key, wanted: &str) -> Option<Arc<Pod>> {
        self.pods.get_key(key).filter(|pod| uid(pod) == wanted)
    }

    /// From the first sight of a pod to its end.
    async fn run_pod(&self, key: &Key, uid: &str, wake: &Notify) {
        let clock = &self.world.clock;
        let mut next = None;
        loop {
            let Some(pod) = self.look(key, uid) else { return };
            if pod.metadata.deletion_timestamp.is_some() {
                return self.finish(key, uid, &pod).await;
            }
            let running = lock(&self.machine).running.get(uid).cloned();
            if running.is_none() && (has_ended(&pod) || lock(&self.machine).ended.contains(uid)) {
                wake.notified().await;
                continue;
            }
            match running {
                None => {
                    clock.wait(Duration::from_millis(100 + self.random.below(2500))).await;
                    if self.look(key, uid).is_some_and(|pod| pod.metadata.deletion_timestamp.is_none()) {
                        self.start_containers(uid);
                    }
                }
                Some(containers) => {
                    if shows_ready(&pod) != containers.ready || !shows_ip(&pod, &containers.ip) {
                        if self.report(key, uid, &containers).await.is_err() {
                            clock.wait(self.random.jitter(RETRY, 1.0)).await;
                        } else {
                            // The cache will show it; until then there is nothing else to say.
                            let patience = Duration::from_secs(5);
                            let _ = tokio::time::timeout(patience, wake.notified()).await;
                        }
                        continue;
                    }
                    let due =
                        *next.get_or_insert_with(|| clock.instant() + self.until_change(&pod, &containers));
                    tokio::select! {
                        biased;
                        () = wake.notified() => {}
                        () = clock.wait_until(due) => {
                            next = None;
                            self.change(&pod, uid);
                        }
                    }
                }
            }
        }
    }

    /// I6: no containers are started for a pod that was gone when this process began to look, nor on two nodes.
    fn start_containers(&self, uid: &str) {
        let ip = self.world.log.with(|state| {
            if let Some(&gone) = state.gone.get(uid)
                && gone <= self.born
            {
                let text = format!(
                    "{} starts pod {uid}, deleted at revision {gone}, although it began to look at {}",
                    self.name, self.born
                );
                state.report("I6", text);
            }
            state.next_address += 1;
            format!("10.200.{}.{}", state.next_address / 250, state.next_address % 250 + 1)
        });
        let containers = Containers { ip, restarts: 0, ready: false, since: self.world.clock.now() };
        lock(&self.machine).running.insert(uid.to_owned(), containers);
    }

    /// How long the containers stay as they are.
    fn until_change(&self, pod: &Pod, containers: &Containers) -> Duration {
        match containers.ready {
            false if is_broken(pod) => Duration::from_secs(3600),
            false => Duration::from_millis(200 + self.random.below(3000)),
            true => Duration::from_secs(20 + self.random.below(1200)),
        }
    }

    /// A container gets ready, or crashes and is started again.
    fn change(&self, pod: &Pod, uid: &str) {
        if let Some(containers) = lock(&self.machine).running.get_mut(uid) {
            if !containers.ready {
                containers.ready = !is_broken(pod);
            } else if !*self.calm.borrow() {
                containers.ready = false;
                containers.restarts += 1;
            }
        }
    }

    async fn report(&self, key: &Key, uid: &str, containers: &Containers) -> Result<(), kube::Error> {
        let now = seconds(self.world.clock.now());
        let word = if containers.ready { "True" } else { "False" };
        let conditions = ["Ready", "ContainersReady", "Initialized"].map(|kind| {
            let status = if kind == "Initialized" { "True" } else { word };
            json!({"type": kind, "status": status, "lastTransitionTime": now})
        });
        let status = json!({
            "phase": "Running", "podIP": containers.ip, "podIPs": [{"ip": containers.ip}],
            "startTime": seconds(containers.since), "conditions": conditions,
            "containerStatuses": [{
                "name": "c", "image": "x", "imageID": "x", "ready": containers.ready, "started": true,
                "restartCount": containers.restarts,
                "state": {"running": {"startedAt": seconds(containers.since)}},
            }],
        });
        self.patch(key, uid, status).await
    }

    async fn patch(&self, key: &Key, uid: &str, status: Value) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = Patch::Strategic(json!({"metadata": {"uid": uid}, "status": status}));
        api.patch_status(&key.name, &PatchParams::default(), &patch).await.map(drop)
    }

    /// Stops the containers, says so, and lets the object go.
    async fn finish(&self, key: &Key, uid: &str, pod: &Pod) {
        let clock = &self.world.clock;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(30).clamp(0, 30);
        if lock(&self.machine).running.contains_key(uid) {
            let most = u64::try_from(grace).unwrap_or(0) * 1000;
            clock.wait(Duration::from_millis(self.random.below(most.min(6000) + 1))).await;
            let mut machine = lock(&self.machine);
            machine.running.remove(uid);
            machine.ended.insert(uid.to_owned());
        }
        let mut told = has_ended(pod);
        while self.look(key, uid).is_some() {
            let done = if told { self.delete(key, uid).await } else { self.say_ended(key, uid).await };
            match done {
                Ok(()) if told => return,
                Ok(()) => told = true,
                // Gone, or another pod has its name.
                Err(failure) if error::is_not_found(&failure) || error::is_conflict(&failure) => return,
                Err(_) => clock.wait(self.random.jitter(RETRY, 1.0)).await,
            }
        }
    }

    async fn say_ended(&self, key: &Key, uid: &str) -> Result<(), kube::Error> {
        let now = seconds(self.world.clock.now());
        let conditions = ["Ready", "ContainersReady"]
            .map(|kind| json!({"type": kind, "status": "False", "lastTransitionTime": now}));
        self.patch(key, uid, json!({"phase": "Succeeded", "conditions": conditions})).await
    }

    async fn delete(&self, key: &Key, uid: &str) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params =
            DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }.grace_period(0);
        api.delete(&key.name, &params).await.map(drop)
    }
}

fn shows_ip(pod: &Pod, ip: &str) -> bool {
    pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()) == Some(ip)
}

/// Containers of this image never get ready.
fn is_broken(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.into_iter().any(|container| container.image.as_deref() == Some("app:broken"))
}

fn seconds(time: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
