//! The rules of authentication.k8s.io/v1 TokenRequest.

use k8s_openapi::api::authentication::v1::TokenRequest;

use crate::{
    field::{Errors, FieldError, Path},
    name::NameRule,
    object::Kind,
};

impl Kind for TokenRequest {
    const NAME: Option<NameRule> = None;

    fn set_defaults(&mut self) {
        self.spec.get_or_insert_default().expiration_seconds.get_or_insert(3600);
    }

    fn validate(&self) -> Errors {
        let seconds = self.spec.as_ref().and_then(|s| s.expiration_seconds).unwrap_or_default();
        let detail = match seconds {
            s if s < 600 => "may not specify a duration less than 10 minutes",
            s if s > 1 << 32 => "may not specify a duration larger than 2^32 seconds",
            _ => return Errors::new(),
        };
        vec![FieldError::invalid(&Path::new("spec").child("expirationSeconds"), seconds, detail)]
    }
}
