//! What a worker does beside deciding: at most one start, any number of kills, one write; and what follows
//! from the end of each.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::finish::{collect, finish};
use super::kill::{Killed, Killer, Victim};
use super::start::{self, NotStarted, SandboxMade, Start, Started};
use super::{Worker, pod};
use crate::context::reference;
use crate::host::HostError;
use crate::images::PullBackoff;
use crate::pod::backoff::after_restart;
use crate::pod::plan::{Action, KillReason};
use crate::pod::status::pod_ips;
use crate::pod::{ContainerState, Failure, ObservedContainer, Plan, Role, find_container};

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// The jobs that run now.
#[derive(Default)]
pub(super) struct Jobs {
    pub(super) running: FuturesUnordered<BoxFuture<'static, Done>>,
    start: Option<Starting>,
    /// Kills of single containers, by id.
    kills: BTreeMap<String, watch::Sender<Instant>>,
    pod_kill: Option<watch::Sender<Instant>>,
    cleanup: bool,
    refresh: bool,
}

#[derive(Debug)]
struct Starting {
    container: Option<String>,
    has_hook: bool,
    cancelled: CancellationToken,
    /// When the attempt before this one ended, and when this one was begun.
    restarts: Option<(Timestamp, Timestamp)>,
}

/// The end of a job.
#[derive(Debug)]
pub(super) enum Done {
    Sandbox(SandboxMade),
    Start(Box<Started>),
    Kill(String, Killed),
    KillPod(Killed),
    Collect(Vec<String>, Result<(), String>),
    Finish(Vec<String>, Result<(), String>),
    Refresh(Result<(), HostError>),
    Write(Box<Result<Pod, kube::Error>>),
}

impl Jobs {
    pub(super) fn cancel_start(&self) {
        if let Some(starting) = &self.start {
            starting.cancelled.cancel();
        }
    }

    /// True while the postStart hook of this container may run.
    pub(super) fn holds(&self, container: &str) -> bool {
        self.start
            .as_ref()
            .is_some_and(|start| start.has_hook && start.container.as_deref() == Some(container))
    }

    pub(super) fn write(&self, write: impl Future<Output = Result<Pod, kube::Error>> + Send + 'static) {
        self.running.push(write.map(|answer| Done::Write(Box::new(answer))).boxed());
    }
}

/// How long to wait after this many failures in a row.
fn retry_after(failures: u32) -> Duration {
    (FIRST_RETRY * 2u32.saturating_pow(failures.min(8))).min(LAST_RETRY)
}

impl Worker {
    /// Starts what the plan says and what may run beside what runs already. `written`: the API knows it all.
    pub(super) fn execute(&mut self, plan: Plan, now: Timestamp, written: bool) {
        let may_retry = self.retry_at.is_none_or(|at| at <= now);
        for action in plan.actions {
            match action {
                Action::CreateSandbox { attempt } => self.start_sandbox(attempt),
                Action::StartContainer { name, role, attempt } => {
                    self.start_container(&name, role, attempt, now);
                }
                Action::KillContainer { id, reason, grace, .. } if may_retry => {
                    self.kill_container(&id, reason, grace);
                }
                Action::KillPod { reason, grace } if may_retry => self.kill_pod(reason, grace),
                Action::Collect { containers, sandboxes } if may_retry => {
                    self.collect(containers, sandboxes);
                }
                Action::Finish if may_retry && written => self.finish(),
                _ => {}
            }
        }
    }

    fn start_sandbox(&mut self, attempt: u32) {
        if self.jobs.start.is_some() || self.jobs.pod_kill.is_some() {
            return;
        }
        let cancelled = CancellationToken::new();
        self.jobs.start = Some(Starting { container: None, has_hook: false, cancelled, restarts: None });
        if attempt > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.context.events.normal(&reference(&self.pod), "SandboxChanged", message);
        }
        let job = start::sandbox(self.context.clone(), self.pod.clone(), attempt);
        self.jobs.running.push(job.map(Done::Sandbox).boxed());
    }

    fn start_container(&mut self, name: &str, role: Role, attempt: u32, now: Timestamp) {
        if self.jobs.start.is_some() || self.jobs.pod_kill.is_some() {
            return;
        }
        let Some((container, _)) = find_container(&self.pod, name) else { return };
        let Some(sandbox) = self.observed.ready_sandbox().cloned() else { return };
        let latest = self.observed.latest(name);
        let of = |state| latest.filter(|latest| latest.state == state);
        let stale = of(ContainerState::Created).map(|latest| latest.id.clone());
        let restarts =
            of(ContainerState::Exited).map(|latest| (latest.finished_at.unwrap_or(latest.created_at), now));
        let cancelled = CancellationToken::new();
        let job = Start {
            context: self.context.clone(),
            pod: self.pod.clone(),
            role,
            attempt,
            pod_ips: pod_ips(&self.view()),
            target: self.target_of(name),
            stale,
            volumes_are_made: self.volumes_in.as_ref() == Some(&sandbox.id),
            sandbox,
            cancelled: cancelled.clone(),
            container,
        };
        let has_hook =
            job.container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some());
        self.jobs.start = Some(Starting { container: Some(name.to_owned()), has_hook, cancelled, restarts });
        self.jobs.running.push(job.run().map(|started| Done::Start(Box::new(started))).boxed());
    }

    /// The running container that an ephemeral container looks into.
    fn target_of(&self, name: &str) -> Option<String> {
        let ephemeral = pod::ephemeral_containers(&self.pod).iter().find(|it| it.name == name)?;
        let target = ephemeral.target_container_name.as_deref().filter(|target| !target.is_empty())?;
        self.observed.latest(target).map(|latest| latest.id.clone())
    }

    fn killer(&self, grace: Duration) -> (watch::Sender<Instant>, Killer) {
        let (sender, deadline) = watch::channel(self.context.clock.instant() + grace);
        let pod_ip = pod_ips(&self.view()).first().cloned();
        (sender, Killer { context: self.context.clone(), pod: self.pod.clone(), pod_ip, deadline })
    }

    fn victim(&mut self, observed: &ObservedContainer, reason: KillReason) -> Victim {
        let unknown = || (Container { name: observed.name.clone(), ..Container::default() }, Role::Main);
        let (container, role) = find_container(&self.pod, &observed.name).unwrap_or_else(unknown);
        let is_new = self.told.insert(format!("kill {}", observed.id));
        let event = is_new.then(|| reason.message(&observed.name));
        Victim { observed: observed.clone(), container, role, event }
    }

    fn kill_container(&mut self, id: &str, reason: KillReason, grace: Duration) {
        if self.jobs.kills.contains_key(id) || self.jobs.pod_kill.is_some() {
            return;
        }
        let Some(observed) = self.observed.container(id).cloned() else { return };
        let victim = self.victim(&observed, reason);
        let (sender, killer) = self.killer(grace);
        self.jobs.kills.insert(id.to_owned(), sender);
        let id = id.to_owned();
        self.jobs.running.push(killer.container(victim).map(|killed| Done::Kill(id, killed)).boxed());
    }

    fn kill_pod(&mut self, reason: KillReason, grace: Duration) {
        let deadline = self.context.clock.instant() + grace;
        let shorten = |sender: &watch::Sender<Instant>| {
            sender.send_if_modified(|known| {
                let is_earlier = deadline < *known;
                *known = deadline.min(*known);
                is_earlier
            });
        };
        self.jobs.kills.values().for_each(shorten);
        if let Some(running) = &self.jobs.pod_kill {
            return shorten(running);
        }
        let running: Vec<ObservedContainer> = self.observed.running().cloned().collect();
        let victims: Vec<Victim> = running.iter().map(|observed| self.victim(observed, reason)).collect();
        let sandboxes = self.observed.sandboxes().filter(|sandbox| sandbox.ready).cloned().collect();
        let (sender, killer) = self.killer(grace);
        self.jobs.pod_kill = Some(sender);
        self.jobs.running.push(killer.pod(victims, sandboxes).map(Done::KillPod).boxed());
    }

    fn collect(&mut self, containers: Vec<String>, sandboxes: Vec<String>) {
        if std::mem::replace(&mut self.jobs.cleanup, true) {
            return;
        }
        let context = self.context.clone();
        let job = async move {
            let (removed, result) = collect(&context, containers, sandboxes).await;
            Done::Collect(removed, result)
        };
        self.jobs.running.push(job.boxed());
    }

    fn finish(&mut self) {
        // What is being started must be known before it can be removed.
        if self.finished || self.jobs.cleanup || self.jobs.start.is_some() || self.jobs.pod_kill.is_some() {
            return;
        }
        self.jobs.cleanup = true;
        let containers = self.observed.containers().map(|container| container.id.clone()).collect();
        let sandboxes = self.observed.sandboxes().map(|sandbox| sandbox.id.clone()).collect();
        let job = finish(self.context.clone(), self.pod.clone(), containers, sandboxes, self.gone);
        self.jobs.running.push(job.map(|(removed, result)| Done::Finish(removed, result)).boxed());
    }

    /// Brings the volumes of running containers up to date with the pod's labels and annotations.
    pub(super) fn refresh_volumes(&mut self) {
        let is_used = self.observed.running().next().is_some();
        if !self.volumes_are_old || !is_used || self.jobs.refresh || self.jobs.start.is_some() {
            return;
        }
        self.volumes_are_old = false;
        self.jobs.refresh = true;
        let (host, pod, ips) = (self.context.host.clone(), self.pod.clone(), pod_ips(&self.view()));
        let job = async move { Done::Refresh(host.make_volumes(&pod, &ips).await) };
        self.jobs.running.push(job.boxed());
    }

    // === outcomes ===

    pub(super) async fn apply(&mut self, done: Done) {
        let now = self.context.clock.now();
        match done {
            Done::Sandbox(made) => self.sandbox_made(made, now),
            Done::Start(started) => self.container_started(*started, now).await,
            Done::Kill(id, killed) => {
                self.jobs.kills.remove(&id);
                self.killed(killed, now).await;
            }
            Done::KillPod(killed) => {
                self.jobs.pod_kill = None;
                self.killed(killed, now).await;
            }
            Done::Collect(removed, result) => {
                self.jobs.cleanup = false;
                removed.into_iter().for_each(|id| self.forget(id));
                self.ended(result, now);
            }
            Done::Finish(removed, result) => {
                self.jobs.cleanup = false;
                removed.into_iter().for_each(|id| self.forget(id));
                self.finished = result.is_ok();
                self.ended(result, now);
            }
            Done::Refresh(result) => {
                self.jobs.refresh = false;
                if let Err(error) = result {
                    // The containers go on with what they have; the next start of one tries again.
                    tracing::warn!(pod = %pod::title(&self.pod), %error, "can't refresh volumes");
                }
            }
            Done::Write(answer) => self.written(*answer),
        }
    }

    fn sandbox_made(&mut self, made: SandboxMade, now: Timestamp) {
        self.jobs.start = None;
        for sandbox in made.sandboxes {
            self.see_sandbox(sandbox);
        }
        match made.result {
            Ok(()) => {
                self.sandbox_failure = None;
                self.failed_sandboxes = 0;
            }
            Err(message) => {
                tracing::warn!(pod = %pod::title(&self.pod), %message, "can't make a sandbox");
                let retry_at = now + retry_after(self.failed_sandboxes);
                self.failed_sandboxes += 1;
                let reason = "FailedCreatePodSandBox".to_owned();
                self.sandbox_failure = Some(Failure { reason, message, later: None, at: now, retry_at });
            }
        }
    }

    async fn container_started(&mut self, started: Started, now: Timestamp) {
        let starting = self.jobs.start.take();
        self.context.activity.notify_one();
        if let Some(stale) = started.removed {
            self.forget(stale);
        }
        if started.volumes_are_made {
            let sandbox = self.observed.ready_sandbox().map(|sandbox| sandbox.id.clone());
            if self.volumes_in != sandbox {
                self.volumes_in = sandbox;
                self.volumes_are_old = false;
            }
        }
        let has_run = started.container.as_ref().is_some_and(|it| it.state != ContainerState::Created);
        if let Some((finished, begun)) = starting.and_then(|starting| starting.restarts)
            && has_run
        {
            let next = after_restart(self.backoff.get(&started.name), finished, begun);
            self.backoff.insert(started.name.clone(), next);
        }
        if let Some(container) = started.container {
            self.see_container(container).await;
        }
        let name = started.name;
        let (reason, message) = match started.result {
            Ok(()) => {
                self.failures.remove(&name);
                self.failed_starts.remove(&name);
                return;
            }
            Err(NotStarted::Cancelled) => return,
            Err(NotStarted::Image(error)) => return self.image_missing(name, error, now),
            Err(NotStarted::Volumes) => {
                let has_init = !pod::init_containers(&self.pod).is_empty();
                (if has_init { "PodInitializing" } else { "ContainerCreating" }, String::new())
            }
            Err(NotStarted::Other { reason, message }) => (reason, message),
        };
        let failures = self.failed_starts.entry(name.clone()).or_default();
        // A container that has run waits by its restart policy's own backoff.
        let wait = if has_run { Duration::ZERO } else { retry_after(*failures) };
        *failures += 1;
        let failure =
            Failure { reason: reason.to_owned(), message, later: None, at: now, retry_at: now + wait };
        self.failures.insert(name, failure);
    }

    fn image_missing(&mut self, name: String, error: crate::images::ImageError, now: Timestamp) {
        let image = find_container(&self.pod, &name).and_then(|(container, _)| container.image);
        let image = image.unwrap_or_default();
        let retry_at = if error.reason == "ErrImagePull" {
            let next = PullBackoff::after(self.pulls.get(&image).copied(), now);
            self.pulls.insert(image.clone(), next);
            next.retry_at()
        } else {
            now + LAST_RETRY
        };
        self.failures.insert(name, error.failure(&image, now, retry_at));
    }

    async fn killed(&mut self, killed: Killed, now: Timestamp) {
        for container in killed.containers {
            self.see_container(container).await;
        }
        for sandbox in killed.sandboxes {
            self.see_sandbox(sandbox);
        }
        killed.removed.into_iter().for_each(|id| self.forget(id));
        self.ended(killed.result, now);
    }

    /// After a kill or a cleanup: one that failed is tried again later.
    fn ended(&mut self, result: Result<(), String>, now: Timestamp) {
        match result {
            Ok(()) => {
                self.failed_ends = 0;
                self.retry_at = None;
            }
            Err(why) => {
                tracing::warn!(pod = %pod::title(&self.pod), %why, "can't end or clean up");
                self.retry_at = Some(now + retry_after(self.failed_ends));
                self.failed_ends += 1;
            }
        }
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("running", &self.running.len()).field("start", &self.start).finish()
    }
}
