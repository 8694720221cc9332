//! The rules of networking.k8s.io/v1 IPAddress.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ParentReference};
use serde_json::Value;

use super::{
    cells::or_none,
    check::{dns_subdomain, immutable, problems, text},
    format::canonical_ip_problems,
    ingress::path_segment,
};
use crate::{
    field::{Errors, FieldError, Path},
    name::{self, NameRule, Problems},
    object::{Kind, name_cell},
    resource::Column,
};

/// The name is the address.
fn address(name: &str, _prefix: bool) -> Problems {
    canonical_ip_problems(name)
}

impl Kind for IPAddress {
    const NAME: Option<NameRule> = Some(address);
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("ParentRef").about(
            "ParentRef references the resource that an IPAddress is attached to. An IPAddress must reference a parent \
             object.",
        ),
    ];

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec").child("parentRef");
        let Some(parent) = parent(self) else {
            errors.push(FieldError::required(&path, ""));
            return errors;
        };
        if !text(&parent.group).is_empty() {
            dns_subdomain(&mut errors, &path.child("group"), text(&parent.group));
        }
        path_segment(&mut errors, &path.child("resource"), &parent.resource, "");
        path_segment(&mut errors, &path.child("name"), &parent.name, "");
        let namespace = text(&parent.namespace);
        if !namespace.is_empty() {
            problems(&mut errors, &path.child("namespace"), namespace, name::path_segment(namespace));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        let at = Path::new("spec").child("parentRef");
        immutable(&mut errors, &at, &parent(self), &parent(old));
        errors
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        let shown = parent(self).map(|parent| {
            let mut parts = vec![match text(&parent.group) {
                "" => parent.resource.to_lowercase(),
                group => format!("{}.{group}", parent.resource).to_lowercase(),
            }];
            parts.extend(parent.namespace.clone().filter(|namespace| !namespace.is_empty()));
            parts.push(parent.name.clone());
            parts.join("/")
        });
        vec![name_cell(&self.metadata), or_none(&shown.unwrap_or_default())]
    }
}

/// The parent, if one is given: the typed struct has no other sign of absence than that nothing is in it.
fn parent(address: &IPAddress) -> Option<&ParentReference> {
    let parent = &address.spec.parent_ref;
    (*parent != ParentReference::default()).then_some(parent)
}
