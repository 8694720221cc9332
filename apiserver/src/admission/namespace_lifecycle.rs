//! Nothing is created in a namespace that is not there or is going; three namespaces can't be deleted.

use api::object::Object;
use api::status::{Cause, GroupResource, Status};
use serde::Deserialize;

use super::{Admission, AdmissionContext, Operation};
use crate::auth::source::Kind;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    status: StatusPart,
}

#[derive(Default, Deserialize)]
struct StatusPart {
    #[serde(default)]
    phase: Option<String>,
}

pub(super) fn admit(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    _: &mut dyn Object,
    _: Option<&dyn Object>,
) -> Result<(), Status> {
    let namespace = context.namespace;
    if !context.resource.namespaced() || namespace.is_empty() {
        return Ok(());
    }
    let Some(item) = admission.objects.get(Kind::Namespace, "", namespace) else {
        return Err(Status::not_found(GroupResource::new("", "namespaces"), namespace));
    };
    let ending = item.read::<Part>().is_some_and(|part| part.status.phase.as_deref() == Some("Terminating"));
    if context.operation != Operation::Create || !ending {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    Err(context.forbidden(why).cause(Cause {
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".to_owned(),
    }))
}

pub(super) fn validate(
    _: &Admission,
    context: &AdmissionContext<'_>,
    _: Option<&dyn Object>,
    _: Option<&dyn Object>,
) -> Result<(), Status> {
    let immortal = context.operation == Operation::Delete
        && context.is("", "namespaces")
        && IMMORTAL.contains(&context.name.as_str());
    if immortal { Err(context.forbidden("this namespace may not be deleted")) } else { Ok(()) }
}
