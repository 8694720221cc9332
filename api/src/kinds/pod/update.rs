//! What may change about a pod once it exists.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, EphemeralContainer, NodeAffinity, NodeSelectorTerm, Pod, PodSchedulingGate,
    PodSpec, PodStatus, Toleration,
};
use serde_json::Value;

use super::{
    affinity,
    containers::is_sidecar,
    qos, security,
    spec::{MIRROR, validate_annotations, validate_pod},
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::{
        amount::Amounts,
        check::{
            dns_subdomain, immutable, ip, is_dual_stack, list, meaning, qualified_name, required, same, text,
        },
    },
    name,
};

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An update by a user.
pub(super) fn validate(errors: &mut Errors, pod: &Pod, old: &Pod) {
    let empty = PodSpec::default();
    let (new_spec, old_spec) = (pod.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
    validate_pod(errors, pod, new_spec);
    annotations(errors, pod, old);
    let at = Path::new("spec");
    let init = (list(&new_spec.init_containers), list(&old_spec.init_containers));
    let same_containers =
        containers(errors, &new_spec.containers, &old_spec.containers, &at.child("containers"))
            && containers(errors, init.0, init.1, &at.child("initContainers"));
    if !same_containers || !deadline(errors, new_spec, old_spec, &at.child("activeDeadlineSeconds")) {
        return;
    }
    let (tolerations, had) = (list(&new_spec.tolerations), list(&old_spec.tolerations));
    added_tolerations(errors, tolerations, had, &at.child("tolerations"));
    let gates = (list(&new_spec.scheduling_gates), list(&old_spec.scheduling_gates));
    removed_gates(errors, gates.0, gates.1, &at.child("schedulingGates"));
    let mut munged = new_spec.clone();
    for (container, old) in munged.containers.iter_mut().zip(&old_spec.containers) {
        container.image.clone_from(&old.image);
    }
    for (container, old) in munged.init_containers.iter_mut().flatten().zip(init.1) {
        container.image.clone_from(&old.image);
    }
    munged.active_deadline_seconds = old_spec.active_deadline_seconds;
    munged.scheduling_gates.clone_from(&old_spec.scheduling_gates);
    munged.tolerations.clone_from(&old_spec.tolerations);
    let grace = old_spec.termination_grace_period_seconds;
    if grace.is_some_and(|g| g < 0) && munged.termination_grace_period_seconds == Some(1) {
        munged.termination_grace_period_seconds = grace;
    }
    if !gates.1.is_empty() {
        gated(errors, &mut munged, old_spec, &at);
    }
    if !same(&munged, old_spec) {
        let detail = format!("{MAY_CHANGE}\n{}", difference(&meaning(old_spec), &meaning(&munged)));
        errors.push(FieldError::forbidden(&at, detail));
    }
}

/// One line per value that differs: what was there, and what is there now.
pub(crate) fn difference(old: &Value, new: &Value) -> String {
    fn walk(old: Option<&Value>, new: Option<&Value>, at: &Path, out: &mut String) {
        let index = |value: Option<&Value>, i: usize| value.and_then(|v| v.get(i)).cloned();
        match (old, new) {
            (a, b) if a == b => {}
            (Some(Value::Object(a)), Some(Value::Object(b))) => {
                let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
                keys.sort();
                keys.dedup();
                for key in keys {
                    walk(a.get(key), b.get(key), &at.child(key), out);
                }
            }
            (Some(Value::Array(a)), Some(Value::Array(b))) => {
                for i in 0..a.len().max(b.len()) {
                    walk(index(old, i).as_ref(), index(new, i).as_ref(), &at.index(i), out);
                }
            }
            (a, b) => {
                for (sign, value) in [('-', a), ('+', b)] {
                    if let Some(value) = value {
                        out.push_str(&format!("{sign} {at}: {value}\n"));
                    }
                }
            }
        }
    }
    let mut out = String::new();
    walk(Some(old), Some(new), &Path::new("spec"), &mut out);
    out
}

fn annotations(errors: &mut Errors, pod: &Pod, old: &Pod) {
    let at = Path::new("metadata").child("annotations");
    let empty = BTreeMap::new();
    let new = pod.metadata.annotations.as_ref().unwrap_or(&empty);
    let old = old.metadata.annotations.as_ref().unwrap_or(&empty);
    for key in old.iter().filter(|(key, value)| new.get(*key) != Some(value)).map(|(key, _)| key) {
        if key.starts_with(security::APPARMOR_CONTAINER) {
            errors.push(FieldError::forbidden(&at.key(key), "may not remove or update AppArmor annotations"));
        }
        if key == MIRROR {
            errors
                .push(FieldError::forbidden(&at.key(key), "may not remove or update mirror pod annotation"));
        }
    }
    for key in new.keys().filter(|key| !old.contains_key(*key)) {
        if key.starts_with(security::APPARMOR_CONTAINER) {
            errors.push(FieldError::forbidden(&at.key(key), "may not add AppArmor annotations"));
        }
        if key == MIRROR {
            errors.push(FieldError::forbidden(&at.key(key), "may not add mirror pod annotation"));
        }
    }
}

/// Images may change, the containers may not; false if it makes no sense to look further.
fn containers(errors: &mut Errors, new: &[Container], old: &[Container], path: &Path) -> bool {
    if new.len() != old.len() {
        errors.push(FieldError::forbidden(path, "pod updates may not add or remove containers"));
        return false;
    }
    for (i, container) in new.iter().enumerate() {
        let at = path.index(i).child("image");
        let image = text(&container.image);
        required(errors, &at, image);
        if image.trim() != image {
            errors.push(FieldError::invalid(&at, image, "must not have leading or trailing whitespace"));
        }
    }
    true
}

/// The deadline may be set, and brought forward; false if it makes no sense to look further.
fn deadline(errors: &mut Errors, new: &PodSpec, old: &PodSpec, path: &Path) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), old) => {
            let range = name::in_range(new, 0, i32::MAX.into());
            if let Some(problem) = range.into_iter().next() {
                errors.push(FieldError::invalid(path, new, problem));
                return false;
            }
            if old.is_some_and(|old| old < new) {
                errors.push(FieldError::invalid(path, new, "must be less than or equal to previous value"));
                return false;
            }
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(path, Value::Null, detail));
        }
        (None, None) => {}
    }
    true
}

fn added_tolerations(errors: &mut Errors, new: &[Toleration], old: &[Toleration], path: &Path) {
    // There may be as many as an object has room for.
    let there: HashSet<[&str; 4]> = new.iter().map(tolerated).collect();
    if !old.iter().all(|old| there.contains(&tolerated(old))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(path, detail));
        return;
    }
    affinity::validate_tolerations(errors, new, path);
}

/// All of a toleration but for how long it holds.
fn tolerated(toleration: &Toleration) -> [&str; 4] {
    [&toleration.key, &toleration.operator, &toleration.value, &toleration.effect].map(text)
}

fn removed_gates(errors: &mut Errors, new: &[PodSchedulingGate], old: &[PodSchedulingGate], path: &Path) {
    let old: HashSet<&str> = old.iter().map(|gate| gate.name.as_str()).collect();
    for (i, gate) in new.iter().enumerate().filter(|(_, gate)| !old.contains(gate.name.as_str())) {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
        errors.push(FieldError::forbidden(&path.index(i).child("name"), detail));
    }
}

/// A pod that waits behind a gate may become choosier about its node.
fn gated(errors: &mut Errors, munged: &mut PodSpec, old: &PodSpec, path: &Path) {
    if !same(&munged.node_selector, &old.node_selector) {
        let new = munged.node_selector.as_ref();
        let kept = old.node_selector.iter().flatten().all(|(k, v)| new.and_then(|n| n.get(k)) == Some(v));
        if !kept {
            let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            let shown = BadValue::of(&munged.node_selector);
            errors.push(FieldError::invalid(&path.child("nodeSelector"), shown, detail));
        }
        munged.node_selector.clone_from(&old.node_selector);
    }
    let before = old.affinity.as_ref().and_then(|a| a.node_affinity.clone());
    let now = munged.affinity.as_ref().and_then(|a| a.node_affinity.clone());
    if same(&before, &now) {
        return;
    }
    node_affinity(errors, now.as_ref(), before.as_ref(), &path.child("affinity").child("nodeAffinity"));
    match (&mut munged.affinity, &old.affinity) {
        (Some(new), None) if new.pod_affinity.is_none() && new.pod_anti_affinity.is_none() => {
            munged.affinity = None
        }
        (Some(new), _) => new.node_affinity = before,
        (None, _) => munged.affinity.get_or_insert_default().node_affinity = before,
    }
}

fn node_affinity(errors: &mut Errors, new: Option<&NodeAffinity>, old: Option<&NodeAffinity>, path: &Path) {
    fn terms(affinity: Option<&NodeAffinity>) -> &[NodeSelectorTerm] {
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        required.map(|r| r.node_selector_terms.as_slice()).unwrap_or_default()
    }
    let (new, old) = (terms(new), terms(old));
    let at = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
    if old.is_empty() {
        return;
    }
    if new.len() != old.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(&at, BadValue::of(&new), detail));
        return;
    }
    for (i, (new, old)) in new.iter().zip(old).enumerate() {
        let grown = |new: &Option<Vec<_>>, old: &Option<Vec<_>>| list(new).starts_with(list(old));
        let was_empty = list(&old.match_expressions).is_empty() && list(&old.match_fields).is_empty();
        let is_empty = list(&new.match_expressions).is_empty() && list(&new.match_fields).is_empty();
        let allowed = (!was_empty || is_empty)
            && grown(&new.match_expressions, &old.match_expressions)
            && grown(&new.match_fields, &old.match_fields);
        if !allowed {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(&at.index(i), BadValue::of(new), detail));
        }
    }
}

/// An update of the status by a node agent or a controller.
pub(super) fn validate_status(errors: &mut Errors, pod: &Pod, old: &Pod) {
    let (empty_spec, empty) = (PodSpec::default(), PodStatus::default());
    let (spec, old_spec) =
        (pod.spec.as_ref().unwrap_or(&empty_spec), old.spec.as_ref().unwrap_or(&empty_spec));
    let (new, old_status) = (pod.status.as_ref().unwrap_or(&empty), old.status.as_ref().unwrap_or(&empty));
    annotations(errors, pod, old);
    if let Some(given) = &pod.metadata.annotations {
        validate_annotations(errors, given, spec, &Path::new("metadata").child("annotations"));
    }
    // The place is upstream's.
    let at = Path::new("metadata").child("conditions");
    for (i, condition) in list(&new.conditions).iter().enumerate() {
        if !matches!(condition.type_.as_str(), "PodScheduled" | "Ready" | "Initialized") {
            qualified_name(errors, &at.index(i).child("Type"), &condition.type_);
        }
    }
    let at = Path::new("status");
    if text(&spec.node_name) != text(&old_spec.node_name) {
        errors.push(FieldError::forbidden(&at.child("nodeName"), "may not be changed directly"));
    }
    let nominated = text(&new.nominated_node_name);
    if nominated != text(&old_status.nominated_node_name) && !nominated.is_empty() {
        dns_subdomain(errors, &at.child("nominatedNodeName"), nominated);
    }
    immutable(errors, &at.child("qosClass"), &new.qos_class, &old_status.qos_class);
    let policy = text(&old_spec.restart_policy);
    for (field, now, before, policy) in [
        ("containerStatuses", &new.container_statuses, &old_status.container_statuses, policy),
        ("initContainerStatuses", &new.init_container_statuses, &old_status.init_container_statuses, policy),
        (
            "ephemeralContainerStatuses",
            &new.ephemeral_container_statuses,
            &old_status.ephemeral_container_statuses,
            "Never",
        ),
    ] {
        transitions(errors, list(now), list(before), old_spec, policy, &at.child(field));
    }
    let claims: HashSet<&str> = list(&spec.resource_claims).iter().map(|claim| claim.name.as_str()).collect();
    for (i, claim) in list(&new.resource_claim_statuses).iter().enumerate() {
        let at = at.child("resourceClaimStatuses").index(i).child("name");
        if !claims.contains(claim.name.as_str()) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(&at, &claim.name, detail));
        }
    }
    let ips: Vec<&str> = list(&new.pod_ips).iter().map(|ip| ip.ip.as_str()).collect();
    addresses(errors, &ips, &at.child("podIPs"), |i| BadValue::of(&list(&new.pod_ips).get(i)));
    let ips: Vec<&str> = list(&new.host_ips).iter().map(|ip| ip.ip.as_str()).collect();
    if let Some(first) = ips.first().filter(|first| **first != text(&new.host_ip)) {
        let at = at.child("hostIPs").index(0).child("ip");
        errors.push(FieldError::invalid(&at, *first, "must be equal to `hostIP`"));
    }
    addresses(errors, &ips, &at.child("hostIPs"), |i| BadValue::of(&list(&new.host_ips).get(i)));
}

fn addresses(errors: &mut Errors, ips: &[&str], path: &Path, shown: impl Fn(usize) -> BadValue) {
    for (i, address) in ips.iter().enumerate() {
        ip(errors, &path.index(i), address);
    }
    if ips.len() < 2 {
        return;
    }
    if !is_dual_stack(ips.iter().copied()) || ips.len() > 2 {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(path, BadValue::of(&ips), detail));
    }
    let mut seen = HashSet::new();
    for (i, _) in ips.iter().enumerate().filter(|(_, address)| !seen.insert(**address)) {
        errors.push(FieldError::duplicate(&path.index(i), shown(i)));
    }
}

/// A container that ended and may not restart has ended for good.
fn transitions(
    errors: &mut Errors,
    new: &[ContainerStatus],
    old: &[ContainerStatus],
    spec: &PodSpec,
    policy: &str,
    path: &Path,
) {
    if policy == "Always" {
        return;
    }
    // Of several with one name, the first counts.
    let containers = spec.containers.iter().chain(list(&spec.init_containers)).rev();
    let containers: HashMap<&str, &Container> = containers.map(|c| (c.name.as_str(), c)).collect();
    let may_restart = |status: &ContainerStatus, code: i32| {
        let container = containers.get(status.name.as_str());
        let own = container.and_then(|c| c.restart_policy.as_deref());
        let rules = container.is_some_and(|c| !list(&c.restart_policy_rules).is_empty());
        match own.unwrap_or(policy) {
            "Always" => true,
            "OnFailure" => code != 0,
            _ => rules,
        }
    };
    let mut left = new.len() + old.len();
    let mut running: HashMap<&str, usize> = HashMap::new();
    for now in new.iter().filter(|now| now.state.as_ref().is_none_or(|s| s.terminated.is_none())) {
        *running.entry(&now.name).or_default() += 1;
    }
    for (i, before) in old.iter().enumerate() {
        let Some(ended) = before.state.as_ref().and_then(|s| s.terminated.as_ref()) else { continue };
        if may_restart(before, ended.exit_code) {
            continue;
        }
        // Names are there once; should one be there more often, it is told of no more than there are states.
        let count = running.get(before.name.as_str()).copied().unwrap_or_default().min(left);
        left -= count;
        for _ in 0..count {
            let detail = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(&path.index(i).child("state"), detail));
        }
    }
}

/// New ephemeral containers.
pub(super) fn validate_ephemeral(errors: &mut Errors, pod: &Pod, old: &Pod) {
    let empty = PodSpec::default();
    let (new_spec, old_spec) = (pod.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
    if old.metadata.annotations.iter().flatten().any(|(key, _)| key == MIRROR) {
        let detail = "static pods do not support ephemeral containers";
        *errors = vec![FieldError::forbidden(&Path::root(), detail)];
        return;
    }
    validate_pod(errors, pod, new_spec);
    annotations(errors, pod, old);
    let at = Path::new("spec").child("ephemeralContainers");
    // Of several with one name, the first counts.
    let given = list(&new_spec.ephemeral_containers).iter().rev();
    let given: HashMap<&str, &EphemeralContainer> = given.map(|c| (c.name.as_str(), c)).collect();
    for before in list(&old_spec.ephemeral_containers) {
        let now = given.get(before.name.as_str()).copied();
        let name = crate::field::quote(&before.name);
        match now {
            None => {
                let detail = format!("existing ephemeral containers {name} may not be removed\n");
                errors.push(FieldError::forbidden(&at, detail));
            }
            Some(now) if !same(now, before) => {
                let change = difference(&meaning(before), &meaning(now));
                let detail = format!("existing ephemeral containers {name} may not be changed\n{change}");
                errors.push(FieldError::forbidden(&at, detail));
            }
            Some(_) => {}
        }
    }
}

/// Other requests and limits for a running pod.
pub(super) fn validate_resize(errors: &mut Errors, pod: &Pod, old: &Pod) {
    let empty = PodSpec::default();
    let (new_spec, old_spec) = (pod.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
    let at = Path::new("spec");
    validate_pod(errors, pod, new_spec);
    let whole = |spec: &PodSpec| {
        let some = |a: &Option<Amounts>| a.as_ref().is_some_and(|a| !a.is_empty());
        spec.resources.as_ref().is_some_and(|r| some(&r.requests) || some(&r.limits))
    };
    let refusal = if whole(old_spec) || whole(new_spec) {
        "pods with pod-level resources cannot be resized"
    } else if old.metadata.annotations.iter().flatten().any(|(key, _)| key == MIRROR) {
        "static pods cannot be resized"
    } else if old_spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        "windows pods cannot be resized"
    } else {
        ""
    };
    if !refusal.is_empty() {
        *errors = vec![FieldError::forbidden(&Path::root(), refusal)];
        return;
    }
    let old_class = old.status.as_ref().and_then(|s| s.qos_class.as_deref()).filter(|c| !c.is_empty());
    let shown = pod.status.as_ref().and_then(|s| s.qos_class.clone()).unwrap_or_default();
    if old_class.unwrap_or_else(|| qos::class(old_spec)) != qos::class(new_spec) {
        errors.push(FieldError::invalid(&at, shown, "Pod QOS Class may not change as a result of resizing"));
    }
    let init = (list(&new_spec.init_containers), list(&old_spec.init_containers));
    let lists = [
        ("containers", new_spec.containers.as_slice(), old_spec.containers.as_slice()),
        ("initContainers", init.0, init.1),
    ];
    for (field, new, old) in lists {
        if new.len() != old.len() {
            errors.push(FieldError::forbidden(&at, "only cpu and memory resources are mutable"));
            continue;
        }
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            let sidecar = field == "initContainers";
            if sidecar && !is_sidecar(old) {
                if !same(new, old) {
                    let detail = "resources for non-sidecar init containers are immutable";
                    errors.push(FieldError::forbidden(&at, detail));
                }
                continue;
            }
            resize(errors, new, old, &at.child(field).index(i).child("resources"));
            let mut munged = new.clone();
            munged.resize_policy.clone_from(&old.resize_policy);
            keep_cpu_and_memory(&mut munged, old);
            if !same(&munged, old) {
                let detail = if sidecar {
                    "only cpu and memory resources for sidecar containers are mutable"
                } else {
                    "only cpu and memory resources are mutable"
                };
                errors.push(FieldError::forbidden(&at, detail));
            }
        }
    }
}

fn keep_cpu_and_memory(container: &mut Container, old: &Container) {
    let (Some(new), Some(old)) = (&mut container.resources, &old.resources) else { return };
    for (new, old) in [(&mut new.limits, &old.limits), (&mut new.requests, &old.requests)] {
        for resource in ["cpu", "memory"] {
            let amounts = new.get_or_insert_default();
            match old.as_ref().and_then(|o| o.get(resource)) {
                Some(amount) => {
                    amounts.insert(resource.to_owned(), amount.clone());
                }
                None => {
                    amounts.remove(resource);
                }
            }
        }
    }
}

fn resize(errors: &mut Errors, new: &Container, old: &Container, path: &Path) {
    let (new, old) = (new.resources.clone().unwrap_or_default(), old.resources.clone().unwrap_or_default());
    let removed = |new: &Option<Amounts>, old: &Option<Amounts>| {
        old.iter().flatten().any(|(name, _)| new.as_ref().is_none_or(|n| !n.contains_key(name)))
    };
    if removed(&new.requests, &old.requests) {
        errors.push(FieldError::forbidden(&path.child("requests"), "resource requests cannot be removed"));
    }
    if removed(&new.limits, &old.limits) {
        errors.push(FieldError::forbidden(&path.child("limits"), "resource limits cannot be removed"));
    }
}
