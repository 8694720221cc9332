use k8s_openapi::api::apps::v1::ReplicaSetSpec;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, ObjectMeta};

use super::*;
use crate::pods::tests::{pod, set_ready, time};

fn set(replicas: i32) -> ReplicaSet {
    let labels = Some([("app".to_owned(), "web".to_owned())].into());
    ReplicaSet {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            name: Some("web".into()),
            uid: Some("uid-web".into()),
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: None,
            selector: meta::LabelSelector { match_labels: labels.clone(), ..Default::default() },
            template: Some(PodTemplateSpec {
                metadata: Some(ObjectMeta { labels, ..ObjectMeta::default() }),
                spec: Some(PodSpec::default()),
            }),
        }),
        status: None,
    }
}

fn owned(name: &str, set: &ReplicaSet) -> Pod {
    let mut pod = pod(name);
    pod.metadata.owner_references = Some(vec![controller_reference(set)]);
    pod
}

fn situation(set: ReplicaSet, pods: Vec<Pod>) -> Situation {
    let selector = selector(&set).unwrap();
    let pods = claim(&claimant(&set, &selector), pods.into_iter().map(Arc::new));
    Situation { set: Arc::new(set), pods, crowd: BTreeMap::new(), now: time("01:00:00") }
}

/// What a plan does, one word and name per write.
fn brief(plan: &Plan) -> Vec<String> {
    let verb = |what: &What| match what {
        What::Create(_) => "create",
        What::Delete { .. } => "delete",
        What::Merge(_) => "patch",
        What::ReplaceStatus(_) => "status",
        _ => "other",
    };
    plan.writes().map(|write| format!("{} {}", verb(&write.what), write.key.name)).collect()
}

fn reported(plan: &Plan) -> ReplicaSetStatus {
    let status = plan.writes().find_map(|write| match &write.what {
        What::ReplaceStatus(object) => Some(object["status"].clone()),
        _ => None,
    });
    serde_json::from_value(status.expect("a status is written")).unwrap()
}

#[test]
fn missing_pods_are_created_and_the_status_follows() {
    let set = set(3);
    let one = owned("a", &set);
    let plan = plan(&situation(set, vec![one])).unwrap();
    assert_eq!(brief(&plan), ["create ", "create ", "status web"]);
    let status = reported(&plan);
    assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (1, Some(1), Some(1)));
    assert_eq!(status.terminating_replicas, Some(0));
    let What::Create(pod) = &plan.writes().next().unwrap().what else { panic!() };
    assert_eq!(pod["metadata"]["generateName"], "web-");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "uid-web");
    assert_eq!(pod["metadata"]["labels"]["app"], "web");
}

#[test]
fn superfluous_pods_are_deleted_beginning_with_those_that_do_not_serve() {
    let set = set(1);
    let mut pods = vec![owned("a", &set), owned("b", &set), owned("c", &set)];
    set_ready(&mut pods[1], false, "00:00:00");
    pods[2].spec.as_mut().unwrap().node_name = None;
    let plan = plan(&situation(set, pods)).unwrap();
    assert_eq!(brief(&plan), ["delete c", "delete b", "status web"]);
}

#[test]
fn ended_and_terminating_pods_do_not_count() {
    let set = set(1);
    let mut pods = vec![owned("ended", &set), owned("leaving", &set), owned("there", &set)];
    pods[0].status.as_mut().unwrap().phase = Some("Failed".into());
    pods[1].metadata.deletion_timestamp = Some(Time(time("00:59:00")));
    let plan = plan(&situation(set, pods)).unwrap();
    assert_eq!(brief(&plan), ["status web"]);
    let status = reported(&plan);
    assert_eq!((status.replicas, status.terminating_replicas), (1, Some(1)));
}

#[test]
fn matching_orphans_are_adopted_and_strayed_pods_released() {
    let set = set(2);
    let mut strayed = owned("strayed", &set);
    strayed.metadata.labels = None;
    let mut foreign = pod("foreign");
    foreign.metadata.owner_references =
        Some(vec![meta::OwnerReference { uid: "other".into(), ..controller_reference(&set) }]);
    let plan = plan(&situation(set, vec![pod("orphan"), strayed, foreign])).unwrap();
    assert_eq!(brief(&plan), ["patch orphan", "patch strayed", "create ", "status web"]);
    let What::Merge(adoption) = &plan.writes().next().unwrap().what else { panic!() };
    assert_eq!(adoption["metadata"]["uid"], "uid-orphan");
    assert_eq!(adoption["metadata"]["resourceVersion"], "7");
    assert_eq!(adoption["metadata"]["ownerReferences"][0]["uid"], "uid-web");
}

#[test]
fn a_set_that_is_being_deleted_neither_adopts_nor_creates() {
    let mut set = set(2);
    set.metadata.deletion_timestamp = Some(Time(time("00:59:00")));
    assert_eq!(brief(&plan(&situation(set, vec![pod("orphan")])).unwrap()), ["status web"]);
}

#[test]
fn availability_waits_for_min_ready_seconds_and_looks_again_then() {
    let mut set = set(1);
    set.spec.as_mut().unwrap().min_ready_seconds = Some(30);
    let mut one = owned("a", &set);
    set_ready(&mut one, true, "00:59:50");
    let plan = plan(&situation(set, vec![one])).unwrap();
    assert_eq!(plan.again, Some(std::time::Duration::from_secs(20)));
    let status = reported(&plan);
    assert_eq!((status.ready_replicas, status.available_replicas), (Some(1), None));
}

#[test]
fn a_refused_pod_shows_as_replica_failure_until_it_works() {
    let refused = situation(set(1), Vec::new());
    let first = plan(&refused).unwrap();
    let failure = plan_failure(&refused, first.writes().next().unwrap(), "exceeded quota");
    let conditions = reported(&failure).conditions.unwrap();
    assert_eq!(conditions[0].reason.as_deref(), Some("FailedCreate"));
    assert_eq!(conditions[0].message.as_deref(), Some("exceeded quota"));

    let mut failing = set(1);
    failing.status = Some(reported(&failure));
    let one = owned("a", &failing);
    assert_eq!(reported(&plan(&situation(failing, vec![one])).unwrap()).conditions, None);
}

#[test]
fn nothing_is_written_when_nothing_changes() {
    let mut set = set(1);
    let one = owned("a", &set);
    set.status = Some(reported(&plan(&situation(set.clone(), vec![one.clone()])).unwrap()));
    assert!(plan(&situation(set, vec![one])).unwrap().is_empty());
}
