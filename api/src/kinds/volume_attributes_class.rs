//! The rules of storage.k8s.io/v1 VolumeAttributesClass.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use serde_json::Value;

use super::{
    cells::age,
    check::{is_empty, same, text},
    volume,
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

const DEFAULT: &str = "volumeattributesclass.alpha.kubernetes.io/is-default-class";

impl Kind for VolumeAttributesClass {
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("DriverName").about("Name of the CSI driver This field is immutable."),
        Column::age(),
    ];

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        volume::provisioner(&mut errors, &self.driver_name, &Path::new("driverName"));
        let at = Path::new("parameters");
        volume::parameters(&mut errors, self.parameters.as_ref(), &at);
        if is_empty(&self.parameters) {
            errors.push(FieldError::required(&at, "must contain at least one key/value pair"));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        for (field, changed) in [
            ("driverName", self.driver_name != old.driver_name),
            ("parameters", !same(&self.parameters, &old.parameters)),
        ] {
            if changed {
                let detail = format!("updates to {field} are forbidden.");
                errors.push(FieldError::forbidden(&Path::new(field), detail));
            }
        }
        errors.extend(self.validate());
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let annotation = self.metadata.annotations.as_ref().and_then(|a| a.get(DEFAULT));
        let name = match annotation {
            Some(value) if value == "true" => format!("{} (default)", text(&self.metadata.name)).into(),
            _ => name_cell(&self.metadata),
        };
        vec![name, self.driver_name.as_str().into(), age(&self.metadata, now)]
    }
}
