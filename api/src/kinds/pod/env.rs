//! Rules for environment variables and where their values come from.

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, FileKeySelector, ObjectFieldSelector, ResourceFieldSelector,
};

use super::volumes::{Volumes, local_path};
use crate::{
    field::{Errors, FieldError, Path},
    kinds::{
        amount::Amount,
        check::{dns_subdomain, problems, qualified_name, required, text},
    },
    name,
};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
pub(super) const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// The environment variables of a container.
pub(super) fn validate(errors: &mut Errors, vars: &[EnvVar], volumes: &Volumes<'_>, path: &Path) {
    for (i, var) in vars.iter().enumerate() {
        let at = path.index(i);
        if var.name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else {
            problems(errors, &at.child("name"), &var.name, name::relaxed_env_var_name(&var.name));
        }
        if let Some(source) = &var.value_from {
            value_from(errors, source, text(&var.value), volumes, &at.child("valueFrom"));
        }
    }
}

fn value_from(errors: &mut Errors, source: &EnvVarSource, value: &str, volumes: &Volumes<'_>, path: &Path) {
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        field_ref(errors, field, ENV_FIELDS, &path.child("fieldRef"));
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        resource_ref(errors, resource, false, &path.child("resourceFieldRef"));
    }
    if let Some(key) = &source.config_map_key_ref {
        sources += 1;
        key_ref(errors, &key.name, &key.key, &path.child("configMapKeyRef"));
    }
    if let Some(key) = &source.secret_key_ref {
        sources += 1;
        key_ref(errors, &key.name, &key.key, &path.child("secretKeyRef"));
    }
    if let Some(key) = &source.file_key_ref {
        sources += 1;
        file_ref(errors, key, volumes, &path.child("fileKeyRef"));
    }
    let detail = if sources == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
    } else if !value.is_empty() {
        "may not be specified when `value` is not empty"
    } else if sources > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, "", detail));
}

/// A reference to a field of the pod.
pub(super) fn field_ref(errors: &mut Errors, field: &ObjectFieldSelector, fields: &[&str], path: &Path) {
    let version = text(&field.api_version);
    if version.is_empty() {
        errors.push(FieldError::required(&path.child("apiVersion"), ""));
        return;
    }
    if field.field_path.is_empty() {
        errors.push(FieldError::required(&path.child("fieldPath"), ""));
        return;
    }
    let at = path.child("fieldPath");
    if let Some(problem) = unknown_label(version, &field.field_path) {
        let detail = format!("error converting fieldPath: {problem}");
        errors.push(FieldError::invalid(&at, &field.field_path, detail));
        return;
    }
    match subscript(&field.field_path) {
        Some(("metadata.annotations", key)) => qualified_name(errors, path, &key.to_lowercase()),
        Some(("metadata.labels", key)) => qualified_name(errors, path, key),
        Some((of, _)) => errors.push(FieldError::invalid(path, of, "does not support subscript")),
        None if !fields.contains(&field.field_path.as_str()) => {
            errors.push(FieldError::not_supported(&at, &field.field_path, fields));
        }
        None => {}
    }
}

/// Splits `metadata.labels['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (of, key) = path.strip_suffix("']")?.split_once("['")?;
    (!of.is_empty()).then_some((of, key))
}

fn unknown_label(version: &str, label: &str) -> Option<String> {
    if version != "v1" {
        return Some(format!("unsupported pod version: {version}"));
    }
    if let Some((of, _)) = subscript(label) {
        return match of {
            "metadata.annotations" | "metadata.labels" => None,
            _ => Some(format!("field label does not support subscript: {label}")),
        };
    }
    let known = matches!(
        label,
        "metadata.annotations"
            | "metadata.labels"
            | "metadata.name"
            | "metadata.namespace"
            | "metadata.uid"
            | "spec.nodeName"
            | "spec.restartPolicy"
            | "spec.serviceAccountName"
            | "spec.schedulerName"
            | "status.phase"
            | "status.hostIP"
            | "status.hostIPs"
            | "status.podIP"
            | "status.podIPs"
            | "spec.host"
    );
    (!known).then(|| format!("field label not supported: {label}"))
}

/// A reference to a limit or request of a container.
pub(super) fn resource_ref(
    errors: &mut Errors,
    resource: &ResourceFieldSelector,
    in_volume: bool,
    path: &Path,
) {
    let name = resource.resource.as_str();
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if in_volume && text(&resource.container_name).is_empty() {
        errors.push(FieldError::required(&path.child("containerName"), ""));
    } else if name.is_empty() {
        errors.push(FieldError::required(&path.child("resource"), ""));
    } else if !RESOURCES.contains(&name) && !huge {
        errors.push(FieldError::not_supported(&path.child("resource"), name, RESOURCES));
    }
    let Some(divisor) = resource.divisor.as_ref().and_then(Amount::of).filter(|d| !d.is_zero()) else {
        return;
    };
    let divisor = divisor.to_string();
    let bytes = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let detail = match name {
        "limits.cpu" | "requests.cpu" => {
            if matches!(divisor.as_str(), "1" | "1m") {
                return;
            }
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
        }
        _ => {
            let what = match name {
                "limits.memory" | "requests.memory" => "memory",
                "limits.ephemeral-storage" | "requests.ephemeral-storage" => "local ephemeral storage",
                _ if huge => "hugepages",
                _ => return,
            };
            if bytes.contains(&divisor.as_str()) {
                return;
            }
            format!(
                "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the \
                 {what} resource"
            )
        }
    };
    errors.push(FieldError::invalid(&path.child("divisor"), name, detail));
}

fn key_ref(errors: &mut Errors, name: &str, key: &str, path: &Path) {
    dns_subdomain(errors, &path.child("name"), name);
    if key.is_empty() {
        errors.push(FieldError::required(&path.child("key"), ""));
    } else {
        problems(errors, &path.child("key"), key, name::config_map_key(key));
    }
}

fn file_ref(errors: &mut Errors, file: &FileKeySelector, volumes: &Volumes<'_>, path: &Path) {
    if file.key.is_empty() {
        errors.push(FieldError::required(&path.child("key"), ""));
    } else {
        problems(errors, &path.child("key"), &file.key, name::relaxed_env_var_name(&file.key));
    }
    let at = path.child("volumeName");
    match volumes.get(file.volume_name.as_str()) {
        _ if file.volume_name.is_empty() => errors.push(FieldError::required(&at, "")),
        None => errors.push(FieldError::not_found(&at, &file.volume_name)),
        Some(volume) if volume.empty_dir.is_none() => {
            errors.push(FieldError::invalid(
                &at,
                &file.volume_name,
                "referenced volume must be of type emptyDir",
            ));
        }
        Some(_) => {}
    }
    required(errors, &path.child("path"), &file.path);
    local_path(errors, &file.path, &path.child("path"));
}

/// The objects whose every entry becomes an environment variable.
pub(super) fn validate_from(errors: &mut Errors, sources: &[EnvFromSource], path: &Path) {
    for (i, source) in sources.iter().enumerate() {
        let at = path.index(i);
        let prefix = text(&source.prefix);
        if !prefix.is_empty() {
            problems(errors, &at.child("prefix"), prefix, name::relaxed_env_var_name(prefix));
        }
        let names = [
            ("configMapRef", source.config_map_ref.as_ref().map(|s| &s.name)),
            ("secretRef", source.secret_ref.as_ref().map(|s| &s.name)),
        ];
        let mut given = 0;
        for (field, name) in names {
            let Some(name) = name else { continue };
            given += 1;
            let at = at.child(field).child("name");
            if name.is_empty() {
                errors.push(FieldError::required(&at, ""));
            } else {
                problems(errors, &at, name, name::subdomain_name(name, true));
            }
        }
        // Upstream names the list here, not the item.
        if given == 0 {
            errors.push(FieldError::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"));
        } else if given > 1 {
            errors.push(FieldError::invalid(
                path,
                "",
                "may not have more than one field specified at a time",
            ));
        }
    }
}
