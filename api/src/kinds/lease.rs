//! The rules of coordination.k8s.io/v1 Lease.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

use super::{
    cells::age,
    check::{one_of, qualified_name, text},
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for Lease {
    const CREATE_ON_UPDATE: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Holder").about(
            "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is \
             used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
        ),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let Some(spec) = &self.spec else { return errors };
        let path = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
            let at = path.child("leaseDurationSeconds");
            errors.push(FieldError::invalid(&at, seconds, "must be greater than 0"));
        }
        if let Some(count) = spec.lease_transitions.filter(|c| *c < 0) {
            let at = path.child("leaseTransitions");
            errors.push(FieldError::invalid(&at, count, "must be greater than or equal to 0"));
        }
        if let Some(strategy) = &spec.strategy {
            // The doubled name is upstream's.
            let at = path.child("strategy").child("strategy");
            if strategy.contains('/') {
                qualified_name(&mut errors, &at, strategy);
            } else {
                one_of(&mut errors, &at, strategy, &["OldestEmulationVersion"]);
            }
        }
        if !text(&spec.preferred_holder).is_empty() && text(&spec.strategy).is_empty() {
            let detail = "may only be specified if `strategy` is defined";
            errors.push(FieldError::forbidden(&path.child("preferredHolder"), detail));
        }
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let holder = self.spec.as_ref().map(|s| text(&s.holder_identity)).unwrap_or_default();
        vec![name_cell(&self.metadata), holder.into(), age(&self.metadata, now)]
    }
}
