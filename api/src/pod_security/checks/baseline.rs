//! The level `baseline`: what is known to lead out of a container.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{LifecycleHandler, PodSpec, Probe, SELinuxOptions},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    Check, View, Violation, containers, has_own_users, named, plural, quoted, setters, since, uses,
    violation, which,
};
use crate::{
    field::quote,
    kinds::{list, text},
};

/// Sorted by id.
pub(super) const CHECKS: &[Check] = &[
    Check { id: "appArmorProfile", versions: &[since(0, app_armor)] },
    Check { id: "capabilities_baseline", versions: &[since(0, capabilities)] },
    Check { id: "hostNamespaces", versions: &[since(0, host_namespaces)] },
    Check { id: "hostPathVolumes", versions: &[since(0, host_paths)] },
    Check { id: "hostPorts", versions: &[since(0, host_ports)] },
    Check { id: "hostProbesAndHostLifecycle", versions: &[since(34, probed_hosts)] },
    Check { id: "privileged", versions: &[since(0, privileged)] },
    Check { id: "procMount", versions: &[since(0, proc_mount), since(35, proc_mount_of_hosts_users)] },
    Check { id: "seLinuxOptions", versions: &[since(0, selinux), since(31, selinux_with_engines)] },
    Check { id: "seccompProfile_baseline", versions: &[since(0, seccomp_annotations), since(19, seccomp)] },
    Check {
        id: "sysctls",
        versions: &[since(0, sysctls_0), since(27, sysctls_27), since(29, sysctls_29), since(32, sysctls_32)],
    },
    Check { id: "windowsHostProcess", versions: &[since(0, host_process)] },
];

fn annotations(meta: &ObjectMeta) -> impl Iterator<Item = (&String, &String)> {
    meta.annotations.iter().flatten()
}

fn app_armor(meta: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let mut bad = BTreeSet::new();
    let mut is_bad = |profile: Option<&k8s_openapi::api::core::v1::AppArmorProfile>| {
        let kind = profile.map(|profile| profile.type_.as_str());
        let kind = kind.filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"));
        bad.extend(kind.map(str::to_owned));
        kind.is_some()
    };
    let pod = is_bad(spec.security_context.as_ref().and_then(|security| security.app_armor_profile.as_ref()));
    let names = which(spec, |container| {
        is_bad(container.security.and_then(|security| security.app_armor_profile.as_ref()))
    });
    let allowed = |value: &str| matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
    let mut annotated: Vec<String> = annotations(meta)
        .filter(|(key, value)| {
            key.starts_with("container.apparmor.security.beta.kubernetes.io/") && !allowed(value)
        })
        .map(|(key, value)| format!("{key}={}", quote(value)))
        .collect();
    annotated.sort();
    let by_annotation = (!annotated.is_empty()).then(|| plural("annotation", annotated.len()));
    let all: Vec<String> = setters(pod, &names).into_iter().chain(by_annotation).collect();
    if all.is_empty() {
        return None;
    }
    let values: Vec<String> = bad.into_iter().chain(annotated).collect();
    let detail = format!("{} must not set AppArmor profile type to {}", all.join(" and "), quoted(&values));
    violation(&plural("forbidden AppArmor profile", values.len()), detail)
}

fn capabilities(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    const ALLOWED: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let mut bad = BTreeSet::new();
    let names = which(spec, |container| {
        let capabilities = container.security.and_then(|security| security.capabilities.as_ref());
        let added = capabilities.map(|capabilities| list(&capabilities.add)).unwrap_or_default();
        let wrong: Vec<_> =
            added.iter().filter(|added| !ALLOWED.contains(&added.as_str())).cloned().collect();
        bad.extend(wrong.iter().cloned());
        !wrong.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", named(&names), quoted(&bad));
    violation("non-default capabilities", detail)
}

fn host_namespaces(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let shared: Vec<&str> = [
        ("hostNetwork=true", spec.host_network),
        ("hostPID=true", spec.host_pid),
        ("hostIPC=true", spec.host_ipc),
    ]
    .into_iter()
    .filter(|(_, shared)| *shared == Some(true))
    .map(|(name, _)| name)
    .collect();
    if shared.is_empty() { None } else { violation("host namespaces", shared.join(", ")) }
}

fn host_paths(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let names: Vec<&str> = list(&spec.volumes)
        .iter()
        .filter(|volume| volume.host_path.is_some())
        .map(|volume| volume.name.as_str())
        .collect();
    if names.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", names.len()), quoted(&names)))
}

fn host_ports(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let mut bad = BTreeSet::new();
    let names = which(spec, |container| {
        let ports = container.ports.iter().filter_map(|port| port.host_port).filter(|port| *port != 0);
        let ports: Vec<String> = ports.map(|port| port.to_string()).collect();
        bad.extend(ports.iter().cloned());
        !ports.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let ports: Vec<String> = bad.into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        named(&names),
        uses(names.len()),
        plural("hostPort", ports.len()),
        ports.join(", ")
    );
    violation("hostPort", detail)
}

/// The hosts that probes and lifecycle hooks of a container name.
fn hosts(container: &View<'_>) -> Vec<String> {
    let of_probe = |probe: &Probe| {
        let http = probe.http_get.as_ref().map(|action| text(&action.host).to_owned());
        let tcp = probe.tcp_socket.as_ref().map(|action| text(&action.host).to_owned());
        [http, tcp]
    };
    let of_hook = |hook: &LifecycleHandler| {
        let http = hook.http_get.as_ref().map(|action| text(&action.host).to_owned());
        let tcp = hook.tcp_socket.as_ref().map(|action| text(&action.host).to_owned());
        [http, tcp]
    };
    let hooks = container.lifecycle.map(|lifecycle| [&lifecycle.post_start, &lifecycle.pre_stop]);
    let hooks = hooks.into_iter().flatten().flatten().flat_map(of_hook);
    let probes = container.probes.into_iter().flatten().flat_map(of_probe);
    probes.chain(hooks).flatten().filter(|host| !host.is_empty()).collect()
}

fn probed_hosts(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    const WHAT: &str = "probe or lifecycle host";
    let (mut names, mut bad) = (BTreeSet::new(), BTreeSet::new());
    for container in containers(spec) {
        let hosts = hosts(&container);
        if !hosts.is_empty() {
            names.insert(container.name.to_owned());
            bad.extend(hosts);
        }
    }
    if names.is_empty() {
        return None;
    }
    let names: Vec<String> = names.into_iter().collect();
    let detail =
        format!("{} {} {} {}", named(&names), uses(names.len()), plural(WHAT, bad.len()), quoted(&bad));
    violation(WHAT, detail)
}

fn privileged(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let names =
        which(spec, |container| container.security.is_some_and(|security| security.privileged == Some(true)));
    if names.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", named(&names)))
}

pub(super) fn proc_mount(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let mut bad = BTreeSet::new();
    let names = which(spec, |container| {
        let mount = container.security.and_then(|security| security.proc_mount.as_deref());
        let mount = mount.filter(|mount| *mount != "Default");
        bad.extend(mount.map(str::to_owned));
        mount.is_some()
    });
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.procMount to {}", named(&names), quoted(&bad));
    violation("procMount", detail)
}

fn proc_mount_of_hosts_users(meta: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    if has_own_users(spec) { None } else { proc_mount(meta, spec) }
}

fn selinux(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    selinux_of(spec, &["", "container_t", "container_init_t", "container_kvm_t"])
}

fn selinux_with_engines(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    selinux_of(spec, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn selinux_of(spec: &PodSpec, allowed: &[&str]) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let mut is_bad = |options: Option<&SELinuxOptions>| {
        let Some(options) = options else { return false };
        let kind = text(&options.type_);
        let (sets_user, sets_role) = (!text(&options.user).is_empty(), !text(&options.role).is_empty());
        let of_bad_type = !allowed.contains(&kind);
        if of_bad_type {
            types.insert(kind.to_owned());
        }
        user |= sets_user;
        role |= sets_role;
        of_bad_type || sets_user || sets_role
    };
    let pod = is_bad(spec.security_context.as_ref().and_then(|security| security.se_linux_options.as_ref()));
    let names = which(spec, |container| {
        is_bad(container.security.and_then(|security| security.se_linux_options.as_ref()))
    });
    let who = setters(pod, &names)?;
    let types = (!types.is_empty()).then(|| format!("{} {}", plural("type", types.len()), quoted(&types)));
    let what: Vec<String> = types
        .into_iter()
        .chain(user.then(|| "user may not be set".to_owned()))
        .chain(role.then(|| "role may not be set".to_owned()))
        .collect();
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    violation("seLinuxOptions", detail)
}

/// How profiles were chosen before there was a field for it.
fn seccomp_annotations(meta: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let allowed = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let keys: Vec<String> = std::iter::once(POD.to_owned())
        .chain(containers(spec).iter().map(|container| format!("{CONTAINER}{}", container.name)))
        .collect();
    let forbidden: BTreeSet<String> = annotations(meta)
        .filter(|(key, value)| keys.contains(key) && !allowed(value))
        .map(|(key, value)| format!("{key}={}", quote(value)))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let count = forbidden.len();
    let forbidden: Vec<String> = forbidden.into_iter().collect();
    let detail = format!("forbidden {} {}", plural("annotation", count), forbidden.join(", "));
    violation("seccompProfile", detail)
}

fn seccomp(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    bad_seccomp(spec)
}

pub(super) fn is_good_seccomp(kind: &str) -> bool {
    matches!(kind, "Localhost" | "RuntimeDefault")
}

/// Profiles that are set, and not to a good value.
pub(super) fn bad_seccomp(spec: &PodSpec) -> Option<Violation> {
    let mut bad = BTreeSet::new();
    let mut is_bad = |kind: Option<&str>| {
        let kind = kind.filter(|kind| !is_good_seccomp(kind));
        bad.extend(kind.map(str::to_owned));
        kind.is_some()
    };
    let pod = spec.security_context.as_ref().and_then(|security| security.seccomp_profile.as_ref());
    let pod = is_bad(pod.map(|profile| profile.type_.as_str()));
    let names = which(spec, |container| {
        let profile = container.security.and_then(|security| security.seccomp_profile.as_ref());
        is_bad(profile.map(|profile| profile.type_.as_str()))
    });
    let who = setters(pod, &names)?;
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&bad));
    violation("seccompProfile", detail)
}

/// The kernel parameters that are a pod's own and safe, and the version from which on each counts as that.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(spec: &PodSpec, minor: u32) -> Option<Violation> {
    let set = spec.security_context.as_ref().map(|security| list(&security.sysctls)).unwrap_or_default();
    let allowed = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && *since <= minor);
    let bad: Vec<&str> =
        set.iter().map(|sysctl| sysctl.name.as_str()).filter(|name| !allowed(name)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

fn sysctls_0(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    sysctls(spec, 0)
}

fn sysctls_27(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    sysctls(spec, 27)
}

fn sysctls_29(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    sysctls(spec, 29)
}

fn sysctls_32(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    sysctls(spec, 32)
}

fn host_process(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let pod = spec.security_context.as_ref().and_then(|security| security.windows_options.as_ref());
    let pod = pod.is_some_and(|options| options.host_process == Some(true));
    let names = which(spec, |container| {
        let options = container.security.and_then(|security| security.windows_options.as_ref());
        options.is_some_and(|options| options.host_process == Some(true))
    });
    let who = setters(pod, &names)?;
    violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
