//! Server-side apply, and who owns which fields.
//!
//! Every write is done by a manager. [`update`] records what it changed; [`apply`] merges what a manager wants to own,
//! removes what it no longer wants, and refuses what others own with another value. What is owned is kept in
//! `metadata.managedFields` as [`Set`]s, one for each manager ([`Managed`]).
//!
//! [`Changes`] says what two states of an object differ in; the [schema](crate::schema) says which lists are merged item
//! by item, which maps and structs are taken as a whole.

mod compare;
mod conflict;
mod extract;
mod last_applied;
mod managed;
mod merge;
mod prune;
mod reset;
mod scale;
mod set;
mod step;
mod text;
mod view;
mod write;

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use serde_json::Value;

pub use self::{
    compare::Changes,
    conflict::Conflict,
    extract::fields_of,
    managed::{BadEntries, Managed, Manager, Operation, same_but_times},
    reset::reset_fields,
    scale::{from_scale, to_scale},
    set::{BadSet, Set},
    write::{OneVersion, Versions, Write, update},
};
use crate::{
    resource::GroupVersionKind,
    schema::TypeRef,
    status::{Reason, Status},
};

/// Fields of `metadata` that nobody owns.
const UNTRACKED: &[&str] = &[
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

static UNTRACKED_SET: LazyLock<Set> = LazyLock::new(|| {
    let mut set = Set::of(&[&["apiVersion"], &["kind"], &["metadata"]]);
    UNTRACKED.iter().for_each(|name| set.add(&Set::of(&[&["metadata", name]])));
    set
});

/// The fields that nobody owns.
fn untracked() -> &'static Set {
    &UNTRACKED_SET
}

/// The type that is applied, and its versions.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub gvk: &'a GroupVersionKind,
    pub ty: &'a TypeRef,
    pub versions: &'a dyn Versions,
}

impl std::fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("gvk", self.gvk).field("ty", self.ty).finish_non_exhaustive()
    }
}

/// Applies `config` to `live`, which is an empty object if there is none yet: the object as it should be, without
/// `managedFields`, and who owns what of it.
pub fn apply(
    target: Target<'_>,
    write: &Write<'_>,
    live: &Value,
    config: &Value,
    managed: Managed,
    force: bool,
) -> Result<(Value, Managed), Status> {
    check_kind(target.gvk, config)?;
    if config["metadata"].get("managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let problems = extract::problems(target.ty, config);
    if !problems.is_empty() {
        let which = which(target.gvk, config);
        let why = format!("failed to create typed patch object ({which}): {problems}");
        // Upstream has no answer of its own for it.
        return Err(Status::failure(500, Reason::Unknown, why));
    }
    let run = |managed: Managed, force: bool| {
        write::apply(write, target.versions, target.ty, live, config, managed, force)
    };
    let client_side = write.manager == last_applied::MANAGER;
    let done = match run(managed.clone(), force) {
        Ok(done) => done,
        Err(conflicts) if client_side => match last_applied::remaining(target, live, conflicts) {
            // All of it was applied by the same client, by its own means.
            rest if rest.is_empty() => {
                run(managed, true).map_err(|conflicts| conflict::refusal(&conflicts))?
            }
            rest => return Err(conflict::refusal(&rest)),
        },
        Err(conflicts) => return Err(conflict::refusal(&conflicts)),
    };
    let mut object = done.object;
    if client_side {
        last_applied::renew(&mut object, config);
    }
    Ok((object, done.managed))
}

/// The applied object must be of the kind that the path names.
fn check_kind(expect: &GroupVersionKind, config: &Value) -> Result<(), Status> {
    let version = config["apiVersion"].as_str().unwrap_or_default();
    let kind = config["kind"].as_str().unwrap_or_default();
    if version == expect.api_version() && kind == expect.kind {
        return Ok(());
    }
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    Err(Status::bad_request(format!("invalid object type: {group}/{version}, Kind={kind}")))
}

/// `NAMESPACE/NAME; GROUP/VERSION, Kind=KIND`, as upstream names an object in messages.
fn which(gvk: &GroupVersionKind, object: &Value) -> String {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    format!("{namespace}/{name}; {}/{}, Kind={}", gvk.group, gvk.version, gvk.kind)
}
