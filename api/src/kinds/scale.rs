//! The rules of autoscaling/v1 Scale.

use k8s_openapi::api::autoscaling::v1::Scale;

use crate::{name::NameRule, object::Kind};

impl Kind for Scale {
    const NAME: Option<NameRule> = None;
}
