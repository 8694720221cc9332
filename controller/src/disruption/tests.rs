use k8s_openapi::api::policy::v1::PodDisruptionBudgetSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::harness::What;
use crate::pods::tests::{pod, set_ready, time};

fn budget(min_available: Option<&str>, max_unavailable: Option<&str>) -> PodDisruptionBudget {
    let amount =
        |text: &str| text.parse().map_or_else(|_| IntOrString::String(text.to_owned()), IntOrString::Int);
    PodDisruptionBudget {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            name: Some("web".into()),
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec: Some(PodDisruptionBudgetSpec {
            min_available: min_available.map(amount),
            max_unavailable: max_unavailable.map(amount),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

fn situation(budget: PodDisruptionBudget, ready: usize, not: usize, wanted: &Wanted) -> Situation {
    let pods = (0..ready + not).map(|i| {
        let mut pod = pod(&format!("p{i}"));
        set_ready(&mut pod, i < ready, "00:00:00");
        (Arc::new(pod), wanted.clone())
    });
    Situation { budget: Arc::new(budget), pods: pods.collect(), now: time("01:00:00") }
}

fn reported(plan: &Plan) -> PodDisruptionBudgetStatus {
    let written = plan.writes().find_map(|write| match &write.what {
        What::ReplaceStatus(object) => Some(object["status"].clone()),
        _ => None,
    });
    serde_json::from_value(written.expect("a status is written")).unwrap()
}

#[test]
fn budgets_count_what_may_go() {
    let ten = Wanted::By("d".into(), 10);
    for (min, max, ready, not, wanted, expected) in [
        (Some("3"), None, 5, 0, Wanted::Nobody, (5, 3, 5, 2)),
        (Some("3"), None, 2, 1, Wanted::Nobody, (3, 3, 2, 0)),
        (Some("25%"), None, 9, 1, ten.clone(), (10, 3, 9, 6)),
        (None, Some("1"), 10, 0, ten.clone(), (10, 9, 10, 1)),
        (None, Some("1"), 9, 0, ten.clone(), (10, 9, 9, 0)),
        (None, Some("33%"), 10, 0, ten.clone(), (10, 6, 10, 4)),
        (None, Some("100%"), 10, 0, ten, (10, 0, 10, 10)),
        (Some("0"), None, 0, 0, Wanted::Nobody, (0, 0, 0, 0)),
        // Nobody says how many of these there should be.
        (None, Some("1"), 3, 0, Wanted::Nobody, (0, 0, 3, 0)),
    ] {
        let status = reported(&plan(&situation(budget(min, max), ready, not, &wanted)));
        let counts = [
            status.expected_pods,
            status.desired_healthy,
            status.current_healthy,
            status.disruptions_allowed,
        ];
        let [e, d, c, a] = counts.map(Option::unwrap);
        assert_eq!((e, d, c, a), expected, "{min:?} {max:?} of {ready} and {not}");
        let condition = &status.conditions.unwrap()[0];
        let reason = if a > 0 { "SufficientPods" } else { "InsufficientPods" };
        assert_eq!(condition.reason, reason);
    }
}

#[test]
fn without_a_known_controller_nothing_may_go() {
    let plan = plan(&situation(budget(None, Some("1")), 3, 0, &Wanted::Unknown));
    let status = reported(&plan);
    assert_eq!(status.disruptions_allowed, Some(0));
    let condition = &status.conditions.unwrap()[0];
    assert_eq!(
        (&*condition.reason, &*condition.message),
        ("SyncFailed", "found no controllers for pod \"p0\"")
    );
}

#[test]
fn an_evicted_pod_counts_as_gone_until_it_obviously_stays() {
    let mut budget = budget(Some("1"), None);
    let evicted = [("p0".to_owned(), Time(time("00:59:00"))), ("other".to_owned(), Time(time("00:59:00")))];
    budget.status = Some(PodDisruptionBudgetStatus {
        disrupted_pods: Some(evicted.into()),
        ..PodDisruptionBudgetStatus::default()
    });
    let mut situation = situation(budget, 2, 0, &Wanted::Nobody);
    let waiting = plan(&situation);
    let status = reported(&waiting);
    assert_eq!((status.current_healthy, status.disruptions_allowed), (Some(1), Some(0)));
    assert_eq!(status.disrupted_pods.unwrap().into_keys().collect::<Vec<_>>(), ["p0"]);
    assert_eq!(waiting.again, Some(Duration::from_secs(60)));
    situation.now = time("01:01:00");
    let late = plan(&situation);
    assert_eq!(reported(&late).disruptions_allowed, Some(1));
    assert_eq!(late.events[0].message, "Pod was expected by PDB default/web to be deleted but it wasn't");
}

#[test]
fn nothing_is_written_when_nothing_changes() {
    let mut source = budget(Some("1"), None);
    source.status = Some(reported(&plan(&situation(source.clone(), 2, 0, &Wanted::Nobody))));
    assert!(plan(&situation(source, 2, 0, &Wanted::Nobody)).is_empty());
}

#[test]
fn pods_that_nobody_wants_are_complained_about_if_that_matters() {
    let about = |min, max| plan(&situation(budget(min, max), 2, 0, &Wanted::Nobody)).events;
    assert_eq!(about(None, Some("1"))[0].reason, "UnmanagedPods");
    assert!(about(Some("1"), None).is_empty());
}
