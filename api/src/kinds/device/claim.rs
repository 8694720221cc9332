//! What a claim asks for.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceConstraint, DeviceRequest, DeviceSelector, DeviceSubRequest, DeviceToleration,
    ExactDeviceRequest, ResourceClaimSpec,
};

use super::{MOST, class, each, each_once, full_identifier, opaque, selectors, tolerations};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::{
        amount::canonical,
        check::{dns_label, list, one_of, text},
    },
};

const MOST_ALTERNATIVES: usize = 8;
const EXACT: &str = "ExactCount";
const NO_SUCH_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// The names of the requests of a claim, and of their alternatives.
pub(crate) struct Names<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Names<'a> {
    pub(crate) fn of(spec: &'a ResourceClaimSpec) -> Self {
        let requests = spec.devices.iter().flat_map(|devices| list(&devices.requests));
        Self(
            requests
                .map(|request| {
                    let alternatives = list(&request.first_available).iter().map(|sub| sub.name.as_str());
                    (request.name.as_str(), alternatives.collect())
                })
                .collect(),
        )
    }

    fn has(&self, name: &str) -> bool {
        match name.split_once('/') {
            None => self.0.contains_key(name),
            Some((request, sub)) => self.0.get(request).is_some_and(|names| names.contains(sub)),
        }
    }

    /// A reference to a request, or to one of its alternatives.
    pub(crate) fn reference(&self, errors: &mut Errors, name: &str, path: &Path) {
        if name.split('/').count() > 2 {
            errors.push(FieldError::invalid(path, name, NO_SUCH_REQUEST));
            return;
        }
        for part in name.split('/') {
            dns_label(errors, path, part);
        }
        if !self.has(name) {
            errors.push(FieldError::invalid(path, name, NO_SUCH_REQUEST));
        }
    }

    /// References, each once.
    pub(crate) fn references(&self, errors: &mut Errors, names: &[String], path: &Path) {
        each_once(
            errors,
            names,
            MOST,
            path,
            |name| name.into(),
            |errors, name, at| {
                self.reference(errors, name, at);
            },
        );
    }
}

/// What is not said of requests.
pub(crate) fn set_defaults(spec: &mut ResourceClaimSpec) {
    for request in spec.devices.iter_mut().flat_map(|devices| devices.requests.iter_mut().flatten()) {
        if let Some(exactly) = &mut request.exactly {
            count(&mut exactly.allocation_mode, &mut exactly.count);
            operators(&mut exactly.tolerations);
            for amount in exactly.capacity.iter_mut().flat_map(|c| c.requests.iter_mut().flatten()) {
                canonical(amount.1);
            }
        }
        for sub in request.first_available.iter_mut().flatten() {
            count(&mut sub.allocation_mode, &mut sub.count);
            operators(&mut sub.tolerations);
            for amount in sub.capacity.iter_mut().flat_map(|c| c.requests.iter_mut().flatten()) {
                canonical(amount.1);
            }
        }
    }
}

fn count(mode: &mut Option<String>, count: &mut Option<i64>) {
    if text(mode).is_empty() {
        *mode = Some(EXACT.to_owned());
    }
    if text(mode) == EXACT && count.unwrap_or_default() == 0 {
        *count = Some(1);
    }
}

/// What an operator is that is not said.
pub(crate) fn operators(tolerations: &mut Option<Vec<DeviceToleration>>) {
    for toleration in tolerations.iter_mut().flatten() {
        if text(&toleration.operator).is_empty() {
            toleration.operator = Some("Equal".to_owned());
        }
    }
}

/// The spec of a claim.
pub(crate) fn validate(errors: &mut Errors, spec: &ResourceClaimSpec, path: &Path) {
    let empty = DeviceClaim::default();
    let devices = spec.devices.as_ref().unwrap_or(&empty);
    let path = path.child("devices");
    let names = Names::of(spec);
    let name = |request: &DeviceRequest| BadValue::from(&request.name);
    each_once(errors, list(&devices.requests), MOST, &path.child("requests"), name, validate_request);
    each(errors, list(&devices.constraints), MOST, &path.child("constraints"), |errors, item, at| {
        constraint(errors, item, &names, at);
    });
    each(errors, list(&devices.config), MOST, &path.child("config"), |errors, config, at| {
        names.references(errors, list(&config.requests), &at.child("requests"));
        opaque(errors, config.opaque.as_ref(), at);
    });
}

fn validate_request(errors: &mut Errors, request: &DeviceRequest, path: &Path) {
    dns_label(errors, &path.child("name"), &request.name);
    let alternatives = list(&request.first_available);
    match (&request.exactly, alternatives.is_empty()) {
        (None, true) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required";
            errors.push(FieldError::required(path, detail));
        }
        (Some(_), false) => {
            let detail =
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(path, serde_json::Value::Null, detail));
        }
        (None, false) => {
            let name = |sub: &DeviceSubRequest| BadValue::from(&sub.name);
            let at = path.child("firstAvailable");
            each_once(errors, alternatives, MOST_ALTERNATIVES, &at, name, |errors, sub, at| {
                dns_label(errors, &at.child("name"), &sub.name);
                wanted(errors, &Wanted::from(sub), at);
            });
        }
        (Some(exactly), true) => wanted(errors, &Wanted::from(exactly), &path.child("exactly")),
    }
}

/// What both forms of a request say.
struct Wanted<'a> {
    class: &'a str,
    selectors: &'a [DeviceSelector],
    mode: &'a str,
    count: i64,
    tolerations: &'a [DeviceToleration],
}

impl<'a> From<&'a ExactDeviceRequest> for Wanted<'a> {
    fn from(request: &'a ExactDeviceRequest) -> Self {
        Self {
            class: &request.device_class_name,
            selectors: list(&request.selectors),
            mode: text(&request.allocation_mode),
            count: request.count.unwrap_or_default(),
            tolerations: list(&request.tolerations),
        }
    }
}

impl<'a> From<&'a DeviceSubRequest> for Wanted<'a> {
    fn from(request: &'a DeviceSubRequest) -> Self {
        Self {
            class: &request.device_class_name,
            selectors: list(&request.selectors),
            mode: text(&request.allocation_mode),
            count: request.count.unwrap_or_default(),
            tolerations: list(&request.tolerations),
        }
    }
}

fn wanted(errors: &mut Errors, wanted: &Wanted<'_>, path: &Path) {
    class(errors, wanted.class, &path.child("deviceClassName"));
    selectors(errors, wanted.selectors, &path.child("selectors"));
    let at = path.child("count");
    match wanted.mode {
        "All" => {
            if wanted.count != 0 {
                let detail = "must not be specified when allocationMode is 'All'";
                errors.push(FieldError::invalid(&at, wanted.count, detail));
            }
        }
        EXACT => {
            if wanted.count <= 0 {
                errors.push(FieldError::invalid(&at, wanted.count, "must be greater than zero"));
            }
        }
        mode => one_of(errors, &path.child("allocationMode"), mode, &["All", EXACT]),
    }
    tolerations(errors, wanted.tolerations, &path.child("tolerations"));
}

fn constraint(errors: &mut Errors, constraint: &DeviceConstraint, names: &Names<'_>, path: &Path) {
    names.references(errors, list(&constraint.requests), &path.child("requests"));
    if let Some(attribute) = &constraint.match_attribute {
        full_identifier(errors, attribute, &path.child("matchAttribute"));
    } else if let Some(attribute) = &constraint.distinct_attribute {
        full_identifier(errors, attribute, &path.child("distinctAttribute"));
    } else {
        let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
        errors.push(FieldError::required(path, detail));
    }
}
