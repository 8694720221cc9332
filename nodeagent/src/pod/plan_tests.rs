use super::super::testing::{World, at, container, describe, pod};
use super::super::{Failure, ProbeKind, Rejection};

fn one(policy: &str) -> World {
    World::new(pod().with(container("c")).policy(policy))
}

fn with_init(policy: &str) -> World {
    World::new(pod().init(container("i")).init(container("j")).with(container("c")).policy(policy))
        .sandbox("s0", true)
}

fn with_sidecar() -> World {
    World::new(pod().init(container("s").sidecar()).init(container("i")).with(container("c")))
        .sandbox("s0", true)
}

fn check(rows: Vec<(&str, World, &str)>) {
    for (what, world, expected) in rows {
        assert_eq!(describe(&world.plan()), expected, "{what}");
    }
}

#[test]
fn a_pod_gets_a_sandbox_then_its_containers() {
    let two = || World::new(pod().with(container("a")).with(container("b")));
    check(vec![
        ("a new pod needs a sandbox", two(), "sandbox#0"),
        ("then all its containers", two().sandbox("s0", true), "start a#0; start b#0"),
        ("one is there", two().sandbox("s0", true).container("a", 0, "running"), "start b#0"),
        (
            "all are there",
            two().sandbox("s0", true).container("a", 0, "running").container("b", 0, "running"),
            "",
        ),
        (
            "a container that was made but not started is made again",
            one("Always").sandbox("s0", true).container("c", 0, "created"),
            "start c#0",
        ),
    ]);
}

#[test]
fn an_ended_container_restarts_by_policy() {
    let ended = |policy: &str, code: &str| one(policy).sandbox("s0", true).container("c", 0, code);
    check(vec![
        ("Always, after a success", ended("Always", "0"), "start c#1"),
        ("OnFailure, after a failure", ended("OnFailure", "3"), "start c#1"),
        ("OnFailure, after a success, ends the pod", ended("OnFailure", "0"), "kill pod Ending 30s"),
        ("Never ends the pod", ended("Never", "3"), "kill pod Ending 30s"),
        ("and then there is nothing to do", one("Never").sandbox("s0", false).container("c", 0, "3"), ""),
    ]);
}

#[test]
fn a_container_that_keeps_crashing_waits() {
    let crashed = |delay| one("Always").sandbox("s0", true).container("c", 1, "1").backoff("c", delay);
    check(vec![
        ("the wait counts from the end", crashed(20), " until 110"),
        ("and is over in time", crashed(10), "start c#2"),
    ]);
}

#[test]
fn a_failed_start_is_tried_again_later() {
    let failed = |at| one("Always").sandbox("s0", true).failure("c", "CreateContainerConfigError", at);
    check(vec![("not before its time", failed(105), " until 105"), ("then again", failed(100), "start c#0")]);
    let mut world = one("Always");
    world.sandbox_failure =
        Some(Failure { reason: "x".into(), message: "x".into(), later: None, at: at(99), retry_at: at(101) });
    check(vec![("a sandbox too", world, " until 101")]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    check(vec![
        ("the first", with_init("Always"), "start i#0"),
        ("is waited for", with_init("Always").container("i", 0, "running"), ""),
        ("then the second", with_init("Always").container("i", 0, "0"), "start j#0"),
        (
            "then the containers",
            with_init("Always").container("i", 0, "0").container("j", 0, "0"),
            "start c#0",
        ),
        ("a failed one is run again", with_init("Always").container("i", 0, "1"), "start i#1"),
        ("with backoff", with_init("Always").container("i", 1, "1").backoff("i", 40), " until 130"),
        ("under Never it ends the pod", with_init("Never").container("i", 0, "1"), "kill pod Ending 30s"),
        ("once the containers run, nobody looks back", with_init("Always").container("c", 0, "running"), ""),
    ]);
}

#[test]
fn sidecars_run_beside_the_containers() {
    check(vec![
        ("first the sidecar", with_sidecar(), "start s#0"),
        (
            "what follows waits for its startup probe",
            with_sidecar().container("s", 0, "running").probe("s-0", false, false, None),
            "",
        ),
        ("then goes on", with_sidecar().container("s", 0, "running"), "start i#0"),
        (
            "an ended sidecar restarts, whatever the policy",
            with_sidecar().container("s", 0, "0").container("i", 0, "0").container("c", 0, "running"),
            "start s#1",
        ),
        (
            "an ended sidecar restarts during initialization",
            with_sidecar().container("s", 0, "1"),
            "start s#1",
        ),
        (
            "it does not hold up the end of the pod",
            World::new(pod().init(container("s").sidecar()).with(container("c")).policy("Never"))
                .sandbox("s0", true)
                .container("s", 0, "running")
                .container("c", 0, "0"),
            "kill pod Ending 30s",
        ),
    ]);
}

#[test]
fn a_container_that_its_probe_gave_up_is_killed() {
    let running = || {
        World::new(pod().with(container("c").liveness_grace(7)))
            .sandbox("s0", true)
            .container("c", 0, "running")
    };
    check(vec![
        (
            "with the probe's own grace",
            running().probe("c-0", true, true, Some(ProbeKind::Liveness)),
            "kill c Probe(Liveness) 7s",
        ),
        (
            "or the pod's",
            running().probe("c-0", false, false, Some(ProbeKind::Startup)),
            "kill c Probe(Startup) 30s",
        ),
        ("an unready one is left alone", running().probe("c-0", true, false, None), ""),
    ]);
}

#[test]
fn a_container_with_another_image_is_replaced() {
    let world = one("Always").sandbox("s0", true).container("c", 0, "running");
    let world = world.change(|spec| spec.containers[0].image = Some("c:2".into()));
    check(vec![("killed first", world, "kill c DefinitionChanged 30s")]);
}

#[test]
fn a_lost_sandbox_is_replaced() {
    check(vec![
        (
            "what still runs is ended first",
            one("Always").sandbox("s0", false).container("c", 0, "running"),
            "kill pod SandboxChanged 30s",
        ),
        ("then a new one is made", one("Always").sandbox("s0", false).container("c", 0, "137"), "sandbox#1"),
        (
            "in which everything starts again",
            one("Always").sandbox("s0", false).container("c", 0, "137").sandbox("s1", true),
            "start c#1",
        ),
        (
            "the initialization too",
            with_init("Always")
                .container("i", 0, "0")
                .container("j", 0, "0")
                .container("c", 0, "137")
                .sandbox("s1", true),
            "start i#1",
        ),
        (
            "but not for containers that are done",
            one("Never").sandbox("s0", false).container("c", 0, "0"),
            "",
        ),
    ]);
}

#[test]
fn a_deleted_pod_is_killed_then_removed() {
    let running = || one("Always").sandbox("s0", true).container("c", 0, "running");
    check(vec![
        ("killed with the deletion's grace", running().deleted(5), "kill pod Ending 5s"),
        ("never started", one("Always").deleted(5), "finish"),
        (
            "removed when all is stopped",
            one("Always").sandbox("s0", false).container("c", 0, "137").deleted(5),
            "finish",
        ),
        (
            "a pod that is not in the API any more",
            {
                let mut world = running();
                world.gone = true;
                world
            },
            "kill pod Ending 30s",
        ),
    ]);
}

#[test]
fn a_pod_past_its_deadline_is_killed() {
    let late = |seconds| {
        let world = one("Always").sandbox("s0", true).container("c", 0, "running");
        world.change(|spec| spec.active_deadline_seconds = Some(seconds))
    };
    check(vec![("not before", late(150), " until 150"), ("then at once", late(100), "kill pod Ending 30s")]);
}

#[test]
fn a_rejected_pod_is_never_started() {
    let mut world = one("Always");
    world.rejection = Some(Rejection { reason: "OutOfcpu".into(), message: "no".into() });
    check(vec![("nothing is done", world, "")]);
}

#[test]
fn the_last_ended_attempt_is_kept_and_older_ones_are_removed() {
    let world = one("Always").sandbox("s0", true);
    let world = world.container("c", 0, "1").container("c", 1, "1").container("c", 2, "running");
    check(vec![("the one before the last goes", world, "collect c-0 ")]);
}
