//! I9: what must be true once everything is healed and has come to rest.

use std::collections::BTreeSet;

use serde_json::Value;

use super::commit::{is_ready, selects};
use super::log::{State, uid};

/// What is not yet as it should be; `None` if everything is.
pub(crate) fn missing(state: &State) -> Option<String> {
    namespaces(state)
        .or_else(|| nodes(state))
        .or_else(|| owners(state))
        .or_else(|| deployments(state))
        .or_else(|| replica_sets(state))
        .or_else(|| pods(state))
        .or_else(|| services(state))
        .or_else(|| reservations(state))
        .or_else(|| budgets(state))
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &Value, path: &str) -> i64 {
    object.pointer(path).and_then(Value::as_i64).unwrap_or(0)
}

fn has_ended(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn is_leaving(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

/// The objects of a resource in one namespace.
fn within<'a>(
    state: &'a State,
    resource: &str,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    state.of(resource).filter(move |(_, object)| text(object, "/metadata/namespace") == namespace)
}

/// Nothing is being deleted, and nothing is in a namespace that is gone.
fn namespaces(state: &State) -> Option<String> {
    let names: BTreeSet<&str> =
        state.of("namespaces").map(|(_, object)| text(object, "/metadata/name")).collect();
    for (key, stored) in &state.live {
        if is_leaving(&stored.value) {
            return Some(format!("{key} is still being deleted: {}", stored.value["metadata"]));
        }
        let namespace = text(&stored.value, "/metadata/namespace");
        if !namespace.is_empty() && !names.contains(namespace) {
            return Some(format!("{key} is left over in a namespace that is gone"));
        }
    }
    for name in &names {
        let account = format!("/registry/serviceaccounts/{name}/default");
        let authority = format!("/registry/configmaps/{name}/kube-root-ca.crt");
        if let Some(key) = [account, authority].into_iter().find(|key| state.get(key).is_none()) {
            return Some(format!("{key} is not there"));
        }
    }
    None
}

/// Nodes are ready and have no taints left.
fn nodes(state: &State) -> Option<String> {
    for (key, node) in state.of("minions") {
        let taints = node.pointer("/spec/taints").and_then(Value::as_array);
        let taints: Vec<&Value> = taints
            .into_iter()
            .flatten()
            .filter(|taint| taint["key"] != "node.kubernetes.io/unschedulable")
            .collect();
        let cordoned = node.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
        let says = node.pointer("/spec/taints").and_then(Value::as_array).is_some_and(|taints| {
            taints.iter().any(|taint| taint["key"] == "node.kubernetes.io/unschedulable")
        });
        if !is_ready(node) || !taints.is_empty() || cordoned != says {
            return Some(format!(
                "{key}: ready {}, cordoned {cordoned}, taints {}",
                is_ready(node),
                node["spec"]
            ));
        }
        if text(node, "/spec/podCIDR").is_empty() {
            return Some(format!("{key} has no pod addresses"));
        }
    }
    None
}

/// I10: every owner is there.
fn owners(state: &State) -> Option<String> {
    for (key, stored) in &state.live {
        let owners = stored.value.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        for owner in owners.into_iter().flatten() {
            if !state.uids.contains_key(owner["uid"].as_str().unwrap_or_default()) {
                return Some(format!("the owner of {key} is gone: {owner}"));
            }
        }
    }
    None
}

/// The objects that a controller controls.
fn owned<'a>(state: &'a State, resource: &str, owner: &'a Value) -> Vec<(&'a str, &'a Value)> {
    let id = uid(owner).unwrap_or_default();
    let is_owner = |reference: &Value| reference["uid"] == id && reference["controller"] == true;
    state
        .of(resource)
        .filter(|(_, object)| {
            let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
            owners.is_some_and(|owners| owners.iter().any(is_owner))
        })
        .collect()
}

/// Deployments have exactly the wanted pods, all of the newest template.
fn deployments(state: &State) -> Option<String> {
    for (key, deployment) in state.of("deployments") {
        let wanted = deployment.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
        for field in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
            let found = number(deployment, &format!("/status/{field}"));
            if found != wanted {
                return Some(format!("{key}: {field} is {found}, not {wanted}"));
            }
        }
        if number(deployment, "/status/observedGeneration") != number(deployment, "/metadata/generation") {
            return Some(format!("{key}: its generation was not observed"));
        }
        let image = text(deployment, "/spec/template/spec/containers/0/image");
        let (mut running, mut newest) = (0, 0);
        for (set, object) in owned(state, "replicasets", deployment) {
            let replicas = number(object, "/spec/replicas");
            running += replicas;
            if text(object, "/spec/template/spec/containers/0/image") == image && replicas == wanted {
                newest += 1;
            } else if replicas != 0 {
                return Some(format!("{key}: {set} still has {replicas}"));
            }
        }
        if running != wanted || newest == 0 {
            return Some(format!(
                "{key}: its replica sets have {running}, not {wanted} ({newest} of its image)"
            ));
        }
        let history = deployment.pointer("/spec/revisionHistoryLimit").and_then(Value::as_i64).unwrap_or(10);
        let sets = owned(state, "replicasets", deployment);
        let old = sets.iter().filter(|(_, set)| number(set, "/spec/replicas") == 0).count();
        let spare = i64::from(wanted == 0);
        if i64::try_from(old).unwrap_or(i64::MAX) > history + spare {
            return Some(format!("{key}: {old} old replica sets are kept, more than {history}"));
        }
    }
    None
}

/// Replica sets have exactly the wanted pods, ready ones.
fn replica_sets(state: &State) -> Option<String> {
    for (key, set) in state.of("replicasets") {
        let wanted = number(set, "/spec/replicas");
        let pods = owned(state, "pods", set);
        let (all, ready) = (pods.len(), pods.iter().filter(|(_, pod)| is_ready(pod)).count());
        let count = i64::try_from(all).unwrap_or(i64::MAX);
        if count != wanted || ready != all {
            let pending = pods.iter().find(|(_, pod)| !is_ready(pod));
            let about =
                pending.map(|(key, pod)| format!("{key} {} {}", pod["spec"]["nodeName"], pod["status"]));
            return Some(format!(
                "{key}: {all} pods, {ready} ready, {wanted} wanted; {}",
                about.unwrap_or_default()
            ));
        }
        for field in ["replicas", "readyReplicas", "availableReplicas", "fullyLabeledReplicas"] {
            let found = number(set, &format!("/status/{field}"));
            if found != wanted {
                return Some(format!("{key}: status says {found} {field}, not {wanted}"));
            }
        }
    }
    None
}

/// Every pod that is left runs and is ready.
fn pods(state: &State) -> Option<String> {
    let (key, pod) = state.of("pods").find(|(_, pod)| !has_ended(pod) && !is_ready(pod))?;
    Some(format!("{key} is not ready on {}: {}", pod["spec"]["nodeName"], pod["status"]))
}

/// Endpoints are the ready pods.
fn services(state: &State) -> Option<String> {
    for (key, service) in state.of("services/specs") {
        let selector = service.pointer("/spec/selector");
        if selector.is_none() {
            continue;
        }
        let (namespace, name) = (text(service, "/metadata/namespace"), text(service, "/metadata/name"));
        let wanted: BTreeSet<&str> = within(state, "pods", namespace)
            .filter(|(_, pod)| selects(selector, pod) && is_ready(pod) && !has_ended(pod))
            .map(|(_, pod)| text(pod, "/status/podIP"))
            .collect();
        let mut sliced = Vec::new();
        for (_, slice) in within(state, "endpointslices", namespace) {
            if slice.pointer("/metadata/labels/kubernetes.io~1service-name") != Some(&Value::from(name)) {
                continue;
            }
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                if endpoint.pointer("/conditions/ready") == Some(&Value::Bool(true)) {
                    sliced.push(text(endpoint, "/addresses/0"));
                }
            }
        }
        let endpoints = state.get(&format!("/registry/services/endpoints/{namespace}/{name}"));
        let mut listed = Vec::new();
        for subset in endpoints.and_then(|object| object["subsets"].as_array()).into_iter().flatten() {
            for address in subset["addresses"].as_array().into_iter().flatten() {
                listed.push(text(address, "/ip"));
            }
        }
        for (what, found) in [("slices", sliced), ("endpoints", listed)] {
            let set: BTreeSet<&str> = found.iter().copied().collect();
            if set != wanted || found.len() != set.len() {
                return Some(format!("{key}: its {what} have {found:?}, the ready pods {wanted:?}"));
            }
        }
    }
    // Nothing is left of services that are gone.
    for (key, endpoints) in state.of("services/endpoints") {
        let (namespace, name) = (text(endpoints, "/metadata/namespace"), text(endpoints, "/metadata/name"));
        if state.get(&format!("/registry/services/specs/{namespace}/{name}")).is_none() {
            return Some(format!("{key} has no service"));
        }
    }
    None
}

/// I11: what is reserved is what services hold.
fn reservations(state: &State) -> Option<String> {
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for (_, service) in state.of("services/specs") {
        addresses.insert(text(service, "/spec/clusterIP").to_owned());
        for port in service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten() {
            ports.extend(port["nodePort"].as_u64().map(|port| port.to_string()));
        }
    }
    for (resource, held) in [("ranges/serviceips", addresses), ("ranges/servicenodeports", ports)] {
        let reserved: BTreeSet<String> =
            state.of(resource).filter_map(|(key, _)| key.rsplit('/').next().map(str::to_owned)).collect();
        if reserved != held {
            let leaked: Vec<_> = reserved.difference(&held).collect();
            let unreserved: Vec<_> = held.difference(&reserved).collect();
            return Some(format!("{resource}: leaked {leaked:?}, not reserved {unreserved:?}"));
        }
    }
    None
}

/// Budgets know how many of their pods are healthy.
fn budgets(state: &State) -> Option<String> {
    for (key, budget) in state.of("poddisruptionbudgets") {
        let selector = budget.pointer("/spec/selector/matchLabels");
        let namespace = text(budget, "/metadata/namespace");
        let healthy = within(state, "pods", namespace)
            .filter(|(_, pod)| selects(selector, pod) && is_ready(pod) && !has_ended(pod))
            .count();
        let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
        let status = &budget["status"];
        if number(status, "/currentHealthy") != healthy {
            return Some(format!("{key}: {healthy} pods are healthy, but its status is {status}"));
        }
        let allowed = (healthy - number(status, "/desiredHealthy")).max(0);
        let expected = number(status, "/expectedPods");
        // Pods without a controller leave nothing to compute a budget from.
        if number(status, "/disruptionsAllowed") != allowed && expected > 0 {
            return Some(format!(
                "{key}: {allowed} disruptions should be allowed, but its status is {status}"
            ));
        }
    }
    None
}
