//! Who names an owner makes the garbage collector delete: it takes the permission to delete. Who blocks the owner's
//! deletion must be allowed to set the owner's finalizers. Off by default, as upstream has it.

use api::object::Object;
use api::resource::Table;
use api::status::Status;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::{Admission, AdmissionContext, Operation};
use crate::Attributes;
use crate::auth::Decision;

pub(super) fn validate(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: Option<&dyn Object>,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    if !matches!(context.operation, Operation::Create | Operation::Update)
        || context.is_part("", "pods", "status")
    {
        return Ok(());
    }
    let (new, before) = (object.map(owners).unwrap_or_default(), old.map(owners).unwrap_or_default());
    if new == before {
        return Ok(());
    }
    let row = context.resource;
    let allowed = |asked: Attributes, what: &str| match context.may(admission, asked) {
        Decision::Allow => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => {
            Err(context.forbidden(format_args!("{what}: {reason}, <nil>")))
        }
    };
    if context.operation != Operation::Create {
        let asked = Attributes {
            verb: "delete".to_owned(),
            group: row.group.to_string(),
            version: row.version.to_string(),
            resource: row.plural.to_string(),
            subresource: context.subresource.to_owned(),
            namespace: context.namespace.to_owned(),
            name: context.name.clone(),
            ..Attributes::default()
        };
        allowed(asked, "cannot set an ownerRef on a resource you can't delete")?;
    }
    let blocks = |owner: &OwnerReference| owner.block_owner_deletion == Some(true);
    let is_new =
        |owner: &&OwnerReference| !before.iter().any(|other| other.uid == owner.uid && blocks(other));
    for owner in new.iter().filter(|owner| blocks(owner)).filter(is_new) {
        let Some(row) = Table::builtin().kind_of(&owner.api_version, &owner.kind).cloned() else {
            return Err(context.forbidden(format_args!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {}: \
                 no matches for kind {} in version {}",
                owner.api_version,
                owner.kind,
                api::field::quote(&owner.kind),
                api::field::quote(&owner.api_version),
            )));
        };
        let asked = Attributes {
            verb: "update".to_owned(),
            group: row.group.to_string(),
            version: row.version.to_string(),
            resource: row.plural.to_string(),
            subresource: "finalizers".to_owned(),
            namespace: if row.namespaced() { context.namespace.to_owned() } else { String::new() },
            name: owner.name.clone(),
            ..Attributes::default()
        };
        allowed(
            asked,
            "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on",
        )?;
    }
    Ok(())
}

fn owners(object: &dyn Object) -> &[OwnerReference] {
    object.metadata().owner_references.as_deref().unwrap_or_default()
}
