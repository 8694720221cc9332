//! Who may approve and sign requests for certificates, and what none of them is for.

use api::object::Object;
use api::status::Status;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{Admission, AdmissionContext, Operation};
use crate::auth::Decision;
use crate::registry::certificates::organizations;
use crate::{Attributes, MASTERS};

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";
/// Signs certificates for clients of this API server.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub(super) fn approval(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    _: Option<&dyn Object>,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    if context.operation != Operation::Update || !context.is_part(GROUP, PLURAL, "approval") {
        return Ok(());
    }
    may(admission, context, "approve", old)
}

pub(super) fn signing(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: Option<&dyn Object>,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    if context.operation != Operation::Update || !context.is_part(GROUP, PLURAL, "status") {
        return Ok(());
    }
    let part = |object: Option<&dyn Object>| {
        let status = object?.downcast_ref::<CertificateSigningRequest>()?.status.clone()?;
        Some((status.certificate.unwrap_or_default(), status.conditions.unwrap_or_default()))
    };
    if part(object).unwrap_or_default() == part(old).unwrap_or_default() {
        return Ok(());
    }
    may(admission, context, "sign", old)
}

/// The writer must be allowed to do it for the signer of the request, or for all signers of its domain.
fn may(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    verb: &str,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    let Some(request) = old.and_then(|old| old.downcast_ref::<CertificateSigningRequest>()) else {
        return Ok(());
    };
    let signer = request.spec.signer_name.as_str();
    let domain = signer.split('/').next().unwrap_or_default();
    let allowed = |name: String| {
        let asked = Attributes {
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
            name,
            ..Attributes::default()
        };
        context.may(admission, asked) == Decision::Allow
    };
    if allowed(signer.to_owned()) || allowed(format!("{domain}/*")) {
        return Ok(());
    }
    Err(context.forbidden(format_args!(
        "user not permitted to {verb} requests with signerName {}",
        api::field::quote(signer)
    )))
}

/// Nobody becomes a master of the cluster by a certificate that was asked for here.
pub(super) fn subject(
    _: &Admission,
    context: &AdmissionContext<'_>,
    object: Option<&dyn Object>,
    _: Option<&dyn Object>,
) -> Result<(), Status> {
    if context.operation != Operation::Create || !context.is(GROUP, PLURAL) {
        return Ok(());
    }
    let Some(request) = object.and_then(|object| object.downcast_ref::<CertificateSigningRequest>()) else {
        return Ok(());
    };
    if request.spec.signer_name != CLIENT_SIGNER {
        return Ok(());
    }
    let groups = organizations(&request.spec.request.0)
        .map_err(|why| context.forbidden(format_args!("failed to parse CSR: {why}")))?;
    if groups.iter().any(|group| group == MASTERS) {
        return Err(context
            .forbidden(format_args!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")));
    }
    Ok(())
}
