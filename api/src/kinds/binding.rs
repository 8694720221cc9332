//! The rules of core/v1 Binding.

use k8s_openapi::api::core::v1::Binding;

use super::check::text;
use crate::{
    field::{Errors, FieldError, Path},
    name::NameRule,
    object::Kind,
};

impl Kind for Binding {
    const NAME: Option<NameRule> = None;

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("target");
        let kind = text(&self.target.kind);
        if !matches!(kind, "" | "Node") {
            errors.push(FieldError::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
        }
        super::check::required(&mut errors, &path.child("name"), text(&self.target.name));
        errors
    }
}
