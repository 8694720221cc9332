//! What a user may leave out of a pod, filled in.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Container, DownwardAPIVolumeFile, EnvVar, EphemeralContainer, HTTPGetAction, Lifecycle,
        PersistentVolumeClaimSpec, Pod, PodIP, PodSpec, PodStatus, PodTemplateSpec, Probe,
        ResourceFieldSelector, ResourceRequirements, Volume,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::resources::aggregate_requests;
use crate::kinds::{
    amount::{Amounts, canonical, canonical_list},
    check::text,
};

/// A pod.
pub(super) fn pod(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for container in containers {
        // What a container may use at most is what it asks for, unless it says otherwise.
        if let Some(resources) = &mut container.resources
            && let Some(limits) = &resources.limits
        {
            let requests = resources.requests.get_or_insert_default();
            for (resource, limit) in limits {
                requests.entry(resource.clone()).or_insert_with(|| limit.clone());
            }
        }
        if spec.host_network == Some(true) {
            for port in container.ports.iter_mut().flatten() {
                if port.host_port.unwrap_or_default() == 0 {
                    port.host_port = Some(port.container_port);
                }
            }
        }
    }
    pod_resources(spec);
    spec.enable_service_links.get_or_insert(true);
    self::spec(spec);
    pod.status.get_or_insert_default();
    if let Some(status) = &mut pod.status {
        addresses(status);
    }
}

/// A template of a workload.
pub(crate) fn template(template: &mut PodTemplateSpec) {
    template.metadata.get_or_insert_default();
    spec(template.spec.get_or_insert_default());
}

/// The address and the list of addresses agree.
fn addresses(status: &mut PodStatus) {
    let first = status.pod_ips.iter().flatten().next().map(|ip| ip.ip.clone());
    match status.pod_ip.clone().filter(|ip| !ip.is_empty()) {
        Some(ip) if first.as_ref() != Some(&ip) => status.pod_ips = Some(vec![PodIP { ip }]),
        Some(_) => {}
        None => status.pod_ip = first,
    }
}

/// Requests of the pod as a whole follow from its limits and its containers.
fn pod_resources(spec: &mut PodSpec) {
    let is_limited = spec.resources.as_ref().and_then(|r| r.limits.as_ref()).is_some_and(|l| !l.is_empty());
    if !is_limited {
        return;
    }
    let huge = |resource: &str| resource.starts_with("hugepages-");
    let containers = aggregate_requests(spec);
    let Some(resources) = &mut spec.resources else { return };
    let requests = resources.requests.get_or_insert_default();
    for (resource, amount) in containers {
        if matches!(resource.as_str(), "cpu" | "memory") {
            requests.entry(resource).or_insert_with(|| amount.to_text());
        }
    }
    for (resource, limit) in resources.limits.iter().flatten() {
        if matches!(resource.as_str(), "cpu" | "memory") || huge(resource) {
            requests.entry(resource.clone()).or_insert_with(|| limit.clone());
        }
    }
}

/// A claim for storage.
pub(crate) fn claim_spec(spec: &mut PersistentVolumeClaimSpec) {
    spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
    let resources = spec.resources.get_or_insert_default();
    canonical_list(&mut resources.limits);
    canonical_list(&mut resources.requests);
}

fn set(field: &mut Option<String>, value: &str) {
    if text(field).is_empty() {
        *field = Some(value.to_owned());
    }
}

fn spec(spec: &mut PodSpec) {
    set(&mut spec.dns_policy, "ClusterFirst");
    set(&mut spec.restart_policy, "Always");
    set(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(30);
    // The old name of the field goes on being written.
    set_if_given(&mut spec.service_account_name, &spec.service_account);
    spec.service_account = spec.service_account_name.clone();
    for entry in spec.volumes.iter_mut().flatten() {
        volume(entry);
    }
    for entry in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container(entry);
    }
    for entry in spec.ephemeral_containers.iter_mut().flatten() {
        ephemeral_container(entry);
    }
    if let Some(resources) = &mut spec.resources {
        amounts(resources);
    }
    canonical_list(&mut spec.overhead);
}

fn set_if_given(field: &mut Option<String>, other: &Option<String>) {
    if text(field).is_empty() {
        field.clone_from(other);
    }
}

fn amounts(resources: &mut ResourceRequirements) {
    canonical_list(&mut resources.limits);
    canonical_list(&mut resources.requests);
}

fn container(c: &mut Container) {
    pull_policy(&mut c.image_pull_policy, text(&c.image));
    set(&mut c.termination_message_path, "/dev/termination-log");
    set(&mut c.termination_message_policy, "File");
    amounts(c.resources.get_or_insert_default());
    for port in c.ports.iter_mut().flatten() {
        set(&mut port.protocol, "TCP");
    }
    env(c.env.iter_mut().flatten());
    for entry in [&mut c.liveness_probe, &mut c.readiness_probe, &mut c.startup_probe].into_iter().flatten() {
        probe(entry);
    }
    if let Some(hooks) = &mut c.lifecycle {
        lifecycle(hooks);
    }
}

fn ephemeral_container(c: &mut EphemeralContainer) {
    pull_policy(&mut c.image_pull_policy, text(&c.image));
    set(&mut c.termination_message_path, "/dev/termination-log");
    set(&mut c.termination_message_policy, "File");
    amounts(c.resources.get_or_insert_default());
    for port in c.ports.iter_mut().flatten() {
        set(&mut port.protocol, "TCP");
    }
    env(c.env.iter_mut().flatten());
    for entry in [&mut c.liveness_probe, &mut c.readiness_probe, &mut c.startup_probe].into_iter().flatten() {
        probe(entry);
    }
    if let Some(hooks) = &mut c.lifecycle {
        lifecycle(hooks);
    }
}

fn pull_policy(policy: &mut Option<String>, image: &str) {
    set(policy, if image_tag(image) == "latest" { "Always" } else { "IfNotPresent" });
}

fn env<'a>(vars: impl Iterator<Item = &'a mut EnvVar>) {
    for source in vars.filter_map(|var| var.value_from.as_mut()) {
        if let Some(field) = &mut source.field_ref {
            set(&mut field.api_version, "v1");
        }
        if let Some(resource) = &mut source.resource_field_ref {
            divisor(resource);
        }
        if let Some(file) = &mut source.file_key_ref {
            file.optional.get_or_insert(false);
        }
    }
}

fn divisor(resource: &mut ResourceFieldSelector) {
    canonical(resource.divisor.get_or_insert_with(|| Quantity("0".to_owned())));
}

fn probe(probe: &mut Probe) {
    let or = |field: &mut Option<i32>, value| {
        if field.unwrap_or_default() == 0 {
            *field = Some(value);
        }
    };
    or(&mut probe.timeout_seconds, 1);
    or(&mut probe.period_seconds, 10);
    or(&mut probe.success_threshold, 1);
    or(&mut probe.failure_threshold, 3);
    if let Some(http) = &mut probe.http_get {
        http_get(http);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn lifecycle(hooks: &mut Lifecycle) {
    for hook in [&mut hooks.post_start, &mut hooks.pre_stop].into_iter().flatten() {
        if let Some(http) = &mut hook.http_get {
            http_get(http);
        }
    }
}

fn http_get(http: &mut HTTPGetAction) {
    set(&mut http.path, "/");
    set(&mut http.scheme, "HTTP");
}

fn files(files: &mut Option<Vec<DownwardAPIVolumeFile>>) {
    for file in files.iter_mut().flatten() {
        if let Some(field) = &mut file.field_ref {
            set(&mut field.api_version, "v1");
        }
        if let Some(resource) = &mut file.resource_field_ref {
            divisor(resource);
        }
    }
}

fn volume(v: &mut Volume) {
    const MODE: i32 = 0o644;
    let named = Volume { name: v.name.clone(), ..Volume::default() };
    if *v == named {
        v.empty_dir = Some(Default::default());
    }
    if let Some(limit) = v.empty_dir.as_mut().and_then(|dir| dir.size_limit.as_mut()) {
        canonical(limit);
    }
    if let Some(host) = &mut v.host_path {
        host.type_.get_or_insert_default();
    }
    if let Some(secret) = &mut v.secret {
        secret.default_mode.get_or_insert(MODE);
    }
    if let Some(map) = &mut v.config_map {
        map.default_mode.get_or_insert(MODE);
    }
    if let Some(downward) = &mut v.downward_api {
        downward.default_mode.get_or_insert(MODE);
        files(&mut downward.items);
    }
    if let Some(projected) = &mut v.projected {
        projected.default_mode.get_or_insert(MODE);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(3600);
            }
            if let Some(downward) = &mut source.downward_api {
                files(&mut downward.items);
            }
            if let Some(certificate) = &mut source.pod_certificate {
                certificate.max_expiration_seconds.get_or_insert(86400);
            }
        }
    }
    if let Some(image) = &mut v.image {
        pull_policy(&mut image.pull_policy, text(&image.reference));
    }
    if let Some(template) = v.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        template.metadata.get_or_insert_default();
        claim_spec(&mut template.spec);
    }
    if let Some(iscsi) = &mut v.iscsi {
        set(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut v.rbd {
        set(&mut rbd.pool, "rbd");
        set(&mut rbd.user, "admin");
        set(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut v.azure_disk {
        disk.caching_mode.get_or_insert_with(|| "ReadWrite".to_owned());
        disk.kind.get_or_insert_with(|| "Shared".to_owned());
        disk.fs_type.get_or_insert_with(|| "ext4".to_owned());
        disk.read_only.get_or_insert(false);
    }
    if let Some(scale) = &mut v.scale_io {
        set(&mut scale.storage_mode, "ThinProvisioned");
        set(&mut scale.fs_type, "xfs");
    }
}

/// The tag of an image: `latest` if it has neither tag nor digest; empty if it has a digest only, or is malformed.
pub(crate) fn image_tag(image: &str) -> &str {
    let (named, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let (repository, tag) = match named.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (named, None),
    };
    if !is_repository(repository) || digest.is_some_and(|d| !is_digest(d)) || tag.is_some_and(|t| !is_tag(t))
    {
        return "";
    }
    tag.unwrap_or(if digest.is_some() { "" } else { "latest" })
}

fn is_tag(tag: &str) -> bool {
    let b = tag.as_bytes();
    b.len() <= 128
        && b.first().is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_')
        && b.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

fn is_repository(name: &str) -> bool {
    let mut parts: Vec<&str> = name.split('/').collect();
    let is_domain = parts.len() > 1
        && parts.first().is_some_and(|d| {
            d.contains(['.', ':']) || *d == "localhost" || d.bytes().any(|b| b.is_ascii_uppercase())
        });
    if is_domain {
        let domain = parts.remove(0);
        let (host, port) = domain.rsplit_once(':').unwrap_or((domain, "0"));
        let valid = host.split('.').all(|label| {
            let b = label.as_bytes();
            let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
            edge(b.first()) && edge(b.last()) && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
        });
        if !valid || port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return false;
        }
    }
    let lower = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 255
        && parts.iter().all(|part| {
            let b = part.as_bytes();
            b.first().is_some_and(lower)
                && b.last().is_some_and(lower)
                && b.iter().all(|c| lower(c) || matches!(c, b'.' | b'_' | b'-'))
                && !["..", "___", "._", "_.", ".-", "-.", "_-", "-_"].iter().any(|bad| part.contains(bad))
        })
}

/// Amounts of every container and init container, for the class of service.
pub(super) fn requests_and_limits(
    spec: &PodSpec,
) -> impl Iterator<Item = (Option<&Amounts>, Option<&Amounts>)> {
    static NONE: BTreeMap<String, Quantity> = BTreeMap::new();
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| match &c.resources {
        Some(resources) => (resources.requests.as_ref(), resources.limits.as_ref()),
        None => (Some(&NONE), Some(&NONE)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (image, tag) in [
            ("nginx", "latest"),
            ("nginx:1.25", "1.25"),
            ("localhost:5000/a/b", "latest"),
            ("localhost:5000/a/b:x", "x"),
            ("busybox@sha256:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa", ""),
            ("Not Valid!", ""),
            ("Upper", ""),
            ("", ""),
        ] {
            assert_eq!(image_tag(image), tag, "{image:?}");
        }
    }
}
