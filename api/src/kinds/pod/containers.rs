//! Rules for containers, init containers and ephemeral containers.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerResizePolicy, ContainerRestartRule, EphemeralContainer, PodSpec,
    VolumeDevice, VolumeMount,
};

use super::{
    env,
    probes::{self, validate_lifecycle},
    resources, security,
    volumes::{Volumes, descending_path, has_backsteps},
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::check::{dns_label, list, one_of, port_number, problems, required, required_one_of, text},
    name,
};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];

/// What the rules of a container need to know about its pod.
pub(super) struct Context<'a> {
    pub(super) spec: &'a PodSpec,
    pub(super) volumes: &'a Volumes<'a>,
    pub(super) claims: &'a resources::Claims,
}

impl Context<'_> {
    fn grace(&self) -> Option<i64> {
        self.spec.termination_grace_period_seconds
    }
}

/// Visits every container of a pod with its path: init, regular, then ephemeral ones, as upstream does.
pub(crate) fn each(spec: &PodSpec, path: &Path, mut visit: impl FnMut(&Container, &Path)) {
    for (i, container) in list(&spec.init_containers).iter().enumerate() {
        visit(container, &path.child("initContainers").index(i));
    }
    for (i, container) in spec.containers.iter().enumerate() {
        visit(container, &path.child("containers").index(i));
    }
    for (i, container) in list(&spec.ephemeral_containers).iter().enumerate() {
        visit(&common_part(container), &path.child("ephemeralContainers").index(i));
    }
}

/// An ephemeral container as a container; the two differ in one field.
pub(super) fn common_part(c: &EphemeralContainer) -> Container {
    let c = c.clone();
    Container {
        args: c.args,
        command: c.command,
        env: c.env,
        env_from: c.env_from,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        lifecycle: c.lifecycle,
        liveness_probe: c.liveness_probe,
        name: c.name,
        ports: c.ports,
        readiness_probe: c.readiness_probe,
        resize_policy: c.resize_policy,
        resources: c.resources,
        restart_policy: c.restart_policy,
        restart_policy_rules: c.restart_policy_rules,
        security_context: c.security_context,
        startup_probe: c.startup_probe,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        tty: c.tty,
        volume_devices: c.volume_devices,
        volume_mounts: c.volume_mounts,
        working_dir: c.working_dir,
    }
}

/// The regular containers.
pub(super) fn validate(errors: &mut Errors, pod: &Context<'_>, path: &Path) {
    let containers = &pod.spec.containers;
    if containers.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let mut names = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let at = path.index(i);
        common(errors, container, pod, &at);
        if !names.insert(&container.name) {
            errors.push(FieldError::duplicate(&at.child("name"), &container.name));
        }
        running(errors, container, pod, &at);
        restart_policy(errors, container, &at);
    }
    host_ports(errors, containers, path);
}

/// The init containers.
pub(super) fn validate_init(errors: &mut Errors, pod: &Context<'_>, path: &Path) {
    let mut names: BTreeSet<&String> = pod.spec.containers.iter().map(|c| &c.name).collect();
    for (i, container) in list(&pod.spec.init_containers).iter().enumerate() {
        let at = path.index(i);
        common(errors, container, pod, &at);
        restart_policy(errors, container, &at);
        if !container.name.is_empty() && !names.insert(&container.name) {
            errors.push(FieldError::duplicate(&at.child("name"), &container.name));
        }
        // They run one by one, so each is looked at alone.
        host_ports(errors, std::slice::from_ref(container), path);
        if is_sidecar(container) {
            running(errors, container, pod, &at);
            continue;
        }
        for (field, set) in [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ] {
            if set {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(FieldError::forbidden(&at.child(field), detail));
            }
        }
    }
}

/// An init container that goes on running beside the others.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The ephemeral containers.
pub(super) fn validate_ephemeral(errors: &mut Errors, pod: &Context<'_>, path: &Path) {
    let others = pod.spec.containers.iter().chain(list(&pod.spec.init_containers));
    let others: BTreeSet<&str> = others.map(|c| c.name.as_str()).collect();
    let mut names = others.clone();
    for (i, ephemeral) in list(&pod.spec.ephemeral_containers).iter().enumerate() {
        let at = path.index(i);
        let container = common_part(ephemeral);
        common(errors, &container, pod, &at);
        only_in_pods(errors, &container, &at);
        if !names.insert(ephemeral.name.as_str()) {
            errors.push(FieldError::duplicate(&at.child("name"), &ephemeral.name));
        }
        let target = text(&ephemeral.target_container_name);
        if !target.is_empty() && !others.contains(target) {
            errors.push(FieldError::not_found(&at.child("targetContainerName"), target));
        }
        let resources = container.resources.as_ref().is_some_and(|r| *r != Default::default());
        for (field, set) in [
            ("ports", !list(&container.ports).is_empty()),
            ("resources", resources),
            ("resizePolicy", !list(&container.resize_policy).is_empty()),
            ("restartPolicy", container.restart_policy.is_some()),
            ("restartPolicyRules", !list(&container.restart_policy_rules).is_empty()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
            ("lifecycle", container.lifecycle.is_some()),
        ] {
            if set {
                errors.push(FieldError::forbidden(&at.child(field), NOT_EPHEMERAL));
            }
        }
        for (i, mount) in list(&container.volume_mounts).iter().enumerate() {
            let at = at.child("volumeMounts").index(i);
            for (field, value) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
                if !text(value).is_empty() {
                    errors.push(FieldError::forbidden(&at.child(field), NOT_EPHEMERAL));
                }
            }
        }
    }
}

const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// What holds in a pod, but is not asked of a template for old times' sake.
pub(super) fn only_in_pods(errors: &mut Errors, container: &Container, path: &Path) {
    let image = text(&container.image);
    if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&path.child("image"), image, detail));
    }
}

/// What every container must have.
fn common(errors: &mut Errors, container: &Container, pod: &Context<'_>, path: &Path) {
    if container.name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else {
        dns_label(errors, &path.child("name"), &container.name);
    }
    required(errors, &path.child("image"), text(&container.image));
    let policy = text(&container.termination_message_policy);
    required_one_of(errors, &path.child("terminationMessagePolicy"), policy, MESSAGE_POLICIES);
    ports(errors, list(&container.ports), &path.child("ports"));
    env::validate(errors, list(&container.env), pod.volumes, &path.child("env"));
    env::validate_from(errors, list(&container.env_from), &path.child("envFrom"));
    mounts(errors, container, pod.volumes, &path.child("volumeMounts"));
    devices(errors, container, pod.volumes, &path.child("volumeDevices"));
    let policy = text(&container.image_pull_policy);
    required_one_of(errors, &path.child("imagePullPolicy"), policy, PULL_POLICIES);
    if let Some(requirements) = &container.resources {
        let path = path.child("resources");
        resources::validate(errors, requirements, resources::Owner::Container, pod.claims, &path);
    }
    resize_policy(
        errors,
        list(&container.resize_policy),
        text(&pod.spec.restart_policy),
        &path.child("resizePolicy"),
    );
    if let Some(context) = &container.security_context {
        security::validate_container(errors, context, pod.spec, &path.child("securityContext"));
    }
}

/// What only containers that keep running may have.
fn running(errors: &mut Errors, container: &Container, pod: &Context<'_>, path: &Path) {
    let grace = pod.grace();
    if let Some(lifecycle) = &container.lifecycle {
        validate_lifecycle(errors, lifecycle, grace, pod.spec, &path.child("lifecycle"));
    }
    probes::validate_liveness(errors, container.liveness_probe.as_ref(), grace, &path.child("livenessProbe"));
    probes::validate_readiness(
        errors,
        container.readiness_probe.as_ref(),
        grace,
        &path.child("readinessProbe"),
    );
    probes::validate_liveness(errors, container.startup_probe.as_ref(), grace, &path.child("startupProbe"));
}

fn restart_policy(errors: &mut Errors, container: &Container, path: &Path) {
    let rules = list(&container.restart_policy_rules);
    match container.restart_policy.as_deref() {
        Some(policy) => {
            one_of(errors, &path.child("restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
        }
        None if !rules.is_empty() => {
            let detail = "must specify restartPolicy when restart rules are used";
            errors.push(FieldError::required(&path.child("restartPolicy"), detail));
        }
        None => {}
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.push(FieldError::too_many(&path, rules.len(), 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        restart_rule(errors, rule, &path.index(i));
    }
}

fn restart_rule(errors: &mut Errors, rule: &ContainerRestartRule, path: &Path) {
    one_of(errors, &path.child("action"), &rule.action, &["Restart"]);
    let at = path.child("exitCodes");
    match &rule.exit_codes {
        Some(codes) => {
            one_of(errors, &at.child("operator"), &codes.operator, &["In", "NotIn"]);
            let values = list(&codes.values);
            if values.len() > 255 {
                errors.push(FieldError::too_many(&at.child("values"), values.len(), 255));
            }
        }
        None => errors.push(FieldError::required(&at, "must be specified")),
    }
}

fn ports(errors: &mut Errors, ports: &[ContainerPort], path: &Path) {
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            let found = name::port_name(name);
            if !found.is_empty() {
                problems(errors, &at.child("name"), name, found);
            } else if !names.insert(name) {
                errors.push(FieldError::duplicate(&at.child("name"), name));
            }
        }
        if port.container_port == 0 {
            errors.push(FieldError::required(&at.child("containerPort"), ""));
        } else {
            port_number(errors, &at.child("containerPort"), port.container_port);
        }
        if let Some(host_port) = port.host_port.filter(|p| *p != 0) {
            port_number(errors, &at.child("hostPort"), host_port);
        }
        required_one_of(errors, &at.child("protocol"), text(&port.protocol), PROTOCOLS);
    }
}

/// No two ports of the containers want the same port of the node.
fn host_ports(errors: &mut Errors, containers: &[Container], path: &Path) {
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in list(&container.ports).iter().enumerate() {
            let Some(number) = port.host_port.filter(|p| *p != 0) else { continue };
            let key = format!("{}/{}/{number}", text(&port.protocol), text(&port.host_ip));
            if seen.contains(&key) {
                let at = path.index(i).child("ports").index(j).child("hostPort");
                errors.push(FieldError::duplicate(&at, key));
            } else {
                seen.insert(key);
            }
        }
    }
}

fn mounts(errors: &mut Errors, container: &Container, volumes: &Volumes<'_>, path: &Path) {
    let mut paths = BTreeSet::new();
    let devices = list(&container.volume_devices);
    let device_names: BTreeSet<&String> = devices.iter().map(|d| &d.name).collect();
    let device_paths: BTreeSet<&String> = devices.iter().map(|d| &d.device_path).collect();
    for (i, mount) in list(&container.volume_mounts).iter().enumerate() {
        let at = path.index(i);
        let (name_at, path_at) = (at.child("name"), at.child("mountPath"));
        required(errors, &name_at, &mount.name);
        let volume = volumes.get(mount.name.as_str());
        if volume.is_none() {
            errors.push(FieldError::not_found(&name_at, &mount.name));
        }
        required(errors, &path_at, &mount.mount_path);
        if !paths.insert(&mount.mount_path) {
            errors.push(FieldError::invalid(&path_at, &mount.mount_path, "must be unique"));
        }
        if device_names.contains(&mount.name) {
            errors.push(FieldError::invalid(
                &name_at,
                &mount.name,
                "must not already exist in volumeDevices",
            ));
        }
        if device_paths.contains(&mount.mount_path) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(&path_at, &mount.mount_path, detail));
        }
        let (sub_path, expression) = (text(&mount.sub_path), text(&mount.sub_path_expr));
        // Upstream leaves the index out of the paths below.
        if !sub_path.is_empty() {
            descending_path(errors, sub_path, &path.child("subPath"));
        }
        if !expression.is_empty() {
            if !sub_path.is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                errors.push(FieldError::invalid(&at.child("subPathExpr"), expression, detail));
            }
            descending_path(errors, expression, &path.child("subPathExpr"));
        }
        propagation(errors, mount, Some(container), &path.child("mountPropagation"));
        recursive_read_only(errors, mount, &path.child("recursiveReadOnly"));
    }
}

fn propagation(errors: &mut Errors, mount: &VolumeMount, container: Option<&Container>, path: &Path) {
    let Some(propagation) = mount.mount_propagation.as_deref() else { return };
    one_of(errors, path, propagation, &["Bidirectional", "HostToContainer", "None"]);
    let context = container.and_then(|c| c.security_context.as_ref());
    if propagation == "Bidirectional" && context.and_then(|c| c.privileged) != Some(true) {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn recursive_read_only(errors: &mut Errors, mount: &VolumeMount, path: &Path) {
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.push(FieldError::forbidden(path, "may only be specified when readOnly is true"));
            }
            if !matches!(mount.mount_propagation.as_deref(), None | Some("None")) {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(path, detail));
            }
        }
        Some(other) => one_of(errors, path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(errors: &mut Errors, container: &Container, volumes: &Volumes<'_>, path: &Path) {
    let mounts = list(&container.volume_mounts);
    let mount_names: BTreeSet<&String> = mounts.iter().map(|m| &m.name).collect();
    let mount_paths: BTreeSet<&String> = mounts.iter().map(|m| &m.mount_path).collect();
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in list(&container.volume_devices).iter().enumerate() {
        let VolumeDevice { name, device_path } = device;
        let (name_at, path_at) = (path.index(i).child("name"), path.index(i).child("devicePath"));
        required(errors, &name_at, name);
        if !name.is_empty() && !names.insert(name) {
            errors.push(FieldError::invalid(&name_at, name, "must be unique"));
        }
        match volumes.get(name.as_str()) {
            None => errors.push(FieldError::not_found(&name_at, name)),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(&name_at, name, detail));
            }
            Some(_) => {}
        }
        required(errors, &path_at, device_path);
        if paths.contains(device_path) {
            errors.push(FieldError::invalid(&path_at, device_path, "must be unique"));
        }
        if has_backsteps(device_path) {
            errors.push(FieldError::invalid(&path_at, device_path, "can not contain backsteps ('..')"));
        } else {
            paths.insert(device_path);
        }
        if mount_names.contains(name) {
            errors.push(FieldError::invalid(&name_at, name, "must not already exist in volumeMounts"));
        }
        if mount_paths.contains(device_path) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.push(FieldError::invalid(&path_at, device_path, detail));
        }
    }
}

fn resize_policy(errors: &mut Errors, policies: &[ContainerResizePolicy], pod_restart: &str, path: &Path) {
    let mut seen = BTreeSet::new();
    for (i, policy) in policies.iter().enumerate() {
        if !seen.insert(&policy.resource_name) {
            errors.push(FieldError::duplicate(&path.index(i), &policy.resource_name));
        }
        required_one_of(errors, path, &policy.resource_name, &["cpu", "memory"]);
        required_one_of(errors, path, &policy.restart_policy, &["NotRequired", "RestartContainer"]);
        if pod_restart == "Never" && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, BadValue::from(&policy.restart_policy), detail));
        }
    }
}
