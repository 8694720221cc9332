//! From a view of a pod to the `PodStatus` that the API is told.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, HostIP, LinuxContainerUser, PodCondition, PodIP,
    PodStatus, VolumeMountStatus,
};

use super::plan::{Ending, Restart, ending, restart};
use super::{
    ContainerState, Failure, ObservedContainer, Role, View, api_time, ephemeral_as_container,
    ephemeral_containers, go_duration, init_containers, is_sidecar, main_containers, restart_policy, spec,
    title, uses_host_network,
};

/// How long an error is shown before the words that say that it is waited for the next try.
const ERROR_SHOWN: Duration = Duration::from_secs(3);

/// When the words of a failure change, for example from `ErrImagePull` to `ImagePullBackOff`.
pub fn words_change_at(failure: &Failure) -> Option<Timestamp> {
    failure.later.as_ref().map(|_| failure.at + ERROR_SHOWN)
}

/// The whole status. What the agent does not decide is taken from the status that the pod has.
pub fn status(view: &View<'_>) -> PodStatus {
    let old = view.pod.status.clone().unwrap_or_default();
    let end = ending(view);
    let has_init = !init_containers(view.pod).is_empty();
    let written = |statuses: &Option<Vec<ContainerStatus>>, name: &str| {
        statuses.iter().flatten().find(|status| status.name == name).cloned()
    };
    let waiting = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let mut main = Vec::new();
    for container in main_containers(view.pod) {
        let old = written(&old.container_statuses, &container.name);
        main.push(container_status(view, container, Role::Main, waiting, end, old));
    }
    let mut init = Vec::new();
    for container in init_containers(view.pod) {
        let role = if is_sidecar(container) { Role::Sidecar } else { Role::Init };
        let old = written(&old.init_container_statuses, &container.name);
        init.push(container_status(view, container, role, waiting, end, old));
    }
    let mut ephemeral = Vec::new();
    for container in ephemeral_containers(view.pod) {
        let old = written(&old.ephemeral_container_statuses, &container.name);
        let container = ephemeral_as_container(container);
        ephemeral.push(container_status(view, &container, Role::Ephemeral, "ContainerCreating", end, old));
    }

    let mut status = PodStatus { observed_generation: view.pod.metadata.generation, ..old.clone() };
    status.phase = Some(match (end, old.phase.as_deref()) {
        // What has ended stays ended.
        (_, Some(phase @ ("Failed" | "Succeeded"))) => phase.to_owned(),
        (Some(Ending::Rejected | Ending::DeadlineExceeded), _) => "Failed".to_owned(),
        _ => phase(view, &init, &main, end).to_owned(),
    });
    if let Some(rejection) = view.rejection {
        status.reason = Some(rejection.reason.clone());
        status.message = Some(rejection.message.clone());
    } else if end == Some(Ending::DeadlineExceeded) {
        status.reason = Some("DeadlineExceeded".to_owned());
        status.message = Some("Pod was active on the node longer than the specified deadline".to_owned());
    }
    status.start_time = old.start_time.or_else(|| Some(api_time(view.start_time)));
    status.host_ip = view.host_ips.first().cloned();
    status.host_ips = Some(view.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let ips = pod_ips(view);
    if !ips.is_empty() {
        status.pod_ip = ips.first().cloned();
        status.pod_ips = Some(ips.into_iter().map(|ip| PodIP { ip }).collect());
    }
    let conditions = conditions(view, status.phase.as_deref().unwrap_or_default(), &init, &main);
    status.conditions = Some(merge_conditions(view, old.conditions.unwrap_or_default(), conditions));
    // A rejected pod has no containers to tell of.
    if view.rejection.is_none() {
        status.container_statuses = Some(main);
        status.init_container_statuses = Some(init).filter(|statuses| !statuses.is_empty());
        status.ephemeral_container_statuses = Some(ephemeral).filter(|statuses| !statuses.is_empty());
    }
    status
}

/// The addresses of the pod.
pub fn pod_ips(view: &View<'_>) -> Vec<String> {
    let Some(sandbox) = view.observed.ready_sandbox() else { return Vec::new() };
    if uses_host_network(view.pod) { view.host_ips.to_vec() } else { sandbox.ips.clone() }
}

// === containers ===

fn container_status(
    view: &View<'_>,
    container: &Container,
    role: Role,
    default_reason: &str,
    end: Option<Ending>,
    old: Option<ContainerStatus>,
) -> ContainerStatus {
    let attempts = view.observed.attempts(&container.name);
    let latest = attempts.last().copied();
    let ended_before = match attempts.as_slice() {
        [.., before, _] => Some(*before),
        _ => None,
    };
    let waiting = |reason: &str, message: Option<String>| ApiState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: message.filter(|message| !message.is_empty()),
        }),
        ..ApiState::default()
    };
    let failure = view.failures.get(&container.name).filter(|_| end.is_none());
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ..ContainerStatus::default()
    };
    status.last_state = ended_before.map(|before| terminated(view, before));
    if let Some(latest) = latest {
        status.container_id = Some(format!("{}://{}", view.runtime, latest.id));
        status.image.clone_from(&latest.image);
        status.image_id.clone_from(&latest.image_id);
        status.restart_count = i32::try_from(latest.attempt).unwrap_or(i32::MAX);
    } else if let Some(old) = &old {
        status.restart_count = old.restart_count;
        status.last_state = old.last_state.clone();
    }
    let state = match latest {
        Some(latest) if latest.state == ContainerState::Running => {
            let running = ContainerStateRunning { started_at: latest.started_at.map(api_time) };
            let results = view.probes.get(&latest.id);
            let started = results.is_some_and(|results| results.started);
            status.started = Some(started);
            status.ready = role != Role::Init
                && role != Role::Ephemeral
                && results.is_some_and(|results| results.ready)
                && started;
            ApiState { running: Some(running), ..ApiState::default() }
        }
        Some(latest) if latest.state == ContainerState::Exited => {
            status.started = Some(false);
            status.ready = role == Role::Init && latest.exit_code == 0;
            let again = if end.is_some() { Restart::Never } else { restart(view, container, role, latest) };
            match (again, failure) {
                (Restart::At(_, delay), _) => {
                    status.last_state = Some(terminated(view, latest));
                    let (delay, name, pod) = (go_duration(delay), &container.name, title(view.pod));
                    let message = format!("back-off {delay} restarting failed container={name} pod={pod}");
                    waiting("CrashLoopBackOff", Some(message))
                }
                (Restart::Now, Some(failure)) => {
                    status.last_state = Some(terminated(view, latest));
                    let (reason, message) = words(failure, view.now);
                    waiting(&reason, Some(message))
                }
                _ => terminated(view, latest),
            }
        }
        _ => {
            status.started = Some(false);
            lost(end, old.as_ref()).unwrap_or_else(|| match failure {
                Some(failure) => {
                    let (reason, message) = words(failure, view.now);
                    waiting(&reason, Some(message))
                }
                None => waiting(default_reason, None),
            })
        }
    };
    status.state = Some(state);
    status.last_state.get_or_insert_default();
    if status.container_id.is_none()
        && let Some(terminated) = status.state.as_ref().and_then(|state| state.terminated.as_ref())
    {
        status.container_id = terminated.container_id.clone();
    }
    if role != Role::Ephemeral {
        describe_spec(container, latest, &mut status);
    }
    status
}

/// A container that the API says has run, of which the runtime knows nothing, in a pod that ends.
fn lost(end: Option<Ending>, old: Option<&ContainerStatus>) -> Option<ApiState> {
    end?;
    let old = old?;
    let state = old.state.as_ref()?;
    if state.terminated.is_some() {
        return old.state.clone();
    }
    // Never started: there is nothing to lose.
    state.running.as_ref()?;
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        container_id: old.container_id.clone(),
        ..ContainerStateTerminated::default()
    };
    Some(ApiState { terminated: Some(terminated), ..ApiState::default() })
}

/// The waiting reason and message of a failed start.
pub fn words(failure: &Failure, now: Timestamp) -> (String, String) {
    match (&failure.later, words_change_at(failure)) {
        (Some(later), Some(at)) if at <= now => later.clone(),
        _ => (failure.reason.clone(), failure.message.clone()),
    }
}

fn terminated(view: &View<'_>, ended: &ObservedContainer) -> ApiState {
    let reason = match ended.reason.as_str() {
        "" if ended.exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    let terminated = ContainerStateTerminated {
        container_id: Some(format!("{}://{}", view.runtime, ended.id)),
        exit_code: ended.exit_code,
        reason: Some(reason.to_owned()),
        message: Some(ended.message.clone()).filter(|message| !message.is_empty()),
        started_at: ended.started_at.map(api_time),
        finished_at: ended.finished_at.map(api_time),
        signal: None,
    };
    ApiState { terminated: Some(terminated), ..ApiState::default() }
}

/// The parts of a container's status that repeat what it runs with.
fn describe_spec(container: &Container, latest: Option<&ObservedContainer>, status: &mut ContainerStatus) {
    let resources = container.resources.clone().unwrap_or_default();
    status.allocated_resources = resources.requests.clone().filter(|requests| !requests.is_empty());
    if latest.is_some_and(|latest| latest.state == ContainerState::Running) {
        status.resources = Some(resources);
    }
    status.user = latest.and_then(|latest| latest.user.as_ref()).map(|user| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: Some(user.groups.clone()),
        }),
    });
    let mounts = container.volume_mounts.iter().flatten().map(|mount| VolumeMountStatus {
        mount_path: mount.mount_path.clone(),
        name: mount.name.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount
            .read_only
            .filter(|read_only| *read_only)
            .map(|_| mount.recursive_read_only.clone().unwrap_or_else(|| "Disabled".to_owned())),
        ..VolumeMountStatus::default()
    });
    status.volume_mounts = Some(mounts.collect()).filter(|mounts: &Vec<_>| !mounts.is_empty());
}

// === phase ===

fn is_terminated(status: &ContainerStatus) -> Option<i32> {
    status.state.as_ref().and_then(|state| state.terminated.as_ref()).map(|terminated| terminated.exit_code)
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn has_ended_before(status: &ContainerStatus) -> Option<i32> {
    status
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref())
        .map(|terminated| terminated.exit_code)
}

fn phase(
    view: &View<'_>,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    end: Option<Ending>,
) -> &'static str {
    let mut initializing = false;
    let mut failed_init = false;
    for (container, status) in init_containers(view.pod).iter().zip(init) {
        if is_sidecar(container) {
            initializing |= is_terminated(status).is_none()
                && has_ended_before(status).is_none()
                && !(is_running(status) && status.started == Some(true));
        } else {
            match is_terminated(status) {
                Some(code) => failed_init |= code != 0,
                None => match has_ended_before(status) {
                    Some(code) if !is_running(status) => failed_init |= code != 0,
                    _ => initializing = true,
                },
            }
        }
    }
    let running = main.iter().filter(|status| is_running(status)).count();
    let stopped = main
        .iter()
        .filter(|status| {
            !is_running(status) && (is_terminated(status).is_some() || has_ended_before(status).is_some())
        })
        .count();
    let succeeded = main.iter().filter(|status| is_terminated(status) == Some(0)).count();
    let waiting = main.len() - running - stopped;
    let policy = restart_policy(view.pod);
    if failed_init && (policy == "Never" || end.is_some()) && running + stopped == 0 {
        return "Failed";
    }
    let is_over = end.is_some() && view.observed.is_stopped();
    if waiting > 0 && is_over && stopped + waiting == main.len() && stopped > 0 {
        // It was ended before all of its containers had started.
        return "Failed";
    }
    // A sidecar that restarts does not take the pod back behind its start.
    if waiting > 0 || (initializing && running + stopped == 0) {
        return "Pending";
    }
    if running > 0 {
        return "Running";
    }
    match (is_over || end == Some(Ending::Completed), succeeded == stopped) {
        (true, true) => "Succeeded",
        (true, false) => "Failed",
        (false, _) => "Running",
    }
}

// === conditions ===

fn conditions(
    view: &View<'_>,
    phase: &str,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
) -> Vec<PodCondition> {
    let sandbox = view.observed.ready_sandbox();
    let has_network = sandbox.is_some_and(|sandbox| uses_host_network(view.pod) || !sandbox.ips.is_empty());
    let containers_ready = containers_ready(view, phase, init, main);
    vec![
        condition("PodReadyToStartContainers", Verdict::of(has_network)),
        condition("Initialized", initialized(view, phase, init, main)),
        condition("Ready", ready(view, containers_ready.clone())),
        condition("ContainersReady", containers_ready),
        condition("PodScheduled", Verdict::yes()),
    ]
}

#[derive(Clone, Debug)]
struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn of(holds: bool) -> Self {
        Self { holds, reason: None, message: None }
    }

    fn yes() -> Self {
        Self::of(true)
    }

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Self { holds: false, reason: Some(reason), message }
    }
}

fn condition(kind: &str, verdict: Verdict) -> PodCondition {
    PodCondition {
        type_: kind.to_owned(),
        status: if verdict.holds { "True" } else { "False" }.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        ..PodCondition::default()
    }
}

fn initialized(view: &View<'_>, phase: &str, init: &[ContainerStatus], main: &[ContainerStatus]) -> Verdict {
    if phase == "Succeeded" {
        return Verdict { holds: true, reason: Some("PodCompleted"), message: None };
    }
    let has_run = main.iter().any(|status| {
        is_running(status) || is_terminated(status).is_some() || has_ended_before(status).is_some()
    });
    let containers = init_containers(view.pod).iter().zip(init);
    let incomplete = containers.filter(|(container, status)| {
        if is_sidecar(container) {
            !has_run && status.started != Some(true)
        } else {
            !has_run && is_terminated(status) != Some(0)
        }
    });
    let names: Vec<&str> = incomplete.map(|(container, _)| container.name.as_str()).collect();
    if names.is_empty() {
        return Verdict::yes();
    }
    let message = format!("containers with incomplete status: [{}]", names.join(" "));
    Verdict::no("ContainersNotInitialized", Some(message))
}

fn containers_ready(
    view: &View<'_>,
    phase: &str,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::no("PodCompleted", None),
        "Failed" => return Verdict::no("PodFailed", None),
        _ => {}
    }
    let sidecars = init_containers(view.pod).iter().zip(init).filter(|(container, _)| is_sidecar(container));
    let statuses = sidecars.map(|(_, status)| status).chain(main);
    let unready: Vec<&str> =
        statuses.filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    if unready.is_empty() {
        return Verdict::yes();
    }
    Verdict::no(
        "ContainersNotReady",
        Some(format!("containers with unready status: [{}]", unready.join(" "))),
    )
}

fn ready(view: &View<'_>, containers: Verdict) -> Verdict {
    if !containers.holds {
        return containers;
    }
    let written =
        view.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut unmet = Vec::new();
    for gate in spec(view.pod).readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match written.iter().find(|condition| condition.type_ == *kind) {
            None => unmet
                .push(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
            Some(condition) if condition.status != "True" => unmet.push(format!(
                "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                condition.status
            )),
            Some(_) => {}
        }
    }
    if unmet.is_empty() {
        return Verdict::yes();
    }
    Verdict::no("ReadinessGatesNotReady", Some(unmet.join(", ")))
}

/// The agent's conditions with their times of change, then the conditions of others.
fn merge_conditions(view: &View<'_>, old: Vec<PodCondition>, new: Vec<PodCondition>) -> Vec<PodCondition> {
    let mut merged = Vec::with_capacity(new.len() + old.len());
    for mut condition in new {
        let before = old.iter().find(|before| before.type_ == condition.type_);
        condition.last_transition_time = match before {
            Some(before) if before.status == condition.status => before.last_transition_time.clone(),
            _ => Some(api_time(view.now)),
        };
        condition.observed_generation = view.pod.metadata.generation;
        merged.push(condition);
    }
    let others = old.into_iter().filter(|before| !merged.iter().any(|own| own.type_ == before.type_));
    let others: Vec<PodCondition> = others.collect();
    merged.extend(others);
    merged
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
