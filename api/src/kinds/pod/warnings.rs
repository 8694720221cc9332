//! Advice about pods that are allowed, but hardly meant.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{ContainerPort, NodeSelectorTerm, PodSpec, PodTemplateSpec, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{containers::each, security};
use crate::{
    field::{Path, quote},
    kinds::{
        amount::{Amount, Amounts},
        check::{list, text},
    },
};

/// What a node label that has a newer name is told.
pub(crate) fn deprecated_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        _ => return None,
    })
}

/// Advice about the template of a workload.
pub(crate) fn template(template: &PodTemplateSpec, path: &Path) -> Vec<String> {
    let empty = ObjectMeta::default();
    match &template.spec {
        Some(spec) => of(spec, template.metadata.as_ref().unwrap_or(&empty), path),
        None => Vec::new(),
    }
}

/// Advice about a pod; the root as path means a pod itself.
pub(super) fn of(spec: &PodSpec, meta: &ObjectMeta, path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let at = path.child("spec");
    placement(&mut out, spec, &at);
    let annotations_at = path.child("metadata").child("annotations");
    let annotations = meta.annotations.clone().unwrap_or_default();
    for (key, message) in [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/unsafe-sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
    ] {
        if annotations.contains_key(key) {
            out.push(format!("{}: {message}", annotations_at.key(key)));
        }
    }
    for (i, volume) in list(&spec.volumes).iter().enumerate() {
        old_volume(&mut out, volume, &at.child("volumes").index(i));
    }
    duplicates(&mut out, spec, &at);
    fractions(&mut out, spec.overhead.as_ref(), &at.child("overhead"));
    let seccomp = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    let context = spec.security_context.as_ref();
    if context.is_none_or(|c| c.seccomp_profile.is_none()) && annotations.contains_key(security::SECCOMP_POD)
    {
        out.push(format!("{}: {seccomp}", annotations_at.key(security::SECCOMP_POD)));
    }
    let pod_apparmor = context.is_some_and(|c| c.app_armor_profile.is_some());
    each(spec, &at, |container, at| {
        let own = container.security_context.as_ref();
        let key = format!("{}{}", security::SECCOMP_CONTAINER, container.name);
        if own.is_none_or(|c| c.seccomp_profile.is_none()) && annotations.contains_key(&key) {
            out.push(format!("{}: {seccomp}", annotations_at.key(&key)));
        }
        let key = format!("{}{}", security::APPARMOR_CONTAINER, container.name);
        let apparmor = pod_apparmor || own.is_some_and(|c| c.app_armor_profile.is_some());
        if *path != Path::root() && !apparmor && annotations.contains_key(&key) {
            let message = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            out.push(format!("{}: {message}", annotations_at.key(&key)));
        }
        if let Some(resources) = &container.resources {
            let at = at.child("resources");
            fractions(&mut out, resources.limits.as_ref(), &at.child("limits"));
            fractions(&mut out, resources.requests.as_ref(), &at.child("requests"));
        }
        let mut names = BTreeSet::new();
        for (i, var) in list(&container.env).iter().enumerate() {
            let reference = format!("$({})", var.name);
            let value = text(&var.value);
            let hides = var.value_from.is_some() || value == reference || !value.contains(&reference);
            if !names.insert(&var.name) && hides {
                out.push(format!(
                    "{}: hides previous definition of {}, which may be dropped when using apply",
                    at.child("env").index(i),
                    quote(&var.name)
                ));
            }
        }
    });
    ports(&mut out, spec, &at);
    if let Some(seconds) = spec.termination_grace_period_seconds.filter(|s| *s < 0) {
        let _ = seconds;
        let at = at.child("terminationGracePeriodSeconds");
        out.push(format!("{at}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    out
}

/// Advice about a term that selects nodes.
pub(crate) fn node_term(out: &mut Vec<String>, term: &NodeSelectorTerm, at: &Path) {
    for (i, expression) in list(&term.match_expressions).iter().enumerate() {
        if let Some(message) = deprecated_label(&expression.key) {
            let at = at.child("matchExpressions").index(i).child("key");
            out.push(format!("{at}: {} is {message}", expression.key));
        }
    }
}

fn placement(out: &mut Vec<String>, spec: &PodSpec, at: &Path) {
    for (key, _) in spec.node_selector.iter().flatten() {
        if let Some(message) = deprecated_label(key) {
            out.push(format!("{}: {message}", at.child("nodeSelector").key(key)));
        }
    }
    if let Some(affinity) = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()) {
        let at = at.child("affinity").child("nodeAffinity");
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref();
        for (i, t) in required.iter().flat_map(|r| &r.node_selector_terms).enumerate() {
            let at = at.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
            node_term(out, t, &at.index(i));
        }
        let preferred = list(&affinity.preferred_during_scheduling_ignored_during_execution);
        for (i, t) in preferred.iter().enumerate() {
            let at = at.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
            node_term(out, &t.preference, &at.child("preference"));
        }
    }
    for (i, constraint) in list(&spec.topology_spread_constraints).iter().enumerate() {
        let at = at.child("topologySpreadConstraints").index(i);
        if let Some(message) = deprecated_label(&constraint.topology_key) {
            out.push(format!("{}: {} is {message}", at.child("topologyKey"), constraint.topology_key));
        }
        if constraint.label_selector.is_none() {
            out.push(format!(
                "{}: a null labelSelector results in matching no pod",
                at.child("labelSelector")
            ));
        }
    }
}

fn old_volume(out: &mut Vec<String>, volume: &Volume, at: &Path) {
    for (field, set, message) in [
        (
            "photonPersistentDisk",
            volume.photon_persistent_disk.is_some(),
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("gitRepo", volume.git_repo.is_some(), "deprecated in v1.11, and disabled by default in v1.33+"),
        ("scaleIO", volume.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", volume.flocker.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("storageOS", volume.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", volume.quobyte.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", volume.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", volume.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", volume.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
    ] {
        if set {
            out.push(format!("{}: {message}", at.child(field)));
        }
    }
}

fn duplicates(out: &mut Vec<String>, spec: &PodSpec, at: &Path) {
    let mut seen = BTreeSet::new();
    for (i, alias) in list(&spec.host_aliases).iter().enumerate() {
        if !seen.insert(&alias.ip) {
            let at = at.child("hostAliases").index(i).child("ip");
            out.push(format!("{at}: duplicate ip {}", quote(&alias.ip)));
        }
    }
    let mut seen = BTreeSet::new();
    let secrets = list(&spec.image_pull_secrets);
    let at = |i: usize| at.child("imagePullSecrets").index(i).child("name");
    for (i, secret) in secrets.iter().enumerate() {
        if !seen.insert(&secret.name) {
            out.push(format!("{}: duplicate name {}", at(i), quote(&secret.name)));
        }
    }
    for (i, secret) in secrets.iter().enumerate().filter(|(_, s)| s.name.is_empty()) {
        out.push(format!("{}: invalid empty name {}", at(i), quote(&secret.name)));
    }
}

fn fractions(out: &mut Vec<String>, amounts: Option<&Amounts>, at: &Path) {
    for resource in ["memory", "ephemeral-storage"] {
        let amount = amounts.and_then(|a| a.get(resource)).and_then(Amount::of);
        if let Some(amount) = amount.filter(|a| !a.is_integer()) {
            let shown = quote(&amount.to_string());
            out.push(format!(
                "{}: fractional byte value {shown} is invalid, must be an integer",
                at.key(resource)
            ));
        }
    }
}

/// How many pieces of advice are looked for where each pair of things may be worth one.
const MOST: usize = 1000;

fn ports(out: &mut Vec<String>, spec: &PodSpec, at: &Path) {
    let mut seen: BTreeMap<String, Vec<(Path, ContainerPort)>> = BTreeMap::new();
    each(spec, at, |container, at| {
        for (i, port) in list(&container.ports).iter().enumerate() {
            let at = at.child("ports").index(i);
            let number = |port: &ContainerPort| port.host_port.unwrap_or_default();
            let same_ip = |other: &ContainerPort| text(&other.host_ip) == text(&port.host_ip);
            let key = format!("{}/{}", port.container_port, text(&port.protocol));
            let others = seen.entry(key).or_default();
            for (other_at, other) in others.iter() {
                // Many more than an answer has room for.
                if out.len() >= MOST {
                    return;
                }
                let what = if same_ip(other) && number(other) == number(port) {
                    "duplicate"
                } else if number(port) == 0
                    || number(other) == 0
                    || number(port) == number(other)
                        && (text(&port.host_ip).is_empty() || text(&other.host_ip).is_empty())
                {
                    "overlapping"
                } else {
                    continue;
                };
                out.push(format!("{at}: {what} port definition with {other_at}"));
            }
            others.push((at, port.clone()));
        }
    });
}
