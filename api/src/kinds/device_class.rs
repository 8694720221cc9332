//! The rules of resource.k8s.io/v1 DeviceClass.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::DeviceClass;
use serde_json::Value;

use super::{
    cells::age,
    check::{generation, list, same},
    device::{self, MOST, each, opaque},
    pod::resources,
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for DeviceClass {
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::age()];

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        device::selectors(&mut errors, list(&self.spec.selectors), &path.child("selectors"));
        each(&mut errors, list(&self.spec.config), MOST, &path.child("config"), |errors, config, at| {
            opaque(errors, config.opaque.as_ref(), at);
        });
        if let Some(resource) =
            self.spec.extended_resource_name.as_ref().filter(|r| !resources::is_extended(r))
        {
            let at = path.child("extendedResourceName");
            errors.push(FieldError::invalid(&at, resource, "must be a valid extended resource name"));
        }
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&self.metadata), age(&self.metadata, now)]
    }
}
