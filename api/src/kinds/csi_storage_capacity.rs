//! The rules of storage.k8s.io/v1 CSIStorageCapacity.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use serde_json::Value;

use super::{
    amount::{Amount, canonical},
    check::{dns_subdomain, immutable, selector},
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for CSIStorageCapacity {
    const UNCONDITIONAL_UPDATE: bool = false;
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("StorageClassName").about(
            "storageClassName represents the name of the StorageClass that the reported capacity applies to. It must \
             meet the same requirements as the name of a StorageClass object (non-empty, DNS subdomain). If that \
             object no longer exists, the CSIStorageCapacity object is obsolete and should be removed by its \
             creator. This field is immutable.",
        ),
        Column::text("Capacity").about(
            "capacity is the value reported by the CSI driver in its GetCapacityResponse for a GetCapacityRequest \
             with topology and parameters that match the previous fields.\n\nThe semantic is currently (CSI spec \
             1.2) defined as: The available capacity, in bytes, of the storage that can be used to provision \
             volumes. If not set, that information is currently unavailable.",
        ),
    ];

    fn set_defaults(&mut self) {
        for amount in [&mut self.capacity, &mut self.maximum_volume_size].into_iter().flatten() {
            canonical(amount);
        }
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        selector(&mut errors, &Path::new("nodeTopology"), self.node_topology.as_ref());
        dns_subdomain(&mut errors, &Path::new("storageClassName"), &self.storage_class_name);
        if let Some(capacity) = self.capacity.as_ref().and_then(Amount::of).filter(|c| c.is_negative()) {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(&Path::new("capacity"), capacity.to_string(), detail));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        immutable(&mut errors, &Path::new("nodeTopology"), &self.node_topology, &old.node_topology);
        let at = Path::new("storageClassName");
        immutable(&mut errors, &at, &self.storage_class_name, &old.storage_class_name);
        errors
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        let capacity = self.capacity.as_ref().and_then(Amount::of);
        vec![
            name_cell(&self.metadata),
            self.storage_class_name.as_str().into(),
            capacity.map_or_else(|| "<unset>".to_owned(), |amount| amount.to_string()).into(),
        ]
    }
}
