//! The level `restricted`: what hardened pods do.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{PodSpec, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    Check, Since, Violation,
    baseline::{bad_seccomp, is_good_seccomp, proc_mount},
    has_own_users, is_windows, named, plural, quoted, setters, since, uses, violation, which,
};
use crate::kinds::list;

/// Sorted by id.
pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "allowPrivilegeEscalation",
        versions: &[since(8, escalation), since(25, |meta, spec| unless_windows(escalation, meta, spec))],
    },
    Check {
        id: "capabilities_restricted",
        versions: &[
            Since { minor: 22, look: capabilities, overrides: &["capabilities_baseline"] },
            Since {
                minor: 25,
                look: |meta, spec| unless_windows(capabilities, meta, spec),
                overrides: &["capabilities_baseline"],
            },
        ],
    },
    Check {
        id: "procMount_restricted",
        versions: &[Since { minor: 35, look: proc_mount, overrides: &["procMount"] }],
    },
    Check {
        id: "restrictedVolumes",
        versions: &[Since { minor: 0, look: volumes, overrides: &["hostPathVolumes"] }],
    },
    Check {
        id: "runAsNonRoot",
        versions: &[since(0, non_root), since(35, |meta, spec| unless_own_users(non_root, meta, spec))],
    },
    Check {
        id: "runAsUser",
        versions: &[since(23, user), since(35, |meta, spec| unless_own_users(user, meta, spec))],
    },
    Check {
        id: "seccompProfile_restricted",
        versions: &[
            Since { minor: 19, look: seccomp, overrides: &["seccompProfile_baseline"] },
            Since {
                minor: 25,
                look: |meta, spec| unless_windows(seccomp, meta, spec),
                overrides: &["seccompProfile_baseline"],
            },
        ],
    },
];

/// Validation refuses on Windows what there could be to find.
fn unless_windows(look: super::Look, meta: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    if is_windows(spec) { None } else { look(meta, spec) }
}

fn unless_own_users(look: super::Look, meta: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    if has_own_users(spec) { None } else { look(meta, spec) }
}

fn escalation(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let names = which(spec, |container| {
        container.security.is_none_or(|security| security.allow_privilege_escalation != Some(false))
    });
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&names));
    violation("allowPrivilegeEscalation != false", detail)
}

fn capabilities(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let capabilities = |container: &super::View<'_>| {
        container.security.and_then(|security| security.capabilities.clone()).unwrap_or_default()
    };
    let keeping =
        which(spec, |container| !list(&capabilities(container).drop).iter().any(|dropped| dropped == "ALL"));
    let mut bad = BTreeSet::new();
    let adding = which(spec, |container| {
        let added = capabilities(container).add.unwrap_or_default();
        let wrong: Vec<String> = added.into_iter().filter(|added| added != "NET_BIND_SERVICE").collect();
        bad.extend(wrong.iter().cloned());
        !wrong.is_empty()
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    }
    if !adding.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            named(&adding),
            quoted(&bad)
        ));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

/// The type of a volume that a hardened pod does not have.
fn restricted_type(volume: &Volume) -> Option<&'static str> {
    let allowed = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    if allowed {
        return None;
    }
    let types = [
        ("hostPath", volume.host_path.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("fc", volume.fc.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("storageos", volume.storageos.is_some()),
    ];
    Some(types.into_iter().find(|(_, is)| *is).map_or("unknown", |(name, _)| name))
}

fn volumes(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let found: Vec<(&str, &str)> = list(&spec.volumes)
        .iter()
        .filter_map(|volume| Some((volume.name.as_str(), restricted_type(volume)?)))
        .collect();
    if found.is_empty() {
        return None;
    }
    let types: BTreeSet<&str> = found.iter().map(|(_, kind)| *kind).collect();
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", found.len()),
        quoted(found.iter().map(|(name, _)| name)),
        uses(found.len()),
        plural("restricted volume type", types.len()),
        quoted(&types)
    );
    violation("restricted volume types", detail)
}

fn non_root(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let pod = spec.security_context.as_ref().and_then(|security| security.run_as_non_root);
    let of = |container: &super::View<'_>| container.security.and_then(|security| security.run_as_non_root);
    let wrong = which(spec, |container| of(container) == Some(false));
    if let Some(who) = setters(pod == Some(false), &wrong) {
        return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = which(spec, |container| of(container).is_none() && pod != Some(true));
    if silent.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent)))
}

fn user(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let pod = spec.security_context.as_ref().is_some_and(|security| security.run_as_user == Some(0));
    let names =
        which(spec, |container| container.security.is_some_and(|security| security.run_as_user == Some(0)));
    let who = setters(pod, &names)?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn seccomp(_: &ObjectMeta, spec: &PodSpec) -> Option<Violation> {
    let wrong = bad_seccomp(spec);
    if wrong.is_some() {
        return wrong;
    }
    let pod = spec.security_context.as_ref().and_then(|security| security.seccomp_profile.as_ref());
    let pod = pod.is_some_and(|profile| is_good_seccomp(&profile.type_));
    let silent = which(spec, |container| {
        !pod && container.security.is_none_or(|security| security.seccomp_profile.is_none())
    });
    if silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        named(&silent)
    );
    violation("seccompProfile", detail)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::pod_security::{Level, Standard, Version, details};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn said(level: Level, version: Version, spec: Value) -> String {
        let spec = serde_json::from_value(spec).unwrap();
        details(&Standard { level, version }.violations(&ObjectMeta::default(), &spec))
    }

    fn hardened() -> Value {
        json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            }}],
        })
    }

    #[test]
    fn a_plain_pod_is_baseline_and_a_hardened_one_restricted() {
        let plain = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        assert_eq!(said(Level::Baseline, Version::Latest, plain.clone()), "");
        assert_eq!(said(Level::Restricted, Version::Latest, hardened()), "");
        assert_eq!(
            said(Level::Restricted, Version::Latest, plain),
            "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
             securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \"a\", \"b\" must set \
             securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or containers \"a\", \"b\" must set \
             securityContext.runAsNonRoot=true), seccompProfile (pod or containers \"a\", \"b\" must set \
             securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
    }

    #[test]
    fn what_leads_out_of_a_container_is_named() {
        for (spec, expected) in [
            (
                json!({"hostNetwork": true, "hostPID": true, "containers": []}),
                "host namespaces (hostNetwork=true, hostPID=true)",
            ),
            (
                json!({"containers": [{"name": "a", "securityContext": {"privileged": true}}]}),
                "privileged (container \"a\" must not set securityContext.privileged=true)",
            ),
            (
                json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80}]}]}),
                "hostPort (container \"a\" uses hostPort 80)",
            ),
            (
                json!({"containers": [], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
                "hostPath volumes (volume \"v\")",
            ),
            (
                json!({"containers": [{"name": "a", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]}),
                "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in \
                 securityContext.capabilities.add)",
            ),
            (
                json!({"containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"host": "h", "port": 1}}}]}),
                "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
            ),
            (
                json!({"containers": [], "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
                "forbidden sysctls (kernel.msgmax)",
            ),
            (
                json!({"containers": [], "securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}}),
                "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set)",
            ),
        ] {
            assert_eq!(said(Level::Baseline, Version::Latest, spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn old_versions_of_the_standards_ask_what_they_asked() {
        let probe =
            json!({"containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"host": "h", "port": 1}}}]});
        assert_eq!(said(Level::Baseline, Version::Minor(33), probe), "");
        let sysctl = |name: &str| json!({"containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        let name = "net.ipv4.tcp_rmem";
        assert_eq!(
            said(Level::Baseline, Version::Minor(31), sysctl(name)),
            format!("forbidden sysctls ({name})")
        );
        assert_eq!(said(Level::Baseline, Version::Minor(32), sysctl(name)), "");
        // What can't be on Windows is not asked of it any more.
        let mut windows = hardened();
        windows["os"] = json!({"name": "windows"});
        windows["containers"][0]["securityContext"] = json!({});
        assert_eq!(said(Level::Restricted, Version::Latest, windows.clone()), "");
        assert!(said(Level::Restricted, Version::Minor(24), windows).contains("capabilities"));
    }

    #[test]
    fn a_restricted_finding_takes_the_place_of_the_baseline_one() {
        let mut pod = hardened();
        pod["volumes"] = json!([{"name": "v", "hostPath": {"path": "/"}}]);
        assert_eq!(
            said(Level::Restricted, Version::Latest, pod),
            "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")"
        );
    }
}
