//! The rules of networking.k8s.io/v1 ServiceCIDR.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde_json::Value;

use super::{
    cells::age,
    check::{list, parse_cidr},
    format::canonical_cidr,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for ServiceCIDR {
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("CIDRs").about(
            "CIDRs defines the IP blocks in CIDR notation (e.g. \"192.168.0.0/24\" or \"2001:db8::/64\") from which to \
             assign service cluster IPs. Max of two CIDRs is allowed, one of each IP family. This field is immutable.",
        ),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        self.spec.get_or_insert_default();
        self.status.get_or_insert_default();
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        crate::meta::keep_for_status(&mut self.metadata, &old.metadata);
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let cidrs = cidrs(self);
        let path = Path::new("spec").child("cidrs");
        if cidrs.is_empty() {
            errors.push(FieldError::required(&path, "at least one CIDR required"));
            return errors;
        }
        if cidrs.len() > 2 {
            // Upstream shows its own struct here, whose field has no JSON name.
            let shown = serde_json::json!({ "CIDRs": cidrs });
            errors.push(FieldError::invalid(&path, shown, "may only hold up to 2 values"));
            return errors;
        }
        for (i, cidr) in cidrs.iter().enumerate() {
            canonical_cidr(&mut errors, &path.index(i), cidr);
        }
        if let [first, second] = cidrs
            && let (Some((first, _)), Some((second, _))) = (parse_cidr(first), parse_cidr(second))
            && first.is_ipv4() == second.is_ipv4()
        {
            let detail =
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            errors.push(FieldError::invalid(&path, BadValue::of(&cidrs), detail));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        const IMMUTABLE: &str = "field is immutable";
        let mut errors = Errors::new();
        let (new, old) = (cidrs(self), cidrs(old));
        let path = Path::new("spec").child("cidrs");
        // A second family may be added.
        let added = old.len() == 1 && new.len() == 2;
        if !added && new.len() != old.len() {
            errors.push(FieldError::invalid(&path, BadValue::of(&new), IMMUTABLE));
            return errors;
        }
        for (i, (new, _)) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new != old) {
            errors.push(FieldError::invalid(&path.index(i), new, IMMUTABLE));
        }
        if added {
            errors.extend(self.validate());
        }
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&self.metadata), cidrs(self).join(",").into(), age(&self.metadata, now)]
    }
}

fn cidrs(object: &ServiceCIDR) -> &[String] {
    object.spec.as_ref().map(|spec| list(&spec.cidrs)).unwrap_or_default()
}
