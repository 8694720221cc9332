//! Pods in tests, and the order of deletion.

use k8s_openapi::api::core::v1::{ContainerStatus, PodSpec, PodStatus};

use super::*;

pub(crate) fn time(text: &str) -> Timestamp {
    format!("2026-01-01T{text}Z").parse().unwrap()
}

/// A running, ready pod on a node, ready since 00:00:00.
pub(crate) fn pod(name: &str) -> Pod {
    let mut pod = Pod {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            name: Some(name.into()),
            uid: Some(format!("uid-{name}")),
            resource_version: Some("7".into()),
            creation_timestamp: Some(Time(time("00:00:00"))),
            labels: Some([("app".to_owned(), "web".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { node_name: Some("n1".into()), ..PodSpec::default() }),
        status: Some(PodStatus { phase: Some("Running".into()), ..PodStatus::default() }),
    };
    set_ready(&mut pod, true, "00:00:00");
    pod
}

pub(crate) fn set_ready(pod: &mut Pod, ready: bool, since: &str) {
    pod.status.get_or_insert_default().conditions = Some(vec![PodCondition {
        type_: "Ready".into(),
        status: if ready { "True" } else { "False" }.into(),
        last_transition_time: Some(Time(time(since))),
        ..PodCondition::default()
    }]);
}

fn changed(name: &str, change: impl FnOnce(&mut Pod)) -> Pod {
    let mut pod = pod(name);
    change(&mut pod);
    pod
}

#[test]
fn pods_that_cost_least_are_deleted_first() {
    let restarted =
        |count| Some(vec![ContainerStatus { restart_count: count, ..ContainerStatus::default() }]);
    let order = [
        changed("unassigned", |pod| pod.spec.as_mut().unwrap().node_name = None),
        changed("pending", |pod| pod.status.as_mut().unwrap().phase = Some("Pending".into())),
        changed("unknown", |pod| pod.status.as_mut().unwrap().phase = Some("Unknown".into())),
        changed("not-ready-restarting", |pod| {
            set_ready(pod, false, "00:00:00");
            pod.status.as_mut().unwrap().container_statuses = restarted(3);
        }),
        changed("not-ready", |pod| set_ready(pod, false, "00:00:00")),
        changed("cheap", |pod| {
            pod.metadata.annotations = Some([(DELETION_COST.to_owned(), "-10".to_owned())].into());
        }),
        changed("crowded", |pod| pod.spec.as_mut().unwrap().node_name = Some("full".into())),
        changed("just-ready", |pod| set_ready(pod, true, "23:00:00")),
        changed("restarting", |pod| pod.status.as_mut().unwrap().container_statuses = restarted(1)),
        changed("young", |pod| pod.metadata.creation_timestamp = Some(Time(time("22:00:00")))),
        changed("old", |_| {}),
        changed("dear", |pod| {
            pod.metadata.annotations = Some([(DELETION_COST.to_owned(), "10".to_owned())].into());
        }),
    ];
    let crowd = [("n1".to_owned(), 1), ("full".to_owned(), 4)].into();
    let now = time("23:30:00");
    for (i, a) in order.iter().enumerate() {
        for (j, b) in order.iter().enumerate() {
            let (left, right) = (&a.metadata.name, &b.metadata.name);
            assert_eq!(deletion_order(a, b, &crowd, now), i.cmp(&j), "{left:?} and {right:?}");
        }
    }
}

#[test]
fn ready_times_of_one_magnitude_are_left_to_chance() {
    let a = changed("b", |pod| set_ready(pod, true, "00:00:00"));
    let b = changed("a", |pod| set_ready(pod, true, "00:00:05"));
    assert_eq!(deletion_order(&a, &b, &BTreeMap::new(), time("10:00:00")), Ordering::Greater);
}

#[test]
fn a_pod_is_available_after_being_ready_for_long_enough() {
    let ready = changed("p", |pod| set_ready(pod, true, "00:00:10"));
    let secs = Duration::from_secs;
    assert_eq!(available_in(&ready, 0, time("00:00:10")), Some(secs(0)));
    assert_eq!(available_in(&ready, 30, time("00:00:10")), Some(secs(30)));
    assert_eq!(available_in(&ready, 30, time("00:00:39")), Some(secs(1)));
    assert_eq!(available_in(&ready, 30, time("00:00:50")), Some(secs(0)));
    let not_ready = changed("p", |pod| set_ready(pod, false, "00:00:10"));
    assert_eq!(available_in(&not_ready, 0, time("01:00:00")), None);
}
