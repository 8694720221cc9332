//! The Pod Security Standards: what a namespace says about its pods, and what becomes of pods that do more.

use std::collections::{BTreeMap, BTreeSet};

use api::object::Object;
use api::pod_security::{Level, Policy, Standard, details, is_significant, pod_of, reasons};
use api::status::Status;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::{Admission, AdmissionContext, Operation};
use crate::auth::source::Kind;

/// The annotation of an audit event that says which standard was enforced.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce-policy";
/// So many pods are looked at when a namespace becomes stricter.
const MOST_PODS: usize = 3000;
/// What is done with a pod and changes nothing that the standards are about.
const HARMLESS: [&str; 8] =
    ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

#[derive(Deserialize)]
struct Part {
    metadata: ObjectMeta,
}

pub(super) fn validate(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: Option<&dyn Object>,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    let Some(object) = object else { return Ok(()) };
    if !matches!(context.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    if context.is("", "namespaces") {
        return match object.downcast_ref::<Namespace>() {
            Some(namespace) => check_namespace(admission, context, namespace, old),
            None => Ok(()),
        };
    }
    let of_pods = context.resource.group.is_empty() && context.resource.plural == "pods";
    let skip =
        if of_pods { HARMLESS.contains(&context.subresource) } else { !context.subresource.is_empty() };
    match pod_of(object).filter(|_| !skip) {
        Some(pod) => {
            check_pod(admission, context, pod, of_pods.then_some(()).and(object.downcast_ref()), old)
        }
        None => Ok(()),
    }
}

fn check_namespace(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    namespace: &Namespace,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    let (policy, errors) = Policy::of(namespace.metadata.labels.as_ref());
    let before = old.map(|old| Policy::of(old.metadata().labels.as_ref()));
    // What was wrong before may stay.
    if !errors.is_empty() && before.as_ref().is_none_or(|(_, before)| *before != errors) {
        return Err(Status::invalid("", "Namespace", &context.name, &errors));
    }
    let Some((before, _)) = before else { return Ok(()) };
    let (new, old) = (policy.enforce, before.enforce);
    let relaxed = new.version == old.version && new.level <= old.level;
    if new != old && new.level != Level::Privileged && !relaxed {
        tell_of_pods(admission, context, new);
    }
    Ok(())
}

/// Tells of the pods that are there and would not be admitted any more.
fn tell_of_pods(admission: &Admission, context: &AdmissionContext<'_>, standard: Standard) {
    let pods = admission.objects.list(Kind::Pod);
    let pods =
        pods.iter().filter(|item| item.namespace == context.name).filter_map(|item| item.read::<Pod>());
    // One of each controller first: the others are most likely like it.
    let mut seen = BTreeSet::new();
    let (mut pods, others): (Vec<Pod>, Vec<Pod>) = pods.partition(|pod| {
        let owners = pod.metadata.owner_references.iter().flatten();
        let controller = owners.into_iter().find(|owner| owner.controller == Some(true));
        controller.is_none_or(|owner| seen.insert(owner.uid.clone()))
    });
    pods.extend(others);
    let total = pods.len();
    pods.truncate(MOST_PODS);
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pod in &pods {
        let Some(spec) = &pod.spec else { continue };
        let violations = standard.violations(&pod.metadata, spec);
        if !violations.is_empty() {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            found.entry(reasons(&violations)).or_default().push(name);
        }
    }
    if total > pods.len() {
        context.warnings.add(format!(
            "new PodSecurity enforce level only checked against the first {} of {total} existing pods",
            pods.len()
        ));
    }
    if found.is_empty() {
        return;
    }
    context.warnings.add(format!(
        "existing pods in namespace {} violate the new PodSecurity enforce level \"{standard}\"",
        api::field::quote(&context.name)
    ));
    let line = |(reasons, names): (String, Vec<&str>)| {
        let name = names.iter().min().copied().unwrap_or_default();
        match names.len() - 1 {
            0 => format!("{name}: {reasons}"),
            1 => format!("{name} (and 1 other pod): {reasons}"),
            more => format!("{name} (and {more} other pods): {reasons}"),
        }
    };
    let lines: BTreeSet<String> = found.into_iter().map(line).collect();
    lines.into_iter().for_each(|line| context.warnings.add(line));
}

/// Refuses a pod that does more than it may; tells of what a controller will fail to make, or will be told of.
fn check_pod(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    (meta, spec): (&ObjectMeta, &k8s_openapi::api::core::v1::PodSpec),
    pod: Option<&Pod>,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    let namespace = admission.objects.get(Kind::Namespace, "", context.namespace);
    let Some(namespace) = namespace.and_then(|item| item.read::<Part>()) else {
        let why = format!("failed to lookup namespace {}", api::field::quote(context.namespace));
        return Err(Status::internal(why));
    };
    let (policy, errors) = Policy::of(namespace.metadata.labels.as_ref());
    let enforced = || context.warnings.remark(ENFORCED, || Some(policy.enforce.to_string()));
    if errors.is_empty() && policy.is_privileged() {
        enforced();
        return Ok(());
    }
    if let Some(pod) = pod {
        let before = old.and_then(|old| old.downcast_ref::<Pod>());
        if before.is_some_and(|before| !is_significant(pod, before)) {
            return Ok(());
        }
        enforced();
        violated(context, policy.audit, meta, spec);
        let violations = policy.enforce.violations(meta, spec);
        if !violations.is_empty() {
            let (standard, details) = (policy.enforce, details(&violations));
            return Err(context.forbidden(format_args!("violates PodSecurity \"{standard}\": {details}")));
        }
    }
    if pod.is_none() {
        violated(context, policy.audit, meta, spec);
    }
    let violations = policy.warn.violations(meta, spec);
    if !violations.is_empty() {
        let (standard, details) = (policy.warn, details(&violations));
        context.warnings.add(format!("would violate PodSecurity \"{standard}\": {details}"));
    }
    Ok(())
}

/// Notes for the audit log what the standard that is audited does not allow.
fn violated(
    context: &AdmissionContext<'_>,
    standard: Standard,
    meta: &ObjectMeta,
    spec: &k8s_openapi::api::core::v1::PodSpec,
) {
    context.warnings.remark("pod-security.kubernetes.io/audit-violations", || {
        let violations = standard.violations(meta, spec);
        let what = || format!("would violate PodSecurity \"{standard}\": {}", details(&violations));
        (!violations.is_empty()).then(what)
    });
}
