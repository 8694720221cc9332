//! Rules for the spec of a pod, in a pod or in a template of a workload.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{
        HostAlias, Pod, PodDNSConfig, PodResourceClaim, PodSchedulingGate, PodSpec, PodTemplateSpec,
        ResourceRequirements,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    affinity,
    containers::{self, Context, each},
    resources, security, volumes,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::check::{
        dns_label, dns_subdomain, ip, list, one_of, problems, qualified_name, required_one_of, text,
    },
    meta, name,
};

pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];

/// A pod, but for its `metadata`: what holds on creation and on updates alike.
pub(super) fn validate_pod(errors: &mut Errors, pod: &Pod, spec: &PodSpec) {
    let at = Path::new("spec");
    if let Some(annotations) = &pod.metadata.annotations {
        validate_annotations(errors, annotations, spec, &Path::new("metadata").child("annotations"));
    }
    validate(errors, spec, Some(&pod.metadata), &at);
    if text(&spec.service_account_name).is_empty() {
        for (i, volume) in list(&spec.volumes).iter().enumerate() {
            let sources = volume.projected.iter().flat_map(|p| list(&p.sources)).enumerate();
            for (j, _) in sources.filter(|(_, s)| s.service_account_token.is_some()) {
                let at = at.child("volumes").index(i).child("projected").child("sources").index(j);
                let detail = "must not be specified when serviceAccountName is not set";
                errors.push(FieldError::forbidden(&at.child("serviceAccountToken"), detail));
            }
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        containers::only_in_pods(errors, container, &at.child("containers").index(i));
    }
    for (i, container) in list(&spec.init_containers).iter().enumerate() {
        containers::only_in_pods(errors, container, &at.child("initContainers").index(i));
    }
}

/// What holds only when a pod is created.
pub(super) fn validate_create(errors: &mut Errors, pod: &Pod, spec: &PodSpec) {
    let at = Path::new("spec");
    if !list(&spec.ephemeral_containers).is_empty() {
        errors.push(FieldError::forbidden(&at.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !text(&spec.node_name).is_empty() && !list(&spec.scheduling_gates).is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(&at.child("nodeName"), detail));
    }
    security::annotations_match(errors, &pod.metadata, spec, &at);
}

/// The template of a workload.
pub(crate) fn validate_template(errors: &mut Errors, template: &PodTemplateSpec, path: &Path) {
    let (empty_meta, empty_spec) = (ObjectMeta::default(), PodSpec::default());
    let metadata = template.metadata.as_ref().unwrap_or(&empty_meta);
    let spec = template.spec.as_ref().unwrap_or(&empty_spec);
    if let Some(labels) = &metadata.labels {
        errors.extend(meta::validate_labels(labels, &path.child("labels")));
    }
    let at = path.child("annotations");
    if let Some(annotations) = &metadata.annotations {
        errors.extend(meta::validate_annotations(annotations, &at));
        validate_annotations(errors, annotations, spec, &at);
    }
    let at = path.child("spec");
    validate(errors, spec, None, &at);
    security::annotations_match(errors, metadata, spec, &at);
    if !list(&spec.ephemeral_containers).is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(&at.child("ephemeralContainers"), detail));
    }
}

/// The annotations that mean something for pods.
pub(super) fn validate_annotations(
    errors: &mut Errors,
    annotations: &BTreeMap<String, String>,
    spec: &PodSpec,
    path: &Path,
) {
    if let Some(value) = annotations.get(MIRROR).filter(|_| text(&spec.node_name).is_empty()) {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(&path.key(MIRROR), value, detail));
    }
    if let Some(cost) = annotations.get(DELETION_COST) {
        let digits = cost.strip_prefix('-').unwrap_or(cost);
        let plain = digits == "0" || digits.bytes().next().is_some_and(|b| matches!(b, b'1'..=b'9'));
        if !plain || cost.parse::<i32>().is_err() {
            errors.push(FieldError::invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer"));
        }
    }
    for (key, value) in annotations {
        if key == security::SECCOMP_POD || key.starts_with(security::SECCOMP_CONTAINER) {
            seccomp_annotation(errors, value, &path.child(key));
        }
    }
    let of_containers = |key: &&String| key.starts_with(security::APPARMOR_CONTAINER);
    let mut names = BTreeSet::new();
    if annotations.keys().any(|key| of_containers(&key)) {
        each(spec, &Path::root(), |c, _| names.extend([c.name.clone()]));
    }
    for (key, value) in annotations {
        let Some(container) = key.strip_prefix(security::APPARMOR_CONTAINER) else { continue };
        if !names.contains(container) {
            errors.push(FieldError::invalid(&path.key(key), container, "container not found"));
        }
        let known = matches!(value.as_str(), "" | "runtime/default" | "unconfined")
            || value.starts_with("localhost/");
        if !known {
            let detail = format!("invalid AppArmor profile name: {}", crate::field::quote(value));
            errors.push(FieldError::invalid(&path.key(key), value, detail));
        }
    }
}

fn seccomp_annotation(errors: &mut Errors, value: &str, path: &Path) {
    match value {
        "runtime/default" | "docker/default" | "unconfined" => {}
        other => match other.strip_prefix("localhost/") {
            Some(file) => volumes::descending_path(errors, file, path),
            None => errors.push(FieldError::invalid(path, value, "must be a valid seccomp profile")),
        },
    }
}

/// The spec; `meta` is that of the pod, None in a template.
fn validate(errors: &mut Errors, spec: &PodSpec, meta: Option<&ObjectMeta>, path: &Path) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.push(FieldError::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let volumes = volumes::validate(errors, list(&spec.volumes), meta, &path.child("volumes"));
    let claims = resources::Claims::of(list(&spec.resource_claims));
    resource_claims(errors, list(&spec.resource_claims), &path.child("resourceClaims"));
    let context = Context { spec, volumes: &volumes, claims: &claims };
    containers::validate(errors, &context, &path.child("containers"));
    containers::validate_init(errors, &context, &path.child("initContainers"));
    containers::validate_ephemeral(errors, &context, &path.child("ephemeralContainers"));
    resources::validate_pod(errors, spec, &claims, &path.child("resources"));
    host_network_ports(errors, spec, meta.is_some(), path);
    let restart = text(&spec.restart_policy);
    required_one_of(errors, &path.child("restartPolicy"), restart, &["Always", "OnFailure", "Never"]);
    required_one_of(errors, &path.child("dnsPolicy"), text(&spec.dns_policy), DNS_POLICIES);
    if let Some(labels) = &spec.node_selector {
        errors.extend(meta::validate_labels(labels, &path.child("nodeSelector")));
    }
    if let Some(context) = &spec.security_context {
        security::validate_pod(errors, context, spec, &path.child("securityContext"));
    }
    if let Some(affinity) = &spec.affinity {
        affinity::validate(errors, affinity, &path.child("affinity"));
    }
    dns_config(errors, spec.dns_config.as_ref(), text(&spec.dns_policy), &path.child("dnsConfig"));
    for (i, gate) in list(&spec.readiness_gates).iter().enumerate() {
        let at = path.child("readinessGates").index(i).child("conditionType");
        qualified_name(errors, &at, &gate.condition_type);
    }
    scheduling_gates(errors, list(&spec.scheduling_gates), &path.child("schedulingGates"));
    let constraints = list(&spec.topology_spread_constraints);
    affinity::validate_spread(errors, constraints, &path.child("topologySpreadConstraints"));
    security::host_process(errors, spec, path);
    host_users(errors, spec, path);
    for (field, value) in [("serviceAccountName", &spec.service_account_name), ("nodeName", &spec.node_name)]
    {
        let value = text(value);
        if !value.is_empty() {
            dns_subdomain(errors, &path.child(field), value);
        }
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        for problem in name::in_range(seconds, 1, i32::MAX.into()) {
            errors.push(FieldError::invalid(&path.child("activeDeadlineSeconds"), seconds, problem));
        }
    }
    hostname(errors, spec, path);
    affinity::validate_tolerations(errors, list(&spec.tolerations), &path.child("tolerations"));
    host_aliases(errors, list(&spec.host_aliases), &path.child("hostAliases"));
    let class = text(&spec.priority_class_name);
    if !class.is_empty() {
        dns_subdomain(errors, &path.child("priorityClassName"), class);
    }
    if let Some(class) = &spec.runtime_class_name {
        dns_subdomain(errors, &path.child("runtimeClassName"), class);
    }
    if let Some(policy) = &spec.preemption_policy {
        let allowed = &["PreemptLowerPriority", "Never"];
        required_one_of(errors, &path.child("preemptionPolicy"), policy, allowed);
    }
    if let Some(overhead) = &spec.overhead {
        // Checked as limits, path and all.
        let requirements = ResourceRequirements { limits: Some(overhead.clone()), ..Default::default() };
        let at = path.child("overhead");
        resources::validate(errors, &requirements, resources::Owner::Container, &claims, &at);
    }
    security::operating_system(errors, spec, path);
}

fn hostname(errors: &mut Errors, spec: &PodSpec, path: &Path) {
    for (field, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        let value = text(value);
        if !value.is_empty() {
            dns_label(errors, &path.child(field), value);
        }
    }
    let Some(name) = &spec.hostname_override else { return };
    let at = path.child("hostnameOverride");
    if name.len() > 64 {
        errors.push(FieldError::too_long(&at, 64));
    }
    dns_subdomain(errors, &at, name);
    for (field, set) in [
        ("setHostnameAsFQDN", spec.set_hostname_as_fqdn == Some(true)),
        ("hostNetwork", spec.host_network == Some(true)),
    ] {
        if set {
            let detail = "may not be set to true when `hostnameOverride` is set";
            errors.push(FieldError::forbidden(&path.child(field), detail));
        }
    }
}

fn resource_claims(errors: &mut Errors, claims: &[PodResourceClaim], path: &Path) {
    let mut names = BTreeSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let at = path.index(i);
        if claim.name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else if !names.insert(&claim.name) {
            errors.push(FieldError::duplicate(&at.child("name"), &claim.name));
        } else {
            dns_label(errors, &at.child("name"), &claim.name);
        }
        let detail = match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            (None, None) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            _ => "",
        };
        if !detail.is_empty() {
            errors.push(FieldError::invalid(&at, BadValue::of(claim), detail));
        }
        for (field, name) in [
            ("resourceClaimName", &claim.resource_claim_name),
            ("resourceClaimTemplateName", &claim.resource_claim_template_name),
        ] {
            if let Some(name) = name {
                dns_subdomain(errors, &at.child(field), name);
            }
        }
    }
}

fn host_network_ports(errors: &mut Errors, spec: &PodSpec, is_pod: bool, path: &Path) {
    if spec.host_network != Some(true) {
        return;
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in list(&container.ports).iter().enumerate() {
            let host_port = port.host_port.unwrap_or_default();
            if (is_pod || host_port != 0) && host_port != port.container_port {
                let at = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(&at, host_port, detail));
            }
        }
    }
}

fn host_users(errors: &mut Errors, spec: &PodSpec, path: &Path) {
    if spec.host_users != Some(false) {
        return;
    }
    // The capital letters are upstream's.
    for (field, set) in
        [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)]
    {
        if set == Some(true) {
            errors.push(FieldError::forbidden(&path.child(field), "when `pod.Spec.HostUsers` is false"));
        }
    }
    each(spec, path, |container, path| {
        if !list(&container.volume_devices).is_empty() {
            let detail = "cannot be used when `hostUsers` is false";
            errors.push(FieldError::forbidden(&path.child("volumeDevices"), detail));
        }
    });
}

fn dns_config(errors: &mut Errors, config: Option<&PodDNSConfig>, policy: &str, path: &Path) {
    let nameservers = config.map(|c| list(&c.nameservers)).unwrap_or_default();
    if policy == "None" {
        if config.is_none() {
            errors.push(FieldError::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if nameservers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(&path.child("nameservers"), detail));
            return;
        }
    }
    let Some(config) = config else { return };
    let at = path.child("nameservers");
    if nameservers.len() > 3 {
        errors.push(FieldError::invalid(
            &at,
            BadValue::of(&nameservers),
            "must not have more than 3 nameservers",
        ));
    }
    for (i, server) in nameservers.iter().enumerate() {
        ip(errors, &at.index(i), server);
    }
    let (at, searches) = (path.child("searches"), list(&config.searches));
    if searches.len() > 32 {
        errors.push(FieldError::invalid(
            &at,
            BadValue::of(&searches),
            "must not have more than 32 search paths",
        ));
    }
    if searches.join(" ").len() > 2048 {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        errors.push(FieldError::invalid(&at, BadValue::of(&searches), detail));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        problems(errors, &at.index(i), search, name::dns1123_subdomain_with_underscore(search));
    }
    for (i, option) in list(&config.options).iter().enumerate() {
        if text(&option.name).is_empty() {
            errors.push(FieldError::required(&path.child("options").index(i), "must not be empty"));
        }
    }
}

fn scheduling_gates(errors: &mut Errors, gates: &[PodSchedulingGate], path: &Path) {
    let mut seen = BTreeSet::new();
    for (i, gate) in gates.iter().enumerate() {
        qualified_name(errors, &path.index(i), &gate.name);
        if !seen.insert(&gate.name) {
            errors.push(FieldError::duplicate(&path.index(i), &gate.name));
        }
    }
}

fn host_aliases(errors: &mut Errors, aliases: &[HostAlias], path: &Path) {
    for (i, alias) in aliases.iter().enumerate() {
        let at = path.index(i);
        ip(errors, &at.child("ip"), &alias.ip);
        for (j, name) in list(&alias.hostnames).iter().enumerate() {
            dns_subdomain(errors, &at.child("hostnames").index(j), name);
        }
    }
}

/// A template that is to run for ever: what workloads ask beyond a sound spec.
pub(crate) fn validate_always(errors: &mut Errors, template: &PodTemplateSpec, workload: &str, path: &Path) {
    let empty = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&empty);
    one_of(errors, &path.child("spec").child("restartPolicy"), text(&spec.restart_policy), &["Always"]);
    if spec.active_deadline_seconds.is_some() {
        let detail = format!("activeDeadlineSeconds in {workload} is not Supported");
        errors.push(FieldError::forbidden(&path.child("spec").child("activeDeadlineSeconds"), detail));
    }
}
