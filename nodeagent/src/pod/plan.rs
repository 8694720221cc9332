//! From a view of a pod to what must be done next.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Probe};

use super::{
    ContainerState, ObservedContainer, ObservedSandbox, ProbeKind, Role, View, backoff, container_hash,
    ephemeral_as_container, ephemeral_containers, grace_seconds, init_containers, is_finished, is_sidecar,
    main_containers, restart_policy, spec,
};

/// How many ended containers of one name are kept beside the newest, for their logs and last state.
const KEPT_ATTEMPTS: usize = 1;

/// Something to do for a pod. Actions of one pod are done one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    CreateSandbox {
        attempt: u32,
    },
    StartContainer {
        name: String,
        role: Role,
        attempt: u32,
    },
    /// Ends one container; what follows is decided when it has ended.
    KillContainer {
        id: String,
        name: String,
        reason: KillReason,
        grace: Duration,
    },
    /// Ends all containers, then the sandboxes.
    KillPod {
        reason: KillReason,
        grace: Duration,
    },
    /// Removes ended containers that nobody will ask for.
    Collect {
        containers: Vec<String>,
        sandboxes: Vec<String>,
    },
    /// Nothing runs any more: removes all that is left on the node, then the pod from the API.
    Finish,
}

/// Why something is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// The pod is deleted or has come to its end.
    Ending,
    SandboxChanged,
    DefinitionChanged,
    Probe(ProbeKind),
}

/// What to do now, in this order, and when to decide again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub wake: Option<Timestamp>,
}

/// Why a pod is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Deleted, or gone from the API.
    Deleted,
    Rejected,
    /// The API says that it is over.
    Finished,
    DeadlineExceeded,
    /// All containers are done and none will be restarted.
    Completed,
}

/// Whether a container that has ended is to be started again, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    Never,
    At(Timestamp, Duration),
    Now,
}

// === impl Plan ===

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

// === impl KillReason ===

impl KillReason {
    /// The message of the `Killing` event.
    pub fn message(self, container: &str) -> String {
        match self {
            Self::Ending | Self::SandboxChanged => format!("Stopping container {container}"),
            Self::DefinitionChanged => format!("Container {container} definition changed, will be restarted"),
            Self::Probe(kind) => {
                let probe = kind.title().to_ascii_lowercase();
                format!("Container {container} failed {probe} probe, will be restarted")
            }
        }
    }
}

/// Decides.
pub fn plan(view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    if let Some(ending) = ending(view) {
        if !view.observed.is_stopped() {
            let seconds = u64::try_from(grace_seconds(view.pod)).unwrap_or_default();
            plan.actions
                .push(Action::KillPod { reason: KillReason::Ending, grace: Duration::from_secs(seconds) });
        } else if ending == Ending::Deleted {
            plan.actions.push(Action::Finish);
        }
        return plan;
    }
    if let Some(deadline) = deadline(view) {
        plan.wake_at(deadline);
    }
    let Some(sandbox) = view.observed.ready_sandbox() else {
        without_sandbox(view, &mut plan);
        return plan;
    };
    for container in ephemeral_containers(view.pod) {
        if view.observed.latest(&container.name).is_none() {
            start(view, &ephemeral_as_container(container), Role::Ephemeral, &mut plan);
        }
    }
    if init_step(view, sandbox, &mut plan) {
        for container in main_containers(view.pod) {
            main_step(view, sandbox, container, Role::Main, &mut plan);
        }
    }
    collect(view, &mut plan);
    plan
}

/// Why the pod has to end, if it has to.
pub fn ending(view: &View<'_>) -> Option<Ending> {
    if view.gone || view.pod.metadata.deletion_timestamp.is_some() {
        return Some(Ending::Deleted);
    }
    if view.rejection.is_some() {
        return Some(Ending::Rejected);
    }
    if is_finished(view.pod) {
        return Some(Ending::Finished);
    }
    if deadline(view).is_some_and(|deadline| deadline <= view.now) {
        return Some(Ending::DeadlineExceeded);
    }
    is_completed(view).then_some(Ending::Completed)
}

/// When the pod's time is over.
pub fn deadline(view: &View<'_>) -> Option<Timestamp> {
    let seconds = spec(view.pod).active_deadline_seconds?;
    let written = view.pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let start = written.map_or(view.start_time, |time| time.0);
    start.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// Every main container has ended for good, or the initialization has failed for good.
fn is_completed(view: &View<'_>) -> bool {
    if init_has_failed(view) {
        return true;
    }
    let containers = main_containers(view.pod);
    !containers.is_empty()
        && containers.iter().all(|container| match view.observed.latest(&container.name) {
            Some(latest) => {
                latest.state == ContainerState::Exited
                    && restart(view, container, Role::Main, latest) == Restart::Never
            }
            None => false,
        })
}

/// An init container has failed in a pod that never restarts, and no main container has ever run.
fn init_has_failed(view: &View<'_>) -> bool {
    let failed = |container: &Container| {
        !is_sidecar(container)
            && view.observed.latest(&container.name).is_some_and(|latest| {
                latest.state == ContainerState::Exited
                    && latest.exit_code != 0
                    && restart(view, container, Role::Init, latest) == Restart::Never
            })
    };
    let has_run = |container: &Container| view.observed.latest(&container.name).is_some();
    init_containers(view.pod).iter().any(failed) && !main_containers(view.pod).iter().any(has_run)
}

/// Whether a container that has ended is started again.
pub fn restart(view: &View<'_>, container: &Container, role: Role, ended: &ObservedContainer) -> Restart {
    if !policy_restarts(view, container, role, ended.exit_code) {
        return Restart::Never;
    }
    let finished = ended.finished_at.unwrap_or(ended.created_at);
    match backoff::restart_at(view.backoff.get(&container.name), finished) {
        Some((at, delay)) if at > view.now => Restart::At(at, delay),
        _ => Restart::Now,
    }
}

fn policy_restarts(view: &View<'_>, container: &Container, role: Role, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.as_ref().is_some_and(|values| values.contains(&exit_code));
        if rule.action == "Restart" && (listed == (codes.operator == "In")) {
            return true;
        }
    }
    let policy = match role {
        Role::Ephemeral => "Never",
        Role::Sidecar => "Always",
        Role::Init | Role::Main => {
            container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(view.pod))
        }
    };
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        // An init container that has succeeded is done under any policy.
        _ => role != Role::Init || exit_code != 0,
    }
}

fn without_sandbox(view: &View<'_>, plan: &mut Plan) {
    if view.observed.running().next().is_some() {
        let seconds = u64::try_from(grace_seconds(view.pod)).unwrap_or_default();
        let grace = Duration::from_secs(seconds);
        plan.actions.push(Action::KillPod { reason: KillReason::SandboxChanged, grace });
        return;
    }
    match view.sandbox_failure {
        Some(failure) if failure.retry_at > view.now => plan.wake_at(failure.retry_at),
        _ => {
            let attempt = view.observed.sandbox().map_or(0, |last| last.attempt + 1);
            plan.actions.push(Action::CreateSandbox { attempt });
        }
    }
}

/// Brings the init containers forward. True when the main containers may run.
fn init_step(view: &View<'_>, sandbox: &ObservedSandbox, plan: &mut Plan) -> bool {
    let containers = init_containers(view.pod);
    if is_initialized(view, sandbox) {
        // Sidecars live on beside the main containers.
        for container in containers.iter().filter(|container| is_sidecar(container)) {
            main_step(view, sandbox, container, Role::Sidecar, plan);
        }
        return true;
    }
    for (position, container) in containers.iter().enumerate() {
        let role = if is_sidecar(container) { Role::Sidecar } else { Role::Init };
        let here = view.observed.latest(&container.name).filter(|latest| latest.sandbox == sandbox.id);
        let done = match (role, here.map(|latest| (latest.state, latest))) {
            (Role::Sidecar, Some((ContainerState::Running, latest))) => {
                main_step(view, sandbox, container, role, plan);
                view.probes.get(&latest.id).is_some_and(|results| results.started)
            }
            (_, Some((ContainerState::Running, _))) => false,
            (Role::Init, Some((ContainerState::Exited, latest))) if latest.exit_code == 0 => true,
            (_, Some((ContainerState::Exited, latest))) => {
                restart_ended(view, container, role, latest, plan);
                false
            }
            (_, Some((ContainerState::Created, _)) | None) => {
                start(view, container, role, plan);
                false
            }
        };
        if !done {
            // Sidecars before this one must go on running meanwhile.
            for earlier in containers[..position].iter().filter(|container| is_sidecar(container)) {
                if view
                    .observed
                    .latest(&earlier.name)
                    .is_some_and(|last| last.state == ContainerState::Exited)
                {
                    main_step(view, sandbox, earlier, Role::Sidecar, plan);
                }
            }
            return false;
        }
    }
    true
}

/// A main container was made in this sandbox, so all init containers were done.
pub fn is_initialized(view: &View<'_>, sandbox: &ObservedSandbox) -> bool {
    let was_made = |container: &Container| {
        view.observed
            .attempts(&container.name)
            .iter()
            .any(|made| made.sandbox == sandbox.id && made.state != ContainerState::Created)
    };
    main_containers(view.pod).iter().any(was_made)
}

fn main_step(view: &View<'_>, sandbox: &ObservedSandbox, container: &Container, role: Role, plan: &mut Plan) {
    let Some(latest) = view.observed.latest(&container.name) else {
        return start(view, container, role, plan);
    };
    match latest.state {
        ContainerState::Created => start(view, container, role, plan),
        ContainerState::Exited => restart_ended(view, container, role, latest, plan),
        ContainerState::Running => {
            let reason = if latest.sandbox != sandbox.id {
                Some(KillReason::SandboxChanged)
            } else if role == Role::Main && latest.hash != container_hash(container) {
                Some(KillReason::DefinitionChanged)
            } else {
                view.probes.get(&latest.id).and_then(|results| results.failed).map(KillReason::Probe)
            };
            if let Some(reason) = reason {
                let grace = kill_grace(view, container, reason);
                let (id, name) = (latest.id.clone(), latest.name.clone());
                plan.actions.push(Action::KillContainer { id, name, reason, grace });
            }
        }
    }
}

fn kill_grace(view: &View<'_>, container: &Container, reason: KillReason) -> Duration {
    let of_probe =
        |probe: &Option<Probe>| probe.as_ref().and_then(|probe| probe.termination_grace_period_seconds);
    let own = match reason {
        KillReason::Probe(ProbeKind::Liveness) => of_probe(&container.liveness_probe),
        KillReason::Probe(ProbeKind::Startup) => of_probe(&container.startup_probe),
        _ => None,
    };
    Duration::from_secs(u64::try_from(own.unwrap_or_else(|| grace_seconds(view.pod))).unwrap_or_default())
}

fn restart_ended(
    view: &View<'_>,
    container: &Container,
    role: Role,
    ended: &ObservedContainer,
    plan: &mut Plan,
) {
    match restart(view, container, role, ended) {
        Restart::Never => {}
        Restart::At(at, _) => plan.wake_at(at),
        Restart::Now => start(view, container, role, plan),
    }
}

fn start(view: &View<'_>, container: &Container, role: Role, plan: &mut Plan) {
    if let Some(failure) = view.failures.get(&container.name)
        && failure.retry_at > view.now
    {
        plan.wake_at(failure.retry_at);
        let change = super::status::words_change_at(failure);
        if let Some(at) = change.filter(|at| *at > view.now) {
            plan.wake_at(at);
        }
        return;
    }
    let attempt = next_attempt(view, &container.name);
    plan.actions.push(Action::StartContainer { name: container.name.clone(), role, attempt });
}

/// One more than the last attempt that ran, by the runtime or, if it has forgotten, by the API.
fn next_attempt(view: &View<'_>, name: &str) -> u32 {
    let observed = view.observed.latest(name).map(|latest| match latest.state {
        ContainerState::Created => latest.attempt,
        ContainerState::Running | ContainerState::Exited => latest.attempt + 1,
    });
    if let Some(attempt) = observed {
        return attempt;
    }
    let status = view.pod.status.as_ref();
    let of = |statuses: Option<&Vec<k8s_openapi::api::core::v1::ContainerStatus>>| {
        let found = statuses?.iter().find(|status| status.name == name)?;
        found.container_id.as_ref()?;
        u32::try_from(found.restart_count + 1).ok()
    };
    let written = status.and_then(|status| {
        of(status.container_statuses.as_ref()).or_else(|| of(status.init_container_statuses.as_ref()))
    });
    written.unwrap_or(0)
}

/// Ended containers beyond the kept ones, and sandboxes that no kept container belongs to.
fn collect(view: &View<'_>, plan: &mut Plan) {
    let mut names: Vec<&str> = view.observed.containers().map(|container| container.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut containers = Vec::new();
    for name in names {
        let mut attempts = view.observed.attempts(name);
        attempts.pop();
        let excess = attempts.len().saturating_sub(KEPT_ATTEMPTS);
        let ended = attempts[..excess].iter().filter(|container| container.state != ContainerState::Running);
        containers.extend(ended.map(|container| container.id.clone()));
    }
    let newest = view.observed.sandbox().map(|sandbox| sandbox.id.as_str());
    let is_used = |sandbox: &ObservedSandbox| {
        Some(sandbox.id.as_str()) == newest
            || view
                .observed
                .containers()
                .any(|container| container.sandbox == sandbox.id && !containers.contains(&container.id))
    };
    let unused = view.observed.sandboxes().filter(|sandbox| !is_used(sandbox));
    let sandboxes: Vec<String> = unused.map(|sandbox| sandbox.id.clone()).collect();
    if !containers.is_empty() || !sandboxes.is_empty() {
        plan.actions.push(Action::Collect { containers, sandboxes });
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
