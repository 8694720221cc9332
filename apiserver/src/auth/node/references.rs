//! What pods and volumes refer to.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, LocalObjectReference, ObjectReference, PersistentVolumeSpec,
    PodExtendedResourceClaimStatus, PodResourceClaim, PodResourceClaimStatus, SecretReference, Volume,
};
use serde::Deserialize;

use super::MIRROR;
use crate::auth::source::Item;

/// What a pod may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refers {
    Claim,
    ConfigMap,
    ResourceClaim,
    Secret,
    ServiceAccount,
}

/// Everything in the pod's namespace that a pod refers to.
pub(crate) type References = BTreeSet<(Refers, String)>;

/// The parts of a pod that refer to other objects; the rest is not even decoded.
#[derive(Debug, Default, Deserialize)]
struct PodPart {
    metadata: MetaPart,
    #[serde(default)]
    spec: SpecPart,
    #[serde(default)]
    status: StatusPart,
}

#[derive(Debug, Default, Deserialize)]
struct MetaPart {
    #[serde(default)]
    name: String,
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecPart {
    service_account_name: Option<String>,
    image_pull_secrets: Option<Vec<LocalObjectReference>>,
    volumes: Option<Vec<Volume>>,
    resource_claims: Option<Vec<PodResourceClaim>>,
    containers: Option<Vec<ContainerPart>>,
    init_containers: Option<Vec<ContainerPart>>,
    ephemeral_containers: Option<Vec<ContainerPart>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusPart {
    resource_claim_statuses: Option<Vec<PodResourceClaimStatus>>,
    extended_resource_claim_status: Option<PodExtendedResourceClaimStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPart {
    env: Option<Vec<EnvVar>>,
    env_from: Option<Vec<EnvFromSource>>,
}

/// What the pod in this JSON refers to. Nothing if it is a mirror pod.
pub(super) fn of_pod(item: &Item) -> References {
    match item.read::<PodPart>() {
        Some(pod) if !pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR)) => {
            all_references(pod)
        }
        _ => References::new(),
    }
}

/// What a pod's JSON refers to, mirror pods included: what nobody lets them do.
pub(crate) fn references_of_any(json: &[u8]) -> References {
    serde_json::from_slice::<PodPart>(json).map(all_references).unwrap_or_default()
}

fn all_references(pod: PodPart) -> References {
    let mut found = References::new();
    let mut add = |kind, name: String| {
        if !name.is_empty() {
            found.insert((kind, name));
        }
    };
    let PodPart { metadata, spec, status } = pod;
    add(Refers::ServiceAccount, spec.service_account_name.unwrap_or_default());
    for secret in spec.image_pull_secrets.unwrap_or_default() {
        add(Refers::Secret, secret.name);
    }
    let containers = [spec.init_containers, spec.containers, spec.ephemeral_containers];
    for container in containers.into_iter().flatten().flatten() {
        for from in container.env_from.unwrap_or_default() {
            add(Refers::ConfigMap, from.config_map_ref.map(|r| r.name).unwrap_or_default());
            add(Refers::Secret, from.secret_ref.map(|r| r.name).unwrap_or_default());
        }
        for source in container.env.unwrap_or_default().into_iter().filter_map(|variable| variable.value_from)
        {
            add(Refers::ConfigMap, source.config_map_key_ref.map(|r| r.name).unwrap_or_default());
            add(Refers::Secret, source.secret_key_ref.map(|r| r.name).unwrap_or_default());
        }
    }
    // A claim that was made from a template has a name that only the status tells.
    let made = status.resource_claim_statuses.unwrap_or_default();
    for claim in spec.resource_claims.unwrap_or_default() {
        let made = || made.iter().find(|made| made.name == claim.name)?.resource_claim_name.clone();
        let name = match claim.resource_claim_template_name {
            _ if claim.resource_claim_name.is_some() => claim.resource_claim_name,
            Some(_) => made(),
            None => None,
        };
        add(Refers::ResourceClaim, name.unwrap_or_default());
    }
    let extended = status.extended_resource_claim_status.map(|status| status.resource_claim_name);
    add(Refers::ResourceClaim, extended.unwrap_or_default());
    for volume in spec.volumes.unwrap_or_default() {
        let local = |reference: Option<LocalObjectReference>| reference.map(|r| r.name).unwrap_or_default();
        add(Refers::ConfigMap, volume.config_map.map(|v| v.name).unwrap_or_default());
        add(Refers::Secret, volume.secret.and_then(|v| v.secret_name).unwrap_or_default());
        for source in volume.projected.and_then(|v| v.sources).unwrap_or_default() {
            add(Refers::ConfigMap, source.config_map.map(|v| v.name).unwrap_or_default());
            add(Refers::Secret, source.secret.map(|v| v.name).unwrap_or_default());
        }
        add(Refers::Claim, volume.persistent_volume_claim.map(|v| v.claim_name).unwrap_or_default());
        if volume.ephemeral.is_some() {
            add(Refers::Claim, format!("{}-{}", metadata.name, volume.name));
        }
        add(Refers::Secret, volume.azure_file.map(|v| v.secret_name).unwrap_or_default());
        add(Refers::Secret, local(volume.cephfs.and_then(|v| v.secret_ref)));
        add(Refers::Secret, local(volume.cinder.and_then(|v| v.secret_ref)));
        add(Refers::Secret, local(volume.csi.and_then(|v| v.node_publish_secret_ref)));
        add(Refers::Secret, local(volume.flex_volume.and_then(|v| v.secret_ref)));
        add(Refers::Secret, local(volume.iscsi.and_then(|v| v.secret_ref)));
        add(Refers::Secret, local(volume.rbd.and_then(|v| v.secret_ref)));
        add(Refers::Secret, volume.scale_io.map(|v| v.secret_ref.name).unwrap_or_default());
        add(Refers::Secret, local(volume.storageos.and_then(|v| v.secret_ref)));
    }
    found
}

/// What a bound volume refers to: namespaces and names.
#[derive(Debug, Default)]
pub(super) struct Backed {
    /// Empty for a volume that is not bound.
    pub(super) claim: (String, String),
    /// The secrets that a node needs to mount it.
    pub(super) secrets: BTreeSet<(String, String)>,
}

/// What the volume in this JSON refers to.
pub(super) fn of_volume(item: &Item) -> Backed {
    #[derive(Deserialize)]
    struct VolumePart {
        spec: PersistentVolumeSpec,
    }
    let mut found = Backed::default();
    let Some(VolumePart { spec }) = item.read::<VolumePart>() else { return found };
    let Some(claim) = &spec.claim_ref else { return found };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let ObjectReference { namespace, name, .. } = claim;
    found.claim = (text(namespace), text(name));
    // A reference without a namespace, as older objects have them, means that of the claim.
    let beside = found.claim.0.clone();
    let mut add = |namespace: String, name: String| {
        if !name.is_empty() {
            found.secrets.insert((namespace, name));
        }
    };
    let or_beside = |namespace: String| if namespace.is_empty() { beside.clone() } else { namespace };
    let refers = |secret: Option<SecretReference>| {
        secret.map(|secret| (text(&secret.namespace), text(&secret.name))).unwrap_or_default()
    };
    let PersistentVolumeSpec {
        azure_file,
        cephfs,
        cinder,
        csi,
        flex_volume,
        iscsi,
        rbd,
        scale_io,
        storageos,
        ..
    } = spec;
    if let Some(source) = azure_file {
        add(or_beside(source.secret_namespace.unwrap_or_default()), source.secret_name);
    }
    for secret in [
        cephfs.map(|source| source.secret_ref),
        flex_volume.map(|source| source.secret_ref),
        iscsi.map(|source| source.secret_ref),
        rbd.map(|source| source.secret_ref),
        scale_io.map(|source| Some(source.secret_ref)),
    ] {
        let (namespace, name) = refers(secret.flatten());
        add(or_beside(namespace), name);
    }
    let (namespace, name) = refers(cinder.and_then(|source| source.secret_ref));
    add(namespace, name);
    if let Some(secret) = storageos.and_then(|source| source.secret_ref) {
        add(text(&secret.namespace), text(&secret.name));
    }
    if let Some(source) = csi {
        for secret in [source.node_publish_secret_ref, source.node_stage_secret_ref] {
            let (namespace, name) = refers(secret);
            add(namespace, name);
        }
    }
    found
}
