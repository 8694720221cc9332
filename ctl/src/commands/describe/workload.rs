//! The other kinds that have a layout of their own.

use std::fmt::Write;

use api::quantity::Quantity;
use serde_json::Value;

use super::{controller, head, labels, line, name, or_none, pod, scalar, time};
use crate::Failure;
use crate::commands::pods::selector_text;
use crate::resources::select::Selectors;
use crate::resources::{Mapping, Session, items, namespace as namespace_of, number, text};

fn conditions(out: &mut String, value: &Value) {
    let conditions = items(value, "status.conditions");
    if conditions.is_empty() {
        return;
    }
    line!(out, "Conditions:\n  Type\tStatus\tReason\n  ----\t------\t------");
    for condition in conditions {
        line!(
            out,
            "  {} \t{}\t{}",
            text(condition, "type"),
            text(condition, "status"),
            text(condition, "reason")
        );
    }
}

pub(super) async fn deployment(out: &mut String, session: &Session, value: &Value) -> Result<(), Failure> {
    line!(out, "Name:\t{}", name(value));
    line!(out, "Namespace:\t{}", namespace_of(value));
    line!(out, "CreationTimestamp:\t{}", time(text(value, "metadata.creationTimestamp")));
    labels(out, "Labels", &value["metadata"]["labels"]);
    super::annotations(out, "Annotations", &value["metadata"]["annotations"]);
    let selector = selector_text(&value["spec"]["selector"]);
    line!(out, "Selector:\t{selector}");
    let status = |field: &str| number(&value["status"], field);
    line!(
        out,
        "Replicas:\t{} desired | {} updated | {} total | {} available | {} unavailable",
        number(value, "spec.replicas"),
        status("updatedReplicas"),
        status("replicas"),
        status("availableReplicas"),
        status("unavailableReplicas")
    );
    line!(out, "StrategyType:\t{}", text(value, "spec.strategy.type"));
    line!(out, "MinReadySeconds:\t{}", number(value, "spec.minReadySeconds"));
    let rolling = &value["spec"]["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        line!(
            out,
            "RollingUpdateStrategy:\t{} max unavailable, {} max surge",
            scalar(&rolling["maxUnavailable"]),
            scalar(&rolling["maxSurge"])
        );
    }
    line!(out, "Pod Template:");
    pod::template(out, &value["spec"]["template"]);
    conditions(out, value);
    let selectors = Selectors { selector: Some(selector), ..Selectors::default() };
    let sets = session
        .list(&Mapping::builtin("apps", "replicasets")?, Some(namespace_of(value)), &selectors)
        .await?;
    let uid = text(value, "metadata.uid");
    let revision = |set: &Value| set["metadata"]["annotations"]["deployment.kubernetes.io/revision"].clone();
    let own = revision(value);
    let (mut new, mut old) = (Vec::new(), Vec::new());
    for set in sets
        .iter()
        .filter(|set| items(set, "metadata.ownerReferences").iter().any(|owner| owner["uid"] == uid))
    {
        let created = format!(
            "{} ({}/{} replicas created)",
            name(set),
            number(set, "status.replicas"),
            number(set, "spec.replicas")
        );
        if revision(set) == own { new.push(created) } else { old.push(created) }
    }
    line!(out, "OldReplicaSets:\t{}", or_none(&old.join(", ")));
    line!(out, "NewReplicaSet:\t{}", or_none(&new.join(", ")));
    Ok(())
}

pub(super) async fn replica_set(out: &mut String, session: &Session, value: &Value) -> Result<(), Failure> {
    line!(out, "Name:\t{}", name(value));
    line!(out, "Namespace:\t{}", namespace_of(value));
    line!(out, "Selector:\t{}", selector_text(&value["spec"]["selector"]));
    labels(out, "Labels", &value["metadata"]["labels"]);
    super::annotations(out, "Annotations", &value["metadata"]["annotations"]);
    if let Some(owner) = controller(value) {
        line!(out, "Controlled By:\t{owner}");
    }
    line!(
        out,
        "Replicas:\t{} current / {} desired",
        number(value, "status.replicas"),
        number(value, "spec.replicas")
    );
    let selectors =
        Selectors { selector: Some(selector_text(&value["spec"]["selector"])), ..Selectors::default() };
    let mut pods =
        session.list(&Mapping::builtin("", "pods")?, Some(namespace_of(value)), &selectors).await?;
    let uid = text(value, "metadata.uid");
    pods.retain(|pod| items(pod, "metadata.ownerReferences").iter().any(|owner| owner["uid"] == uid));
    let of = |phase: &str| pods.iter().filter(|pod| text(pod, "status.phase") == phase).count();
    line!(
        out,
        "Pods Status:\t{} Running / {} Waiting / {} Succeeded / {} Failed",
        of("Running"),
        of("Pending"),
        of("Succeeded"),
        of("Failed")
    );
    line!(out, "Pod Template:");
    pod::template(out, &value["spec"]["template"]);
    conditions(out, value);
    Ok(())
}

pub(super) async fn service(out: &mut String, session: &Session, value: &Value) -> Result<(), Failure> {
    head(out, value);
    let spec = &value["spec"];
    line!(out, "Selector:\t{}", or_none(&selector_text(&spec["selector"])));
    line!(out, "Type:\t{}", text(spec, "type"));
    for (title, field) in [("IP Family Policy", "ipFamilyPolicy")] {
        if !text(spec, field).is_empty() {
            line!(out, "{title}:\t{}", text(spec, field));
        }
    }
    let texts = |path: &str| items(spec, path).iter().map(scalar).collect::<Vec<_>>().join(",");
    line!(out, "IP Families:\t{}", or_none(&texts("ipFamilies")));
    line!(out, "IP:\t{}", text(spec, "clusterIP"));
    line!(out, "IPs:\t{}", or_none(&texts("clusterIPs")));
    if !text(spec, "externalName").is_empty() {
        line!(out, "External Name:\t{}", text(spec, "externalName"));
    }
    if !items(spec, "externalIPs").is_empty() {
        line!(out, "External IPs:\t{}", texts("externalIPs"));
    }
    let ingress = items(value, "status.loadBalancer.ingress").iter();
    let ingress: Vec<&str> =
        ingress.map(|entry| entry["ip"].as_str().unwrap_or(text(entry, "hostname"))).collect();
    if !ingress.is_empty() {
        line!(out, "LoadBalancer Ingress:\t{}", ingress.join(", "));
    }
    let slices = Mapping::builtin("discovery.k8s.io", "endpointslices")?;
    let selectors = Selectors {
        selector: Some(format!("kubernetes.io/service-name={}", name(value))),
        ..Selectors::default()
    };
    let slices = session.list(&slices, Some(namespace_of(value)), &selectors).await.unwrap_or_default();
    for port in items(spec, "ports") {
        let named = match text(port, "name") {
            "" => "<unset>",
            name => name,
        };
        line!(out, "Port:\t{named}\t{}/{}", number(port, "port"), text(port, "protocol"));
        line!(out, "TargetPort:\t{}/{}", scalar(&port["targetPort"]), text(port, "protocol"));
        if number(port, "nodePort") > 0 {
            line!(out, "NodePort:\t{named}\t{}/{}", number(port, "nodePort"), text(port, "protocol"));
        }
        line!(out, "Endpoints:\t{}", endpoints(&slices, text(port, "name")));
    }
    line!(out, "Session Affinity:\t{}", text(spec, "sessionAffinity"));
    for (title, field) in [
        ("External Traffic Policy", "externalTrafficPolicy"),
        ("Internal Traffic Policy", "internalTrafficPolicy"),
    ] {
        if !text(spec, field).is_empty() {
            line!(out, "{title}:\t{}", text(spec, field));
        }
    }
    Ok(())
}

/// The ready endpoints of a port: three, and how many more.
fn endpoints(slices: &[Value], port_name: &str) -> String {
    let mut found = Vec::new();
    for slice in slices {
        for port in items(slice, "ports").iter().filter(|port| text(port, "name") == port_name) {
            for endpoint in items(slice, "endpoints").iter().filter(|e| e["conditions"]["ready"] != false) {
                let addresses = items(endpoint, "addresses").iter().take(1);
                found
                    .extend(addresses.map(|address| format!("{}:{}", scalar(address), number(port, "port"))));
            }
        }
    }
    let more = found.len().saturating_sub(3);
    found.truncate(3);
    let shown = found.join(",");
    match more {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

pub(super) fn namespace(out: &mut String, value: &Value) {
    head(out, value);
    line!(out, "Status:\t{}", text(value, "status.phase"));
}

pub(super) fn secret(out: &mut String, value: &Value) {
    head(out, value);
    line!(out, "\nType:\t{}\n\nData\n====", text(value, "type"));
    for (key, data) in value["data"].as_object().into_iter().flatten() {
        let data = data.as_str().unwrap_or_default();
        let bytes = data.len() / 4 * 3 - data.chars().rev().take_while(|c| *c == '=').count();
        line!(out, "{key}:\t{bytes} bytes");
    }
}

pub(super) fn config_map(out: &mut String, value: &Value) {
    head(out, value);
    line!(out, "\nData\n====");
    for (key, data) in value["data"].as_object().into_iter().flatten() {
        line!(out, "{key}:\n----\n{}\n", data.as_str().unwrap_or_default());
    }
    line!(out, "\nBinaryData\n====");
    for (key, data) in value["binaryData"].as_object().into_iter().flatten() {
        let data = data.as_str().unwrap_or_default();
        line!(
            out,
            "{key}: {} bytes",
            data.len() / 4 * 3 - data.chars().rev().take_while(|c| *c == '=').count()
        );
    }
    line!(out, "");
}

pub(super) fn budget(out: &mut String, value: &Value) {
    line!(out, "Name:\t{}", name(value));
    line!(out, "Namespace:\t{}", namespace_of(value));
    for (title, field) in [("Min available", "minAvailable"), ("Max unavailable", "maxUnavailable")] {
        if !value["spec"][field].is_null() {
            line!(out, "{title}:\t{}", scalar(&value["spec"][field]));
        }
    }
    let selector = selector_text(&value["spec"]["selector"]);
    line!(out, "Selector:\t{}", if selector.is_empty() { "<unset>" } else { &selector });
    line!(out, "Status:");
    for (title, field) in [
        ("Allowed disruptions", "disruptionsAllowed"),
        ("Current", "currentHealthy"),
        ("Desired", "desiredHealthy"),
        ("Total", "expectedPods"),
    ] {
        line!(out, "    {title}:\t{}", number(&value["status"], field));
    }
}

pub(super) async fn node(out: &mut String, session: &Session, value: &Value) -> Result<(), Failure> {
    let roles: Vec<&str> = value["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    line!(out, "Name:\t{}", name(value));
    line!(out, "Roles:\t{}", or_none(&roles.join(",")));
    labels(out, "Labels", &value["metadata"]["labels"]);
    super::annotations(out, "Annotations", &value["metadata"]["annotations"]);
    line!(out, "CreationTimestamp:\t{}", time(text(value, "metadata.creationTimestamp")));
    let taints = items(value, "spec.taints").iter().map(|taint| {
        let of = text(taint, "value");
        let of = if of.is_empty() { String::new() } else { format!("={of}") };
        format!("{}{of}:{}", text(taint, "key"), text(taint, "effect"))
    });
    super::several(out, "Taints", taints.collect());
    line!(out, "Unschedulable:\t{}", value["spec"]["unschedulable"] == true);
    let lease = Mapping::builtin("coordination.k8s.io", "leases")?;
    let lease = session.json(crate::resources::Call::get(lease.object("kube-node-lease", name(value)))).await;
    match lease {
        Ok(lease) => {
            line!(out, "Lease:");
            line!(out, "  HolderIdentity:\t{}", text(&lease, "spec.holderIdentity"));
            line!(out, "  AcquireTime:\t{}", or_unset(text(&lease, "spec.acquireTime")));
            line!(out, "  RenewTime:\t{}", or_unset(text(&lease, "spec.renewTime")));
        }
        Err(_) => line!(out, "Lease:\tFailed to get lease"),
    }
    if !items(value, "status.conditions").is_empty() {
        line!(out, "Conditions:\n  Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
        line!(out, "  ----\t------\t-----------------\t------------------\t------\t-------");
        for condition in items(value, "status.conditions") {
            line!(
                out,
                "  {} \t{} \t{} \t{} \t{} \t{} ",
                text(condition, "type"),
                text(condition, "status"),
                time(text(condition, "lastHeartbeatTime")),
                time(text(condition, "lastTransitionTime")),
                text(condition, "reason"),
                text(condition, "message")
            );
        }
    }
    line!(out, "Addresses:");
    for address in items(value, "status.addresses") {
        line!(out, "  {}:\t{}", text(address, "type"), text(address, "address"));
    }
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        line!(out, "{title}:");
        for (resource, amount) in value["status"][field].as_object().into_iter().flatten() {
            line!(out, "  {resource}:\t{}", scalar(amount));
        }
    }
    line!(out, "System Info:");
    for (title, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ] {
        line!(out, "  {title}:\t{}", text(&value["status"]["nodeInfo"], field));
    }
    for (title, path) in [("PodCIDR", "spec.podCIDR"), ("ProviderID", "spec.providerID")] {
        if !text(value, path).is_empty() {
            line!(out, "{title}:\t{}", text(value, path));
        }
    }
    if !items(value, "spec.podCIDRs").is_empty() {
        let ranges: Vec<String> = items(value, "spec.podCIDRs").iter().map(scalar).collect();
        line!(out, "PodCIDRs:\t{}", ranges.join(","));
    }
    node_pods(out, session, value).await
}

fn or_unset(text: &str) -> String {
    if text.is_empty() { "<unset>".to_owned() } else { time(text) }
}

/// What the pods of a node ask for, each and together.
async fn node_pods(out: &mut String, session: &Session, node: &Value) -> Result<(), Failure> {
    let selectors = Selectors {
        field_selector: Some(format!(
            "spec.nodeName={},status.phase!=Succeeded,status.phase!=Failed",
            name(node)
        )),
        all_namespaces: true,
        ..Selectors::default()
    };
    let pods = session.list(&Mapping::builtin("", "pods")?, None, &selectors).await?;
    line!(out, "Non-terminated Pods:\t({} in total)", pods.len());
    line!(out, "  Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    line!(out, "  ---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    let zero = || Quantity::from_milli(0);
    let allocatable = |resource: &str| parse(&node["status"]["allocatable"][resource]);
    let percent = |amount: &Quantity, resource: &str| {
        let total = allocatable(resource).as_f64();
        if total == 0.0 { 0 } else { (amount.as_f64() / total * 100.0) as i64 }
    };
    let kinds = [("cpu", "requests"), ("cpu", "limits"), ("memory", "requests"), ("memory", "limits")];
    let mut totals = [zero(), zero(), zero(), zero()];
    let now = base::Clock::system().now();
    for pod in &pods {
        let mut cells = Vec::new();
        for (i, (resource, kind)) in kinds.iter().enumerate() {
            let amounts =
                items(pod, "spec.containers").iter().map(|c| parse(&c["resources"][*kind][*resource]));
            let sum = amounts.fold(zero(), |sum, amount| sum.plus(&amount));
            cells.push(format!("{sum} ({}%)", percent(&sum, resource)));
            totals[i] = totals[i].plus(&sum);
        }
        let age = api::table::age(text(pod, "metadata.creationTimestamp").parse().ok(), now);
        line!(out, "  {}\t{}\t\t{}\t{age}", namespace_of(pod), name(pod), cells.join("\t"));
    }
    line!(out, "Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)");
    line!(out, "  Resource\tRequests\tLimits\n  --------\t--------\t------");
    for (resource, requests, limits) in [("cpu", &totals[0], &totals[1]), ("memory", &totals[2], &totals[3])]
    {
        line!(
            out,
            "  {resource}\t{requests} ({}%)\t{limits} ({}%)",
            percent(requests, resource),
            percent(limits, resource)
        );
    }
    Ok(())
}

fn parse(value: &Value) -> Quantity {
    Quantity::parse(&scalar(value)).unwrap_or_else(|_| Quantity::from_milli(0))
}

pub(super) fn service_account(out: &mut String, value: &Value) {
    head(out, value);
    let pulls = items(value, "imagePullSecrets").iter().map(|secret| text(secret, "name").to_owned());
    super::several(out, "Image pull secrets", pulls.collect());
}
