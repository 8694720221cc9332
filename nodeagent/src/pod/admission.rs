//! Whether the node takes a pod. The scheduler has decided before, but on what it knew then, and a pod may
//! be bound by hand.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration};

use super::{Rejection, init_containers, main_containers, resources, spec, uses_host_network};

/// Refuses a pod that the node can't run beside the pods it has already taken.
pub fn admit(
    pod: &Pod,
    node: &Node,
    allocatable: &BTreeMap<String, i64>,
    taken: &[&Pod],
) -> Result<(), Rejection> {
    if let Some(shortage) = shortage(pod, allocatable, taken) {
        return Err(shortage);
    }
    if !matches_node(pod, node) {
        return Err(predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
    }
    if let Some(taint) = untolerated(pod, node) {
        return Err(predicate("TaintToleration", &format!("node(s) had untolerated taint(s) {{{taint}}}")));
    }
    if ports_conflict(pod, taken) {
        return Err(predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports"));
    }
    Ok(())
}

fn predicate(name: &str, why: &str) -> Rejection {
    Rejection {
        reason: name.to_owned(),
        message: format!("Pod was rejected: Predicate {name} failed: {why}"),
    }
}

fn shortage(pod: &Pod, allocatable: &BTreeMap<String, i64>, taken: &[&Pod]) -> Option<Rejection> {
    let too_little = |resource: &str, requested: i64, used: i64, capacity: i64| Rejection {
        reason: format!("OutOf{resource}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    };
    let count = i64::try_from(taken.len()).unwrap_or(i64::MAX);
    if let Some(&capacity) = allocatable.get("pods")
        && count + 1 > capacity
    {
        return Some(too_little("pods", 1, count, capacity));
    }
    for resource in resources::requested_resources(pod) {
        let requested = resources::pod_request(pod, &resource);
        let capacity = allocatable.get(&resource).copied().unwrap_or(0);
        let used: i64 = taken.iter().map(|other| resources::pod_request(other, &resource)).sum();
        if requested > 0 && requested > capacity - used {
            return Some(too_little(&resource, requested, used, capacity));
        }
    }
    None
}

fn matches_node(pod: &Pod, node: &Node) -> bool {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let selected =
        spec(pod).node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec(pod).affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    selected
        && required.is_none_or(|required| {
            required.node_selector_terms.iter().any(|term| term_matches(term, &labels, name))
        })
}

fn term_matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let named = |requirement: &NodeSelectorRequirement| {
        requirement.key == "metadata.name" && requirement_matches(requirement, Some(name))
    };
    expressions
        .iter()
        .all(|requirement| requirement_matches(requirement, labels.get(&requirement.key).map(String::as_str)))
        && fields.iter().all(named)
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|wanted| wanted == value);
    let number = |value: &str| value.parse::<i64>().ok();
    let compare = |wanted: fn(&i64, &i64) -> bool| {
        let bound = values.first().and_then(|bound| number(bound));
        matches!((value.and_then(number), bound), (Some(value), Some(bound)) if wanted(&value, &bound))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

/// The first taint that would evict the pod again.
fn untolerated(pod: &Pod, node: &Node) -> Option<String> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let tolerations = spec(pod).tolerations.as_deref().unwrap_or_default();
    let tolerates = |toleration: &Toleration, key: &str, value: &str, effect: &str| {
        let of_effect =
            toleration.effect.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == effect);
        let of_key = toleration.key.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == key);
        let exists = toleration.operator.as_deref() == Some("Exists");
        of_effect && of_key && (exists || toleration.value.as_deref().unwrap_or_default() == value)
    };
    let taint = taints.iter().filter(|taint| taint.effect == "NoExecute").find(|taint| {
        let value = taint.value.as_deref().unwrap_or_default();
        !tolerations.iter().any(|toleration| tolerates(toleration, &taint.key, value, &taint.effect))
    })?;
    Some(format!("{}: {}", taint.key, taint.value.as_deref().unwrap_or_default()))
}

fn host_ports(pod: &Pod) -> Vec<(i32, String, String)> {
    let containers = init_containers(pod)
        .iter()
        .filter(|container| super::is_sidecar(container))
        .chain(main_containers(pod));
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let host_port = |port: &k8s_openapi::api::core::v1::ContainerPort| {
        let number = if uses_host_network(pod) { Some(port.container_port) } else { port.host_port };
        number.filter(|number| *number > 0).map(|number| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
            (number, protocol, ip)
        })
    };
    ports.filter_map(host_port).collect()
}

fn ports_conflict(pod: &Pod, taken: &[&Pod]) -> bool {
    let wanted = host_ports(pod);
    if wanted.is_empty() {
        return false;
    }
    let any = |ip: &str| ip == "0.0.0.0" || ip == "::";
    taken.iter().flat_map(|other| host_ports(other)).any(|(number, protocol, ip)| {
        wanted.iter().any(|(own, own_protocol, own_ip)| {
            *own == number && *own_protocol == protocol && (any(&ip) || any(own_ip) || *own_ip == ip)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::{container, pod};

    fn verdict(pod: &Pod, taken: &[&Pod]) -> String {
        let node = Node::default();
        let allocatable = BTreeMap::from([("cpu".to_owned(), 2000), ("pods".to_owned(), 2)]);
        admit(pod, &node, &allocatable, taken)
            .err()
            .map_or_else(String::new, |rejection| format!("{}: {}", rejection.reason, rejection.message))
    }

    #[test]
    fn a_pod_that_does_not_fit_is_refused_in_upstreams_words() {
        let big = pod().with(container("c").resources("r.cpu=1500m")).build();
        assert_eq!(verdict(&big, &[]), "");
        assert_eq!(
            verdict(&big, &[&big]),
            "OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu, requested: 1500, used: 1500, capacity: 2000"
        );
        let small = pod().with(container("c")).build();
        assert_eq!(
            verdict(&small, &[&small, &small]),
            "OutOfpods: Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2"
        );
    }

    #[test]
    fn a_host_port_is_given_once() {
        let web = pod().with(container("c").host_port(8080)).build();
        assert!(verdict(&web, &[&web]).starts_with("NodePorts: "));
    }

    #[test]
    fn a_pod_for_other_nodes_is_refused() {
        let mut elsewhere = pod().with(container("c")).build();
        elsewhere.spec.get_or_insert_default().node_selector =
            Some([("disk".to_owned(), "ssd".to_owned())].into());
        assert!(verdict(&elsewhere, &[]).starts_with("NodeAffinity: "));
    }
}
