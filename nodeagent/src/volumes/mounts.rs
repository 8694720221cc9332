//! PURE but for the binds of sub paths: which files of the node a container sees, and where.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cri::MountPropagation;
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};

use super::{Layout, VolumeError, subpath};
use crate::pod::environment::{Addresses, expand, field};
use crate::pod::{spec, uid};

const HOSTS: &str = "/etc/hosts";

/// Where the files of a volume are on the node.
pub(super) fn source(layout: &Layout, pod: &Pod, volume: &Volume) -> PathBuf {
    match &volume.host_path {
        Some(source) => PathBuf::from(&source.path),
        None => layout.volume(uid(pod), &volume.name),
    }
}

/// Volumes that show objects of the API can't be written to.
fn is_read_only(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// The mounts of one container.
pub(super) fn of_container(
    layout: &Layout,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    addresses: &Addresses,
) -> Result<Vec<cri::Mount>, VolumeError> {
    let mut mounts = Vec::new();
    let wanted = container.volume_mounts.as_deref().unwrap_or_default();
    let variables = if wanted.iter().any(|mount| mount.sub_path_expr.is_some()) {
        variables(pod, container, addresses)
    } else {
        HashMap::new()
    };
    for (position, mount) in wanted.iter().enumerate() {
        let volumes = spec(pod).volumes.as_deref().unwrap_or_default();
        let volume =
            volumes.iter().find(|volume| volume.name == mount.name).ok_or_else(|| VolumeError::Mount {
                container: container.name.clone(),
                volume: mount.name.clone(),
                reason: "the pod has no such volume".into(),
            })?;
        mounts.push(one(layout, pod, container, mount, position, volume, &variables)?);
    }
    let hosts = layout.hosts(uid(pod));
    let has_own_hosts = mounts.iter().any(|mount| trimmed(&mount.container_path) == HOSTS);
    if !has_own_hosts && hosts.exists() {
        let read_only = container.security_context.as_ref().and_then(|own| own.read_only_root_filesystem);
        mounts.push(cri::Mount {
            container_path: HOSTS.into(),
            host_path: text(&hosts),
            readonly: read_only == Some(true),
            ..cri::Mount::default()
        });
    }
    if let Some(path) = container.termination_message_path.as_deref().filter(|path| !path.is_empty()) {
        let log = layout.termination_log(uid(pod), &container.name, attempt);
        make_log(&log).map_err(|source| VolumeError::io("termination log", source))?;
        mounts.push(cri::Mount {
            container_path: path.into(),
            host_path: text(&log),
            ..cri::Mount::default()
        });
    }
    Ok(mounts)
}

fn one(
    layout: &Layout,
    pod: &Pod,
    container: &Container,
    mount: &VolumeMount,
    position: usize,
    volume: &Volume,
    variables: &HashMap<String, String>,
) -> Result<cri::Mount, VolumeError> {
    let mut host_path = source(layout, pod, volume);
    let failed = |reason: String| VolumeError::Mount {
        container: container.name.clone(),
        volume: mount.name.clone(),
        reason,
    };
    if let Some(path) = sub_path(mount, variables).map_err(failed)? {
        let target = layout.sub_path(uid(pod), &volume.name, &container.name, position);
        subpath::bind(&host_path, &path, &target).map_err(|error| {
            failed(format!(
                "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {error}",
                mount.name, container.name
            ))
        })?;
        host_path = target;
    }
    let propagation = match mount.mount_propagation.as_deref() {
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        _ => MountPropagation::PropagationPrivate,
    };
    let read_only = mount.read_only == Some(true) || is_read_only(volume);
    // Relative paths are relative to the root.
    let container_path = if mount.mount_path.starts_with('/') {
        mount.mount_path.clone()
    } else {
        format!("/{}", mount.mount_path)
    };
    Ok(cri::Mount {
        container_path,
        host_path: text(&host_path),
        readonly: read_only,
        recursive_read_only: read_only && mount.recursive_read_only.as_deref() == Some("Enabled"),
        propagation: propagation.into(),
        ..cri::Mount::default()
    })
}

/// The part of the volume to mount, if not all of it.
fn sub_path(mount: &VolumeMount, variables: &HashMap<String, String>) -> Result<Option<String>, String> {
    if let Some(expression) = mount.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
        let missing = missing_variable(expression, variables);
        return match missing {
            Some(name) => Err(format!("missing value for \"{name}\"")),
            None => Ok(Some(expand(expression, variables))),
        };
    }
    Ok(mount.sub_path.clone().filter(|path| !path.is_empty()))
}

/// The first `$(NAME)` that has no value.
fn missing_variable(expression: &str, variables: &HashMap<String, String>) -> Option<String> {
    let mut rest = expression;
    while let Some(position) = rest.find('$') {
        rest = &rest[position + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            if !variables.contains_key(name) {
                return Some(name.to_owned());
            }
            rest = after;
        }
    }
    None
}

/// The variables of a container that don't come from other objects. Whoever has resolved those puts their values
/// into the container's `env`.
fn variables(pod: &Pod, container: &Container, addresses: &Addresses) -> HashMap<String, String> {
    let mut variables = HashMap::new();
    for variable in container.env.iter().flatten() {
        let reference = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        let value = match (&variable.value, reference) {
            (Some(value), _) => Some(expand(value, &variables)),
            (None, Some(reference)) => field(pod, &reference.field_path, addresses).ok(),
            (None, None) => variable.value_from.is_none().then(String::new),
        };
        if let Some(value) = value {
            variables.insert(variable.name.clone(), value);
        }
    }
    variables
}

/// The file of a last message: everybody may write to it, whoever the container runs as.
fn make_log(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above)?;
    }
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o666))
}

fn trimmed(path: &str) -> &str {
    path.trim_end_matches('/')
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EnvVar;

    use super::*;
    use crate::pod::testing::{container, pod};

    #[test]
    fn a_sub_path_expression_needs_every_variable() {
        let variables = HashMap::from([("POD".to_owned(), "web".to_owned())]);
        for (expression, expected) in [
            ("$(POD)/x", Ok("web/x")),
            ("plain", Ok("plain")),
            ("$$(NOPE)", Ok("$(NOPE)")),
            ("$(POD)$(NOPE)", Err("missing value for \"NOPE\"")),
        ] {
            let mount = VolumeMount { sub_path_expr: Some(expression.into()), ..VolumeMount::default() };
            let found = sub_path(&mount, &variables);
            assert_eq!(found.as_ref().map(|path| path.as_deref().unwrap()).map_err(String::as_str), expected);
        }
    }

    #[test]
    fn mounts_say_where_how_and_who_may_write() {
        let base = tempfile::tempdir().unwrap();
        let layout = Layout::new(base.path());
        let mut web = pod().with(container("c")).build();
        let json = serde_json::json!([
            {"name": "host", "hostPath": {"path": "/srv"}},
            {"name": "config", "configMap": {"name": "m"}},
            {"name": "cache", "emptyDir": {}},
        ]);
        let spec = web.spec.get_or_insert_default();
        spec.volumes = serde_json::from_value(json).unwrap();
        let json = serde_json::json!([
            {"name": "host", "mountPath": "/srv", "mountPropagation": "Bidirectional"},
            {"name": "config", "mountPath": "/config"},
            {"name": "cache", "mountPath": "/cache", "readOnly": true, "recursiveReadOnly": "Enabled"},
        ]);
        let mut c = spec.containers[0].clone();
        c.volume_mounts = serde_json::from_value(json).unwrap();
        c.termination_message_path = Some("/dev/termination-log".into());
        c.env = Some(vec![EnvVar { name: "A".into(), value: Some("1".into()), ..EnvVar::default() }]);
        std::fs::create_dir_all(layout.pod("uid-web")).unwrap();
        std::fs::write(layout.hosts("uid-web"), "").unwrap();
        let mounts = of_container(&layout, &web, &c, 2, &Addresses::default()).unwrap();
        let shown: Vec<String> = mounts
            .iter()
            .map(|mount| {
                let host = mount.host_path.trim_start_matches(&text(base.path()));
                let (ro, rro) = (mount.readonly, mount.recursive_read_only);
                format!("{host} {} ro={ro} rro={rro} p={}", mount.container_path, mount.propagation)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "/srv /srv ro=false rro=false p=2",
                "/pods/uid-web/volumes/config /config ro=true rro=false p=0",
                "/pods/uid-web/volumes/cache /cache ro=true rro=true p=0",
                "/pods/uid-web/etc-hosts /etc/hosts ro=false rro=false p=0",
                "/pods/uid-web/containers/c/2 /dev/termination-log ro=false rro=false p=0",
            ]
        );
        c.volume_mounts = Some(vec![VolumeMount { name: "nope".into(), ..VolumeMount::default() }]);
        assert!(of_container(&layout, &web, &c, 0, &Addresses::default()).is_err());
    }
}
