//! Every pod has a service account, and by default its token at the usual place.

use api::object::Object;
use api::status::Status;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, Pod, PodSpec, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection,
    Volume, VolumeMount, VolumeProjection,
};

use super::{Admission, AdmissionContext, Operation};
use crate::auth::node::{MIRROR, Refers, references_of_any};
use crate::auth::source::Kind;

const DEFAULT: &str = "default";
const VOLUME: &str = "kube-api-access-";
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour, and the seven seconds by which upstream marks tokens that it mounts by itself.
const TOKEN_SECONDS: i64 = 3607;

fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR))
}

fn account(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    name: &str,
) -> Result<ServiceAccount, Status> {
    let namespace = context.namespace;
    let found = admission
        .objects
        .get(Kind::ServiceAccount, namespace, name)
        .and_then(|item| item.read::<ServiceAccount>());
    found.ok_or_else(|| {
        let quoted = api::field::quote(name);
        context.forbidden(format!(
            "error looking up service account {namespace}/{name}: serviceaccount {quoted} not found"
        ))
    })
}

pub(super) fn admit(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: &mut dyn Object,
    _: Option<&dyn Object>,
) -> Result<(), Status> {
    if context.operation != Operation::Create || !context.is("", "pods") {
        return Ok(());
    }
    let Some(pod) = object.downcast_mut::<Pod>().filter(|pod| !is_mirror(pod)) else { return Ok(()) };
    let Some(spec) = pod.spec.as_mut() else { return Ok(()) };
    let given = [&spec.service_account_name, &spec.service_account]
        .into_iter()
        .flatten()
        .find(|name| !name.is_empty());
    let name = given.cloned().unwrap_or_else(|| DEFAULT.to_owned());
    let account = account(admission, context, &name)?;
    spec.service_account_name = Some(name.clone());
    spec.service_account = Some(name);
    if spec.automount_service_account_token.or(account.automount_service_account_token).unwrap_or(true) {
        mount_token(spec, admission);
    }
    if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
        spec.image_pull_secrets = account.image_pull_secrets.filter(|secrets| !secrets.is_empty());
    }
    Ok(())
}

fn mount_token(spec: &mut PodSpec, admission: &Admission) {
    let existing =
        spec.volumes.iter().flatten().find(|volume| volume.name.starts_with(VOLUME)).map(|v| v.name.clone());
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME}{}", admission.random.name_suffix(5)));
    let mut needed = false;
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        needed |= mount(container, &name);
    }
    if needed && existing.is_none() {
        spec.volumes.get_or_insert_default().push(token_volume(name));
    }
}

/// Mounts the volume unless the container has something at that place; true if it did.
fn mount(container: &mut Container, volume: &str) -> bool {
    let mounts = container.volume_mounts.get_or_insert_default();
    if mounts.iter().any(|mount| mount.mount_path == MOUNT) {
        return false;
    }
    mounts.push(VolumeMount {
        name: volume.to_owned(),
        read_only: Some(true),
        mount_path: MOUNT.to_owned(),
        ..VolumeMount::default()
    });
    true
}

fn token_volume(name: String) -> Volume {
    let token = ServiceAccountTokenProjection {
        path: "token".to_owned(),
        expiration_seconds: Some(TOKEN_SECONDS),
        ..ServiceAccountTokenProjection::default()
    };
    let authority = ConfigMapProjection {
        name: "kube-root-ca.crt".to_owned(),
        items: Some(vec![KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), mode: None }]),
        optional: None,
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: "metadata.namespace".to_owned(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(authority), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    let projected = ProjectedVolumeSource { default_mode: Some(0o644), sources: Some(sources) };
    Volume { name, projected: Some(projected), ..Volume::default() }
}

pub(super) fn validate(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: Option<&dyn Object>,
    _: Option<&dyn Object>,
) -> Result<(), Status> {
    if context.operation != Operation::Create || !context.is("", "pods") {
        return Ok(());
    }
    let Some(pod) = object.and_then(|object| object.downcast_ref::<Pod>()) else { return Ok(()) };
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or_default();
    if !is_mirror(pod) {
        if name.is_empty() {
            return Err(context.forbidden(format!(
                "no service account specified for pod {}/{}",
                context.namespace, context.name
            )));
        }
        return account(admission, context, name).map(drop);
    }
    if !name.is_empty() {
        return Err(context.forbidden("a mirror pod may not reference service accounts"));
    }
    if references_of_any(&Object::to_bytes(pod)).iter().any(|(kind, _)| *kind == Refers::Secret) {
        return Err(context.forbidden("a mirror pod may not reference secrets"));
    }
    let volumes = spec.into_iter().filter_map(|spec| spec.volumes.as_ref()).flatten();
    let mut sources = volumes.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref()).flatten();
    if sources.any(|source| source.service_account_token.is_some()) {
        return Err(context.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}
