//! A pod's runtime class: what it costs beyond the containers, and the nodes that have it.

use std::collections::BTreeMap;

use api::object::Object;
use api::status::Status;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Admission, AdmissionContext, Operation};
use crate::auth::source::Kind;

fn class(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    spec: &PodSpec,
) -> Result<Option<RuntimeClass>, Status> {
    let Some(name) = &spec.runtime_class_name else { return Ok(None) };
    let class =
        admission.objects.get(Kind::RuntimeClass, "", name).and_then(|item| item.read::<RuntimeClass>());
    class.map(Some).ok_or_else(|| {
        context.forbidden(format!("pod rejected: RuntimeClass {} not found", api::field::quote(name)))
    })
}

fn overhead(class: Option<&RuntimeClass>) -> Option<&BTreeMap<String, Quantity>> {
    class?.overhead.as_ref()?.pod_fixed.as_ref().filter(|fixed| !fixed.is_empty())
}

/// Equal as amounts: `1000m` is `1`.
fn same(a: &BTreeMap<String, Quantity>, b: &BTreeMap<String, Quantity>) -> bool {
    let amount = |quantity: &Quantity| quantity.0.parse::<api::quantity::Quantity>().ok();
    a.len() == b.len()
        && a.iter().all(|(key, value)| {
            b.get(key).is_some_and(|other| {
                other == value || amount(other).is_some() && amount(other) == amount(value)
            })
        })
}

pub(super) fn admit(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: &mut dyn Object,
    _: Option<&dyn Object>,
) -> Result<(), Status> {
    if context.operation != Operation::Create || !context.is("", "pods") {
        return Ok(());
    }
    let Some(spec) = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else { return Ok(()) };
    let Some(class) = class(admission, context, spec)? else { return Ok(()) };
    if let Some(fixed) = overhead(Some(&class)) {
        if spec.overhead.as_ref().is_some_and(|given| !given.is_empty() && !same(given, fixed)) {
            return Err(context
                .forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"));
        }
        spec.overhead = Some(fixed.clone());
    }
    let Some(scheduling) = class.scheduling else { return Ok(()) };
    for (key, value) in scheduling.node_selector.unwrap_or_default() {
        let own = spec.node_selector.get_or_insert_default();
        match own.get(&key) {
            Some(given) if *given != value => {
                return Err(context.forbidden(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {given}"
                )));
            }
            Some(_) => {}
            None => drop(own.insert(key, value)),
        }
    }
    for toleration in scheduling.tolerations.unwrap_or_default() {
        let own = spec.tolerations.get_or_insert_default();
        if !own.contains(&toleration) {
            own.push(toleration);
        }
    }
    Ok(())
}

pub(super) fn validate(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: Option<&dyn Object>,
    _: Option<&dyn Object>,
) -> Result<(), Status> {
    if context.operation != Operation::Create || !context.is("", "pods") {
        return Ok(());
    }
    let Some(spec) = object.and_then(|object| object.downcast_ref::<Pod>()).and_then(|pod| pod.spec.as_ref())
    else {
        return Ok(());
    };
    let class = class(admission, context, spec)?;
    match (overhead(class.as_ref()), spec.overhead.as_ref().filter(|given| !given.is_empty())) {
        (Some(fixed), Some(given)) if same(fixed, given) => Ok(()),
        (Some(_), _) => {
            Err(context
                .forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
        }
        (None, Some(_)) => Err(context
            .forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")),
        (None, None) => Ok(()),
    }
}
