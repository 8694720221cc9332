//! A pod's priority is that of its class; one class at most is the default.

use api::object::Object;
use api::status::Status;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{Admission, AdmissionContext, Operation};
use crate::auth::source::Kind;

const PREEMPT: &str = "PreemptLowerPriority";

pub(super) fn admit(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: &mut dyn Object,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    if !context.is("", "pods") {
        return Ok(());
    }
    let Some(spec) = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else { return Ok(()) };
    if context.operation == Operation::Update {
        // Set on create; a client that does not know the fields must not clear them.
        if let Some(old) = old.and_then(|old| old.downcast_ref::<Pod>()).and_then(|pod| pod.spec.as_ref()) {
            spec.priority = spec.priority.or(old.priority);
            spec.preemption_policy = spec.preemption_policy.take().or_else(|| old.preemption_policy.clone());
        }
        return Ok(());
    }
    let named = spec.priority_class_name.clone().unwrap_or_default();
    let class =
        match named.as_str() {
            "" => default_class(admission),
            name => {
                let class = admission
                    .objects
                    .get(Kind::PriorityClass, "", name)
                    .and_then(|item| item.read::<PriorityClass>());
                Some(class.ok_or_else(|| {
                    context.forbidden(format!("no PriorityClass with name {name} was found"))
                })?)
            }
        };
    let (value, policy) = match class {
        None => (0, PREEMPT.to_owned()),
        Some(class) => {
            spec.priority_class_name = class.metadata.name;
            (class.value.unwrap_or_default(), class.preemption_policy.unwrap_or_else(|| PREEMPT.to_owned()))
        }
    };
    if let Some(given) = spec.priority.filter(|given| *given != value) {
        return Err(context.forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; \
             priority admission controller computed {value} from the given PriorityClass name"
        )));
    }
    if let Some(given) = spec.preemption_policy.as_ref().filter(|given| **given != policy) {
        return Err(context.forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; \
             priority admission controller computed {policy} from the given PriorityClass name"
        )));
    }
    spec.priority = Some(value);
    spec.preemption_policy = Some(policy);
    Ok(())
}

pub(super) fn validate(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: Option<&dyn Object>,
    _: Option<&dyn Object>,
) -> Result<(), Status> {
    if !context.is("scheduling.k8s.io", "priorityclasses") {
        return Ok(());
    }
    let Some(class) = object.and_then(|object| object.downcast_ref::<PriorityClass>()) else { return Ok(()) };
    if class.global_default != Some(true) {
        return Ok(());
    }
    match default_class(admission)
        .and_then(|class| class.metadata.name)
        .filter(|name| Some(name) != class.metadata.name.as_ref())
    {
        Some(other) => Err(context.forbidden(format!(
            "PriorityClass {other} is already marked as default. Only one default can exist"
        ))),
        None => Ok(()),
    }
}

/// The class of pods that name none. If there are several by mistake, the lowest.
fn default_class(admission: &Admission) -> Option<PriorityClass> {
    let classes = admission
        .objects
        .list(Kind::PriorityClass)
        .into_iter()
        .filter_map(|item| item.read::<PriorityClass>());
    classes
        .filter(|class| class.global_default == Some(true))
        .min_by_key(|class| class.value.unwrap_or_default())
}
