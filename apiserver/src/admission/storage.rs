//! Claims for storage: the class that they get, the protection of what is in use, and who may grow.

use api::object::Object;
use api::quota;
use api::status::Status;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;

use super::{Admission, AdmissionContext, Operation};
use crate::auth::source::Kind;

/// The old way to name a class.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// The finalizers that keep what is in use.
const PROTECTED: [(&str, &str, &str); 3] = [
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

fn annotated_class(claim: &PersistentVolumeClaim) -> Option<&String> {
    claim.metadata.annotations.as_ref()?.get(CLASS)
}

fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let field = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotated_class(claim).or(field).map(String::as_str).unwrap_or_default()
}

/// A claim without a class gets the default one, if there is one.
pub(super) fn default_class(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: &mut dyn Object,
    _: Option<&dyn Object>,
) -> Result<(), Status> {
    if context.operation != Operation::Create || !context.is("", "persistentvolumeclaims") {
        return Ok(());
    }
    let Some(claim) = object.downcast_mut::<PersistentVolumeClaim>() else { return Ok(()) };
    let given = claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_some());
    if given || annotated_class(claim).is_some() {
        return Ok(());
    }
    let is_default = |class: &StorageClass| {
        let annotations = class.metadata.annotations.as_ref();
        DEFAULT.iter().any(|key| annotations.and_then(|a| a.get(*key)).is_some_and(|value| value == "true"))
    };
    let classes =
        admission.objects.list(Kind::StorageClass).into_iter().filter_map(|item| item.read::<StorageClass>());
    // Of several, the newest; of several of the same age, the first by name.
    let newest = classes.filter(is_default).min_by_key(|class| {
        let made = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (std::cmp::Reverse(made), class.metadata.name.clone())
    });
    if let Some(class) = newest {
        claim.spec.get_or_insert_default().storage_class_name = class.metadata.name;
    }
    Ok(())
}

/// What may come into use is not deleted before it is out of use.
pub(super) fn protect(
    _: &Admission,
    context: &AdmissionContext<'_>,
    object: &mut dyn Object,
    _: Option<&dyn Object>,
) -> Result<(), Status> {
    if context.operation != Operation::Create {
        return Ok(());
    }
    let found = PROTECTED.iter().find(|(group, plural, _)| context.is(group, plural));
    if let Some((.., finalizer)) = found {
        let finalizers = object.metadata_mut().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|given| given == finalizer) {
            finalizers.push((*finalizer).to_owned());
        }
    }
    Ok(())
}

/// A claim grows if it is bound, and its class allows it.
pub(super) fn resize(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: Option<&dyn Object>,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    if context.operation != Operation::Update || !context.is("", "persistentvolumeclaims") {
        return Ok(());
    }
    let claim = |object: Option<&dyn Object>| -> Option<PersistentVolumeClaim> {
        object.and_then(|object| object.downcast_ref::<PersistentVolumeClaim>()).cloned()
    };
    let (Some(claim), Some(old)) = (claim(object), claim(old)) else { return Ok(()) };
    let size = |claim: &PersistentVolumeClaim| {
        let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        quota::read(resources.and_then(|resources| resources.requests.as_ref())).remove("storage")
    };
    if size(&claim) <= size(&old) {
        return Ok(());
    }
    if old.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
        return Err(context.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let name = class_of(&claim);
    let class = admission.objects.get(Kind::StorageClass, "", name);
    let allows = class.and_then(|item| item.read::<StorageClass>()).and_then(|c| c.allow_volume_expansion);
    if !name.is_empty() && name == class_of(&old) && allows == Some(true) {
        return Ok(());
    }
    Err(context.forbidden(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support \
         resize",
    ))
}
