//! `meta.k8s.io` Table output: what `kubectl get` prints, and human durations.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    object::{Object, Rules},
    resource::Column,
};

/// How much of the object a row carries (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    /// Its metadata, as a PartialObjectMetadata.
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// The value of the query parameter; empty is the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(Self::None),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// The definitions of columns in the wire form.
pub fn column_definitions(columns: &[Column]) -> Value {
    let definition = |column: &Column| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    };
    columns.iter().map(definition).collect()
}

/// One row. `api_version` is the version of the Table (`meta.k8s.io/v1` or `v1beta1`), for the metadata that it carries.
pub fn row(
    rules: &dyn Rules,
    object: &dyn Object,
    include: IncludeObject,
    api_version: &str,
    now: Timestamp,
) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), rules.cells(object, now).into());
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            let mut metadata = serde_json::to_value(object.metadata()).unwrap_or_default();
            alone(rules, &mut metadata);
            let object =
                json!({"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": metadata});
            row.insert("object".to_owned(), object);
        }
        IncludeObject::Object => {
            row.insert("object".to_owned(), object.to_value());
        }
    }
    Value::Object(row)
}

/// Metadata as it is where nothing else of the object is shown.
pub fn alone(rules: &dyn Rules, metadata: &mut Value) {
    let left_out = rules.converted_annotations();
    if left_out.is_empty() {
        return;
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| !left_out.contains(&name.as_str()));
        if annotations.is_empty()
            && let Some(fields) = metadata.as_object_mut()
        {
            fields.remove("annotations");
        }
    }
}

/// A Table of rows. `metadata` is that of the list (or holds the resourceVersion of the one object); columns are given
/// in the first message of a watch and in every answer to a get or list.
pub fn table(api_version: &str, metadata: Value, columns: Option<&[Column]>, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table", "apiVersion": api_version, "metadata": metadata,
        "columnDefinitions": columns.map_or(Value::Array(Vec::new()), column_definitions),
        "rows": rows,
    })
}

/// How long ago something was, for the `Age` column: `<unknown>` for a time that isn't there.
pub fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    since.map_or_else(|| "<unknown>".to_owned(), |since| human_duration(now.as_second() - since.as_second()))
}

/// A duration in seconds with two or three significant figures: `45s`, `3m20s`, `5h`, `2d3h`, `400d`, `3y`.
pub fn human_duration(seconds: i64) -> String {
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(hours / 24, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => pair(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Table;

    #[test]
    fn durations_have_two_or_three_figures() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        const YEAR: i64 = 365 * DAY;
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (70, "70s"),
            (119, "119s"),
            (120, "2m"),
            (2 * MINUTE + 1, "2m1s"),
            (10 * MINUTE + 5, "10m"),
            (179 * MINUTE, "179m"),
            (3 * HOUR + 20 * MINUTE, "3h20m"),
            (8 * HOUR + 20 * MINUTE, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + 3 * HOUR, "2d3h"),
            (8 * DAY + HOUR, "8d"),
            (2 * YEAR - DAY, "729d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + 5 * DAY, "2y5d"),
            (8 * YEAR + 5 * DAY, "8y"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
    }

    #[test]
    fn every_kind_gives_a_cell_for_each_of_its_columns() {
        for resource in Table::builtin().rows() {
            let object = json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {"name": "x"}});
            let Ok(object) = resource.rules.decode(object) else { continue };
            let row = row(
                &*resource.rules,
                &*object,
                IncludeObject::Metadata,
                "meta.k8s.io/v1",
                Timestamp::UNIX_EPOCH,
            );
            let cells = row["cells"].as_array().map(Vec::len);
            assert_eq!(cells, Some(resource.rules.columns().len()), "cells of {}", resource.plural);
            assert_eq!(row["object"]["metadata"]["name"], "x");
        }
    }
}
