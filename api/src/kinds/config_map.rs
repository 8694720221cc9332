//! The rules of core/v1 ConfigMap.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::{
    cells::age,
    check::{problems, same},
};
use crate::{
    field::{Errors, FieldError, Path},
    name,
    object::{Kind, name_cell},
    resource::Column,
};

/// All values of a ConfigMap or Secret together may have this many bytes.
pub(super) const MAX_SIZE: usize = 1024 * 1024;
pub(super) const IMMUTABLE: &str = "field is immutable when `immutable` is set";

impl Kind for ConfigMap {
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Data").about(
            "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. \
             Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap \
             with the keys in the BinaryData field, this is enforced during validation process.",
        ),
        Column::age(),
    ];

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let mut size = 0;
        for (key, value) in self.data.iter().flatten() {
            let at = Path::new("data").key(key);
            problems(&mut errors, &at, key, name::config_map_key(key));
            if self.binary_data.as_ref().is_some_and(|b| b.contains_key(key)) {
                errors.push(FieldError::invalid(&at, key, "duplicate of key present in binaryData"));
            }
            size += value.len();
        }
        for (key, value) in self.binary_data.iter().flatten() {
            problems(&mut errors, &Path::new("binaryData").key(key), key, name::config_map_key(key));
            size += value.0.len();
        }
        if size > MAX_SIZE {
            errors.push(FieldError::too_long(&Path::new("[]"), MAX_SIZE));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        if old.immutable == Some(true) {
            for (field, changed) in [
                ("immutable", self.immutable != Some(true)),
                ("data", !same(&self.data, &old.data)),
                ("binaryData", !same(&self.binary_data, &old.binary_data)),
            ] {
                if changed {
                    errors.push(FieldError::forbidden(&Path::new(field), IMMUTABLE));
                }
            }
        }
        errors.extend(self.validate());
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let entries = self.data.iter().flatten().count() + self.binary_data.iter().flatten().count();
        vec![name_cell(&self.metadata), entries.into(), age(&self.metadata, now)]
    }
}
