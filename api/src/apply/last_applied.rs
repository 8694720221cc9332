//! The annotation in which kubectl's client-side apply keeps what it applied last.
//!
//! kubectl that goes over to server-side apply meets no conflict with its own earlier self, and finds the annotation up
//! to date should it go back.

use serde_json::Value;

use super::Target;
use super::compare::Changes;
use super::conflict::Conflict;
use super::extract::fields_of;
use super::set::Set;
use crate::meta::MAX_ANNOTATIONS;

/// The manager for which the annotation is minded.
pub(super) const MANAGER: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn annotation(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][ANNOTATION].as_str().filter(|text| !text.is_empty())
}

/// The conflicts about other fields than those that client-side apply set and that still have its values.
pub(super) fn remaining(target: Target<'_>, live: &Value, conflicts: Vec<Conflict>) -> Vec<Conflict> {
    let Some(own) = own(target, live) else { return conflicts };
    let rest = conflicts.into_iter().filter_map(|mut conflict| {
        conflict.fields.remove(&own);
        (!conflict.fields.is_empty()).then_some(conflict)
    });
    rest.collect()
}

/// What client-side apply set and nobody changed since.
fn own(target: Target<'_>, live: &Value) -> Option<Set> {
    let applied: Value = serde_json::from_str(annotation(live)?).ok()?;
    if applied["apiVersion"].as_str() != Some(target.gvk.api_version().as_str()) {
        return None;
    }
    let mut own = fields_of(target.ty, &applied);
    let changes = Changes::between(target.ty, &applied, live);
    for changed in [&changes.modified, &changes.added, &changes.removed] {
        own.remove(changed);
    }
    Some(own)
}

/// Writes what is applied into the annotation, if the object has one.
pub(super) fn renew(object: &mut Value, config: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut applied = config.clone();
    if let Some(annotations) = applied["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let text = format!("{applied}\n");
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else { return };
    let others = annotations.iter().filter(|(name, _)| *name != ANNOTATION);
    let size: usize = others.map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if size + ANNOTATION.len() + text.len() > MAX_ANNOTATIONS {
        annotations.remove(ANNOTATION);
    } else {
        annotations.insert(ANNOTATION.to_owned(), text.into());
    }
}
