//! The rules of core/v1 ComponentStatus: it is only read, and says whether the parts of the control plane are well.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ComponentStatus;
use serde_json::Value;

use super::check::{list, text};
use crate::{
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for ComponentStatus {
    const DEPRECATED: Option<&'static str> = Some("v1 ComponentStatus is deprecated in v1.19+");
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Status").about("Status of the component conditions"),
        Column::text("Message").about("Message of the component conditions"),
        Column::text("Error").about("Error of the component conditions"),
    ];

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        let healthy = list(&self.conditions).iter().find(|condition| condition.type_ == "Healthy");
        let status = match healthy.map(|condition| condition.status.as_str()) {
            Some("True") => "Healthy",
            Some("False") => "Unhealthy",
            _ => "Unknown",
        };
        vec![
            name_cell(&self.metadata),
            status.into(),
            healthy.map(|condition| text(&condition.message)).unwrap_or_default().into(),
            healthy.map(|condition| text(&condition.error)).unwrap_or_default().into(),
        ]
    }
}
