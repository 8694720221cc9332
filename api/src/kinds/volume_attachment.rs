//! The rules of storage.k8s.io/v1 VolumeAttachment.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentStatus, VolumeError};
use serde_json::Value;

use super::{
    cells::age,
    check::{dns_subdomain, immutable_struct, keep_metadata_of_status},
    persistent_volume, volume,
};
use crate::{
    field::{Errors, FieldError, Path},
    name,
    object::{Kind, name_cell},
    resource::Column,
};

const MOST_METADATA: usize = 256 * 1024;
const MOST_MESSAGE: usize = 1024;

impl Kind for VolumeAttachment {
    const RETURNS_DELETED: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        attacher(),
        Column::text("PV").about("persistentVolumeName represents the name of the persistent volume to attach."),
        Column::text("Node").about("nodeName represents the node that the volume should be attached to."),
        Column::new("Attached", "boolean").about(
            "attached indicates the volume is successfully attached. This field must only be set by the entity \
             completing the attach operation, i.e. the external-attacher.",
        ),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        if let Some(spec) = &mut self.spec.source.inline_volume_spec {
            persistent_volume::spec_defaults(spec);
        }
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(VolumeAttachmentStatus::default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        keep_metadata_of_status(&mut self.metadata, &old.metadata);
    }

    fn validate(&self) -> Errors {
        let mut errors = self.common();
        let path = Path::new("spec");
        volume::driver_name(&mut errors, &self.spec.attacher, &path.child("attacher"));
        if let Some(volume) = &self.spec.source.persistent_volume_name {
            let at = path.child("source").child("persistentVolumeName");
            dns_subdomain(&mut errors, &at, volume);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.common();
        immutable_struct(
            &mut errors,
            &Path::new("spec"),
            &self.spec,
            &old.spec,
            "api/storage/v1.VolumeAttachmentSpec",
        );
        errors
    }

    fn validate_status(&self, old: &Self) -> Errors {
        self.validate_update(old)
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = &self.spec;
        vec![
            name_cell(&self.metadata),
            spec.attacher.as_str().into(),
            spec.source.persistent_volume_name.as_deref().unwrap_or_default().into(),
            spec.node_name.as_str().into(),
            self.status.as_ref().is_some_and(|status| status.attached).into(),
            age(&self.metadata, now),
        ]
    }
}

const fn attacher() -> Column {
    let mut column = Column::text("Attacher").about(
        "attacher indicates the name of the volume driver that MUST handle this request. This is the name \
             returned by GetPluginName().",
    );
    // Text that is static has nothing to drop.
    std::mem::forget(std::mem::replace(&mut column.format, std::borrow::Cow::Borrowed("name")));
    column
}

trait Attachment {
    /// What is checked on every write.
    fn common(&self) -> Errors;
}

impl Attachment for VolumeAttachment {
    fn common(&self) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        if self.spec.attacher.is_empty() {
            errors.push(FieldError::required(&path.child("attacher"), ""));
        }
        let at = path.child("source");
        let exactly_one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        let source = &self.spec.source;
        match (&source.inline_volume_spec, &source.persistent_volume_name) {
            (None, None) => errors.push(FieldError::required(&at, exactly_one)),
            (Some(_), Some(_)) => errors.push(FieldError::forbidden(&at, exactly_one)),
            (None, Some(name)) => {
                if name.is_empty() {
                    let detail = "must specify non empty persistentVolumeName";
                    errors.push(FieldError::required(&at.child("persistentVolumeName"), detail));
                }
            }
            (Some(spec), None) => {
                persistent_volume::validate_inline(&mut errors, spec, &at.child("inlineVolumeSpec"));
            }
        }
        dns_subdomain(&mut errors, &path.child("nodeName"), &self.spec.node_name);
        if let Some(status) = &self.status {
            let path = Path::new("status");
            attachment_metadata(
                &mut errors,
                status.attachment_metadata.as_ref(),
                &path.child("attachmentMetadata"),
            );
            failure(&mut errors, status.attach_error.as_ref(), &path.child("attachError"));
            failure(&mut errors, status.detach_error.as_ref(), &path.child("detachError"));
        }
        errors
    }
}

fn attachment_metadata(errors: &mut Errors, metadata: Option<&BTreeMap<String, String>>, path: &Path) {
    let size: usize = metadata.into_iter().flatten().map(|(key, value)| key.len() + value.len()).sum();
    if size > MOST_METADATA {
        errors.push(FieldError::too_long(path, MOST_METADATA));
    }
}

fn failure(errors: &mut Errors, error: Option<&VolumeError>, path: &Path) {
    let Some(error) = error else { return };
    if error.message.as_ref().is_some_and(|message| message.len() > MOST_MESSAGE) {
        // The limit that is named is upstream's, not the one that counts.
        errors.push(FieldError::too_long(&path.child("message"), MOST_METADATA));
    }
    if let Some(code) = error.error_code.filter(|code| *code < 0) {
        let detail = name::inclusive_range(0, i32::MAX.into());
        errors.push(FieldError::invalid(&path.child("errorCode"), code, detail));
    }
}
