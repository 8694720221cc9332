//! What must hold after each write.

use std::collections::BTreeMap;

use serde_json::Value;

use super::log::{Actor, Role, State, uid};

/// One change that was just made.
pub(crate) struct Commit<'a> {
    pub(crate) key: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) old: Option<&'a Value>,
    pub(crate) new: Option<&'a Value>,
    pub(crate) actor: Option<&'a Actor>,
}

/// Looks at a change in the light of everything else.
pub(crate) fn check(state: &mut State, commit: &Commit<'_>) {
    let found: Option<(&'static str, String)> = None
        .or_else(|| leader(state, commit))
        .or_else(|| identity(state, commit))
        .or_else(|| collected(state, commit))
        .or_else(|| match commit.resource {
            "pods" => placed(state, commit).or_else(|| evicted(state, commit)),
            "minions" => node_range(state, commit),
            "services/specs" => service(state, commit),
            "poddisruptionbudgets" => budget(commit),
            _ => None,
        });
    if let Some((invariant, text)) = found {
        let by = commit.actor.map_or("nobody", |actor| actor.request.as_str());
        state.report(invariant, format!("{text}; {} by {by}", commit.key));
    }
    if state.quiet {
        note(state, commit);
    }
}

type Finding = Option<(&'static str, String)>;

fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    object.pointer(path).and_then(Value::as_str)
}

/// I12: a component writes only while its instance holds the lease of its election.
fn leader(state: &State, commit: &Commit<'_>) -> Finding {
    let Role::Elected { election, instance } = &commit.actor?.role else { return None };
    if commit.resource == "leases" {
        return None;
    }
    let lease = state.get(&format!("/registry/leases/kube-system/{election}"));
    let holder = lease.and_then(|lease| text(lease, "/spec/holderIdentity"));
    (holder != Some(instance.as_str()))
        .then(|| ("I12", format!("{instance} writes, but {holder:?} holds the lease of {election}")))
}

/// I2, I6: what is deleted never comes back, and nothing changes its UID in place.
fn identity(state: &State, commit: &Commit<'_>) -> Finding {
    let now = uid(commit.new?)?;
    if let Some(before) = commit.old.and_then(uid)
        && before != now
    {
        return Some(("I2", format!("uid {before} turned into {now} without a deletion")));
    }
    let gone = state.gone.get(now)?;
    Some(("I6", format!("uid {now} was deleted at revision {gone} and is back")))
}

/// I10: the garbage collector deletes nothing that has a living owner.
fn collected(state: &State, commit: &Commit<'_>) -> Finding {
    let actor = commit.actor?;
    if !actor.request.contains(":generic-garbage-collector DELETE ") {
        return None;
    }
    let old = commit.old?;
    let is_deletion = match commit.new {
        None => true,
        Some(new) => {
            new.pointer("/metadata/deletionTimestamp").is_some()
                && old.pointer("/metadata/deletionTimestamp").is_none()
        }
    };
    if !is_deletion {
        return None;
    }
    let owners = old.pointer("/metadata/ownerReferences").and_then(Value::as_array)?;
    let living = owners.iter().find(|owner| {
        let uid = owner["uid"].as_str().unwrap_or_default();
        let object = state.uids.get(uid).and_then(|key| state.get(key));
        object.is_some_and(|owner| !waits_for_dependents(owner))
    })?;
    Some(("I10", format!("deleted although its owner lives: {living}")))
}

fn waits_for_dependents(owner: &Value) -> bool {
    let finalizers = owner.pointer("/metadata/finalizers").and_then(Value::as_array);
    owner.pointer("/metadata/deletionTimestamp").is_some()
        && finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == "foregroundDeletion"))
}

/// Thousandths of a CPU.
fn millis(quantity: &Value) -> i64 {
    let Some(text) = quantity.as_str() else { return quantity.as_i64().unwrap_or(0) * 1000 };
    match text.strip_suffix('m') {
        Some(millis) => millis.parse().unwrap_or(0),
        None => text.parse::<i64>().unwrap_or(0) * 1000,
    }
}

/// I6 and I11: a pod is placed once, and what is placed on a node fits it.
fn placed(state: &State, commit: &Commit<'_>) -> Finding {
    let new = commit.new?;
    let node = text(new, "/spec/nodeName")?;
    match commit.old.and_then(|old| text(old, "/spec/nodeName")) {
        Some(before) if before == node => return None,
        Some(before) => return Some(("I6", format!("moved from {before} to {node}"))),
        None => {}
    }
    let allocatable = |resource: &str| {
        let node = state.get(&format!("/registry/minions/{node}"))?;
        Some(node.pointer(&format!("/status/allocatable/{resource}"))?.clone())
    };
    let (mut cpu, mut count) = (0, 0);
    let mut ports: BTreeMap<u64, &str> = BTreeMap::new();
    for (key, pod) in state.of("pods") {
        let ended = matches!(text(pod, "/status/phase"), Some("Succeeded" | "Failed"));
        if ended || text(pod, "/spec/nodeName") != Some(node) {
            continue;
        }
        count += 1;
        for container in pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten() {
            cpu += container.pointer("/resources/requests/cpu").map_or(0, millis);
            for port in container["ports"].as_array().into_iter().flatten() {
                let Some(port) = port["hostPort"].as_u64() else { continue };
                if let Some(other) = ports.insert(port, key) {
                    return Some(("I11", format!("{other} and {key} both have host port {port} of {node}")));
                }
            }
        }
    }
    let (has, most) = (millis(&allocatable("cpu")?), millis(&allocatable("pods")?) / 1000);
    if cpu > has || count > most {
        return Some((
            "I11",
            format!("{node} has {cpu}m CPU of {has}m and {count} pods of {most} asked from it"),
        ));
    }
    None
}

/// I11: no two nodes have the same pod addresses.
fn node_range(state: &State, commit: &Commit<'_>) -> Finding {
    let range = text(commit.new?, "/spec/podCIDR")?;
    let other = state
        .of("minions")
        .find(|(key, node)| *key != commit.key && text(node, "/spec/podCIDR") == Some(range))?;
    Some(("I11", format!("pod addresses {range} are those of {} too", other.0)))
}

/// I11: no two services have the same cluster address or node port.
fn service(state: &State, commit: &Commit<'_>) -> Finding {
    let new = commit.new?;
    let ports = |service: &Value| -> Vec<u64> {
        let ports = service.pointer("/spec/ports").and_then(Value::as_array);
        ports.into_iter().flatten().filter_map(|port| port["nodePort"].as_u64()).collect()
    };
    let (address, own) = (text(new, "/spec/clusterIP"), ports(new));
    for (key, other) in state.of("services/specs").filter(|(key, _)| *key != commit.key) {
        if address.is_some() && address != Some("None") && text(other, "/spec/clusterIP") == address {
            return Some(("I11", format!("{key} has the address {address:?} too")));
        }
        if let Some(port) = ports(other).into_iter().find(|port| own.contains(port)) {
            return Some(("I11", format!("{key} has the node port {port} too")));
        }
    }
    None
}

/// I11: nobody takes more disruptions than a budget has.
fn budget(commit: &Commit<'_>) -> Finding {
    let allowed = commit.new?.pointer("/status/disruptionsAllowed")?.as_i64()?;
    (allowed < 0).then(|| ("I11", format!("{allowed} disruptions allowed")))
}

/// I11: a pod that counts is evicted only after its budget has paid for it.
fn evicted(state: &State, commit: &Commit<'_>) -> Finding {
    if !commit.actor?.request.ends_with("/eviction") {
        return None;
    }
    let old = commit.old?;
    let counts = old.pointer("/metadata/deletionTimestamp").is_none()
        && text(old, "/status/phase") == Some("Running")
        && is_ready(old);
    if !counts {
        return None;
    }
    let (namespace, name) = (text(old, "/metadata/namespace")?, text(old, "/metadata/name")?);
    let unpaid = state.of("poddisruptionbudgets").find(|(_, budget)| {
        text(budget, "/metadata/namespace") == Some(namespace)
            && selects(budget.pointer("/spec/selector/matchLabels"), old)
            // A budget made after the eviction began does not concern it; one that was never looked at allows none.
            && budget.pointer("/status/observedGeneration").is_some()
            && budget.pointer("/status/disruptedPods").and_then(|pods| pods.get(name)).is_none()
    })?;
    Some(("I11", format!("evicted, but its budget {} has not paid: {}", unpaid.0, unpaid.1["status"])))
}

/// Whether the labels of an object match an equality selector.
pub(crate) fn selects(selector: Option<&Value>, object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels");
    selector.and_then(Value::as_object).is_some_and(|selector| {
        selector.iter().all(|(name, value)| labels.and_then(|labels| labels.get(name)) == Some(value))
    })
}

pub(crate) fn is_ready(object: &Value) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// I9: who writes what while nothing is to do.
fn note(state: &mut State, commit: &Commit<'_>) {
    let by_agent = matches!(commit.actor.map(|actor| &actor.role), Some(Role::Agent(_)));
    if commit.resource == "leases" || commit.resource == "minions" && by_agent {
        return;
    }
    let by = commit.actor.map_or("nobody", |actor| actor.request.as_str());
    let diff = match (commit.old, commit.new) {
        (Some(old), Some(new)) => difference(old, new),
        (_, new) => new.map_or_else(|| "deleted".to_owned(), |_| "created".to_owned()),
    };
    state.noise.push(format!("{} by {by}: {diff}", commit.key));
}

/// The paths at which two objects differ.
pub(crate) fn difference(old: &Value, new: &Value) -> String {
    let mut out = Vec::new();
    differ("", old, new, &mut out);
    out.truncate(6);
    out.join(", ")
}

fn differ(path: &str, old: &Value, new: &Value, out: &mut Vec<String>) {
    if old == new || path.ends_with("/managedFields") {
        return;
    }
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let absent = Value::Null;
                let (old, new) = (before.get(name).unwrap_or(&absent), after.get(name).unwrap_or(&absent));
                differ(&format!("{path}/{name}"), old, new, out);
            }
        }
        _ => {
            out.push(format!("{path} {old} -> {new}").chars().take(300).collect());
        }
    }
}
