//! Who owns which fields of an object, after each write of it.

use std::sync::Arc;

use api::apply::{self, Changes, Managed, Set, Versions, Write};
use api::object::Object;
use api::resource::{Resource, Table};
use api::schema::TypeRef;
use api::status::Status;
use http::header::USER_AGENT;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use serde_json::{Map, Value};

use crate::UserInfo;
use crate::context::Context;
use crate::registry::create::whole_seconds;
use crate::registry::options::WriteOptions;
use crate::registry::{Current, Registry};

/// The name of who writes: what the request says, or the start of its user agent.
pub(crate) fn manager(context: &Context<'_>, options: &WriteOptions) -> String {
    if !options.field_manager.is_empty() {
        return options.field_manager.clone();
    }
    match context.headers.get(USER_AGENT) {
        Some(agent) => prefix(&String::from_utf8_lossy(agent.as_bytes())),
        None => component(context.user).to_owned(),
    }
}

/// What stands before the first slash of a user agent, without what can't be shown, and not too long.
fn prefix(agent: &str) -> String {
    let mut name = String::new();
    for c in agent.split('/').next().unwrap_or_default().chars().filter(|c| api::field::is_printable(*c)) {
        if name.len() + c.len_utf8() > api::meta::MAX_FIELD_MANAGER {
            break;
        }
        name.push(c);
    }
    name
}

/// The name under which a component of the cluster itself writes. It is known by who it is: within the process there is
/// no user agent.
fn component(user: &UserInfo) -> &'static str {
    match user.name.as_str() {
        "system:kube-scheduler" => "kube-scheduler",
        "system:apiserver" => "kube-apiserver",
        name if name.starts_with("system:node:") => "kubelet",
        name if name.starts_with("system:serviceaccount:kube-system:")
            || name == "system:kube-controller-manager" =>
        {
            "kube-controller-manager"
        }
        _ => "",
    }
}

/// Forgets the owners of an object that is too large for the store: better it is kept without them. False if that helps
/// nothing.
pub(crate) fn forget(object: &mut dyn Object, refused: &Status) -> bool {
    refused.code == 413 && object.metadata_mut().managed_fields.take().is_some()
}

/// One write of an object of a row, through a part of it.
pub(crate) struct Tracker<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) row: &'a Resource,
    pub(crate) subresource: &'a str,
    pub(crate) manager: &'a str,
}

impl Tracker<'_> {
    /// Calls `with` with the write.
    pub(crate) fn write<T>(&self, with: impl FnOnce(&Write<'_>) -> T) -> T {
        let reset = apply::reset_fields(self.row, self.subresource);
        self.write_resetting(&reset, with)
    }

    fn write_resetting<T>(&self, reset: &Set, with: impl FnOnce(&Write<'_>) -> T) -> T {
        let version = self.row.api_version();
        let now = Time(whole_seconds(self.registry.clock.now()));
        let (manager, subresource) = (self.manager, self.subresource);
        with(&Write { manager, version: &version, subresource, reset, now })
    }

    /// The versions of the row's kind.
    pub(crate) fn versions(&self) -> Rows<'_> {
        Rows { table: self.registry.table(), row: self.row }
    }

    /// Records in a new object what its creator owns.
    pub(crate) fn created(&self, object: &mut dyn Object) -> Result<(), Status> {
        let managed = given(object.metadata_mut().managed_fields.take()).unwrap_or_default();
        let changes = self.changes(b"{}", object)?;
        let managed = self.write(|write| apply::update(write, managed, changes, |_| None));
        object.metadata_mut().managed_fields = managed.into_entries();
        Ok(())
    }

    /// Records in an object what the write that made it of `current` changed.
    pub(crate) fn updated(&self, object: &mut dyn Object, current: &Current) -> Result<(), Status> {
        let known = current.object.metadata().managed_fields.as_ref();
        let managed = match object.metadata_mut().managed_fields.take() {
            // Most often they are as they were read.
            Some(entries) if Some(&entries) == known => Managed::stored(Some(entries)),
            // Parts of an object have no say in this.
            Some(entries) if self.subresource.is_empty() => match entries.as_slice() {
                [] => Managed::default(),
                [one] if *one == ManagedFieldsEntry::default() => Managed::default(),
                // What can't be read is as good as nothing.
                _ => given(Some(entries)).unwrap_or_else(|| Managed::stored(known.cloned())),
            },
            _ => Managed::stored(known.cloned()),
        };
        // Whoever wants no owners, or has an object older than them, gets none by a write.
        if managed.is_empty() {
            return Ok(());
        }
        let bytes = self.registry.bytes(self.row, &current.entry)?;
        let changes = self.changes(&bytes, object)?;
        let managed = if changes.is_empty() {
            managed
        } else {
            let (versions, version) = (self.versions(), self.row.api_version());
            let both = std::cell::OnceCell::new();
            let in_other = |other: &str| {
                let (old, new) = both.get_or_init(|| (current.object.to_value(), object.to_value()));
                let ty = versions.ty(other)?;
                let (old, new) =
                    (versions.convert(old, &version, other)?, versions.convert(new, &version, other)?);
                Some(Changes::between(&ty, &old, &new))
            };
            self.write(|write| apply::update(write, managed, changes, in_other))
        };
        object.metadata_mut().managed_fields = managed.into_entries();
        Ok(())
    }

    fn changes(&self, old: &[u8], new: &dyn Object) -> Result<Changes, Status> {
        Changes::between_texts(&self.row.schema, old, &new.to_bytes()).map_err(Status::internal)
    }
}

/// Entries that a client sent; None if they say nothing that can be read.
fn given(entries: Option<Vec<ManagedFieldsEntry>>) -> Option<Managed> {
    Managed::read(entries?).ok().filter(|managed| !managed.is_empty())
}

/// The rows that show the same objects, as versions of one kind.
pub(crate) struct Rows<'a> {
    table: Arc<Table>,
    row: &'a Resource,
}

impl Rows<'_> {
    fn row(&self, version: &str) -> Option<&Resource> {
        if version == self.row.api_version() {
            return Some(self.row);
        }
        let row = self.table.kind_of(version, &self.row.kind)?;
        (row.prefix() == self.row.prefix()).then_some(&**row)
    }
}

impl Versions for Rows<'_> {
    fn ty(&self, version: &str) -> Option<TypeRef> {
        Some(self.row(version)?.schema.clone())
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        let (from, to) = (self.row(from)?, self.row(to)?);
        let mut fields: Map<String, Value> = object.as_object()?.clone();
        if !std::ptr::eq(from, to) {
            from.to_storage(&mut fields);
            to.from_storage(&mut fields);
        }
        Some(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_the_start_of_the_user_agent() {
        for (agent, expect) in [
            ("kubectl/v1.36.0 (linux/amd64) kubernetes/abc", "kubectl"),
            ("a\u{7}b", "ab"),
            ("", ""),
            ("/x", ""),
        ] {
            assert_eq!(prefix(agent), expect);
        }
        assert_eq!(prefix(&"é".repeat(100)).len(), 128);
    }

    #[test]
    fn components_have_the_names_that_they_have_upstream() {
        for (user, expect) in [
            ("system:kube-scheduler", "kube-scheduler"),
            ("system:node:a", "kubelet"),
            ("system:serviceaccount:kube-system:job-controller", "kube-controller-manager"),
            ("admin", ""),
        ] {
            assert_eq!(component(&UserInfo::new(user, &[])), expect);
        }
    }
}
