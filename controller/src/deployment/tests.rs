use k8s_openapi::api::apps::v1::{
    DeploymentSpec, DeploymentStatus, DeploymentStrategy, ReplicaSetSpec, ReplicaSetStatus,
    RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::*;
use crate::pods::tests::time;

fn template(host: &str) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some([("app".to_owned(), "web".to_owned())].into()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec { hostname: Some(host.into()), ..PodSpec::default() }),
    }
}

fn amount(text: &str) -> Option<IntOrString> {
    Some(text.parse().map_or_else(|_| IntOrString::String(text.to_owned()), IntOrString::Int))
}

/// A deployment whose template is `new`.
fn deployment(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
    let rolling = RollingUpdateDeployment { max_surge: amount(surge), max_unavailable: amount(unavailable) };
    Deployment {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            name: Some("web".into()),
            uid: Some("uid-web".into()),
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            progress_deadline_seconds: Some(600),
            revision_history_limit: Some(1),
            selector: meta::LabelSelector {
                match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
                ..Default::default()
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(rolling),
            }),
            template: template("new"),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// A replica set of the deployment with this template, size and number of available pods.
fn set(host: &str, revision: i64, replicas: i32, available: i32) -> ReplicaSet {
    let owner = deployment(0, "0", "0");
    let mut template = template(host);
    let labels = template.metadata.as_mut().unwrap().labels.as_mut().unwrap();
    labels.insert(template::HASH_LABEL.to_owned(), host.to_owned());
    ReplicaSet {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            name: Some(format!("web-{host}")),
            uid: Some(format!("uid-{host}")),
            creation_timestamp: Some(Time(time(&format!("00:00:{revision:02}")))),
            labels: template.metadata.as_ref().unwrap().labels.clone(),
            owner_references: Some(vec![controller_reference(&owner)]),
            annotations: Some([(set::REVISION.to_owned(), revision.to_string())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            template: Some(template),
            ..ReplicaSetSpec::default()
        }),
        status: Some(ReplicaSetStatus {
            replicas,
            ready_replicas: Some(available),
            available_replicas: Some(available),
            terminating_replicas: Some(0),
            ..ReplicaSetStatus::default()
        }),
    }
}

fn situation(deployment: Deployment, sets: Vec<ReplicaSet>) -> Situation {
    let selector = selector(&deployment).unwrap();
    let taken = sets.iter().filter_map(|set| set.metadata.name.clone()).collect();
    let sets = claim(&claimant(&deployment, &selector), sets.into_iter().map(Arc::new));
    let deployment = Arc::new(deployment);
    Situation { deployment, sets, taken, running: BTreeSet::new(), now: time("01:00:00") }
}

/// The sizes that a plan gives to sets, by the sets' templates; `+` before one that is created.
fn sizes(plan: &Plan) -> Vec<String> {
    let size = |object: &serde_json::Value| {
        format!(
            "{}={}",
            object["spec"]["template"]["spec"]["hostname"].as_str().unwrap(),
            object["spec"]["replicas"]
        )
    };
    plan.writes()
        .filter_map(|write| match &write.what {
            What::Create(object) => Some(format!("+{}", size(object))),
            What::Replace(object) => Some(size(object)),
            What::Delete { .. } => Some(format!("-{}", write.key.name)),
            _ => None,
        })
        .collect()
}

fn reported(plan: &Plan) -> Deployment {
    let written = plan.writes().find_map(|write| match &write.what {
        What::ReplaceStatus(object) => Some(object.clone()),
        _ => None,
    });
    serde_json::from_value(written.expect("a status is written")).unwrap()
}

fn reason(deployment: &Deployment, kind: &str) -> String {
    let status = deployment.status.clone().unwrap_or_default();
    let found = status::find(&status, kind).cloned();
    found.map(|condition| format!("{} {}", condition.status, condition.reason.unwrap())).unwrap_or_default()
}

#[test]
fn a_rolling_update_moves_within_its_bounds() {
    // Wanted, surge, unavailable; (size, available) of the old set and of the new one; what follows.
    type Case = (i32, &'static str, &'static str, (i32, i32), Option<(i32, i32)>, &'static [&'static str]);
    let cases: [Case; 13] = [
        (10, "25%", "25%", (10, 10), None, &["old=8", "+new=3"]),
        (4, "1", "0", (4, 4), None, &["+new=1"]),
        (4, "1", "0", (4, 4), Some((1, 0)), &[]),
        (4, "1", "0", (4, 4), Some((1, 1)), &["old=3"]),
        (4, "0", "1", (4, 4), None, &["old=3", "+new=0"]),
        (4, "0", "1", (3, 3), Some((0, 0)), &["new=1"]),
        // The status is older than the size: nothing more may go.
        (4, "0", "1", (3, 4), Some((1, 0)), &[]),
        // Both round to nothing: one may be missing.
        (4, "0%", "1%", (4, 4), None, &["old=3", "+new=0"]),
        // Old pods that do not serve go first.
        (4, "1", "1", (4, 1), Some((1, 1)), &["old=2"]),
        (4, "1", "0", (2, 2), Some((3, 2)), &[]),
        (1, "25%", "25%", (1, 1), None, &["+new=1"]),
        (3, "100%", "100%", (3, 3), None, &["old=0", "+new=3"]),
        // More than wanted.
        (3, "1", "1", (0, 0), Some((5, 5)), &["new=3"]),
    ];
    for (wanted, surge, unavailable, (old, old_available), new, expected) in cases {
        let mut sets = vec![set("old", 1, old, old_available)];
        sets.extend(new.map(|(size, available)| set("new", 2, size, available)));
        let situation = situation(deployment(wanted, surge, unavailable), sets);
        let plan = plan(&situation).unwrap();
        let case = format!("{wanted} of {old}({old_available}) and {new:?} with {surge}/{unavailable}");
        assert_eq!(sizes(&plan), expected, "{case}");
    }
}

#[test]
fn a_created_set_is_named_and_numbered_and_reported() {
    let mut source = deployment(2, "1", "0");
    source.metadata.annotations = Some([("team".to_owned(), "blue".to_owned())].into());
    source.status = Some(DeploymentStatus {
        replicas: Some(2),
        updated_replicas: Some(2),
        ready_replicas: Some(2),
        available_replicas: Some(2),
        ..DeploymentStatus::default()
    });
    let plan = plan(&situation(source.clone(), vec![set("old", 7, 2, 2)])).unwrap();
    let What::Create(created) = &plan.writes().next().unwrap().what else { panic!() };
    let hash = template::hash(&source.spec.as_ref().unwrap().template, 0);
    assert_eq!(created["metadata"]["name"], format!("web-{hash}"));
    for place in ["/metadata/labels", "/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
        assert_eq!(created.pointer(place).unwrap()["pod-template-hash"], hash, "{place}");
    }
    let annotations = &created["metadata"]["annotations"];
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "8");
    assert_eq!(annotations["deployment.kubernetes.io/desired-replicas"], "2");
    assert_eq!(annotations["deployment.kubernetes.io/max-replicas"], "3");
    assert_eq!(annotations["team"], "blue");
    let announced = plan.writes().next().unwrap().announce.clone().unwrap().done;
    assert_eq!(announced, ("ScalingReplicaSet", format!("Scaled up replica set web-{hash} from 0 to 1")));
    let reported = reported(&plan);
    assert_eq!(reported.metadata.annotations.as_ref().unwrap()[set::REVISION], "8");
    assert_eq!(reason(&reported, "Progressing"), "True NewReplicaSetCreated");
    assert_eq!(reason(&reported, "Available"), "True MinimumReplicasAvailable");
}

#[test]
fn a_taken_name_leads_to_another() {
    let mut situation = situation(deployment(2, "1", "0"), Vec::new());
    let spec = situation.deployment.spec.clone().unwrap();
    situation.taken.insert(format!("web-{}", template::hash(&spec.template, 0)));
    let first = plan(&situation).unwrap();
    assert!(sizes(&first).is_empty());
    situation.deployment = Arc::new(reported(&first));
    assert_eq!(situation.deployment.status.as_ref().unwrap().collision_count, Some(1));
    assert_eq!(sizes(&plan(&situation).unwrap()), ["+new=2"]);
}

#[test]
fn a_rollback_gives_an_old_set_a_new_number() {
    let sets = vec![set("new", 1, 0, 0), set("other", 2, 3, 3)];
    let plan = plan(&situation(deployment(3, "1", "1"), sets)).unwrap();
    let What::Replace(back) = &plan.stages[0].last().unwrap().what else { panic!() };
    let annotations = &back["metadata"]["annotations"];
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(reported(&plan).metadata.annotations.unwrap()[set::REVISION], "3");
}

#[test]
fn scaling_in_a_rollout_keeps_the_proportions() {
    for (wanted, old, new, expected) in [
        (20, 8, 5, vec!["old=14", "new=9"]),
        (5, 8, 5, vec!["old=5", "new=3"]),
        (0, 8, 5, vec!["old=0", "new=0"]),
        (20, 13, 0, vec!["old=20"]),
    ] {
        let mut sets = vec![set("old", 1, old, old), set("new", 2, new, new)];
        for set in &mut sets {
            let annotations = set.metadata.annotations.as_mut().unwrap();
            annotations.insert(set::DESIRED_REPLICAS.into(), "10".into());
            annotations.insert(set::MAX_REPLICAS.into(), "13".into());
        }
        let plan = plan(&situation(deployment(wanted, "3", "2"), sets)).unwrap();
        let sized: Vec<String> = sizes(&plan);
        assert_eq!(sized, expected, "{old} and {new} of 10 scaled to {wanted}");
    }
}

#[test]
fn history_beyond_the_limit_is_deleted_once_the_rollout_is_complete() {
    let sets = vec![set("a", 1, 0, 0), set("b", 2, 0, 0), set("c", 3, 0, 0), set("new", 4, 2, 2)];
    let mut source = deployment(2, "1", "0");
    let first = plan(&situation(source.clone(), sets.clone())).unwrap();
    assert!(sizes(&first).is_empty());
    let status = reported(&first);
    assert_eq!(reason(&status, "Progressing"), "True NewReplicaSetAvailable");
    source.status = status.status;
    assert_eq!(sizes(&plan(&situation(source, sets)).unwrap()), ["-web-a", "-web-b"]);
}

#[test]
fn a_rollout_without_progress_times_out_and_looks_again_until_then() {
    let mut source = deployment(2, "1", "0");
    let sets = || vec![set("old", 1, 2, 2), set("new", 2, 1, 0)];
    let since =
        status::condition("Progressing", "True", "ReplicaSetUpdated", String::new(), time("00:55:00"));
    source.status = Some(DeploymentStatus {
        updated_replicas: Some(1),
        replicas: Some(3),
        ready_replicas: Some(2),
        available_replicas: Some(2),
        conditions: Some(vec![since]),
        ..DeploymentStatus::default()
    });
    let waiting = plan(&situation(source.clone(), sets())).unwrap();
    assert_eq!(waiting.again, Some(std::time::Duration::from_secs(301)));
    let mut late = situation(source, sets());
    late.now = time("01:05:01");
    let late = plan(&late).unwrap();
    assert_eq!(reason(&reported(&late), "Progressing"), "False ProgressDeadlineExceeded");
    assert_eq!(late.again, None);
}

#[test]
fn a_pause_stops_the_rollout_and_is_noted() {
    let mut source = deployment(4, "1", "0");
    source.spec.as_mut().unwrap().paused = Some(true);
    let plan = plan(&situation(source, vec![set("old", 1, 2, 2)])).unwrap();
    // Scaling goes on.
    assert_eq!(sizes(&plan), ["old=4"]);
    assert_eq!(reason(&reported(&plan), "Progressing"), "Unknown DeploymentPaused");
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut source = deployment(2, "0", "0");
    source.spec.as_mut().unwrap().strategy =
        Some(DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None });
    assert_eq!(sizes(&plan(&situation(source.clone(), vec![set("old", 1, 2, 2)])).unwrap()), ["old=0"]);
    let mut waiting = situation(source, vec![set("old", 1, 0, 0)]);
    waiting.running.insert("uid-old".into());
    assert!(sizes(&plan(&waiting).unwrap()).is_empty());
    waiting.running.clear();
    assert_eq!(sizes(&plan(&waiting).unwrap()), ["+new=2"]);
}

#[test]
fn a_refused_set_shows_in_the_conditions() {
    let situation = situation(deployment(2, "1", "0"), Vec::new());
    let first = plan(&situation).unwrap();
    let failure = plan_failure(&situation, first.writes().next().unwrap(), "exceeded quota");
    assert_eq!(reason(&reported(&failure), "Progressing"), "False ReplicaSetCreateError");
}

#[test]
fn nothing_is_written_when_nothing_changes() {
    let sets = vec![set("new", 1, 2, 2)];
    let first = plan(&situation(deployment(2, "1", "0"), sets.clone())).unwrap();
    let settled = plan(&situation(reported(&first), sets)).unwrap();
    assert!(settled.is_empty(), "{settled:?}");
    assert_eq!(settled.again, None);
}

#[test]
fn hashes_depend_on_the_template_and_collisions_only() {
    let plain = template("new");
    let mut labeled = template("new");
    let labels = labeled.metadata.as_mut().unwrap().labels.as_mut().unwrap();
    labels.insert(template::HASH_LABEL.to_owned(), "x".into());
    assert_eq!(template::hash(&plain, 0), template::hash(&labeled, 0));
    assert!(template::same(&plain, &labeled));
    assert_ne!(template::hash(&plain, 0), template::hash(&plain, 1));
    assert_ne!(template::hash(&plain, 0), template::hash(&template("old"), 0));
}
