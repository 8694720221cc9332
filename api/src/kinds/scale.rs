//! The rules of autoscaling/v1 Scale.

use k8s_openapi::api::autoscaling::v1::Scale;

use super::check::nonnegative;
use crate::{
    field::{Errors, Path},
    name::NameRule,
    object::Kind,
};

impl Kind for Scale {
    const NAME: Option<NameRule> = None;

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let replicas = self.spec.as_ref().and_then(|s| s.replicas);
        nonnegative(&mut errors, &Path::new("spec").child("replicas"), replicas);
        errors
    }
}
