//! What of the API a pod that a node runs by itself would need.

use api::object::Object;
use k8s_openapi::api::core::v1::{Pod, Volume, VolumeProjection};

use crate::auth::node::{Refers, references_of_any};

/// The first kind of object that the pod refers to, in the words and the order of upstream.
pub(super) fn refers_to(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    if spec.service_account_name.as_ref().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    let references = references_of_any(&Object::to_bytes(pod));
    let any = |kind| references.iter().any(|(of, _)| *of == kind);
    if any(Refers::Secret) {
        return Some("secrets");
    }
    if any(Refers::ConfigMap) {
        return Some("configmaps");
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Some("resourceclaims");
    }
    spec.volumes.iter().flatten().find_map(volume)
}

fn volume(volume: &Volume) -> Option<&'static str> {
    if volume.config_map.is_some() {
        return Some("configmaps (via configmap volumes)");
    }
    if volume.secret.is_some() {
        return Some("secrets (via secret volumes)");
    }
    if volume.csi.is_some() {
        return Some("csidrivers (via CSI volumes)");
    }
    if volume.glusterfs.is_some() {
        return Some("endpoints (via glusterFS volumes)");
    }
    if volume.persistent_volume_claim.is_some() {
        return Some("persistentvolumeclaims");
    }
    if volume.ephemeral.is_some() {
        return Some("persistentvolumeclaims (via ephemeral volumes)");
    }
    if volume.azure_file.is_some() {
        return Some("secrets (via azureFile volumes)");
    }
    volume.projected.as_ref()?.sources.iter().flatten().find_map(projected)
}

fn projected(source: &VolumeProjection) -> Option<&'static str> {
    if source.config_map.is_some() {
        return Some("configmaps (via projected volumes)");
    }
    if source.secret.is_some() {
        return Some("secrets (via projected volumes)");
    }
    if source.service_account_token.is_some() {
        return Some("serviceaccounts (via projected volumes)");
    }
    if source.cluster_trust_bundle.is_some() {
        return Some("clustertrustbundles");
    }
    source.pod_certificate.as_ref().map(|_| "podcertificates")
}
