//! What writes through one part of an object don't change, and so don't own.

use super::set::Set;
use crate::resource::{Action, Resource};

/// The fields that writes through this part of the objects of a row leave as they are; the empty name is for the object
/// itself. Parts that change the object by rules of their own have none: their writes are looked at afterwards.
pub fn reset_fields(row: &Resource, subresource: &str) -> Set {
    let is_status = |name: &str| row.subresource(name).is_some_and(|part| part.action == Action::Status);
    match subresource {
        "" if is_status("status") => Set::of(&[&["status"]]),
        name if is_status(name) => Set::of(row.rules.status_resets()),
        _ => Set::default(),
    }
}
