//! What pods use: their containers together, or what they ask for as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use super::{Amounts, add, read, whole};
use crate::kinds::{is_extended, is_sidecar, list};

/// Resources that a pod may ask for as a whole.
const OF_PODS: [&str; 2] = ["cpu", "memory"];
/// Resources of which each container has to say how much it takes, where a quota limits them. Upstream regrets it.
const TO_BE_SAID: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

type Text = BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

/// Which of the two lists of a container.
type Side = fn(&ResourceRequirements) -> Option<&Text>;

const REQUESTS: Side = |resources| resources.requests.as_ref();
const LIMITS: Side = |resources| resources.limits.as_ref();

/// Whether pods use what this name stands for.
pub(super) fn uses(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "cpu"
            | "memory"
            | "ephemeral-storage"
            | "requests.cpu"
            | "requests.memory"
            | "requests.ephemeral-storage"
            | "limits.cpu"
            | "limits.memory"
            | "limits.ephemeral-storage"
    ) || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
        || name.starts_with("requests.") && name.contains('/') && !name.contains("kubernetes.io/")
}

/// What the containers of a pod request together, without the overhead.
pub fn requests(spec: &PodSpec) -> Amounts {
    together(spec, REQUESTS)
}

/// What the containers of a pod may use together, without the overhead.
pub fn limits(spec: &PodSpec) -> Amounts {
    together(spec, LIMITS)
}

fn raise(most: &mut Amounts, to: &Amounts) {
    for (name, amount) in to {
        let most = most.entry(name.clone()).or_insert(*amount);
        *most = (*most).max(*amount);
    }
}

/// All regular containers and sidecars; while the pod starts it may be more. What the pod says as a whole counts.
fn together(spec: &PodSpec, side: Side) -> Amounts {
    let of = |container: &Container| read(container.resources.as_ref().and_then(side));
    let (mut running, mut sidecars, mut starting) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in &spec.containers {
        add(&mut running, &of(container));
    }
    for container in list(&spec.init_containers) {
        let mut now = sidecars.clone();
        add(&mut now, &of(container));
        if is_sidecar(container) {
            add(&mut running, &of(container));
            sidecars.clone_from(&now);
        }
        raise(&mut starting, &now);
    }
    raise(&mut running, &starting);
    for (name, amount) in read(spec.resources.as_ref().and_then(side)) {
        if OF_PODS.contains(&name.as_str()) || name.starts_with("hugepages-") {
            running.insert(name, amount);
        }
    }
    running
}

/// Whether a pod still takes what it asked for: it has not ended, nor is it overdue to end.
fn takes(pod: &Pod, now: Timestamp) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let overdue = match (&pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds) {
        (Some(at), Some(grace)) => {
            let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
            at.0.checked_add(grace).is_ok_and(|until| now > until)
        }
        _ => false,
    };
    !matches!(phase, Some("Succeeded" | "Failed")) && !overdue
}

pub(super) fn usage(used: &mut Amounts, pod: &Pod, now: Timestamp) {
    let Some(spec) = pod.spec.as_ref().filter(|_| takes(pod, now)) else { return };
    let overhead = read(spec.overhead.as_ref());
    let (mut requests, mut limits) = (requests(spec), limits(spec));
    add(&mut requests, &overhead);
    for (name, amount) in &overhead {
        // What is not limited is not limited by the overhead.
        if let Some(limit) = limits.get_mut(name).filter(|limit| limit.sign() > 0) {
            *limit = limit.plus(amount);
        }
    }
    named(used, &requests, &limits);
}

/// Requests and limits under the names that quotas have for them.
fn named(used: &mut Amounts, requests: &Amounts, limits: &Amounts) {
    used.insert("pods".to_owned(), whole(1));
    for (name, amount) in requests {
        let compute = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        let huge = name.starts_with("hugepages-");
        if compute || huge {
            used.insert(name.clone(), *amount);
        }
        if compute || huge || is_extended(name) {
            used.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
}

pub(super) fn missing<'a>(limited: impl Iterator<Item = &'a str>, pod: &Pod) -> Option<String> {
    let required: BTreeSet<&str> = limited.filter(|name| TO_BE_SAID.contains(name)).collect();
    let spec = pod.spec.as_ref()?;
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in spec.containers.iter().chain(list(&spec.init_containers)) {
        let mut said = Amounts::new();
        let side = |side: Side| read(container.resources.as_ref().and_then(side));
        named(&mut said, &side(REQUESTS), &side(LIMITS));
        for name in required.iter().filter(|name| !said.contains_key(**name)) {
            missing.entry(name).or_default().insert(&container.name);
        }
    }
    if missing.is_empty() {
        return None;
    }
    let texts: Vec<String> = missing
        .into_iter()
        .map(|(name, containers)| {
            format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(","))
        })
        .collect();
    Some(format!("must specify {}", texts.join("; ")))
}
