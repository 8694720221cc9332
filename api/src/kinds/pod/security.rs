//! Rules for security contexts.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{
        AppArmorProfile, Container, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
        WindowsSecurityContextOptions,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{containers::each, volumes::descending_path};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::check::{list, one_of},
    name,
};

const SECCOMP_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const APPARMOR_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
pub(super) const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub(super) const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub(super) const APPARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The security context of a pod.
pub(super) fn validate_pod(errors: &mut Errors, context: &PodSecurityContext, spec: &PodSpec, path: &Path) {
    id(errors, context.fs_group, &path.child("fsGroup"));
    id(errors, context.run_as_user, &path.child("runAsUser"));
    id(errors, context.run_as_group, &path.child("runAsGroup"));
    for (i, group) in list(&context.supplemental_groups).iter().enumerate() {
        id(errors, Some(*group), &path.child("supplementalGroups").index(i));
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&path.child("shareProcessNamespace"), true, detail));
    }
    sysctls(errors, context, spec, &path.child("sysctls"));
    for (field, value, allowed) in [
        ("fsGroupChangePolicy", &context.fs_group_change_policy, ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", &context.supplemental_groups_policy, ["Merge", "Strict"]),
        ("seLinuxChangePolicy", &context.se_linux_change_policy, ["MountOption", "Recursive"]),
    ] {
        if let Some(value) = value {
            one_of(errors, &path.child(field), value, &allowed);
        }
    }
    seccomp(errors, context.seccomp_profile.as_ref(), &path.child("seccompProfile"));
    windows_options(errors, context.windows_options.as_ref(), &path.child("windowsOptions"));
    apparmor(errors, context.app_armor_profile.as_ref(), &path.child("appArmorProfile"));
}

/// The security context of a container.
pub(super) fn validate_container(
    errors: &mut Errors,
    context: &SecurityContext,
    spec: &PodSpec,
    path: &Path,
) {
    id(errors, context.run_as_user, &path.child("runAsUser"));
    id(errors, context.run_as_group, &path.child("runAsGroup"));
    if let Some(mount) = &context.proc_mount {
        let at = path.child("procMount");
        one_of(errors, &at, mount, &["Default", "Unmasked"]);
        if mount == "Unmasked" && spec.host_users != Some(false) {
            errors.push(FieldError::invalid(&at, mount, "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    seccomp(errors, context.seccomp_profile.as_ref(), &path.child("seccompProfile"));
    if context.allow_privilege_escalation == Some(false) {
        let shown = || BadValue::of(context);
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, shown(), detail));
        }
        let added = context.capabilities.iter().flat_map(|c| list(&c.add));
        for _ in added.filter(|capability| *capability == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, shown(), detail));
        }
    }
    windows_options(errors, context.windows_options.as_ref(), &path.child("windowsOptions"));
    apparmor(errors, context.app_armor_profile.as_ref(), &path.child("appArmorProfile"));
}

fn id(errors: &mut Errors, id: Option<i64>, path: &Path) {
    let Some(id) = id else { return };
    for problem in name::user_id(id) {
        errors.push(FieldError::invalid(path, id, problem));
    }
}

const SYSCTL: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn is_sysctl(name: &str) -> bool {
    let segment = |s: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let b = s.as_bytes();
        edge(b.first())
            && edge(b.last())
            && b.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

fn sysctls(errors: &mut Errors, context: &PodSecurityContext, spec: &PodSpec, path: &Path) {
    let mut seen = BTreeSet::new();
    for (i, sysctl) in list(&context.sysctls).iter().enumerate() {
        let at = path.index(i).child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else if !is_sysctl(name) {
            let detail = format!("must have at most 253 characters and match regex {SYSCTL}");
            errors.push(FieldError::invalid(&at, name, detail));
        } else if seen.contains(name) {
            errors.push(FieldError::duplicate(&at, name));
        }
        let normal = name.replace('/', ".");
        let ipc = normal.starts_with("kernel.shm")
            || normal.starts_with("kernel.msg")
            || normal == "kernel.sem"
            || normal.starts_with("fs.mqueue.");
        if spec.host_network == Some(true) && normal.starts_with("net.") {
            errors.push(FieldError::invalid(&at, name, "may not be specified when 'hostNetwork' is true"));
        } else if spec.host_ipc == Some(true) && ipc {
            errors.push(FieldError::invalid(&at, name, "may not be specified when 'hostIPC' is true"));
        }
        seen.insert(name);
    }
}

fn seccomp(errors: &mut Errors, profile: Option<&SeccompProfile>, path: &Path) {
    let Some(profile) = profile else { return };
    if profile.type_.is_empty() {
        let detail = "type is required when seccompProfile is set";
        errors.push(FieldError::required(&path.child("type"), detail));
    } else {
        one_of(errors, &path.child("type"), &profile.type_, SECCOMP_TYPES);
    }
    let at = path.child("localhostProfile");
    match (&profile.localhost_profile, profile.type_ == "Localhost") {
        (None, true) => errors.push(FieldError::required(&at, "must be set when seccomp type is Localhost")),
        (Some(file), true) => descending_path(errors, file, &at),
        (Some(_), false) => {
            let detail = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(&at, BadValue::of(profile), detail));
        }
        (None, false) => {}
    }
}

fn apparmor(errors: &mut Errors, profile: Option<&AppArmorProfile>, path: &Path) {
    let Some(profile) = profile else { return };
    let at = path.child("localhostProfile");
    let missing = "must be set when AppArmor type is Localhost";
    match profile.type_.as_str() {
        "Localhost" => match profile.localhost_profile.as_deref() {
            None => errors.push(FieldError::required(&at, missing)),
            Some(name) => {
                if name.trim() != name {
                    errors.push(FieldError::invalid(&at, name, "must not be padded with whitespace"));
                } else if name.is_empty() {
                    errors.push(FieldError::required(&at, missing));
                }
                if name.len() > 4095 {
                    errors.push(FieldError::too_long(&at, 4095));
                }
            }
        },
        "" => {
            let detail = "type is required when appArmorProfile is set";
            errors.push(FieldError::required(&path.child("type"), detail));
        }
        known if APPARMOR_TYPES.contains(&known) => {
            if let Some(name) = &profile.localhost_profile {
                let detail = "can only be set when AppArmor type is Localhost";
                errors.push(FieldError::invalid(&at, name, detail));
            }
        }
        other => one_of(errors, &path.child("type"), other, APPARMOR_TYPES),
    }
}

fn windows_options(errors: &mut Errors, options: Option<&WindowsSecurityContextOptions>, path: &Path) {
    let Some(options) = options else { return };
    if let Some(spec) = &options.gmsa_credential_spec_name {
        let at = path.child("gmsaCredentialSpecName");
        for problem in name::dns1123_subdomain(spec) {
            errors.push(FieldError::invalid(&at, spec, problem));
        }
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let at = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(FieldError::invalid(&at, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > 64 * 1024 {
            errors.push(FieldError::invalid(&at, spec, "gmsaCredentialSpec size must be under 64 KiB"));
        }
    }
    let Some(name) = &options.run_as_user_name else { return };
    let at = path.child("runAsUserName");
    let mut refuse = |detail: &str| errors.push(FieldError::invalid(&at, name, detail));
    if name.is_empty() {
        refuse("runAsUserName cannot be an empty string");
    } else if name.contains(|c: char| c.is_ascii_control()) {
        refuse("runAsUserName cannot contain control characters");
    } else if name.matches('\\').count() > 1 {
        refuse("runAsUserName cannot contain more than one backslash");
    } else {
        let (domain, user) = name.split_once('\\').map_or((None, name.as_str()), |(d, u)| (Some(d), u));
        if let Some(domain) = domain {
            if domain.len() >= 256 {
                refuse("runAsUserName's Domain length must be under 256 characters");
            }
            let netbios = (1..=15).contains(&domain.len())
                && !domain.starts_with('.')
                && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|']);
            let dns = name::dns1123_subdomain(&domain.to_lowercase()).is_empty();
            if !netbios && !dns {
                refuse("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
            }
        }
        if user.is_empty() {
            refuse("runAsUserName's User cannot be empty");
        } else if user.len() > 104 {
            refuse("runAsUserName's User length must not be longer than 104 characters");
        }
        if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
            refuse("runAsUserName's User cannot contain only periods or spaces");
        }
        if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
            refuse("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
        }
    }
}

/// Windows pods that run on the host itself.
pub(super) fn host_process(errors: &mut Errors, spec: &PodSpec, path: &Path) {
    let pod =
        spec.security_context.as_ref().and_then(|c| c.windows_options.as_ref()).and_then(|o| o.host_process);
    let (mut containers, mut on_host) = (0, 0);
    each(spec, path, |container, at| {
        containers += 1;
        let options = container.security_context.as_ref().and_then(|c| c.windows_options.as_ref());
        let own = options.and_then(|o| o.host_process);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let at = at.child("securityContext").child("windowsOptions").child("hostProcess");
            let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.push(FieldError::invalid(&at, own, detail));
        }
        if own.or(pod) == Some(true) {
            on_host += 1;
        }
    });
    if on_host == 0 {
        return;
    }
    if on_host != containers {
        let detail =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(path, "", detail));
    }
    if spec.host_network != Some(true) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(&path.child("hostNetwork"), false, detail));
    }
}

/// Old annotations say the same as the fields that replaced them.
pub(super) fn annotations_match(errors: &mut Errors, meta: &ObjectMeta, spec: &PodSpec, path: &Path) {
    let Some(annotations) = &meta.annotations else { return };
    let at = |path: &Path| path.child("securityContext").child("seccompProfile");
    let pod_context = spec.security_context.as_ref();
    if let (Some(profile), Some(annotation)) =
        (pod_context.and_then(|c| c.seccomp_profile.as_ref()), annotations.get(SECCOMP_POD))
    {
        seccomp_matches(errors, annotation, profile, &at(path));
    }
    each(spec, path, |container, container_path| {
        let context = container.security_context.as_ref();
        if let (Some(profile), Some(annotation)) = (
            context.and_then(|c| c.seccomp_profile.as_ref()),
            annotations.get(&format!("{SECCOMP_CONTAINER}{}", container.name)),
        ) {
            seccomp_matches(errors, annotation, profile, &at(container_path));
        }
    });
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    let pod_profile = pod_context.and_then(|c| c.app_armor_profile.as_ref());
    each(spec, path, |container, container_path| {
        let own = container.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
        if let (Some(profile), Some(annotation)) =
            (own.or(pod_profile), annotations.get(&format!("{APPARMOR_CONTAINER}{}", container.name)))
        {
            let at = container_path.child("securityContext").child("appArmorProfile");
            apparmor_matches(errors, annotation, profile, &at);
        }
    });
}

fn seccomp_matches(errors: &mut Errors, annotation: &str, profile: &SeccompProfile, path: &Path) {
    let type_differs = "seccomp type in annotation and field must match";
    let same_type = match profile.type_.as_str() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => matches!(annotation, "runtime/default" | "docker/default"),
        "Localhost" => match annotation.strip_prefix("localhost/") {
            Some(file) => {
                if profile.localhost_profile.as_deref() != Some(file) {
                    let detail = "seccomp profile in annotation and field must match";
                    errors.push(FieldError::forbidden(&path.child("localhostProfile"), detail));
                }
                true
            }
            None => false,
        },
        _ => true,
    };
    if !same_type {
        errors.push(FieldError::forbidden(&path.child("type"), type_differs));
    }
}

fn apparmor_matches(errors: &mut Errors, annotation: &str, profile: &AppArmorProfile, path: &Path) {
    let same_type = match profile.type_.as_str() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => annotation == "runtime/default",
        "Localhost" => match annotation.strip_prefix("localhost/") {
            Some(name) => {
                if profile.localhost_profile.as_deref() != Some(name) {
                    let detail = "apparmor profile in annotation and field must match";
                    errors.push(FieldError::forbidden(&path.child("localhostProfile"), detail));
                }
                true
            }
            None => false,
        },
        _ => true,
    };
    if !same_type {
        let detail = "apparmor type in annotation and field must match";
        errors.push(FieldError::forbidden(&path.child("type"), detail));
    }
}

/// What cannot be set for the pod's operating system.
pub(super) fn operating_system(errors: &mut Errors, spec: &PodSpec, path: &Path) {
    let Some(os) = &spec.os else { return };
    let at = path.child("os");
    match os.name.as_str() {
        "" => errors.push(FieldError::required(&at.child("name"), "cannot be empty")),
        "linux" => linux(errors, spec, path),
        "windows" => windows(errors, spec, path),
        other => one_of(errors, &at, other, &["linux", "windows"]),
    }
}

fn linux(errors: &mut Errors, spec: &PodSpec, path: &Path) {
    let detail = "windows options cannot be set for a linux pod";
    let at = |path: &Path| path.child("securityContext").child("windowsOptions");
    if spec.security_context.as_ref().is_some_and(|c| c.windows_options.is_some()) {
        errors.push(FieldError::forbidden(&at(path), detail));
    }
    each(spec, path, |container, path| {
        if container.security_context.as_ref().is_some_and(|c| c.windows_options.is_some()) {
            errors.push(FieldError::forbidden(&at(path), detail));
        }
    });
}

fn windows(errors: &mut Errors, spec: &PodSpec, path: &Path) {
    let detail = "cannot be set for a windows pod";
    let mut refuse = |path: Path, set: bool| {
        if set {
            errors.push(FieldError::forbidden(&path, detail));
        }
    };
    let at = path.child("securityContext");
    let default = PodSecurityContext::default();
    let context = spec.security_context.as_ref().unwrap_or(&default);
    refuse(at.child("appArmorProfile"), context.app_armor_profile.is_some());
    refuse(at.child("seLinuxOptions"), context.se_linux_options.is_some());
    refuse(path.child("hostUsers"), spec.host_users.is_some());
    refuse(path.child("hostPID"), spec.host_pid == Some(true));
    refuse(path.child("hostIPC"), spec.host_ipc == Some(true));
    refuse(at.child("seccompProfile"), context.seccomp_profile.is_some());
    refuse(at.child("fsGroup"), context.fs_group.is_some());
    refuse(at.child("fsGroupChangePolicy"), context.fs_group_change_policy.is_some());
    refuse(at.child("sysctls"), !list(&context.sysctls).is_empty());
    refuse(path.child("shareProcessNamespace"), spec.share_process_namespace.is_some());
    refuse(at.child("runAsUser"), context.run_as_user.is_some());
    refuse(at.child("runAsGroup"), context.run_as_group.is_some());
    refuse(at.child("supplementalGroups"), context.supplemental_groups.is_some());
    refuse(at.child("supplementalGroupsPolicy"), context.supplemental_groups_policy.is_some());
    refuse(at.child("seLinuxChangePolicy"), context.se_linux_change_policy.is_some());
    each(spec, path, |container: &Container, path| {
        let Some(context) = &container.security_context else { return };
        let at = path.child("securityContext");
        refuse(at.child("appArmorProfile"), context.app_armor_profile.is_some());
        refuse(at.child("seLinuxOptions"), context.se_linux_options.is_some());
        refuse(at.child("seccompProfile"), context.seccomp_profile.is_some());
        refuse(at.child("capabilities"), context.capabilities.is_some());
        refuse(at.child("readOnlyRootFilesystem"), context.read_only_root_filesystem.is_some());
        refuse(at.child("privileged"), context.privileged.is_some());
        refuse(at.child("allowPrivilegeEscalation"), context.allow_privilege_escalation.is_some());
        refuse(at.child("procMount"), context.proc_mount.is_some());
        refuse(at.child("runAsUser"), context.run_as_user.is_some());
        refuse(at.child("runAsGroup"), context.run_as_group.is_some());
    });
}
