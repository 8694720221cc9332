use super::*;
use crate::harness::What;
use crate::pods::tests::{pod, time};

fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
    Toleration {
        key: Some(key.into()).filter(|key: &String| !key.is_empty()),
        operator: Some("Exists".into()),
        toleration_seconds: seconds,
        ..Toleration::default()
    }
}

fn taint(key: &str) -> (Taint, Timestamp) {
    let taint = Taint { key: key.into(), effect: "NoExecute".into(), ..Taint::default() };
    (taint, time("00:30:00"))
}

#[test]
fn pods_stay_as_long_as_they_tolerate_all_taints() {
    let at = |text| Until::Time(time(text));
    for (tolerations, taints, expected) in [
        (vec![], vec!["down"], Until::Never),
        (vec![toleration("", None)], vec!["down", "other"], Until::Always),
        (vec![toleration("down", Some(300))], vec!["down"], at("00:35:00")),
        (vec![toleration("down", Some(300))], vec!["down", "other"], Until::Never),
        (
            vec![toleration("down", Some(300)), toleration("other", Some(60))],
            vec!["down", "other"],
            at("00:31:00"),
        ),
        (vec![toleration("down", Some(-1))], vec!["down"], Until::Never),
        (vec![toleration("down", Some(i64::MAX))], vec!["down"], Until::Always),
    ] {
        let mut pod = pod("p");
        pod.spec.as_mut().unwrap().tolerations = Some(tolerations.clone());
        let taints: Vec<_> = taints.into_iter().map(taint).collect();
        assert_eq!(tolerates_until(&pod, &taints), expected, "{tolerations:?}");
    }
}

#[test]
fn a_pod_that_came_later_has_its_whole_time() {
    let mut pod = pod("p");
    pod.metadata.creation_timestamp = Some(Time(time("00:50:00")));
    pod.spec.as_mut().unwrap().tolerations = Some(vec![toleration("down", Some(300))]);
    assert_eq!(tolerates_until(&pod, &[taint("down")]), Until::Time(time("00:55:00")));
}

#[test]
fn pods_whose_time_is_over_are_marked_and_deleted_and_the_next_is_waited_for() {
    let mut patient = pod("patient");
    patient.spec.as_mut().unwrap().tolerations = Some(vec![toleration("down", Some(300))]);
    let pods = vec![Arc::new(pod("hasty")), Arc::new(patient)];
    let plan = plan(&Situation { taints: vec![taint("down")], pods, now: time("00:31:00") });
    let writes: Vec<_> = plan.writes().map(|write| (&*write.key.name, &write.what)).collect();
    assert!(matches!(writes[..], [("hasty", What::StrategicStatus(_)), ("hasty", What::Delete { .. })]));
    assert_eq!(plan.again, Some(Duration::from_secs(240)));
    assert_eq!(plan.events[0].message, "Marking for deletion Pod default/hasty");
}
