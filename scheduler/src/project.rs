//! Projects API objects onto what the engine decides on.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use crate::engine::{
    Effect, HostPort, LabelSelector, NodeSelector, NodeSelectorTerm, NodeSpec, Operator, PodAffinity,
    PodSpec, PodTerm, Requirement, Resources, SpreadConstraint, Taint, Toleration, WeightedPodTerm,
    WhenUnsatisfiable,
};

/// What a container without requests is assumed to use when nodes are compared (upstream's values).
const ASSUMED_CPU: i64 = 100;
const ASSUMED_MEMORY: i64 = 200 << 20;

/// The engine's view of a node.
pub(crate) fn node(node: &core::Node) -> NodeSpec {
    let spec = node.spec.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let allocatable = status.allocatable.or(status.capacity).unwrap_or_default();
    let mut images = BTreeMap::new();
    for image in status.images.unwrap_or_default() {
        for name in image.names.unwrap_or_default() {
            images.insert(name, image.size_bytes.unwrap_or(0));
        }
    }
    NodeSpec {
        name: node.metadata.name.clone().unwrap_or_default(),
        labels: node.metadata.labels.clone().unwrap_or_default(),
        taints: spec.taints.unwrap_or_default().into_iter().filter_map(taint).collect(),
        unschedulable: spec.unschedulable.unwrap_or(false),
        max_pods: allocatable.get("pods").map_or(0, whole),
        allocatable: resources(&allocatable),
        images,
    }
}

/// The engine's view of a pod.
pub(crate) fn pod(pod: &core::Pod) -> PodSpec {
    let meta = &pod.metadata;
    let default = core::PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    let labels = meta.labels.clone().unwrap_or_default();
    let affinity = spec.affinity.clone().unwrap_or_default();
    let node_affinity = affinity.node_affinity.unwrap_or_default();
    PodSpec {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        priority: spec.priority.unwrap_or(0),
        node_name: spec.node_name.clone().filter(|name| !name.is_empty()),
        scheduling_gates: spec.scheduling_gates.iter().flatten().map(|gate| gate.name.clone()).collect(),
        requests: requests(spec, false),
        assumed: requests(spec, true),
        host_ports: host_ports(spec),
        node_selector: spec.node_selector.clone().unwrap_or_default(),
        node_affinity: node_affinity.required_during_scheduling_ignored_during_execution.map(|selector| {
            NodeSelector { terms: selector.node_selector_terms.into_iter().map(node_term).collect() }
        }),
        preferred_nodes: node_affinity
            .preferred_during_scheduling_ignored_during_execution
            .unwrap_or_default()
            .into_iter()
            .map(|preferred| (i64::from(preferred.weight), node_term(preferred.preference)))
            .collect(),
        tolerations: spec.tolerations.iter().flatten().filter_map(toleration).collect(),
        affinity: affinity
            .pod_affinity
            .map(|affinity| PodAffinity {
                required: terms(affinity.required_during_scheduling_ignored_during_execution, &labels),
                preferred: weighted(affinity.preferred_during_scheduling_ignored_during_execution, &labels),
            })
            .unwrap_or_default(),
        anti_affinity: affinity
            .pod_anti_affinity
            .map(|affinity| PodAffinity {
                required: terms(affinity.required_during_scheduling_ignored_during_execution, &labels),
                preferred: weighted(affinity.preferred_during_scheduling_ignored_during_execution, &labels),
            })
            .unwrap_or_default(),
        spread: spec
            .topology_spread_constraints
            .iter()
            .flatten()
            .map(|constraint| spread(constraint, &labels))
            .collect(),
        images: containers(spec).filter_map(|container| container.image.clone()).collect(),
        controller: meta
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.controller == Some(true))
            .map(|owner| owner.uid.clone()),
        terminating: meta.deletion_timestamp.is_some(),
        labels,
    }
}

/// True once all containers of a pod have ended for good: it uses nothing any more.
pub(crate) fn has_ended(pod: &core::Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Drops what the scheduler does not look at, to keep its cache small.
pub(crate) fn trim_pod(pod: &mut core::Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    let Some(spec) = pod.spec.as_mut() else { return };
    spec.volumes = None;
    spec.image_pull_secrets = None;
    let init = spec.init_containers.iter_mut().flatten();
    for container in spec.containers.iter_mut().chain(init) {
        *container = core::Container {
            name: std::mem::take(&mut container.name),
            image: container.image.take(),
            resources: container.resources.take(),
            ports: container.ports.take(),
            restart_policy: container.restart_policy.take(),
            ..core::Container::default()
        };
    }
    if let Some(status) = pod.status.as_mut() {
        status.container_statuses = None;
        status.init_container_statuses = None;
    }
}

/// Requests of a pod (KEP-753): the sum of its containers and sidecars, or the most that an init container
/// needs beside the sidecars started before it, whichever is more; plus the overhead of its runtime class.
fn requests(spec: &core::PodSpec, with_assumed: bool) -> Resources {
    let of = |container: &core::Container| {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let mut amounts = requests.map(resources).unwrap_or_default();
        if with_assumed {
            let states = |name: &str| requests.is_some_and(|requests| requests.contains_key(name));
            if !states("cpu") {
                amounts.cpu = ASSUMED_CPU;
            }
            if !states("memory") {
                amounts.memory = ASSUMED_MEMORY;
            }
        }
        amounts
    };
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&needed);
            sidecars.add(&needed);
            starting.raise_to(&sidecars);
        } else {
            needed.add(&sidecars);
            starting.raise_to(&needed);
        }
    }
    running.raise_to(&starting);
    if let Some(whole_pod) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        for (name, quantity) in whole_pod {
            running.set(name, amount(name, quantity));
        }
    }
    if let Some(overhead) = &spec.overhead {
        running.add(&resources(overhead));
    }
    running
}

fn host_ports(spec: &core::PodSpec) -> Vec<HostPort> {
    let ports = containers(spec).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|&number| number > 0)?;
            Some(HostPort {
                ip: port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: number,
            })
        })
        .collect()
}

fn containers(spec: &core::PodSpec) -> impl Iterator<Item = &core::Container> {
    let sidecars = spec.init_containers.iter().flatten();
    spec.containers
        .iter()
        .chain(sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always")))
}

fn resources(amounts: &BTreeMap<String, Quantity>) -> Resources {
    let mut resources = Resources::default();
    for (name, quantity) in amounts.iter().filter(|(name, _)| *name != "pods") {
        resources.set(name, amount(name, quantity));
    }
    resources
}

fn amount(name: &str, quantity: &Quantity) -> i64 {
    if name == "cpu" {
        Amount::parse(&quantity.0).map_or(0, |amount| amount.milli_value())
    } else {
        whole(quantity)
    }
}

fn whole(quantity: &Quantity) -> i64 {
    Amount::parse(&quantity.0).map_or(0, |amount| amount.value())
}

fn effect(text: &str) -> Option<Effect> {
    match text {
        "NoSchedule" => Some(Effect::NoSchedule),
        "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
        "NoExecute" => Some(Effect::NoExecute),
        _ => None,
    }
}

fn taint(taint: core::Taint) -> Option<Taint> {
    Some(Taint { effect: effect(&taint.effect)?, key: taint.key, value: taint.value.unwrap_or_default() })
}

fn toleration(toleration: &core::Toleration) -> Option<Toleration> {
    let only = match toleration.effect.as_deref() {
        None | Some("") => None,
        Some(text) => Some(effect(text)?),
    };
    Some(Toleration {
        key: toleration.key.clone().unwrap_or_default(),
        exists: toleration.operator.as_deref() == Some("Exists"),
        value: toleration.value.clone().unwrap_or_default(),
        effect: only,
    })
}

fn node_term(term: core::NodeSelectorTerm) -> NodeSelectorTerm {
    let requirement = |wanted: core::NodeSelectorRequirement| Requirement {
        key: wanted.key,
        operator: operator(&wanted.operator),
        values: wanted.values.unwrap_or_default(),
    };
    NodeSelectorTerm {
        labels: term.match_expressions.unwrap_or_default().into_iter().map(requirement).collect(),
        fields: term.match_fields.unwrap_or_default().into_iter().map(requirement).collect(),
    }
}

fn operator(text: &str) -> Operator {
    match text {
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => Operator::In,
    }
}

fn selector(selector: Option<&meta::LabelSelector>) -> LabelSelector {
    let Some(selector) = selector else { return LabelSelector::nothing() };
    let equal = selector.match_labels.iter().flatten().map(|(key, value)| Requirement {
        key: key.clone(),
        operator: Operator::In,
        values: vec![value.clone()],
    });
    let expressions = selector.match_expressions.iter().flatten().map(|expression| Requirement {
        key: expression.key.clone(),
        operator: operator(&expression.operator),
        values: expression.values.clone().unwrap_or_default(),
    });
    LabelSelector { requirements: equal.chain(expressions).collect(), none: false }
}

/// Adds what `matchLabelKeys` and `mismatchLabelKeys` take from the pod's own labels.
fn with_own_labels(
    mut selector: LabelSelector,
    same: Option<&Vec<String>>,
    different: Option<&Vec<String>>,
    labels: &BTreeMap<String, String>,
) -> LabelSelector {
    for (keys, operator) in [(same, Operator::In), (different, Operator::NotIn)] {
        for key in keys.into_iter().flatten() {
            if let Some(value) = labels.get(key) {
                let values = vec![value.clone()];
                selector.requirements.push(Requirement {
                    key: key.clone(),
                    operator: operator.clone(),
                    values,
                });
            }
        }
    }
    selector
}

fn pod_term(term: &core::PodAffinityTerm, labels: &BTreeMap<String, String>) -> PodTerm {
    PodTerm {
        selector: with_own_labels(
            selector(term.label_selector.as_ref()),
            term.match_label_keys.as_ref(),
            term.mismatch_label_keys.as_ref(),
            labels,
        ),
        namespaces: term.namespaces.clone().unwrap_or_default(),
        namespace_selector: term.namespace_selector.as_ref().map(|namespaces| selector(Some(namespaces))),
        topology_key: term.topology_key.clone(),
    }
}

fn terms(terms: Option<Vec<core::PodAffinityTerm>>, labels: &BTreeMap<String, String>) -> Vec<PodTerm> {
    terms.iter().flatten().map(|term| pod_term(term, labels)).collect()
}

fn weighted(
    terms: Option<Vec<core::WeightedPodAffinityTerm>>,
    labels: &BTreeMap<String, String>,
) -> Vec<WeightedPodTerm> {
    let weighted = |term: &core::WeightedPodAffinityTerm| WeightedPodTerm {
        weight: i64::from(term.weight),
        term: pod_term(&term.pod_affinity_term, labels),
    };
    terms.iter().flatten().map(weighted).collect()
}

fn spread(
    constraint: &core::TopologySpreadConstraint,
    labels: &BTreeMap<String, String>,
) -> SpreadConstraint {
    SpreadConstraint {
        max_skew: i64::from(constraint.max_skew),
        topology_key: constraint.topology_key.clone(),
        when: match constraint.when_unsatisfiable.as_str() {
            "ScheduleAnyway" => WhenUnsatisfiable::ScheduleAnyway,
            _ => WhenUnsatisfiable::DoNotSchedule,
        },
        selector: with_own_labels(
            selector(constraint.label_selector.as_ref()),
            constraint.match_label_keys.as_ref(),
            None,
            labels,
        ),
        min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
        honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}

/// An assigned pod in the engine's form, or `None` if it does not count on its node.
pub(crate) fn counted(object: &core::Pod) -> Option<(Arc<PodSpec>, String)> {
    if has_ended(object) {
        return None;
    }
    let projected = pod(object);
    let node = projected.node_name.clone()?;
    Some((Arc::new(projected), node))
}
