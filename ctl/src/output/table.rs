//! Tables: columns padded with spaces, as kubectl's.

use serde_json::Value;

use crate::resources::{items, name, namespace, text};

/// The least width of a column, and the space between columns.
const MIN_WIDTH: usize = 6;
const PADDING: usize = 3;

/// Pads rows into aligned lines. Widths only grow, so the lines of a watch stay aligned.
#[derive(Debug, Default)]
pub(crate) struct Aligner {
    widths: Vec<usize>,
}

impl Aligner {
    /// The rows as lines. The last cell of a row is not padded.
    pub(crate) fn lines(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            let cells = row.len().saturating_sub(1);
            if self.widths.len() < cells {
                self.widths.resize(cells, MIN_WIDTH);
            }
            for (width, cell) in self.widths.iter_mut().zip(&row[..cells]) {
                *width = (*width).max(cell.chars().count() + PADDING);
            }
        }
        let mut out = String::new();
        for row in rows {
            for (i, cell) in row.iter().enumerate() {
                out.push_str(cell);
                if i + 1 < row.len() {
                    let fill = self.widths[i].saturating_sub(cell.chars().count());
                    out.extend(std::iter::repeat_n(' ', fill));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// Aligned lines of one block.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    Aligner::default().lines(rows)
}

/// What is shown of a server's Table.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) wide: bool,
    pub(crate) headers: bool,
    pub(crate) with_namespace: bool,
    pub(crate) labels: bool,
    /// Labels that get a column of their own.
    pub(crate) label_columns: Vec<String>,
    /// Prefix of names, such as `pod/`.
    pub(crate) kind_prefix: String,
    /// A first column that says what happened.
    pub(crate) events: bool,
}

impl View {
    /// The headers, for the columns of a Table.
    pub(crate) fn header(&self, columns: &[Value]) -> Vec<String> {
        let mut row = Vec::new();
        if self.events {
            row.push("EVENT".to_owned());
        }
        if self.with_namespace {
            row.push("NAMESPACE".to_owned());
        }
        row.extend(
            columns
                .iter()
                .filter(|column| self.shows(column))
                .map(|column| text(column, "name").to_uppercase()),
        );
        for label in &self.label_columns {
            row.push(label.rsplit('/').next().unwrap_or_default().to_uppercase());
        }
        if self.labels {
            row.push("LABELS".to_owned());
        }
        row
    }

    fn shows(&self, column: &Value) -> bool {
        self.wide || column["priority"].as_i64().unwrap_or_default() == 0
    }

    /// The cells of a row.
    pub(crate) fn row(&self, columns: &[Value], row: &Value, event: &str) -> Vec<String> {
        let mut cells = Vec::new();
        if self.events {
            cells.push(event.to_owned());
        }
        if self.with_namespace {
            cells.push(namespace(&row["object"]).to_owned());
        }
        for (i, (column, value)) in columns.iter().zip(items(row, "cells")).enumerate() {
            if self.shows(column) {
                let prefix = if i == 0 { self.kind_prefix.as_str() } else { "" };
                cells.push(format!("{prefix}{}", cell(value)));
            }
        }
        let labels = &row["object"]["metadata"]["labels"];
        for label in &self.label_columns {
            cells.push(labels[label.as_str()].as_str().unwrap_or("<none>").to_owned());
        }
        if self.labels {
            cells.push(labels_text(labels));
        }
        cells
    }
}

/// A cell as text; only its first line.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => match text.find(['\n', '\r', '\u{c}']) {
            Some(end) => format!("{}...", &text[..end]),
            None => text.clone(),
        },
        Value::Array(list) => format!("[{}]", list.iter().map(cell).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

/// `a=b,c=d`, or `<none>`.
pub(crate) fn labels_text(labels: &Value) -> String {
    let pairs = labels.as_object().map(|labels| {
        let pair = |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
        labels.iter().map(pair).collect::<Vec<_>>().join(",")
    });
    pairs.filter(|text| !text.is_empty()).unwrap_or_else(|| "<none>".to_owned())
}

/// A Table for a server that can't make one: name and age.
pub(crate) fn fallback(objects: &[Value], age: impl Fn(&Value) -> String) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| serde_json::json!({"cells": [name(object), age(object)], "object": object}))
        .collect();
    serde_json::json!({
        "kind": "Table", "rows": rows,
        "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Age", "priority": 0}],
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Value {
        json!({
            "columnDefinitions": [
                {"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "Age", "priority": 0},
                {"name": "Node", "priority": 1},
            ],
            "rows": [
                {"cells": ["web-0", "1/1", "5s", "n1"], "object": {"metadata": {
                    "namespace": "default", "labels": {"app": "web", "x/tier": "front"}}}},
                {"cells": ["a-long-name", "0/1", "10m\nmore", null], "object": {"metadata": {"namespace": "other"}}},
            ],
        })
    }

    fn show(view: &View) -> String {
        let table = table();
        let columns = items(&table, "columnDefinitions");
        let mut rows = vec![view.header(columns)];
        rows.extend(items(&table, "rows").iter().map(|row| view.row(columns, row, "ADDED")));
        aligned(&rows)
    }

    #[test]
    fn columns_are_padded_as_kubectl_pads_them() {
        let lines = "\
NAME          READY   AGE
web-0         1/1     5s
a-long-name   0/1     10m...
";
        assert_eq!(show(&View::default()), lines);
        let wide = View {
            wide: true,
            with_namespace: true,
            labels: true,
            label_columns: vec!["x/tier".to_owned()],
            kind_prefix: "pod/".to_owned(),
            ..View::default()
        };
        let lines = "\
NAMESPACE   NAME              READY   AGE      NODE   TIER     LABELS
default     pod/web-0         1/1     5s       n1     front    app=web,x/tier=front
other       pod/a-long-name   0/1     10m...          <none>   <none>
";
        assert_eq!(show(&wide), lines);
    }

    #[test]
    fn later_lines_keep_the_widths_of_earlier_ones() {
        let mut aligner = Aligner::default();
        let row = |a: &str| vec![vec![a.to_owned(), "x".to_owned()]];
        assert_eq!(aligner.lines(&row("abcdef")), "abcdef   x\n");
        assert_eq!(aligner.lines(&row("a")), "a        x\n");
        assert_eq!(Aligner::default().lines(&row("a")), "a     x\n");
    }
}
