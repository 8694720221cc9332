//! Fields that others own with another value, and how a client is told of them.

use super::managed::Manager;
use super::set::Set;
use crate::status::{Cause, Status};

/// What one manager owns that an apply would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub manager: Manager,
    pub fields: Set,
}

/// The refusal of an apply that would change what others own.
pub(super) fn refusal(conflicts: &[Conflict]) -> Status {
    let mut all: Vec<(String, Vec<String>)> =
        conflicts.iter().map(|conflict| (conflict.manager.show(), conflict.fields.paths())).collect();
    all.sort();
    let each = || all.iter().flat_map(|(manager, paths)| paths.iter().map(move |path| (manager, path)));
    let causes = each().map(|(manager, path)| Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {manager}"),
        field: path.clone(),
    });
    let causes: Vec<Cause> = causes.collect();
    let message = match each().collect::<Vec<_>>().as_slice() {
        [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
        several => {
            let lines = all.iter().flat_map(|(manager, paths)| {
                let head = format!("conflicts with {manager}:");
                std::iter::once(head).chain(paths.iter().map(|path| format!("- {path}")))
            });
            let lines: Vec<String> = lines.collect();
            format!("Apply failed with {} conflicts: {}", several.len(), lines.join("\n"))
        }
    };
    Status::apply_conflict(causes, message)
}
