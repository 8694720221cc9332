//! From the two security contexts of a container to what the runtime is told.

use cri::security_profile::ProfileType;
use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};

use super::{spec, title};

/// Paths hidden from containers, unless `procMount` is `Unmasked`.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Paths that containers can't write to, unless `procMount` is `Unmasked`.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user that a container runs as by its spec; the container's own word counts before the pod's.
pub fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
    own.or_else(|| spec(pod).security_context.as_ref()?.run_as_user)
}

/// Refuses what must not run as root, in upstream's words. `image_user` is what the image says: a number or a name.
pub fn verify_non_root(
    pod: &Pod,
    container: &Container,
    image_uid: Option<i64>,
    image_user: &str,
) -> Result<(), String> {
    let own = container.security_context.as_ref().and_then(|context| context.run_as_non_root);
    let wanted = own.or_else(|| spec(pod).security_context.as_ref()?.run_as_non_root);
    if wanted != Some(true) {
        return Ok(());
    }
    let what = || format!("(pod: \"{}\", container: {})", title(pod), container.name);
    match (run_as_user(pod, container), image_uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {}", what())),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {}", what())),
        (None, Some(_)) => Ok(()),
        (None, None) if !image_user.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root {}",
            what()
        )),
        (None, None) => Err(format!("container has runAsNonRoot and image will run as root {}", what())),
    }
}

/// The pod's namespaces: its own, or the host's where the spec says so.
pub fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    let spec = spec(pod);
    let mode = |host: Option<bool>| {
        if host == Some(true) { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod }
    };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => cri::NamespaceMode::Node,
        (_, Some(true)) => cri::NamespaceMode::Pod,
        _ => cri::NamespaceMode::Container,
    };
    cri::NamespaceOption {
        network: mode(spec.host_network).into(),
        ipc: mode(spec.host_ipc).into(),
        pid: pid.into(),
        ..cri::NamespaceOption::default()
    }
}

/// The security context of the pod's sandbox.
pub fn sandbox_context(pod: &Pod) -> cri::LinuxSandboxSecurityContext {
    let context = spec(pod).security_context.clone().unwrap_or_default();
    let containers = super::init_containers(pod).iter().chain(super::main_containers(pod));
    let privileged = containers
        .filter_map(|container| container.security_context.as_ref())
        .any(|context| context.privileged == Some(true));
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: context.run_as_user.map(|value| cri::Int64Value { value }),
        run_as_group: context
            .run_as_group
            .filter(|_| context.run_as_user.is_some())
            .map(|value| cri::Int64Value { value }),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod).into(),
        privileged,
        seccomp: Some(cri::SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn groups(pod: &Pod) -> Vec<i64> {
    let Some(context) = &spec(pod).security_context else { return Vec::new() };
    let mut groups: Vec<i64> = context.fs_group.into_iter().collect();
    groups.extend(context.supplemental_groups.iter().flatten());
    groups
}

fn groups_policy(pod: &Pod) -> cri::SupplementalGroupsPolicy {
    let policy =
        spec(pod).security_context.as_ref().and_then(|context| context.supplemental_groups_policy.as_deref());
    match policy {
        Some("Strict") => cri::SupplementalGroupsPolicy::Strict,
        _ => cri::SupplementalGroupsPolicy::Merge,
    }
}

/// The security context of a container. `image_uid` is the image's own user if it is a number; `target` the
/// id of the container whose process namespace is joined.
pub fn container_context(
    pod: &Pod,
    container: &Container,
    image_uid: Option<i64>,
    image_user: &str,
    target: Option<&str>,
) -> cri::LinuxContainerSecurityContext {
    let own = container.security_context.clone().unwrap_or_default();
    let shared = spec(pod).security_context.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let mut namespaces = namespaces(pod);
    if let Some(target) = target {
        namespaces.pid = cri::NamespaceMode::Target.into();
        namespaces.target_id = target.to_owned();
    }
    let user = own.run_as_user.or(shared.run_as_user).or(image_uid);
    let group = own.run_as_group.or(shared.run_as_group);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |paths: &[&str]| {
        if unmasked { Vec::new() } else { paths.iter().map(|path| (*path).to_owned()).collect() }
    };
    let capabilities = own.capabilities.map(|capabilities| cri::Capability {
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        add_ambient_capabilities: Vec::new(),
    });
    cri::LinuxContainerSecurityContext {
        capabilities: Some(capabilities.unwrap_or_default()),
        privileged,
        namespace_options: Some(namespaces),
        run_as_user: user.map(|value| cri::Int64Value { value }),
        run_as_group: group.map(|value| cri::Int64Value { value }),
        run_as_username: if user.is_none() { image_user.to_owned() } else { String::new() },
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod).into(),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(own.seccomp_profile.or(shared.seccomp_profile), privileged)),
        ..Default::default()
    }
}

fn seccomp(profile: Option<SeccompProfile>, privileged: bool) -> cri::SecurityProfile {
    let (kind, reference) = match profile {
        _ if privileged => (ProfileType::Unconfined, None),
        Some(profile) if profile.type_ == "RuntimeDefault" => (ProfileType::RuntimeDefault, None),
        Some(profile) if profile.type_ == "Localhost" => (ProfileType::Localhost, profile.localhost_profile),
        _ => (ProfileType::Unconfined, None),
    };
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref: reference.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::SecurityContext;

    use super::*;
    use crate::pod::testing::{container, pod};

    #[test]
    fn what_must_not_run_as_root_is_refused() {
        let check = |user: Option<i64>, uid: Option<i64>, name: &str| {
            let mut built = pod().with(container("c")).build();
            let spec = built.spec.get_or_insert_default();
            spec.containers[0].security_context = Some(SecurityContext {
                run_as_non_root: Some(true),
                run_as_user: user,
                ..Default::default()
            });
            let container = spec.containers[0].clone();
            verify_non_root(&built, &container, uid, name).err().unwrap_or_default()
        };
        let what = "(pod: \"web_default(uid-web)\", container: c)";
        assert_eq!(check(Some(7), Some(0), ""), "");
        assert_eq!(check(None, Some(7), ""), "");
        assert_eq!(check(Some(0), None, ""), format!("container's runAsUser breaks non-root policy {what}"));
        assert_eq!(
            check(None, Some(0), ""),
            format!("container has runAsNonRoot and image will run as root {what}")
        );
        assert_eq!(
            check(None, None, "nginx"),
            format!(
                "container has runAsNonRoot and image has non-numeric user (nginx), cannot verify user is non-root {what}"
            )
        );
    }

    #[test]
    fn a_privileged_container_sees_everything_and_is_unconfined() {
        let mut pod = pod().with(container("c")).build();
        let spec = pod.spec.get_or_insert_default();
        spec.containers[0].security_context =
            Some(SecurityContext { privileged: Some(true), ..Default::default() });
        let context = container_context(&pod, &pod.spec.as_ref().unwrap().containers[0], None, "", None);
        assert!(context.privileged && context.masked_paths.is_empty());
        assert_eq!(context.seccomp.unwrap().profile_type(), ProfileType::Unconfined);
        assert!(sandbox_context(&pod).privileged);
    }
}
