use super::super::testing::{World, at, container, pod};
use super::super::{Failure, Rejection};
use super::*;

fn one(policy: &str) -> World {
    World::new(pod().with(container("c")).policy(policy)).sandbox("s0", true)
}

fn describe_state(status: &ContainerStatus) -> String {
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.clone().unwrap_or_default();
    let text = match (state.waiting, state.running, state.terminated) {
        (Some(waiting), ..) => waiting.reason.unwrap_or_default(),
        (_, Some(_), _) => {
            if status.ready {
                "ready".to_owned()
            } else {
                "running".to_owned()
            }
        }
        (_, _, Some(ended)) => format!("{}({})", ended.reason.unwrap_or_default(), ended.exit_code),
        _ => "nothing".to_owned(),
    };
    let last = last.terminated.map(|ended| format!(" after {}", ended.exit_code)).unwrap_or_default();
    let restarts =
        if status.restart_count > 0 { format!(" x{}", status.restart_count) } else { String::new() };
    format!("{}={text}{last}{restarts}", status.name)
}

/// `phase: states | conditions that hold`.
fn describe(world: &World) -> String {
    let status = status(&world.view());
    let all =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let states: Vec<String> = all.map(describe_state).collect();
    let letter = |condition: &PodCondition| match condition.type_.as_str() {
        "PodReadyToStartContainers" => 'N',
        "Initialized" => 'I',
        "Ready" => 'R',
        "ContainersReady" => 'C',
        _ => 'S',
    };
    let holding: String = status
        .conditions
        .iter()
        .flatten()
        .filter(|condition| condition.status == "True")
        .map(letter)
        .collect();
    format!("{}: {} | {holding}", status.phase.unwrap_or_default(), states.join(" "))
}

fn check(rows: Vec<(&str, World, &str)>) {
    for (what, world, expected) in rows {
        assert_eq!(describe(&world), expected, "{what}");
    }
}

#[test]
fn the_phase_follows_the_containers() {
    let new = World::new(pod().with(container("c")));
    let both = || World::new(pod().with(container("a")).with(container("b"))).sandbox("s0", true);
    check(vec![
        ("nothing yet", new, "Pending: c=ContainerCreating | IS"),
        ("a sandbox", one("Always"), "Pending: c=ContainerCreating | NIS"),
        ("running", one("Always").container("c", 0, "running"), "Running: c=ready | NIRCS"),
        (
            "one still to come",
            both().container("a", 0, "running"),
            "Pending: a=ready b=ContainerCreating | NIS",
        ),
        (
            "running but not ready",
            one("Always").container("c", 0, "running").probe("c-0", true, false, None),
            "Running: c=running | NIS",
        ),
        ("ended, to be restarted at once", one("Always").container("c", 0, "1"), "Running: c=Error(1) | NIS"),
        (
            "waiting to be restarted",
            one("Always").container("c", 1, "1").backoff("c", 20),
            "Running: c=CrashLoopBackOff after 1 x1 | NIS",
        ),
        (
            "restarted",
            one("Always").container("c", 0, "1").container("c", 1, "running"),
            "Running: c=ready after 1 x1 | NIRCS",
        ),
        ("done", one("Never").container("c", 0, "0"), "Succeeded: c=Completed(0) | NIS"),
        ("failed", one("Never").container("c", 0, "2"), "Failed: c=Error(2) | NIS"),
        (
            "one failed, one goes on",
            both()
                .container("a", 0, "running")
                .container("b", 0, "1")
                .change(|spec| spec.restart_policy = Some("Never".into())),
            "Running: a=ready b=Error(1) | NIS",
        ),
    ]);
}

#[test]
fn initialization_is_told() {
    let init = |policy| {
        World::new(pod().init(container("i")).with(container("c")).policy(policy)).sandbox("s0", true)
    };
    check(vec![
        ("not started", init("Always"), "Pending: i=PodInitializing c=PodInitializing | NS"),
        ("running", init("Always").container("i", 0, "running"), "Pending: i=running c=PodInitializing | NS"),
        ("done", init("Always").container("i", 0, "0"), "Pending: i=Completed(0) c=PodInitializing | NIS"),
        (
            "running after it",
            init("Always").container("i", 0, "0").container("c", 0, "running"),
            "Running: i=Completed(0) c=ready | NIRCS",
        ),
        (
            "crashing",
            init("Always").container("i", 1, "1").backoff("i", 20),
            "Pending: i=CrashLoopBackOff after 1 x1 c=PodInitializing | NS",
        ),
        (
            "failed for good",
            init("Never").container("i", 0, "1"),
            "Failed: i=Error(1) c=PodInitializing | NS",
        ),
    ]);
    let message = status(&init("Always").view()).conditions.unwrap()[1].message.clone().unwrap();
    assert_eq!(message, "containers with incomplete status: [i]");
}

#[test]
fn a_sidecar_counts_for_readiness_not_for_the_phase() {
    let world = || {
        World::new(pod().init(container("s").sidecar()).with(container("c")).policy("Never"))
            .sandbox("s0", true)
    };
    check(vec![
        ("started", world().container("s", 0, "running"), "Pending: s=ready c=PodInitializing | NIS"),
        (
            "both run, the sidecar not ready",
            world().container("s", 0, "running").probe("s-0", true, false, None).container("c", 0, "running"),
            "Running: s=running c=ready | NIS",
        ),
        (
            "the container is done",
            world().container("s", 0, "running").container("c", 0, "0"),
            "Succeeded: s=ready c=Completed(0) | NIS",
        ),
    ]);
}

#[test]
fn a_crash_loop_says_how_long_it_waits() {
    let world = one("Always").container("c", 3, "1").backoff("c", 80);
    let status = status(&world.view());
    let waiting = status.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(
        waiting.message.unwrap(),
        "back-off 1m20s restarting failed container=c pod=web_default(uid-web)"
    );
}

#[test]
fn a_failed_pull_shows_its_error_and_then_that_it_waits() {
    let mut world = one("Always");
    let later =
        ("ImagePullBackOff".to_owned(), "Back-off pulling image \"c:1\": ErrImagePull: no".to_owned());
    let failure = Failure {
        reason: "ErrImagePull".into(),
        message: "no".into(),
        later: Some(later),
        at: at(100),
        retry_at: at(110),
    };
    world.failures.insert("c".into(), failure);
    assert_eq!(describe(&world), "Pending: c=ErrImagePull | NIS");
    world.now = at(103);
    assert_eq!(describe(&world), "Pending: c=ImagePullBackOff | NIS");
}

#[test]
fn a_pod_that_ends_is_told_with_its_reason() {
    let mut rejected = World::new(pod().with(container("c")));
    rejected.rejection = Some(Rejection { reason: "OutOfcpu".into(), message: "no".into() });
    let rejected = status(&rejected.view());
    assert_eq!((rejected.phase.as_deref(), rejected.reason.as_deref()), (Some("Failed"), Some("OutOfcpu")));

    let late =
        one("Always").container("c", 0, "running").change(|spec| spec.active_deadline_seconds = Some(5));
    let late = status(&late.view());
    assert_eq!((late.phase.as_deref(), late.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
}

#[test]
fn a_deleted_pod_ends_by_its_exit_codes() {
    let ended = |code: &str| {
        World::new(pod().with(container("c"))).sandbox("s0", false).container("c", 0, code).deleted(1)
    };
    check(vec![
        ("still running", one("Always").container("c", 0, "running").deleted(30), "Running: c=ready | NIRCS"),
        ("ended well", ended("0"), "Succeeded: c=Completed(0) | IS"),
        ("killed", ended("137"), "Failed: c=Error(137) | IS"),
    ]);
}

#[test]
fn readiness_gates_hold_back_ready_only() {
    let mut world = one("Always").container("c", 0, "running");
    let gate = k8s_openapi::api::core::v1::PodReadinessGate { condition_type: "lb".into() };
    world.pod.spec.get_or_insert_default().readiness_gates = Some(vec![gate]);
    assert_eq!(describe(&world), "Running: c=ready | NICS");
    let met = PodCondition { type_: "lb".into(), status: "True".into(), ..PodCondition::default() };
    world.pod.status.get_or_insert_default().conditions = Some(vec![met]);
    let status = status(&world.view());
    assert_eq!(status.conditions.as_ref().unwrap()[2].status, "True");
    assert_eq!(status.conditions.unwrap().len(), 6, "conditions of others stay");
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let mut world = one("Always").container("c", 0, "running");
    world.pod.status = Some(status(&world.view()));
    world.now = at(500);
    let again = status(&world.view());
    assert_eq!(again, world.pod.status.clone().unwrap());
}

#[test]
fn what_has_ended_stays_ended() {
    let mut world = one("Always").container("c", 0, "running");
    world.pod.status.get_or_insert_default().phase = Some("Failed".into());
    assert!(describe(&world).starts_with("Failed: "));
}
