//! The metadata of an object that stands as a template in another one: labels and annotations.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    field::{Errors, FieldError, Path},
    meta,
};

/// Checks what there may be, and refuses the rest.
pub(crate) fn validate(errors: &mut Errors, metadata: &ObjectMeta, path: &Path) {
    if let Some(annotations) = &metadata.annotations {
        errors.extend(meta::validate_annotations(annotations, &path.child("annotations")));
    }
    if let Some(labels) = &metadata.labels {
        errors.extend(meta::validate_labels(labels, &path.child("labels")));
    }
    for (field, given) in others(metadata) {
        if given {
            errors.push(FieldError::forbidden(&path.child(field), "cannot be set"));
        }
    }
}

/// Everything else, by the names that upstream shows.
fn others(meta: &ObjectMeta) -> [(&'static str, bool); 13] {
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    [
        ("name", given(&meta.name)),
        ("generateName", given(&meta.generate_name)),
        ("namespace", given(&meta.namespace)),
        ("selfLink", given(&meta.self_link)),
        ("uID", given(&meta.uid)),
        ("resourceVersion", given(&meta.resource_version)),
        ("generation", meta.generation.unwrap_or_default() != 0),
        ("creationTimestamp", meta.creation_timestamp.is_some()),
        ("deletionTimestamp", meta.deletion_timestamp.is_some()),
        ("deletionGracePeriodSeconds", meta.deletion_grace_period_seconds.is_some()),
        ("ownerReferences", meta.owner_references.as_ref().is_some_and(|owners| !owners.is_empty())),
        ("finalizers", meta.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty())),
        ("managedFields", meta.managed_fields.as_ref().is_some_and(|fields| !fields.is_empty())),
    ]
}
