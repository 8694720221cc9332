//! The rules of storage.k8s.io/v1 CSIDriver.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIDriver;
use serde_json::Value;

use super::{
    cells::{age, or_none},
    check::{generation, immutable, list, one_of, same},
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for CSIDriver {
    const RETURNS_DELETED: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("AttachRequired", "boolean").about(
            "attachRequired indicates this CSI volume driver requires an attach operation (because it implements the \
             CSI ControllerPublishVolume() method), and that the Kubernetes attach detach controller should call the \
             attach volume interface which checks the volumeattachment status and waits until the volume is attached \
             before proceeding to mounting. The CSI external-attacher coordinates with CSI volume driver and updates \
             the volumeattachment status when the attach operation is complete. If the value is specified to false, \
             the attach operation will be skipped. Otherwise the attach operation will be called.\n\nThis field is \
             immutable.",
        ),
        Column::new("PodInfoOnMount", "boolean").about(
            "podInfoOnMount indicates this CSI volume driver requires additional pod information (like podName, \
             podUID, etc.) during mount operations, if set to true. If set to false, pod information will not be \
             passed on mount. Default is false.\n\nThe CSI driver specifies podInfoOnMount as part of driver \
             deployment. If true, Kubelet will pass pod information as VolumeContext in the CSI NodePublishVolume() \
             calls. The CSI driver is responsible for parsing and validating the information passed in as \
             VolumeContext.\n\nThe following VolumeContext will be passed if podInfoOnMount is set to true. This \
             list might grow, but the prefix will be used. \"csi.storage.k8s.io/pod.name\": pod.Name \
             \"csi.storage.k8s.io/pod.namespace\": pod.Namespace \"csi.storage.k8s.io/pod.uid\": string(pod.UID) \
             \"csi.storage.k8s.io/ephemeral\": \"true\" if the volume is an ephemeral inline \
             volume\n                                defined by a CSIVolumeSource, otherwise \"false\"\n\n\"csi.storage.k8s.io/ephemeral\" \
             is a new feature in Kubernetes 1.16. It is only required for drivers which support both the \
             \"Persistent\" and \"Ephemeral\" VolumeLifecycleMode. Other drivers can leave pod info disabled and/or \
             ignore this field. As Kubernetes 1.15 doesn't support this field, drivers can only support one mode \
             when deployed on such a cluster and the deployment determines which mode that is, for example via a \
             command line parameter of the driver.\n\nThis field was immutable in Kubernetes < 1.29 and now is \
             mutable.",
        ),
        Column::new("StorageCapacity", "boolean").about(
            "storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage \
             capacity that the driver deployment will report by creating CSIStorageCapacity objects with capacity \
             information, if set to true.\n\nThe check can be enabled immediately when deploying a driver. In that \
             case, provisioning new volumes with late binding will pause until the driver deployment has published \
             some suitable CSIStorageCapacity object.\n\nAlternatively, the driver can be deployed with the field \
             unset or false and it can be flipped later when storage capacity information has been \
             published.\n\nThis field was immutable in Kubernetes <= 1.22 and now is mutable.",
        ),
        Column::text("TokenRequests").about(
            "tokenRequests indicates the CSI driver needs pods' service account tokens it is mounting volume for to \
             do necessary authentication. Kubelet will pass the tokens in VolumeContext in the CSI NodePublishVolume \
             calls. The CSI driver should parse and validate the following VolumeContext: \
             \"csi.storage.k8s.io/serviceAccount.tokens\": {\n  \"<audience>\": {\n    \"token\": \
             <token>,\n    \"expirationTimestamp\": <expiration timestamp in RFC3339>,\n  },\n  ...\n}\n\nNote: \
             Audience in each TokenRequest should be different and at most one token is empty string. To receive a new token \
             after expiry, RequiresRepublish can be used to trigger NodePublishVolume periodically.",
        ),
        Column::new("RequiresRepublish", "boolean").about(
            "requiresRepublish indicates the CSI driver wants `NodePublishVolume` being periodically called to \
             reflect any possible change in the mounted volume. This field defaults to false.\n\nNote: After a \
             successful initial NodePublishVolume call, subsequent calls to NodePublishVolume should only update the \
             contents of the volume. New mount points will not be seen by a running container.",
        ),
        Column::text("Modes").about(
            "volumeLifecycleModes defines what kind of volumes this CSI volume driver supports. The default if the \
             list is empty is \"Persistent\", which is the usage defined by the CSI specification and implemented in \
             Kubernetes via the usual PV/PVC mechanism.\n\nThe other mode is \"Ephemeral\". In this mode, volumes \
             are defined inline inside the pod spec with CSIVolumeSource and their lifecycle is tied to the \
             lifecycle of that pod. A driver has to be aware of this because it is only going to get a \
             NodePublishVolume call for such a volume.\n\nFor more information about implementing this mode, see \
             https://kubernetes-csi.github.io/docs/ephemeral-local-volumes.html A driver can support one or more of \
             these modes and more modes may be added in the future.\n\nThis field is beta. This field is immutable.",
        ),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".to_owned());
        if list(&spec.volume_lifecycle_modes).is_empty() {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
    }

    fn prepare_update(&mut self, old: &Self) {
        let (new, was) = (&self.spec, &old.spec);
        let changed = !same(&new.token_requests, &was.token_requests)
            || new.requires_republish != was.requires_republish
            || new.se_linux_mount != was.se_linux_mount
            || new.node_allocatable_update_period_seconds != was.node_allocatable_update_period_seconds
            || new.service_account_token_in_secrets != was.service_account_token_in_secrets;
        generation(&mut self.metadata, &old.metadata, changed);
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let spec = &self.spec;
        let path = Path::new("spec");
        for (field, value) in [
            // The name of the first one is upstream's.
            ("attachedRequired", spec.attach_required),
            ("podInfoOnMount", spec.pod_info_on_mount),
            ("storageCapacity", spec.storage_capacity),
        ] {
            if value.is_none() {
                errors.push(FieldError::required(&path.child(field), ""));
            }
        }
        if let Some(policy) = &spec.fs_group_policy {
            let known = &["File", "None", "ReadWriteOnceWithFSType"];
            one_of(&mut errors, &path.child("fsGroupPolicy"), policy, known);
        }
        self.token_requests(&mut errors, &path.child("tokenRequests"));
        for mode in list(&spec.volume_lifecycle_modes) {
            let at = path.child("volumeLifecycleModes");
            one_of(&mut errors, &at, mode, &["Persistent", "Ephemeral"]);
        }
        if spec.se_linux_mount.is_none() {
            errors.push(FieldError::required(&path.child("seLinuxMount"), ""));
        }
        if let Some(seconds) = spec.node_allocatable_update_period_seconds.filter(|s| *s < 10) {
            let at = path.child("nodeAllocatableUpdatePeriodSeconds");
            errors.push(FieldError::invalid(&at, seconds, "must be greater than or equal to 10 seconds"));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        let path = Path::new("spec");
        let (new, old) = (&self.spec, &old.spec);
        let at = path.child("attachedRequired");
        immutable(&mut errors, &at, &new.attach_required, &old.attach_required);
        let at = path.child("volumeLifecycleModes");
        immutable(&mut errors, &at, &new.volume_lifecycle_modes, &old.volume_lifecycle_modes);
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = &self.spec;
        let audiences = match &spec.token_requests {
            None => "<unset>".to_owned(),
            Some(requests) => requests.iter().map(|r| r.audience.as_str()).collect::<Vec<_>>().join(","),
        };
        vec![
            name_cell(&self.metadata),
            spec.attach_required.unwrap_or(true).into(),
            spec.pod_info_on_mount.unwrap_or_default().into(),
            spec.storage_capacity.unwrap_or_default().into(),
            audiences.into(),
            spec.requires_republish.unwrap_or_default().into(),
            or_none(&list(&spec.volume_lifecycle_modes).join(",")),
            age(&self.metadata, now),
        ]
    }
}

/// What belongs to drivers alone.
trait Driver {
    fn token_requests(&self, errors: &mut Errors, path: &Path);
}

impl Driver for CSIDriver {
    /// Each audience once, and lifetimes that a token can have.
    fn token_requests(&self, errors: &mut Errors, path: &Path) {
        let mut audiences = BTreeSet::new();
        for (i, request) in list(&self.spec.token_requests).iter().enumerate() {
            let at = path.index(i);
            if !audiences.insert(&request.audience) {
                errors.push(FieldError::duplicate(&at.child("audience"), &request.audience));
                continue;
            }
            let Some(seconds) = request.expiration_seconds else { continue };
            let at = at.child("expirationSeconds");
            if seconds < 600 {
                let detail = "may not specify a duration less than 10 minutes";
                errors.push(FieldError::invalid(&at, seconds, detail));
            }
            if seconds > 1 << 32 {
                let detail = "may not specify a duration larger than 2^32 seconds";
                errors.push(FieldError::invalid(&at, seconds, detail));
            }
        }
    }
}
