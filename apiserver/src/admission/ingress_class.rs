//! An Ingress that says nothing of its class gets the default one.

use std::cmp::Reverse;

use api::object::Object;
use api::status::Status;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::{Admission, AdmissionContext, Operation};
use crate::auth::source::Kind;

const GROUP: &str = "networking.k8s.io";
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// How an Ingress named its class before there was a field for it.
const BEFORE: &str = "kubernetes.io/ingress.class";

pub(super) fn admit(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: &mut dyn Object,
    _: Option<&dyn Object>,
) -> Result<(), Status> {
    if context.operation != Operation::Create || !context.is(GROUP, "ingresses") {
        return Ok(());
    }
    let Some(ingress) = object.downcast_mut::<Ingress>() else { return Ok(()) };
    let named = ingress.spec.as_ref().is_some_and(|spec| spec.ingress_class_name.is_some())
        || ingress.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(BEFORE));
    if named {
        return Ok(());
    }
    let classes = admission.objects.list(Kind::IngressClass);
    let metadata = classes.iter().filter_map(|item| Some(item.read::<IngressClass>()?.metadata));
    let defaults = metadata.filter(|metadata| {
        let mark = metadata.annotations.as_ref().and_then(|all| all.get(IS_DEFAULT));
        mark.is_some_and(|mark| mark == "true")
    });
    // The newest one, as upstream chooses.
    let class = defaults.min_by_key(|metadata| {
        (Reverse(metadata.creation_timestamp.as_ref().map(|time| time.0)), metadata.name.clone())
    });
    if let Some(class) = class {
        ingress.spec.get_or_insert_default().ingress_class_name = class.name;
    }
    Ok(())
}
