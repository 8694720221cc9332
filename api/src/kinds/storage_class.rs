//! The rules of storage.k8s.io/v1 StorageClass.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::Value;

use super::{
    cells::age,
    check::{immutable, list, one_of, same, text},
    volume,
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";

impl Kind for StorageClass {
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Provisioner").about("provisioner indicates the type of the provisioner."),
        Column::text("ReclaimPolicy").about(
            "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage \
             class. Defaults to Delete.",
        ),
        Column::text("VolumeBindingMode").about(
            "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.  When unset, \
             VolumeBindingImmediate is used. This field is only honored by servers that enable the VolumeScheduling \
             feature.",
        ),
        Column::text("AllowVolumeExpansion").about("allowVolumeExpansion shows whether the storage class allow volume expand."),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        self.reclaim_policy.get_or_insert_with(|| "Delete".to_owned());
        self.volume_binding_mode.get_or_insert_with(|| "Immediate".to_owned());
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        volume::provisioner(&mut errors, &self.provisioner, &Path::new("provisioner"));
        volume::parameters(&mut errors, self.parameters.as_ref(), &Path::new("parameters"));
        let policy = text(&self.reclaim_policy);
        if !policy.is_empty() {
            one_of(&mut errors, &Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
        }
        let modes = &["Immediate", "WaitForFirstConsumer"];
        let at = Path::new("volumeBindingMode");
        match &self.volume_binding_mode {
            None => errors.push(FieldError::required(&at, "")),
            Some(mode) => one_of(&mut errors, &at, mode, modes),
        }
        volume::topologies(&mut errors, list(&self.allowed_topologies), &Path::new("allowedTopologies"));
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        for (field, changed) in [
            ("parameters", !same(&self.parameters, &old.parameters)),
            ("provisioner", self.provisioner != old.provisioner),
            ("reclaimPolicy", self.reclaim_policy != old.reclaim_policy),
        ] {
            if changed {
                let detail = format!("updates to {field} are forbidden.");
                errors.push(FieldError::forbidden(&Path::new(field), detail));
            }
        }
        let at = Path::new("volumeBindingMode");
        immutable(&mut errors, &at, &self.volume_binding_mode, &old.volume_binding_mode);
        errors
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        volume::topology_warnings(list(&self.allowed_topologies), &Path::new("allowedTopologies"))
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let is_default = [DEFAULT, DEFAULT_BETA].iter().any(|key| {
            self.metadata.annotations.as_ref().and_then(|a| a.get(*key)).is_some_and(|v| v == "true")
        });
        let name = text(&self.metadata.name);
        let or_delete = Some(text(&self.reclaim_policy)).filter(|p| !p.is_empty()).unwrap_or("Delete");
        vec![
            if is_default { format!("{name} (default)").into() } else { name_cell(&self.metadata) },
            self.provisioner.as_str().into(),
            or_delete.into(),
            self.volume_binding_mode.as_deref().unwrap_or("Immediate").into(),
            self.allow_volume_expansion.unwrap_or_default().into(),
            age(&self.metadata, now),
        ]
    }
}
