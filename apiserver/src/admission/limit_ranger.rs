//! LimitRange: what containers get that ask for nothing, and how much containers, pods and claims may ask for.

use std::collections::BTreeMap;

use api::object::Object;
use api::quantity::{Format, Quantity};
use api::quota::{self, Amounts};
use api::status::Status;
use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, PodSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::{Admission, AdmissionContext, Operation};
use crate::auth::source::Kind;

const NOTE: &str = "kubernetes.io/limit-ranger";
/// Above this, amounts are not compared in thousandths.
const MOST_MILLI: i64 = i64::MAX / 1000;

/// The limits that hold for the object, in the order of their names.
fn ranges(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    old: Option<&dyn Object>,
) -> Vec<LimitRange> {
    let asked = match context.operation {
        Operation::Create => context.is("", "pods") || context.is("", "persistentvolumeclaims"),
        Operation::Update => {
            context.is_part("", "pods", "resize") || context.is("", "persistentvolumeclaims")
        }
        _ => false,
    };
    // What goes is let go.
    if !asked || old.is_some_and(|old| old.metadata().deletion_timestamp.is_some()) {
        return Vec::new();
    }
    let mut items = admission.objects.in_namespace(Kind::LimitRange, context.namespace);
    items.sort_by(|a, b| a.name.cmp(&b.name));
    items.iter().filter_map(|item| item.read()).collect()
}

fn limits(range: &LimitRange) -> &[LimitRangeItem] {
    range.spec.as_ref().map(|spec| spec.limits.as_slice()).unwrap_or_default()
}

pub(super) fn admit(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: &mut dyn Object,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    if !matches!(context.resource.plural.as_ref(), "pods") {
        return Ok(());
    }
    let ranges = ranges(admission, context, old);
    if let Some(pod) = object.downcast_mut::<Pod>() {
        ranges.iter().for_each(|range| complete(pod, range));
    }
    Ok(())
}

/// Gives the containers of a pod what they don't ask for, and notes that.
fn complete(pod: &mut Pod, range: &LimitRange) {
    let (mut requests, mut maxima) = (BTreeMap::new(), BTreeMap::new());
    for limit in limits(range).iter().filter(|limit| limit.type_ == "Container") {
        requests.extend(limit.default_request.clone().unwrap_or_default());
        maxima.extend(limit.default.clone().unwrap_or_default());
    }
    let Some(spec) = &mut pod.spec else { return };
    let mut notes = Vec::new();
    let mut each = |container: &mut Container, what: &str| {
        let resources = container.resources.get_or_insert_default();
        for (target, defaults, side) in
            [(&mut resources.requests, &requests, "request"), (&mut resources.limits, &maxima, "limit")]
        {
            let set = fill(target, defaults);
            if !set.is_empty() {
                notes.push(format!("{} {side} for {what} {}", set.join(", "), container.name));
            }
        }
    };
    spec.containers.iter_mut().for_each(|container| each(container, "container"));
    spec.init_containers.iter_mut().flatten().for_each(|container| each(container, "init container"));
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.metadata.annotations.get_or_insert_default().insert(NOTE.to_owned(), note);
    }
}

/// The names of what was missing.
fn fill(target: &mut Option<BTreeMap<String, Text>>, defaults: &BTreeMap<String, Text>) -> Vec<String> {
    let mut set = Vec::new();
    for (resource, amount) in defaults {
        if !target.as_ref().is_some_and(|target| target.contains_key(resource)) {
            target.get_or_insert_default().insert(resource.clone(), amount.clone());
            set.push(resource.clone());
        }
    }
    set
}

pub(super) fn validate(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: Option<&dyn Object>,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    let Some(object) = object else { return Ok(()) };
    for range in ranges(admission, context, old) {
        let mut found = Vec::new();
        if let Some(spec) = object.downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref()) {
            limits(&range).iter().for_each(|limit| check_pod(&mut found, limit, spec));
        }
        if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
            limits(&range).iter().for_each(|limit| check_claim(&mut found, limit, claim));
        }
        if !found.is_empty() {
            return Err(context.forbidden(api::field::aggregate_texts(found)));
        }
    }
    Ok(())
}

fn check_pod(found: &mut Vec<String>, limit: &LimitRangeItem, spec: &PodSpec) {
    match limit.type_.as_str() {
        "Container" => {
            for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                let resources = container.resources.as_ref();
                let requests = quota::read(resources.and_then(|resources| resources.requests.as_ref()));
                let limits = quota::read(resources.and_then(|resources| resources.limits.as_ref()));
                check(found, limit, &requests, &limits);
            }
        }
        "Pod" => check(found, limit, &quota::pod_requests(spec), &quota::pod_limits(spec)),
        _ => {}
    }
}

fn check_claim(found: &mut Vec<String>, limit: &LimitRangeItem, claim: &PersistentVolumeClaim) {
    if limit.type_ != "PersistentVolumeClaim" {
        return;
    }
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = quota::read(resources.and_then(|resources| resources.requests.as_ref()));
    let kind = limit.type_.as_str();
    for (resource, least) in quota::read(limit.min.as_ref()) {
        minimum(found, kind, &resource, least, &requests, &Amounts::new());
    }
    // A claim has no limit: what it asks for is what it may use.
    for (resource, most) in quota::read(limit.max.as_ref()) {
        match requests.get(&resource) {
            None => {
                found.push(format!("maximum {resource} usage per {kind} is {most}.  No request is specified"))
            }
            Some(request) if *request > most => {
                found
                    .push(format!("maximum {resource} usage per {kind} is {most}, but request is {request}"));
            }
            Some(_) => {}
        }
    }
}

fn check(found: &mut Vec<String>, limit: &LimitRangeItem, requests: &Amounts, limits: &Amounts) {
    let kind = limit.type_.as_str();
    for (resource, least) in quota::read(limit.min.as_ref()) {
        minimum(found, kind, &resource, least, requests, limits);
    }
    for (resource, most) in quota::read(limit.max.as_ref()) {
        maximum(found, kind, &resource, most, requests, limits);
    }
    for (resource, most) in quota::read(limit.max_limit_request_ratio.as_ref()) {
        ratio(found, kind, &resource, most, requests, limits);
    }
}

fn minimum(
    found: &mut Vec<String>,
    kind: &str,
    resource: &str,
    least: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) {
    let text = format!("minimum {resource} usage per {kind} is {least}");
    match (requests.get(resource), limits.get(resource)) {
        (None, _) => found.push(format!("{text}.  No request is specified")),
        (Some(request), _) if *request < least => found.push(format!("{text}, but request is {request}")),
        (_, Some(limit)) if *limit < least => found.push(format!("{text}, but limit is {limit}")),
        _ => {}
    }
}

fn maximum(
    found: &mut Vec<String>,
    kind: &str,
    resource: &str,
    most: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) {
    let text = format!("maximum {resource} usage per {kind} is {most}");
    match (requests.get(resource), limits.get(resource)) {
        (_, None) => found.push(format!("{text}.  No limit is specified")),
        (_, Some(limit)) if *limit > most => found.push(format!("{text}, but limit is {limit}")),
        (Some(request), _) if *request > most => found.push(format!("{text}, but request is {request}")),
        _ => {}
    }
}

fn ratio(
    found: &mut Vec<String>,
    kind: &str,
    resource: &str,
    most: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) {
    let text = format!("{resource} max limit to request ratio per {kind} is {most}, but");
    let zero = Quantity::from_value(0, Format::DecimalSi);
    let request = *requests.get(resource).unwrap_or(&zero);
    let limit = *limits.get(resource).unwrap_or(&zero);
    if request.sign() == 0 {
        found.push(format!("{text} no request is specified or request is 0"));
        return;
    }
    if limit.sign() == 0 {
        found.push(format!("{text} no limit is specified or limit is 0"));
        return;
    }
    let milli = [request, limit, most].iter().all(|amount| amount.value() <= MOST_MILLI);
    let provided = if milli {
        limit.milli_value() as f64 / request.milli_value() as f64
    } else {
        limit.value() as f64 / request.value() as f64
    };
    let allowed = if milli { most.milli_value() as f64 / 1000.0 } else { most.value() as f64 };
    if provided > allowed {
        found.push(format!("{text} provided ratio is {provided:.6}"));
    }
}
