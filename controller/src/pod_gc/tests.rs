use super::*;
use crate::harness::What;
use crate::pods::tests::{pod, time};

fn situation(pods: Vec<Pod>) -> Situation {
    Situation {
        pods: pods.into_iter().map(Arc::new).collect(),
        nodes: ["n1".to_owned()].into(),
        out_of_service: BTreeSet::new(),
        missing: BTreeMap::new(),
        limit: 100,
        now: time("01:00:00"),
    }
}

fn changed(name: &str, change: impl FnOnce(&mut Pod)) -> Pod {
    let mut pod = pod(name);
    change(&mut pod);
    pod
}

fn brief(plan: &Plan) -> Vec<String> {
    let verb = |what: &What| match what {
        What::StrategicStatus(patch) if patch["status"]["conditions"].is_array() => "orphan",
        What::StrategicStatus(_) => "fail",
        What::Delete { grace: Some(0), .. } => "remove",
        _ => "other",
    };
    plan.writes().map(|write| format!("{} {}", verb(&write.what), write.key.name)).collect()
}

#[test]
fn pods_of_a_gone_node_go_after_its_quarantine() {
    let lost = changed("lost", |pod| pod.spec.as_mut().unwrap().node_name = Some("gone".into()));
    let mut situation = situation(vec![lost, pod("fine")]);
    situation.missing = [("gone".to_owned(), time("00:59:30"))].into();
    let early = plan(&situation);
    assert!(early.is_empty());
    assert_eq!(early.again, Some(Duration::from_secs(10)));
    situation.now = time("01:00:10");
    assert_eq!(brief(&plan(&situation)), ["orphan lost", "remove lost"]);
}

#[test]
fn terminating_pods_go_if_no_node_will_end_them() {
    let leaving = |pod: &mut Pod| pod.metadata.deletion_timestamp = Some(Time(time("00:59:00")));
    let homeless = changed("homeless", |pod| {
        leaving(pod);
        pod.spec.as_mut().unwrap().node_name = None;
    });
    let mut situation = situation(vec![homeless, changed("leaving", leaving)]);
    assert_eq!(brief(&plan(&situation)), ["fail homeless", "remove homeless"]);
    situation.out_of_service.insert("n1".into());
    let both = ["fail homeless", "fail leaving", "remove homeless", "remove leaving"];
    assert_eq!(brief(&plan(&situation)), both);
}

#[test]
fn ended_pods_beyond_the_limit_go_evicted_ones_and_old_ones_first() {
    let ended = |name: &str, born: &str, reason: Option<&str>| {
        changed(name, |pod| {
            pod.metadata.creation_timestamp = Some(Time(time(born)));
            let status = pod.status.as_mut().unwrap();
            status.phase = Some("Failed".into());
            status.reason = reason.map(str::to_owned);
        })
    };
    let pods = vec![
        ended("young", "00:03:00", None),
        ended("old", "00:01:00", None),
        ended("evicted", "00:05:00", Some("Evicted")),
        pod("runs"),
    ];
    let mut situation = situation(pods);
    situation.limit = 1;
    assert_eq!(brief(&plan(&situation)), ["remove evicted", "remove old"]);
}
