//! Reads the selectors of lists and watches.

use api::resource::Resource;
use api::selector::{FieldSelector, LabelSelector};
use api::status::Status;

use crate::RequestInfo;
use crate::cache::{Cache, Field, FieldTerm, Selector};

/// The objects that a list, watch or deletecollection is about.
pub fn read(info: &RequestInfo, row: &Resource, cache: &Cache) -> Result<Selector, Status> {
    let labels = match info.query.get("labelSelector") {
        Some(text) => LabelSelector::parse(text).map_err(|error| Status::bad_request(error.to_string()))?,
        None => LabelSelector::everything(),
    };
    let mut selector = Selector { labels, ..Selector::default() };
    if row.namespaced() {
        selector.namespace = Some(info.namespace.clone()).filter(|namespace| !namespace.is_empty());
    } else {
        selector.namespace = Some(String::new());
    }
    let Some(text) = info.query.get("fieldSelector") else { return Ok(selector) };
    let fields = FieldSelector::parse(text).map_err(|error| Status::bad_request(error.to_string()))?;
    for term in &fields.terms {
        let field = match term.field.as_str() {
            "metadata.name" => Field::Name,
            // Kinds without namespaces that name their own fields don't name this one.
            name @ "metadata.namespace" if !row.namespaced() && !row.rules.field_names().is_empty() => {
                return Err(unknown(row, name));
            }
            "metadata.namespace" => Field::Namespace,
            name => Field::Row(
                row.rules
                    .field_names()
                    .iter()
                    .position(|known| *known == name)
                    // A view's fields are named differently, and stand at the same place.
                    .filter(|index| *index < cache.fields())
                    .ok_or_else(|| unknown(row, name))?,
            ),
        };
        let (equals, value) = (term.equal, term.value.clone());
        match field {
            Field::Name if equals && selector.name.is_none() => selector.name = Some(value),
            Field::Namespace if equals && row.namespaced() && selector.namespace.is_none() => {
                selector.namespace = Some(value);
            }
            field => selector.fields.push(FieldTerm { field, equals, value }),
        }
    }
    Ok(selector)
}

fn unknown(row: &Resource, name: &str) -> Status {
    if row.rules.field_names().is_empty() {
        Status::bad_request(format!(
            "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            api::field::quote(name)
        ))
    } else {
        Status::bad_request(format!("field label not supported: {name}"))
    }
}
