//! Decisions as rows: a cluster, a pod, and where it goes or why it can't.

use std::sync::Arc;

use super::*;

/// Builders for the objects of these tests.
fn node(name: &str) -> NodeSpec {
    NodeSpec {
        name: name.into(),
        labels: [("kubernetes.io/hostname".to_owned(), name.to_owned())].into(),
        allocatable: Resources { cpu: 4000, memory: 32 << 30, ..Resources::default() },
        max_pods: 110,
        ..NodeSpec::default()
    }
}

fn in_zone(mut spec: NodeSpec, zone: &str) -> NodeSpec {
    spec.labels.insert("topology.kubernetes.io/zone".into(), zone.into());
    spec
}

fn tainted(mut spec: NodeSpec, key: &str, effect: Effect) -> NodeSpec {
    spec.taints.push(Taint { key: key.into(), value: "v".into(), effect });
    spec
}

fn pod(name: &str) -> PodSpec {
    PodSpec { namespace: "default".into(), name: name.into(), uid: name.into(), ..PodSpec::default() }
}

fn labelled(mut spec: PodSpec, value: &str) -> PodSpec {
    spec.labels.insert("app".into(), value.into());
    spec
}

fn requesting(mut spec: PodSpec, cpu: i64, memory: i64) -> PodSpec {
    spec.requests = Resources { cpu, memory, ..Resources::default() };
    spec.assumed = spec.requests.clone();
    spec
}

fn app(value: &str) -> LabelSelector {
    let requirement = Requirement { key: "app".into(), operator: Operator::In, values: vec![value.into()] };
    LabelSelector { requirements: vec![requirement], none: false }
}

fn term(value: &str, topology_key: &str) -> PodTerm {
    PodTerm {
        selector: app(value),
        namespaces: Vec::new(),
        namespace_selector: None,
        topology_key: topology_key.into(),
    }
}

fn spread(topology_key: &str, max_skew: i64) -> SpreadConstraint {
    SpreadConstraint {
        max_skew,
        topology_key: topology_key.into(),
        when: WhenUnsatisfiable::DoNotSchedule,
        selector: app("web"),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    }
}

fn cluster(nodes: Vec<NodeSpec>, pods: Vec<(PodSpec, &str)>) -> Cluster {
    let mut cluster = Cluster::default();
    for node in nodes {
        cluster.set_node(node);
    }
    for (pod, node) in pods {
        cluster.assign(Arc::new(pod), node);
    }
    cluster
}

/// The node, or the words of the rejection.
fn outcome(cluster: &Cluster, pod: &PodSpec) -> String {
    match decide(pod, cluster, 0) {
        Decision::Placed { node, .. } => node,
        Decision::Rejected(rejection) => rejection.to_string(),
    }
}

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

#[test]
fn a_pending_pod_says_why_per_reason_and_count_of_nodes() {
    let cordoned = NodeSpec { unschedulable: true, ..node("c") };
    let nodes = vec![
        tainted(node("a"), "dedicated", Effect::NoSchedule),
        NodeSpec { allocatable: Resources { cpu: 100, ..Resources::default() }, ..node("b") },
        cordoned,
        NodeSpec { max_pods: 0, ..node("d") },
    ];
    let cluster = cluster(nodes, vec![]);
    assert_eq!(
        outcome(&cluster, &requesting(pod("p"), 500, 1 << 30)),
        "0/4 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Too many pods, \
         1 node(s) had untolerated taint {dedicated: v}, 1 node(s) were unschedulable."
    );
}

#[test]
fn without_nodes_the_message_says_so() {
    assert_eq!(outcome(&Cluster::default(), &pod("p")), "no nodes available to schedule pods");
}

#[test]
fn the_emptier_node_wins() {
    let cluster = cluster(vec![node("a"), node("b")], vec![(requesting(pod("x"), 2000, 16 << 30), "a")]);
    assert_eq!(outcome(&cluster, &requesting(pod("p"), 100, 1 << 20)), "b");
}

#[test]
fn a_node_selector_and_a_node_name_restrict_the_choice() {
    let cluster = cluster(vec![in_zone(node("a"), "z1"), in_zone(node("b"), "z2")], vec![]);
    let mut wants_zone = pod("p");
    wants_zone.node_selector.insert(ZONE.into(), "z2".into());
    assert_eq!(outcome(&cluster, &wants_zone), "b");
    let wants_nobody = PodSpec { node_name: Some("c".into()), ..pod("q") };
    assert_eq!(
        outcome(&cluster, &wants_nobody),
        "0/2 nodes are available: 2 node(s) didn't match the requested node name."
    );
}

#[test]
fn a_host_port_is_taken_once_per_node_and_address() {
    let port = |ip: &str| HostPort { ip: ip.into(), protocol: "TCP".into(), port: 80 };
    let with = |name: &str, ip: &str| PodSpec { host_ports: vec![port(ip)], ..pod(name) };
    let cluster = cluster(vec![node("a")], vec![(with("x", "10.0.0.1"), "a")]);
    assert_eq!(outcome(&cluster, &with("p", "10.0.0.2")), "a");
    assert!(outcome(&cluster, &with("q", "0.0.0.0")).contains("didn't have free ports"));
}

#[test]
fn anti_affinity_works_in_both_directions() {
    let mut lonely = labelled(pod("x"), "db");
    lonely.anti_affinity.required.push(term("web", HOST));
    let cluster = cluster(vec![node("a"), node("b")], vec![(lonely.clone(), "a")]);
    assert_eq!(outcome(&cluster, &labelled(pod("p"), "web")), "b", "the running pod does not want it");
    let mut away = pod("q");
    away.anti_affinity.required.push(term("db", HOST));
    assert_eq!(outcome(&cluster, &away), "b", "it does not want the running pod");
}

#[test]
fn the_first_pod_of_a_group_may_start_anywhere_and_the_next_follows() {
    let mut member = labelled(pod("p"), "web");
    member.affinity.required.push(term("web", ZONE));
    let nodes = || vec![in_zone(node("a"), "z1"), in_zone(node("b"), "z2")];
    assert_eq!(outcome(&cluster(nodes(), vec![]), &member), "a");
    let started = cluster(nodes(), vec![(labelled(pod("x"), "web"), "b")]);
    assert_eq!(outcome(&started, &member), "b");
    let mut stranger = pod("q");
    stranger.affinity.required.push(term("cache", ZONE));
    assert!(outcome(&started, &stranger).contains("2 node(s) didn't match pod affinity rules"));
}

#[test]
fn a_namespace_selector_reaches_pods_of_other_namespaces() {
    let mut away = pod("p");
    let mut reaching = term("db", HOST);
    reaching.namespace_selector = Some(app("prod"));
    away.anti_affinity.required.push(reaching);
    let other = PodSpec { namespace: "other".into(), ..labelled(pod("x"), "db") };
    let mut cluster = cluster(vec![node("a"), node("b")], vec![(other, "a")]);
    cluster.set_namespace("other", Some([("app".to_owned(), "dev".to_owned())].into()));
    cluster.assign(Arc::new(requesting(pod("y"), 3000, 20 << 30)), "b");
    assert_eq!(outcome(&cluster, &away), "a", "the namespace is not selected");
    cluster.set_namespace("other", Some([("app".to_owned(), "prod".to_owned())].into()));
    assert_eq!(outcome(&cluster, &away), "b", "now it is");
}

#[test]
fn spreading_keeps_domains_within_the_skew() {
    let nodes = || vec![in_zone(node("a"), "z1"), in_zone(node("b"), "z2"), node("outside")];
    let mut member = labelled(pod("p"), "web");
    member.spread.push(spread(ZONE, 1));
    let uneven = cluster(nodes(), vec![(labelled(pod("x"), "web"), "a")]);
    assert_eq!(outcome(&uneven, &member), "b");
    let mut full = uneven;
    full.set_node(NodeSpec { unschedulable: true, ..in_zone(node("b"), "z2") });
    assert_eq!(
        outcome(&full, &member),
        "0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, \
         1 node(s) didn't match pod topology spread constraints (missing required label), \
         1 node(s) were unschedulable."
    );
}

#[test]
fn pods_of_one_controller_are_spread_over_hosts_by_default() {
    let of_set = |name: &str| PodSpec { controller: Some("rs".into()), ..requesting(pod(name), 10, 1 << 20) };
    let mut cluster = cluster(vec![node("a"), node("b"), node("c")], vec![]);
    for name in ["1", "2", "3"] {
        let pod = of_set(name);
        let Decision::Placed { node, .. } = decide(&pod, &cluster, 1) else { panic!("has room") };
        cluster.assign(Arc::new(pod), &node);
    }
    let counts: Vec<usize> = cluster.nodes().iter().map(|node| node.pods.len()).collect();
    assert_eq!(counts, [1, 1, 1]);
}

#[test]
fn a_soft_taint_and_a_present_image_move_the_choice() {
    let soft = cluster(vec![tainted(node("a"), "slow", Effect::PreferNoSchedule), node("b")], vec![]);
    assert_eq!(outcome(&soft, &pod("p")), "b");
    let holds = NodeSpec { images: [("repo/app:1".to_owned(), 2_000_000_000)].into(), ..node("b") };
    let images = cluster(vec![node("a"), holds], vec![]);
    let wants = PodSpec { images: vec!["repo/app:1".into()], ..pod("p") };
    assert_eq!(outcome(&images, &wants), "b");
}

#[test]
fn sums_return_to_zero_when_every_pod_has_left() {
    let mut cluster = cluster(vec![node("a")], vec![]);
    let mut with_everything = requesting(labelled(pod("x"), "web"), 100, 1 << 20);
    with_everything.requests.set("example.com/gpu", 2);
    with_everything.host_ports.push(HostPort { ip: "0.0.0.0".into(), protocol: "TCP".into(), port: 1 });
    with_everything.anti_affinity.required.push(term("web", HOST));
    cluster.assign(Arc::new(with_everything.clone()), "a");
    assert!(cluster.has_pods_with_affinity());
    cluster.remove_node("a");
    assert!(!cluster.has_pods_with_affinity());
    cluster.set_node(node("a"));
    assert!(cluster.has_pods_with_affinity(), "the pod still counts when its node comes back");
    cluster.unassign(&with_everything.key());
    let left = cluster.node("a").unwrap();
    assert_eq!((left.requested.cpu, left.requested.other("example.com/gpu")), (0, 0));
    assert!(left.host_ports.is_empty() && !cluster.has_pods_with_affinity());
}
