//! One task per pod: takes in what is new, decides, and does what was decided.
//!
//! ```text
//!  API ──┐                       ┌─► start   (one at a time)
//!        ├─► inbox ─► plan ──────┼─► kill    (each container, or the pod)
//!  CRI ──┤     ▲      │          └─► collect, finish
//! probes ┘     └──────┴─ outcome ◄──────┘
//!                     └─► status ─► API  (one write in flight)
//! ```
//!
//! Nothing waits for a timer that an event could end: a worker sleeps until something is told to it, one of
//! its jobs ends, or the plan's own deadline comes.

mod finish;
mod inbox;
mod jobs;
mod kill;
mod message;
mod report;
mod start;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::context::{Context, container_reference, reference};
use crate::images::PullBackoff;
use crate::ledger::Ledger;
use crate::pod::backoff::Backoff;
use crate::pod::plan::{Ending, Restart, ending, restart};
use crate::pod::status::{pod_ips, status, words, words_change_at};
use crate::pod::{
    self, ContainerState, Failure, Observed, ObservedContainer, ObservedSandbox, ProbeResults, Rejection,
    Role, View, find_container, plan, uid,
};
use crate::probes::{Prober, Target};
pub(crate) use inbox::Inbox;
use jobs::Jobs;
use report::Report;

/// Ids of removed things that late reports may still name.
const REMEMBERED: usize = 64;

/// What others may see of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) pod: Arc<Pod>,
    pub(crate) observed: Observed,
}

/// The side of a worker that others hold.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) inbox: Arc<Inbox>,
    snapshot: Mutex<Snapshot>,
}

impl Handle {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let snapshot = Snapshot { pod, observed: Observed::default() };
        Self { inbox: Arc::default(), snapshot: Mutex::new(snapshot) }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The state of one pod's task.
pub(crate) struct Worker {
    context: Arc<Context>,
    handle: Arc<Handle>,
    ledger: Arc<Ledger>,
    pod: Arc<Pod>,
    observed: Observed,
    /// Ids that were removed, oldest first: reports of them are late.
    removed: VecDeque<String>,
    probes: BTreeMap<String, ProbeResults>,
    probers: BTreeMap<String, Prober>,
    failures: BTreeMap<String, Failure>,
    /// How often in a row a container could not be started.
    failed_starts: BTreeMap<String, u32>,
    backoff: BTreeMap<String, Backoff>,
    /// By image.
    pulls: BTreeMap<String, PullBackoff>,
    sandbox_failure: Option<Failure>,
    failed_sandboxes: u32,
    /// Kills and cleanups are not tried again before.
    retry_at: Option<Timestamp>,
    failed_ends: u32,
    rejection: Option<Rejection>,
    start_time: Timestamp,
    gone: bool,
    finished: bool,
    /// The sandbox in which the volumes are made.
    volumes_in: Option<String>,
    /// The volumes of running containers may show an old state of the pod, or nobody keeps them current.
    volumes_are_old: bool,
    /// What was told by an event that is told once.
    told: BTreeSet<String>,
    jobs: Jobs,
    report: Report,
}

impl Worker {
    /// The worker of a pod. `observed` is what the runtime already has of it.
    pub(crate) fn new(
        context: Arc<Context>,
        handle: Arc<Handle>,
        ledger: Arc<Ledger>,
        pod: Arc<Pod>,
        observed: Observed,
        gone: bool,
    ) -> Self {
        let start_time = context.clock.now();
        Self {
            context,
            handle,
            ledger,
            pod,
            observed,
            removed: VecDeque::new(),
            probes: BTreeMap::new(),
            probers: BTreeMap::new(),
            failures: BTreeMap::new(),
            failed_starts: BTreeMap::new(),
            backoff: BTreeMap::new(),
            pulls: BTreeMap::new(),
            sandbox_failure: None,
            failed_sandboxes: 0,
            retry_at: None,
            failed_ends: 0,
            rejection: None,
            start_time,
            gone,
            finished: false,
            volumes_in: None,
            volumes_are_old: true,
            told: BTreeSet::new(),
            jobs: Jobs::default(),
            report: Report::default(),
        }
    }

    /// Works for the pod until it has gone from the API and from the node.
    pub(crate) async fn run(mut self) {
        self.read_old_messages().await;
        self.admit();
        loop {
            self.take_in().await;
            if self.gone && self.finished {
                break;
            }
            let wake = self.turn();
            let clock = self.context.clock.clone();
            let sleep = async {
                match wake {
                    Some(at) => {
                        let left = Duration::try_from(at.duration_since(clock.now())).unwrap_or_default();
                        // Not to wake up just before the deadline and find that nothing is due.
                        clock.wait(left + Duration::from_millis(1)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(done) = self.jobs.running.next(), if !self.jobs.running.is_empty() => self.apply(done).await,
                () = self.handle.inbox.changed() => {}
                () = sleep => {}
            }
        }
        self.ledger.release(uid(&self.pod));
    }

    /// Decides whether the node takes the pod. What was taken before, by this agent or the last, stays.
    fn admit(&mut self) {
        let known = !self.observed.is_empty()
            || self.pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        let ends = self.gone || self.pod.metadata.deletion_timestamp.is_some() || pod::is_finished(&self.pod);
        if ends {
            return;
        }
        if known {
            self.ledger.take(&self.pod);
            return;
        }
        let node = self.context.source.node().unwrap_or_default();
        if let Err(rejection) = self.ledger.admit(&self.pod, &node, &self.context.allocatable) {
            let about = reference(&self.pod);
            self.context.events.warning(&about, &rejection.reason, rejection.message.clone());
            self.rejection = Some(rejection);
        }
    }

    fn view(&self) -> View<'_> {
        View {
            pod: &self.pod,
            observed: &self.observed,
            probes: &self.probes,
            failures: &self.failures,
            backoff: &self.backoff,
            sandbox_failure: self.sandbox_failure.as_ref(),
            rejection: self.rejection.as_ref(),
            start_time: self.start_time,
            gone: self.gone,
            now: self.context.clock.now(),
            runtime: &self.context.runtime_name,
            host_ips: &self.context.host_ips,
        }
    }

    /// Decides, reports and starts what is to be done. Returns when to look again.
    fn turn(&mut self) -> Option<Timestamp> {
        let end = ending(&self.view());
        self.follow_probes(end.is_some());
        let view = self.view();
        let (plan, status, now) = (plan(&view), status(&view), view.now);
        let mut wake = plan.wake;
        let earlier = |wake: &mut Option<Timestamp>, at: Option<Timestamp>| {
            if let Some(at) = at.filter(|at| *at > now) {
                *wake = Some(wake.map_or(at, |wake| wake.min(at)));
            }
        };
        for failure in self.failures.values() {
            earlier(&mut wake, words_change_at(failure));
        }
        self.tell_of_waits(end);
        if end.is_some() {
            self.jobs.cancel_start();
            if self.observed.is_stopped() {
                self.ledger.release(uid(&self.pod));
            }
        }
        let written = self.write(&status, now);
        self.execute(plan, now, written);
        if end.is_none() {
            self.refresh_volumes();
        }
        earlier(&mut wake, self.retry_at);
        earlier(&mut wake, self.report.retry_at);
        self.publish();
        wake
    }

    fn publish(&self) {
        let snapshot = Snapshot { pod: self.pod.clone(), observed: self.observed.clone() };
        *self.handle.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    // === taking in ===

    async fn take_in(&mut self) {
        let news = self.handle.inbox.take();
        if let Some(pod) = news.pod {
            self.take_pod(pod);
        }
        self.gone |= news.gone;
        for (_, sandbox) in news.sandboxes {
            self.see_sandbox(sandbox);
        }
        for (_, container) in news.containers {
            self.see_container(container).await;
        }
        for id in news.removed {
            self.forget(id);
        }
        for (id, results) in news.probes {
            if self.probers.contains_key(&id) {
                self.probes.insert(id, results);
            }
        }
    }

    /// The newer of two states of the pod counts: the answer to a write may come before or after the watch.
    fn take_pod(&mut self, pod: Arc<Pod>) {
        let revision = |pod: &Pod| {
            pod.metadata.resource_version.as_deref().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        if revision(&pod) < revision(&self.pod) || uid(&pod) != uid(&self.pod) {
            return;
        }
        let image = |pod: &Pod, name: &str| find_container(pod, name).and_then(|(found, _)| found.image);
        // Another image is another try.
        self.failures.retain(|name, _| image(&pod, name) == image(&self.pod, name));
        self.report.closed = false;
        self.volumes_are_old |= pod.metadata.labels != self.pod.metadata.labels
            || pod.metadata.annotations != self.pod.metadata.annotations;
        self.pod = pod;
    }

    fn see_sandbox(&mut self, sandbox: ObservedSandbox) {
        if !self.removed.contains(&sandbox.id) {
            self.observed.merge_sandbox(sandbox);
        }
    }

    async fn see_container(&mut self, container: ObservedContainer) {
        // A container whose postStart hook still runs doesn't count as running yet.
        let starting = self.jobs.holds(&container.name) && container.state != ContainerState::Exited;
        if self.removed.contains(&container.id) || starting {
            return;
        }
        let known = self.observed.container(&container.id).map(|known| known.state);
        let has_ended = container.state == ContainerState::Exited && known != Some(ContainerState::Exited);
        let mut container = container;
        if has_ended && let Some((spec, _)) = find_container(&self.pod, &container.name) {
            let said = message::read(&self.context, &self.pod, &spec, &container).await;
            if !said.is_empty() {
                container.message = said;
            }
        }
        self.observed.merge_container(container);
    }

    /// The messages of containers that ended before this agent started.
    async fn read_old_messages(&mut self) {
        let ended: Vec<ObservedContainer> =
            self.observed.containers().filter(|it| it.state == ContainerState::Exited).cloned().collect();
        for container in ended {
            let Some((spec, _)) = find_container(&self.pod, &container.name) else { continue };
            let said = message::read(&self.context, &self.pod, &spec, &container).await;
            if !said.is_empty() {
                self.observed.set_message(&container.id, said);
            }
        }
    }

    fn forget(&mut self, id: String) {
        self.observed.remove_container(&id);
        self.observed.remove_sandbox(&id);
        if self.removed.len() == REMEMBERED {
            self.removed.pop_front();
        }
        self.removed.push_back(id);
    }

    // === probes ===

    /// Starts the probes of containers that run now, and ends those of the others.
    fn follow_probes(&mut self, ends: bool) {
        let running: BTreeSet<String> = self.observed.running().map(|it| it.id.clone()).collect();
        self.probers.retain(|id, _| running.contains(id));
        self.probes.retain(|id, _| running.contains(id));
        if ends {
            self.probers.values().for_each(Prober::stop_liveness);
            if self.gone {
                self.probers.clear();
            }
        }
        let ips = pod_ips(&self.view());
        let new: Vec<ObservedContainer> =
            self.observed.running().filter(|it| !self.probes.contains_key(&it.id)).cloned().collect();
        for container in new {
            let Some((spec, role)) = find_container(&self.pod, &container.name) else { continue };
            let mut known = Prober::first_results(&spec);
            if let Some((started, ready)) = self.told_of(&container.id) {
                known.started |= started;
                known.ready = known.started && (ready || spec.readiness_probe.is_none());
            }
            self.probes.insert(container.id.clone(), known.clone());
            if ends || role == Role::Init || role == Role::Ephemeral {
                continue;
            }
            let target = Target {
                id: container.id.clone(),
                container: spec,
                role,
                pod: self.pod.clone(),
                pod_ip: ips.first().cloned().unwrap_or_default(),
                started_at: container.started_at.unwrap_or(container.created_at),
            };
            if let Some(prober) = Prober::start(&self.context, &self.handle.inbox, target, known) {
                self.probers.insert(container.id, prober);
            }
        }
    }

    /// Whether the API was told that this container has started and is ready: by the agent before this one.
    fn told_of(&self, id: &str) -> Option<(bool, bool)> {
        let status = self.pod.status.as_ref()?;
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let full = format!("{}://{id}", self.context.runtime_name);
        let found = all.into_iter().find(|status| status.container_id.as_deref() == Some(full.as_str()))?;
        Some((found.started == Some(true), found.ready))
    }

    // === reporting ===

    /// Writes the status if the API has another one. True if there is nothing left to write.
    fn write(&mut self, status: &PodStatus, now: Timestamp) -> bool {
        if self.gone || self.report.closed {
            return true;
        }
        let Some(patch) = report::patch(&self.pod, status) else { return !self.report.in_flight };
        if !self.report.in_flight && self.report.is_vain(&self.pod, status) {
            return true;
        }
        if self.report.in_flight || self.report.retry_at.is_some_and(|at| at > now) {
            return false;
        }
        self.report.send(status);
        tracing::debug!(pod = %pod::title(&self.pod), patch = %serde_json::Value::Object(patch.clone()), "status");
        let (namespace, name) = (pod::namespace(&self.pod).to_owned(), pod::name(&self.pod).to_owned());
        self.jobs.write(report::write(self.context.client.clone(), namespace, name, patch));
        false
    }

    fn written(&mut self, answer: Result<Pod, kube::Error>) {
        self.report.in_flight = false;
        match answer {
            Ok(pod) => {
                self.report.succeeded(&pod);
                self.take_pod(Arc::new(pod));
            }
            // Gone, or another pod of this name: the watch will tell.
            Err(error) if client::error::is_not_found(&error) || client::error::is_conflict(&error) => {
                self.report.closed = true;
            }
            Err(error) => {
                tracing::warn!(pod = %pod::title(&self.pod), %error, "can't write a pod's status");
                self.report.failed(self.context.clock.now());
            }
        }
    }

    /// Tells once of each wait: for the next restart of a crashing container, for the next try of a pull.
    fn tell_of_waits(&mut self, end: Option<Ending>) {
        if end.is_some() {
            return;
        }
        let mut waits = Vec::new();
        let view = self.view();
        for container in pod::init_containers(&self.pod).iter().chain(pod::main_containers(&self.pod)) {
            let Some((_, role)) = find_container(&self.pod, &container.name) else { continue };
            let name = &container.name;
            if let Some(latest) = self.observed.latest(name)
                && latest.state == ContainerState::Exited
                && matches!(restart(&view, container, role, latest), Restart::At(..))
            {
                let title = pod::title(&self.pod);
                let message = format!("Back-off restarting failed container {name} in pod {title}");
                waits.push((format!("wait {}", latest.id), role, name.clone(), "BackOff", message));
            }
            if let Some(failure) = self.failures.get(name)
                && words(failure, view.now).0 == "ImagePullBackOff"
            {
                let image = container.image.as_deref().unwrap_or_default();
                let key = format!("pull {name} {}", failure.at);
                let message = format!("Back-off pulling image \"{image}\"");
                waits.push((key.clone(), role, name.clone(), "BackOff", message));
                let message = "Error: ImagePullBackOff".to_owned();
                waits.push((format!("{key} error"), role, name.clone(), "Failed", message));
            }
        }
        for (key, role, name, reason, message) in waits {
            if self.told.insert(key) {
                let about = container_reference(&self.pod, role, &name);
                if message.starts_with("Back-off pulling") {
                    self.context.events.normal(&about, reason, message);
                } else {
                    self.context.events.warning(&about, reason, message);
                }
            }
        }
        // Keys of containers and failures that are long past.
        while self.told.len() > 4 * REMEMBERED {
            self.told.pop_first();
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("pod", &pod::title(&self.pod)).finish_non_exhaustive()
    }
}
