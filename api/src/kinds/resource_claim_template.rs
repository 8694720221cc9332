//! The rules of resource.k8s.io/v1 ResourceClaimTemplate.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use serde_json::Value;

use super::{cells::age, check::immutable, device::claim, template_meta};
use crate::{
    field::{Errors, Path},
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for ResourceClaimTemplate {
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::age()];

    fn set_defaults(&mut self) {
        self.spec.metadata.get_or_insert_default();
        claim::set_defaults(&mut self.spec.spec);
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        if let Some(metadata) = &self.spec.metadata {
            template_meta::validate(&mut errors, metadata, &path.child("metadata"));
        }
        claim::validate(&mut errors, &self.spec.spec, &path.child("spec"));
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        immutable(&mut errors, &Path::new("spec"), &self.spec, &old.spec);
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&self.metadata), age(&self.metadata, now)]
    }
}
