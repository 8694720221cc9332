//! The rules of certificates.k8s.io/v1 CertificateSigningRequest.
//!
//! What the server alone can say is not here: who asks (`spec.username` and the like), and whether the request and
//! the certificate can be read.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{
    cells::{age, human_duration, or_none},
    check::{list, one_of, required, same, text},
    format::signer_name,
};
use crate::{
    field::{Errors, FieldError, Path, quote},
    name::{NameRule, Problems},
    object::{Kind, name_cell},
    resource::Column,
};

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
/// The signer of requests from before there were signers.
const LEGACY: &str = "kubernetes.io/legacy-unknown";
const SHORTEST: i32 = 600;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn any_name(_name: &str, _prefix: bool) -> Problems {
    Problems::new()
}

impl Kind for CertificateSigningRequest {
    const NAME: Option<NameRule> = Some(any_name);
    const FIELDS: &'static [&'static str] = &["spec.signerName"];
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::age(),
        Column::text("SignerName").about(
            "Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, \
             it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \
             \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is \
             assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \
             \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can select on \
             this field using `spec.signerName`.",
        ),
        Column::text("Requestor").about("Base64-encoded PKCS#10 CSR data"),
        Column::text("RequestedDuration").about(
            "expirationSeconds is the requested duration of validity of the issued certificate. The certificate signer \
             may issue a certificate with a different validity duration so a client must check the delta between the \
             notBefore and and notAfter fields in the issued certificate to determine the actual duration.\n\nThe v1.22+ \
             in-tree implementations of the well-known Kubernetes signers will honor this field as long as the requested \
             duration is not greater than the maximum duration they will honor per the --cluster-signing-duration CLI \
             flag to the Kubernetes controller manager.\n\nCertificate signers may not honor this field for various \
             reasons:\n\n  1. Old signer that is unaware of the field (such as the in-tree\n     implementations prior \
             to v1.22)\n  2. Signer whose configured maximum is shorter than the requested duration\n  3. Signer whose \
             configured minimum is longer than the requested duration\n\nThe minimum valid value for expirationSeconds \
             is 600, i.e. 10 minutes.",
        ),
        Column::text("Condition").about("Conditions applied to the request, such as approval or denial."),
    ];

    fn set_defaults(&mut self) {
        self.status.get_or_insert_default();
        for condition in self.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten()) {
            if condition.status.is_empty() {
                condition.status = "True".to_owned();
            }
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(CertificateSigningRequestStatus::default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        // Who issues does not approve. Where approvals came or went, validation says so.
        for kind in [APPROVED, DENIED] {
            let kept: Vec<_> = conditions(old).iter().filter(|condition| condition.type_ == kind).collect();
            let given = self.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
            let given: Vec<_> = given.filter(|condition| condition.type_ == kind).collect();
            if kept.len() == given.len() {
                given.into_iter().zip(kept).for_each(|(given, kept)| given.clone_from(kept));
            }
        }
    }

    fn prepare_subresource(&mut self, _subresource: &str, old: &Self) {
        self.spec.clone_from(&old.spec);
        let given = self.status.take().and_then(|status| status.conditions);
        let mut status = old.status.clone().unwrap_or_default();
        status.conditions = given;
        self.status = Some(status);
    }

    fn stamp(&mut self, old: Option<&Self>, now: Timestamp) {
        let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        let mut before = BTreeMap::new();
        for old in old.map(conditions).unwrap_or_default() {
            before.entry((&old.type_, &old.status)).or_insert(&old.last_transition_time);
        }
        let given = self.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
        for condition in given {
            condition.last_update_time.get_or_insert_with(|| now.clone());
            let since = before.get(&(&condition.type_, &condition.status)).and_then(|time| (*time).clone());
            condition.last_transition_time.get_or_insert_with(|| since.unwrap_or_else(|| now.clone()));
        }
    }

    fn validate(&self) -> Errors {
        validate(self, None)
    }

    fn validate_update(&self, old: &Self) -> Errors {
        validate_update(self, old, false, false)
    }

    fn validate_status(&self, old: &Self) -> Errors {
        validate_update(self, old, false, true)
    }

    fn validate_subresource(&self, _subresource: &str, old: &Self) -> Errors {
        validate_update(self, old, true, false)
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", self.spec.signer_name.clone())]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let duration = self.spec.expiration_seconds.map(|seconds| human_duration(seconds.into()));
        vec![
            name_cell(&self.metadata),
            age(&self.metadata, now),
            or_none(&self.spec.signer_name),
            text(&self.spec.username).into(),
            or_none(&duration.unwrap_or_default()),
            state(self).into(),
        ]
    }
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default()
}

fn certificate(request: &CertificateSigningRequest) -> &[u8] {
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    certificate.map(|bytes| bytes.0.as_slice()).unwrap_or_default()
}

/// How far a request has come, as people see it.
fn state(request: &CertificateSigningRequest) -> String {
    let has = |kind: &str| conditions(request).iter().any(|condition| condition.type_ == kind);
    let mut state = String::from(match (has(DENIED), has(APPROVED)) {
        (true, _) => DENIED,
        (false, true) => APPROVED,
        (false, false) => "Pending",
    });
    if has(FAILED) {
        state.push_str(",Failed");
    }
    if !certificate(request).is_empty() {
        state.push_str(",Issued");
    }
    state
}

fn has_twice<'a>(items: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = BTreeSet::new();
    !items.into_iter().all(|item| seen.insert(item))
}

/// Checks a request. What the stored one breaks already, an update may break on.
fn validate(request: &CertificateSigningRequest, old: Option<&CertificateSigningRequest>) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let usages = list(&request.spec.usages);
    let at = path.child("usages");
    if usages.is_empty() {
        errors.push(FieldError::required(&at, "usages must be provided"));
    }
    let used = |old: &CertificateSigningRequest| old.spec.usages.clone().unwrap_or_default();
    let any_usage = |old| used(old).iter().any(|usage| !USAGES.contains(&usage.as_str()));
    if !old.is_some_and(any_usage) {
        for (i, usage) in usages.iter().enumerate() {
            one_of(&mut errors, &at.index(i), usage, &USAGES);
        }
    }
    if !old.is_some_and(|old| has_twice(used(old).iter().map(String::as_str))) {
        let mut seen = BTreeSet::new();
        for (i, usage) in usages.iter().enumerate().filter(|(_, usage)| !seen.insert(*usage)) {
            errors.push(FieldError::duplicate(&at.index(i), usage));
        }
    }
    let at = path.child("signerName");
    let signer = &request.spec.signer_name;
    if signer == LEGACY && old.is_none_or(|old| old.spec.signer_name != LEGACY) {
        let detail = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid(&at, signer, detail));
    } else {
        signer_name(&mut errors, &at, signer);
    }
    if let Some(seconds) = request.spec.expiration_seconds.filter(|seconds| *seconds < SHORTEST) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(&path.child("expirationSeconds"), seconds, detail));
    }
    validate_conditions(&mut errors, conditions(request), old.map(conditions).unwrap_or_default());
    errors
}

fn validate_conditions(
    errors: &mut Errors,
    conditions: &[CertificateSigningRequestCondition],
    old: &[CertificateSigningRequestCondition],
) {
    let path = Path::new("status").child("conditions");
    let had: BTreeSet<&str> = old.iter().map(|condition| condition.type_.as_str()).collect();
    let mut before = BTreeSet::new();
    let had_twice = has_twice(old.iter().map(|condition| condition.type_.as_str()));
    for (i, condition) in conditions.iter().enumerate() {
        let at = path.index(i);
        let kind = condition.type_.as_str();
        if !had.contains("") {
            required(errors, &at.child("type"), kind);
        }
        let only_true = [APPROVED, DENIED, FAILED].contains(&kind);
        let allowed: &[&str] = if only_true { &["True"] } else { &["False", "True", "Unknown"] };
        required(errors, &at.child("status"), &condition.status);
        if !condition.status.is_empty() {
            one_of(errors, &at.child("status"), &condition.status, allowed);
        }
        let opposite = match kind {
            APPROVED => DENIED,
            DENIED => APPROVED,
            _ => "",
        };
        let both = !opposite.is_empty() && before.contains(opposite);
        if both && !(had.contains(APPROVED) && had.contains(DENIED)) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(&path, kind, detail));
        }
        if !before.insert(kind) && !had_twice {
            errors.push(FieldError::duplicate(&at.child("type"), kind));
        }
    }
}

fn validate_update(
    request: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    may_approve: bool,
    may_issue: bool,
) -> Errors {
    let mut errors = validate(request, Some(old));
    let path = Path::new("status");
    let at = path.child("conditions");
    let of = |request, kind: &str| -> Vec<CertificateSigningRequestCondition> {
        conditions(request).iter().filter(|condition| condition.type_ == kind).cloned().collect()
    };
    for kind in [APPROVED, DENIED, FAILED] {
        if of(request, kind).len() < of(old, kind).len() {
            let detail = format!("updates may not remove a condition of type {}", quote(kind));
            errors.push(FieldError::forbidden(&at, detail));
        }
    }
    for kind in [APPROVED, DENIED].into_iter().filter(|_| !may_approve) {
        let (new, old) = (of(request, kind), of(old, kind));
        let what = if new.len() > old.len() {
            "add"
        } else if new.len() == old.len() && !same(&new, &old) {
            "modify"
        } else {
            continue;
        };
        let detail = format!("updates may not {what} a condition of type {}", quote(kind));
        errors.push(FieldError::forbidden(&at, detail));
    }
    if certificate(request) != certificate(old) {
        let at = path.child("certificate");
        if !may_issue {
            errors.push(FieldError::forbidden(&at, "updates may not set certificate content"));
        } else if !certificate(old).is_empty() {
            errors.push(FieldError::forbidden(&at, "updates may not modify existing certificate content"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{ByteString, api::certificates::v1::CertificateSigningRequestSpec};

    use super::*;

    fn request(conditions: &[&str], certificate: &str) -> CertificateSigningRequest {
        let condition = |kind: &&str| CertificateSigningRequestCondition {
            type_: (*kind).to_owned(),
            status: "True".to_owned(),
            ..Default::default()
        };
        CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                signer_name: "example.org/x".to_owned(),
                usages: Some(vec!["client auth".to_owned()]),
                ..Default::default()
            },
            status: Some(CertificateSigningRequestStatus {
                conditions: Some(conditions.iter().map(condition).collect()),
                certificate: Some(ByteString(certificate.into())).filter(|_| !certificate.is_empty()),
            }),
            ..Default::default()
        }
    }

    fn texts(errors: Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn approving_is_not_issuing() {
        let (pending, approved, denied) =
            (request(&[], ""), request(&[APPROVED], ""), request(&[DENIED], ""));
        let issued = request(&[APPROVED], "x");
        let added = "status.conditions: Forbidden: updates may not add a condition of type \"Approved\"";
        let removed = "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"";
        let set = "status.certificate: Forbidden: updates may not set certificate content";
        let reset = "status.certificate: Forbidden: updates may not modify existing certificate content";
        assert_eq!(texts(approved.validate_subresource("approval", &pending)), [""; 0]);
        assert_eq!(texts(approved.validate_status(&pending)), [added]);
        assert_eq!(texts(issued.validate_status(&approved)), [""; 0]);
        assert_eq!(texts(issued.validate_subresource("approval", &approved)), [set]);
        assert_eq!(texts(request(&[APPROVED], "y").validate_status(&issued)), [reset]);
        assert_eq!(texts(denied.validate_subresource("approval", &approved)), [removed]);
        let both = request(&[APPROVED, DENIED], "");
        let exclusive = "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive";
        assert_eq!(texts(both.validate_subresource("approval", &approved)), [exclusive]);
    }

    #[test]
    fn people_see_how_far_a_request_has_come() {
        for (conditions, certificate, expected) in [
            (&[][..], "", "Pending"),
            (&[APPROVED], "", "Approved"),
            (&[APPROVED], "x", "Approved,Issued"),
            (&[APPROVED, FAILED], "", "Approved,Failed"),
            (&[APPROVED, DENIED], "", "Denied"),
        ] {
            assert_eq!(state(&request(conditions, certificate)), expected);
        }
    }
}
