//! The rules of apps/v1 ControllerRevision.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;

use super::{
    cells::age,
    check::{immutable, list, nonnegative},
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for ControllerRevision {
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Controller").about("Controller of the object"),
        Column::text("Revision").about("Revision indicates the revision of the state represented by Data."),
        Column::age(),
    ];

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        if self.data.as_ref().is_none_or(|d| d.0.is_null()) {
            errors.push(FieldError::required(&Path::new("data"), "data is mandatory"));
        }
        nonnegative(&mut errors, &Path::new("revision"), Some(self.revision));
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        immutable(&mut errors, &Path::new("data"), &self.data, &old.data);
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let owner = list(&self.metadata.owner_references).iter().find(|o| o.controller == Some(true));
        let controller = owner.map_or_else(
            || "<none>".to_owned(),
            |owner| {
                let group = owner.api_version.split_once('/').map(|(group, _)| format!(".{group}"));
                format!("{}{}/{}", owner.kind.to_lowercase(), group.unwrap_or_default(), owner.name)
            },
        );
        vec![name_cell(&self.metadata), controller.into(), self.revision.into(), age(&self.metadata, now)]
    }
}
