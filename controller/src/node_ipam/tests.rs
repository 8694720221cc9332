use super::*;

fn node(name: &str, cidr: Option<&str>) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.into());
    node.metadata.uid = Some(format!("uid-{name}"));
    let spec = node.spec.get_or_insert_default();
    spec.pod_cidr = cidr.map(str::to_owned);
    spec.pod_cidrs = cidr.map(|cidr| vec![cidr.to_owned()]);
    node
}

fn pool(cidr: &str, nodes: &[Node]) -> Pool {
    let mut pool = Pool::new(cidr).unwrap();
    for node in nodes {
        pool.observe(&node.metadata, pod_cidrs(node));
    }
    pool
}

fn given(pool: &mut Pool, name: &str) -> String {
    let plan = plan(&node(name, None), pool);
    match (plan.writes().next(), plan.events.first()) {
        (Some(write), None) => {
            let crate::harness::What::Merge(patch) = &write.what else { panic!("{write:?}") };
            assert_eq!(patch["metadata"]["uid"], format!("uid-{name}"));
            assert_eq!(patch["spec"]["podCIDRs"], json!([patch["spec"]["podCIDR"]]));
            patch["spec"]["podCIDR"].as_str().unwrap().to_owned()
        }
        (None, Some(event)) => event.message.clone(),
        (None, None) => String::new(),
        both => panic!("{both:?}"),
    }
}

#[test]
fn the_lowest_range_that_nothing_touches_is_given() {
    for (cluster, others, wanted) in [
        ("10.244.0.0/16", &[][..], "10.244.0.0/24"),
        ("10.244.0.0/16", &["10.244.0.0/24", "10.244.2.0/24"], "10.244.1.0/24"),
        ("10.244.0.0/16", &["10.244.0.128/25"], "10.244.1.0/24"),
        ("10.244.0.0/16", &["10.244.0.0/22"], "10.244.4.0/24"),
        ("10.244.0.0/16", &["10.0.0.0/8"], "Node new status is now: CIDRNotAvailable"),
        ("10.244.0.0/16", &["192.168.0.0/24", "fd00::/64", "nonsense"], "10.244.0.0/24"),
        ("10.244.5.0/24", &[], "10.244.5.0/24"),
        ("fd00:1::/56", &["fd00:1::/64"], "fd00:1:0:1::/64"),
        ("10.244.7.9/23", &["10.244.6.0/24"], "10.244.7.0/24"),
    ] {
        let nodes: Vec<Node> =
            others.iter().enumerate().map(|(i, cidr)| node(&i.to_string(), Some(cidr))).collect();
        assert_eq!(given(&mut pool(cluster, &nodes), "new"), wanted, "{cluster} {others:?}");
    }
}

#[test]
fn a_node_gets_the_same_range_again_as_long_as_it_was_not_seen_to_have_it() {
    let mut pool = pool("10.244.0.0/16", &[]);
    assert_eq!(given(&mut pool, "a"), "10.244.0.0/24");
    assert_eq!(given(&mut pool, "b"), "10.244.1.0/24");
    assert_eq!(given(&mut pool, "a"), "10.244.0.0/24");
}

#[test]
fn a_deleted_nodes_range_goes_to_one_that_waits_and_only_news_are_told() {
    let mut pool = pool("10.244.0.0/23", &[node("a", Some("10.244.0.0/24"))]);
    assert_eq!(given(&mut pool, "b"), "10.244.1.0/24");
    assert_eq!(given(&mut pool, "c"), "Node c status is now: CIDRNotAvailable");
    assert_eq!(given(&mut pool, "c"), "", "told once");
    assert_eq!(pool.forget(&node("a", None).metadata), ["c"]);
    assert_eq!(given(&mut pool, "c"), "10.244.0.0/24");
    assert!(pool.forget(&node("b", None).metadata).is_empty());
}

#[test]
fn a_range_that_two_nodes_have_is_free_when_both_are_gone() {
    let both = [node("a", Some("10.244.0.0/24")), node("b", Some("10.244.0.0/24"))];
    let mut pool = pool("10.244.0.0/24", &both);
    pool.forget(&both[0].metadata);
    assert!(pool.assign(&node("c", None).metadata).is_err());
    assert_eq!(pool.forget(&both[1].metadata), ["c"]);
    assert_eq!(given(&mut pool, "c"), "10.244.0.0/24");
}

#[test]
fn a_range_that_can_not_be_used_is_refused() {
    for (cidr, wanted) in [
        ("10.244.0.0", "\"10.244.0.0\" is not a range of addresses such as 10.244.0.0/16"),
        ("10.244.0.0/33", "\"10.244.0.0/33\" is not a range of addresses such as 10.244.0.0/16"),
        ("10.244.0.0/25", "10.244.0.0/25 is too small for ranges of /24 for the nodes"),
        ("0.0.0.0/0", "0.0.0.0/0 holds more ranges of /24 than the 65536 that can be kept account of"),
        ("::/0", "::/0 holds more ranges of /64 than the 65536 that can be kept account of"),
    ] {
        assert_eq!(Pool::new(cidr).unwrap_err().to_string(), wanted);
    }
}
