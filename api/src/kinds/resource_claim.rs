//! The rules of resource.k8s.io/v1 ResourceClaim.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimStatus};
use serde_json::Value;

use super::{
    cells::age,
    check::{immutable, keep_metadata_of_status, list},
    device::{allocation, claim},
};
use crate::{
    field::{Errors, Path},
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for ResourceClaim {
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("State").about("A summary of the current state (allocated, pending, reserved, etc.)."),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        claim::set_defaults(&mut self.spec);
        allocation::set_defaults(self.status.get_or_insert_default());
    }

    fn prepare_create(&mut self) {
        self.status = Some(ResourceClaimStatus::default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        keep_metadata_of_status(&mut self.metadata, &old.metadata);
        if let (Some(new), Some(old)) = (&mut self.status, &old.status) {
            allocation::drop_deallocated(new, old);
        }
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        claim::validate(&mut errors, &self.spec, &Path::new("spec"));
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        immutable(&mut errors, &Path::new("spec"), &self.spec, &old.spec);
        errors
    }

    fn validate_status(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        let empty = ResourceClaimStatus::default();
        let (new, old) = (self.status.as_ref().unwrap_or(&empty), old.status.as_ref().unwrap_or(&empty));
        let ends = self.metadata.deletion_timestamp.is_some();
        let names = claim::Names::of(&self.spec);
        allocation::validate(&mut errors, new, old, ends, &names, &Path::new("status"));
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let ends = self.metadata.deletion_timestamp.is_some();
        let status = self.status.as_ref();
        let allocated = status.is_some_and(|status| status.allocation.is_some());
        let reserved = status.is_some_and(|status| !list(&status.reserved_for).is_empty());
        let states: Vec<&str> = [
            ("deleted", ends),
            ("pending", !allocated && !ends),
            ("allocated", allocated),
            ("reserved", allocated && reserved),
        ]
        .into_iter()
        .filter_map(|(state, is)| is.then_some(state))
        .collect();
        vec![name_cell(&self.metadata), states.join(",").into(), age(&self.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(spec: Value, status: Value) -> ResourceClaim {
        let value = json!({"metadata": {"name": "c", "namespace": "n"}, "spec": spec, "status": status});
        let mut claim: ResourceClaim = serde_json::from_value(value).unwrap();
        claim.set_defaults();
        claim
    }

    fn one(exactly: Value) -> Value {
        json!({"devices": {"requests": [{"name": "r", "exactly": exactly}]}})
    }

    fn texts(errors: &Errors) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_request_asks_for_one_device_unless_it_says_otherwise() {
        let claim = claim(one(json!({"deviceClassName": "gpu"})), json!({}));
        let value = serde_json::to_value(&claim).unwrap();
        assert_eq!(
            value["spec"]["devices"]["requests"][0]["exactly"],
            json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1})
        );
        assert!(claim.validate().is_empty());
    }

    #[test]
    fn a_claim_is_checked_in_upstreams_words() {
        for (spec, wanted) in [
            (
                json!({"devices": {"requests": [{"name": "r"}]}}),
                "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            ),
            (
                one(json!({"deviceClassName": "", "allocationMode": "All", "count": 2})),
                "spec.devices.requests[0].exactly.deviceClassName: Required value; \
                 spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
            ),
            (
                json!({"devices": {
                    "requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}],
                    "constraints": [{"requests": ["s"], "matchAttribute": "x.example.org/model"}]
                }}),
                "spec.devices.constraints[0].requests[0]: Invalid value: \"s\": must be the name of a request in the claim or \
                 the name of a request and a subrequest separated by '/'",
            ),
            (
                json!({"devices": {"config": [{"opaque": {"driver": "d.example.org", "parameters": 1}}]}}),
                "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
            ),
        ] {
            assert_eq!(texts(&claim(spec, json!({})).validate()), wanted);
        }
    }

    #[test]
    fn an_allocation_is_checked_once_and_stays() {
        let spec = || one(json!({"deviceClassName": "gpu"}));
        let result = json!({"request": "r", "driver": "d.example.org", "pool": "p", "device": "g0"});
        let status = json!({"allocation": {"devices": {"results": [result]}}});
        let (old, new) = (claim(spec(), json!({})), claim(spec(), status.clone()));
        assert_eq!(texts(&new.validate_status(&old)), "");
        let mut other = status;
        other["allocation"]["devices"]["results"][0]["device"] = json!("g1");
        let changed = claim(spec(), other);
        assert!(texts(&changed.validate_status(&new)).ends_with("field is immutable"));
        let reserved = claim(spec(), json!({"reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]}));
        assert_eq!(
            texts(&reserved.validate_status(&old)),
            "status.reservedFor: Forbidden: may not be specified when `allocated` is not set"
        );
    }
}
