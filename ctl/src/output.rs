//! How objects are shown.
//!
//! - [`table`], [`tabs`]: aligned columns; [`yaml`], [`json`]: whole objects
//! - [`jsonpath`]: templates; [`columns`]: tables of chosen fields
//! - [`Format`]: what `-o` can say

pub(crate) mod columns;
pub(crate) mod json;
pub(crate) mod jsonpath;
pub(crate) mod table;
pub(crate) mod tabs;
pub(crate) mod yaml;

use std::str::FromStr;

use clap::Args;
use serde_json::{Value, json};

use crate::Failure;
use crate::resources::{Mapping, name};

/// The flag `-o`.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct OutputArgs {
    /// Output format: json, yaml, name, wide, jsonpath=..., jsonpath-file=..., custom-columns=...,
    /// custom-columns-file=...
    #[arg(long, short = 'o', value_name = "FORMAT")]
    pub(crate) output: Option<String>,
    /// If true, keep the managedFields when printing objects in JSON or YAML format
    #[arg(long)]
    pub(crate) show_managed_fields: bool,
}

impl OutputArgs {
    pub(crate) fn format(&self) -> Result<Format, Failure> {
        self.output.as_deref().map_or(Ok(Format::Table { wide: false }), str::parse)
    }

    /// What prints the objects that a command changes.
    pub(crate) fn printer(&self) -> Result<Printer, Failure> {
        Ok(Printer {
            format: self.format()?,
            managed_fields: self.show_managed_fields,
            printed: 0,
            word: None,
            kept: None,
        })
    }
}

/// Prints objects one after the other: what `-o` says, or else what was done to them.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    managed_fields: bool,
    printed: usize,
    /// What is said instead of `created`.
    word: Option<&'static str>,
    /// The objects so far, where they are shown as one at the end.
    kept: Option<Vec<(Mapping, Value)>>,
}

impl Printer {
    /// The same, with another word for `created`.
    pub(crate) fn saying(mut self, word: &'static str) -> Self {
        self.word = Some(word);
        self
    }

    /// The same, but whole objects are shown as one, a list if there are several, by [`Self::finish`].
    pub(crate) fn together(mut self) -> Self {
        let whole = !matches!(self.format, Format::Table { .. } | Format::Name);
        self.kept = whole.then(Vec::new);
        self
    }

    /// Shows what was kept for the end.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Some(mut kept) = self.kept else { return Ok(()) };
        let Some((mapping, last)) = kept.pop() else { return Ok(()) };
        let whole = if kept.is_empty() {
            last
        } else {
            list(kept.into_iter().map(|(_, object)| object).chain([last]).collect())
        };
        crate::commands::print(self.format.whole(&mapping, &whole)?)
    }

    pub(crate) fn done(&mut self, mapping: &Mapping, object: &Value, done: &str) -> Result<(), Failure> {
        if self.format.is_table() {
            let done = match self.word {
                Some(word) => done.replacen("created", word, 1),
                None => done.to_owned(),
            };
            return crate::commands::print(format!("{} {done}\n", mapping.named(name(object))));
        }
        let mut object = object.clone();
        if !self.managed_fields {
            drop_managed_fields(&mut object);
        }
        if let Some(kept) = &mut self.kept {
            kept.push((mapping.clone(), object));
            return Ok(());
        }
        let separator = if self.printed > 0 && self.format == Format::Yaml { "---\n" } else { "" };
        self.printed += 1;
        crate::commands::print(format!("{separator}{}", self.format.whole(mapping, &object)?))
    }
}

/// A form of output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Format {
    Table { wide: bool },
    Json,
    Yaml,
    Name,
    JsonPath(jsonpath::Template),
    Columns(columns::Columns),
}

impl FromStr for Format {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let (kind, argument) = text.split_once('=').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        let needed = |what: &str| {
            argument
                .filter(|text| !text.is_empty())
                .ok_or_else(|| Failure::new(format!("error: {what} format specified but no {what} given")))
        };
        let file = |path: &str| {
            std::fs::read_to_string(path)
                .map_err(|error| Failure::new(format!("error: error reading template {path}, {error}")))
        };
        Ok(match kind {
            "" => Self::Table { wide: false },
            "wide" => Self::Table { wide: true },
            "json" => Self::Json,
            "yaml" => Self::Yaml,
            "name" => Self::Name,
            "jsonpath" | "jsonpath-as-json" => Self::JsonPath(template(needed("template")?)?),
            "jsonpath-file" => Self::JsonPath(template(file(needed("template")?)?.trim_end())?),
            "custom-columns" => Self::Columns(columns::Columns::parse(needed("custom-columns")?)?),
            "custom-columns-file" => {
                Self::Columns(columns::Columns::parse_file(&file(needed("custom-columns")?)?)?)
            }
            _ => {
                return Err(Failure::new(format!(
                    "error: unable to match a printer suitable for the output format {text:?}, allowed formats are: \
                     custom-columns,custom-columns-file,json,jsonpath,jsonpath-file,name,wide,yaml"
                )));
            }
        })
    }
}

fn template(text: &str) -> Result<jsonpath::Template, Failure> {
    jsonpath::Template::parse(text)
        .map_err(|why| Failure::new(format!("error: error parsing jsonpath {text}, {why}")))
}

impl Format {
    pub(crate) fn is_table(&self) -> bool {
        matches!(self, Self::Table { .. })
    }

    /// One object or list in this form, which is not the table.
    pub(crate) fn whole(&self, mapping: &Mapping, object: &Value) -> Result<String, Failure> {
        Ok(match self {
            Self::Json => json::pretty(object),
            Self::Yaml => yaml::to_string(object),
            Self::JsonPath(template) => template.run(object).map_err(|why| {
                Failure::new(format!("error: error executing jsonpath {:?}: {why}", template.source()))
            })?,
            Self::Columns(columns) => columns.table(std::slice::from_ref(object), true)?,
            Self::Table { .. } | Self::Name => format!("{}\n", mapping.named(name(object))),
        })
    }
}

/// Several objects as one.
pub(crate) fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

/// Takes `metadata.managedFields` away.
pub(crate) fn drop_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(drop_managed_fields);
    }
}
