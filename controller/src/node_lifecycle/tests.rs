use k8s_openapi::api::core::v1::{NodeCondition, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::harness::What;
use crate::pods::tests::{pod, time};

fn node(name: &str, ready: &str) -> Node {
    let condition = |kind: &str, status: &str| NodeCondition {
        type_: kind.into(),
        status: status.into(),
        ..NodeCondition::default()
    };
    Node {
        metadata: ObjectMeta {
            name: Some(name.into()),
            resource_version: Some("5".into()),
            creation_timestamp: Some(Time(time("00:00:00"))),
            ..ObjectMeta::default()
        },
        spec: None,
        status: Some(NodeStatus {
            conditions: Some(vec![condition("Ready", ready), condition("DiskPressure", "False")]),
            ..NodeStatus::default()
        }),
    }
}

fn situation(node: Node, eviction: zones::Permit) -> Situation {
    let (heard, now) = (time("00:59:30"), time("01:00:00"));
    Situation { node: Arc::new(node), pods: vec![Arc::new(pod("p"))], heard, eviction, now }
}

/// The taints that a plan gives the node.
fn taints(plan: &Plan) -> Option<Vec<String>> {
    plan.writes().find_map(|write| match &write.what {
        What::Merge(patch) => {
            let taints: Vec<Taint> = serde_json::from_value(patch["spec"]["taints"].clone()).unwrap();
            Some(taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect())
        }
        _ => None,
    })
}

#[test]
fn a_silent_node_gets_unknown_conditions_after_its_grace() {
    let mut situation = situation(node("n1", "True"), zones::Permit::Now);
    let early = plan(&situation);
    assert!(early.is_empty());
    assert_eq!(early.again, Some(Duration::from_secs(20)));
    situation.heard = time("00:59:10");
    let late = plan(&situation);
    let [write] = late.writes().collect::<Vec<_>>()[..] else { panic!("{late:?}") };
    let What::ReplaceStatus(written) = &write.what else { panic!("{write:?}") };
    let written: Node = serde_json::from_value(written.clone()).unwrap();
    let ready = health::condition(&written, "Ready").unwrap();
    assert_eq!(ready.status, "Unknown");
    assert_eq!(ready.reason.as_deref(), Some("NodeStatusUnknown"));
    assert_eq!(ready.message.as_deref(), Some("Kubelet stopped posting node status."));
    let memory = health::condition(&written, "MemoryPressure").unwrap();
    assert_eq!(memory.reason.as_deref(), Some("NodeStatusNeverUpdated"));
    assert_eq!(write.announce.as_ref().unwrap().done.1, "Node n1 status is now: NodeNotReady");
}

#[test]
fn taints_follow_the_conditions_and_leave_others_alone() {
    use zones::Permit::{After, Never, Now, Withdraw};
    let (not_ready, unreachable) = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable");
    let both = |key: &str| vec![format!("{key}:NoSchedule"), format!("{key}:NoExecute")];
    let only = |key: &str| vec![format!("{key}:NoSchedule")];
    let later = After(Duration::from_secs(7));
    for (ready, before, permit, after) in [
        ("True", vec![], Now, None),
        ("False", vec![], Now, Some(both(not_ready))),
        ("Unknown", vec![], Now, Some(both(unreachable))),
        ("Unknown", vec![], later, Some(only(unreachable))),
        ("Unknown", vec![], Never, Some(only(unreachable))),
        ("Unknown", both(unreachable), later, None),
        ("Unknown", both(not_ready), later, Some(both(unreachable))),
        ("Unknown", both(unreachable), Withdraw, Some(only(unreachable))),
        ("True", both(unreachable), Now, Some(vec![])),
        ("True", vec!["mine:NoExecute".to_owned()], Now, None),
    ] {
        let mut node = node("n1", ready);
        let taint = |text: &String| {
            let (key, effect) = text.split_once(':').unwrap();
            Taint { key: key.into(), effect: effect.into(), ..Taint::default() }
        };
        let case = format!("{ready} {before:?} {permit:?}");
        node.spec =
            Some(NodeSpec { taints: Some(before.iter().map(taint).collect()), ..NodeSpec::default() });
        assert_eq!(taints(&plan(&situation(node, permit))), after, "{case}");
    }
    let mut cordoned = node("n1", "True");
    cordoned.spec = Some(NodeSpec { unschedulable: Some(true), ..NodeSpec::default() });
    let found = taints(&plan(&situation(cordoned, Now)));
    assert_eq!(found, Some(vec!["node.kubernetes.io/unschedulable:NoSchedule".to_owned()]));
}

#[test]
fn pods_of_a_silent_node_stop_being_ready() {
    let plan = plan(&situation(node("n1", "Unknown"), zones::Permit::Never));
    assert!(matches!(plan.writes().next().unwrap().what, What::StrategicStatus(_)));
    assert_eq!(plan.events[0].reason, "NodeNotReady");
}

#[test]
fn nodes_are_emptied_one_after_the_other_and_never_all() {
    let list = |ready: usize, not: usize| -> Vec<Arc<Node>> {
        let names =
            (0..ready + not).map(|i| node(&format!("n{i}"), if i < ready { "True" } else { "Unknown" }));
        names.map(Arc::new).collect()
    };
    let now = time("01:00:00");
    let mut zones = Zones::default();
    let all = list(3, 2);
    assert_eq!(zones.permit(&all[3], &all, true, now), zones::Permit::Now);
    assert_eq!(zones.permit(&all[4], &all, true, now), zones::Permit::After(Duration::from_secs(10)));
    assert_eq!(zones.permit(&all[4], &all, true, time("01:00:10")), zones::Permit::Now);
    for (ready, not, expected) in [
        (0, 1, zones::Permit::Withdraw),
        (1, 2, zones::Permit::Now),
        (2, 3, zones::Permit::Never),
        (3, 3, zones::Permit::Now),
        (20, 40, zones::Permit::Now),
    ] {
        let all = list(ready, not);
        let last = all.last().unwrap();
        assert_eq!(Zones::default().permit(last, &all, true, now), expected, "{ready} and {not}");
    }
}
