//! Objects from files, directories and standard input: YAML of several documents, or JSON.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;
use serde_saphyr::{Budget, DuplicateKeyPolicy, NonFiniteFloatPolicy, Options};

use crate::Failure;
use crate::failure::Because;

/// Which files.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct FileArgs {
    /// The files or directories that contain the objects; - is standard input
    #[arg(long, short = 'f', value_name = "FILE", value_delimiter = ',')]
    pub(crate) filename: Vec<String>,
    /// Process the directory used in -f recursively
    #[arg(long, short = 'R', requires = "filename")]
    pub(crate) recursive: bool,
}

/// An object, and the file it is from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) object: Value,
    pub(crate) source: String,
}

impl FileArgs {
    pub(crate) fn is_empty(&self) -> bool {
        self.filename.is_empty()
    }

    /// All objects of all files, lists taken apart.
    pub(crate) fn read(&self) -> Result<Vec<Manifest>, Failure> {
        let mut manifests = Vec::new();
        for name in &self.filename {
            if name == "-" {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).because("error: standard input")?;
                parse(&text, "STDIN", &mut manifests)?;
                continue;
            }
            if name.starts_with("http://") || name.starts_with("https://") {
                return Err(Failure::usage(format!(
                    "error: {name}: URLs are not read; download it first, or pipe it: curl -fsSL {name} | skiff ... -f -"
                )));
            }
            for path in self.files(Path::new(name))? {
                let about = path.display().to_string();
                let bytes = std::fs::read(&path).because(format!("error: {about}"))?;
                let text = String::from_utf8(bytes)
                    .map_err(|_| Failure::new(format!("error: error parsing {about}: not UTF-8")))?;
                parse(&text, &about, &mut manifests)?;
            }
        }
        if manifests.is_empty() {
            return Err(Failure::new(format!("error: no objects passed to {}", command_name())));
        }
        Ok(manifests)
    }

    fn files(&self, path: &Path) -> Result<Vec<PathBuf>, Failure> {
        let about = path.display();
        let meta = match std::fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Failure::new(format!("error: the path {:?} does not exist", about.to_string())));
            }
            Err(error) => return Err(Failure::new(format!("error: the path {about}: {error}"))),
        };
        if !meta.is_dir() {
            return Ok(vec![path.to_owned()]);
        }
        let mut found = Vec::new();
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path).because(format!("error: {about}"))? {
            entries.push(entry.because(format!("error: {about}"))?.path());
        }
        entries.sort();
        for entry in entries {
            let known =
                entry.extension().is_some_and(|ext| ["json", "yaml", "yml"].iter().any(|e| ext == *e));
            if entry.is_dir() {
                if self.recursive {
                    found.extend(self.files(&entry)?);
                }
            } else if known {
                found.push(entry);
            }
        }
        if found.is_empty() && !self.recursive {
            return Err(Failure::new(format!(
                "error: error reading [{about}]: recognized file extensions are [.json .yaml .yml]"
            )));
        }
        Ok(found)
    }
}

/// The first word of the command line, for messages.
fn command_name() -> String {
    std::env::args().nth(1).unwrap_or_default()
}

/// Reads a text of documents; appends what it holds.
pub(crate) fn parse(text: &str, source: &str, into: &mut Vec<Manifest>) -> Result<(), Failure> {
    if text.trim_start().starts_with(['{', '[']) && !text.contains("\n---") {
        let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let parsed: Result<Vec<Value>, _> = stream.collect();
        // What starts like JSON may still be YAML's flow form.
        if let Ok(objects) = parsed {
            for object in objects {
                add(object, source, into)?;
            }
            return Ok(());
        }
    }
    for (first_line, document) in documents(text) {
        let object = yaml(document, first_line)
            .map_err(|why| Failure::new(format!("error: error parsing {source}{}: {why}", why.position())))?;
        if !object.is_null() {
            add(object, source, into)?;
        }
    }
    Ok(())
}

/// The documents of a YAML text, each with the number of lines before it.
fn documents(text: &str) -> Vec<(u64, &str)> {
    let mut found = Vec::new();
    let (mut start, mut first_line, mut offset, mut line_number) = (0, 0, 0, 0);
    for line in text.split_inclusive('\n') {
        offset += line.len();
        line_number += 1;
        let bare = line.trim_end();
        if bare == "---" || bare.starts_with("--- ") && bare[4..].trim_start().starts_with('#') {
            found.push((first_line, &text[start..offset - line.len()]));
            (start, first_line) = (offset, line_number);
        }
    }
    found.push((first_line, &text[start..]));
    let blank = |text: &str| {
        text.lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#') || line.starts_with('%'))
    };
    found.retain(|(_, document)| !blank(document));
    found
}

fn options() -> Options {
    let mut budget = Budget::default();
    // Big manifests are the user's own; bombs are still found by the ratio of aliases.
    budget.max_nodes = 5_000_000;
    budget.max_events = 20_000_000;
    budget.max_recorded_anchor_events = 100_000;
    // As deep as the server takes it.
    budget.max_depth = api::schema::MAX_DEPTH;
    serde_saphyr::options! {
        legacy_octal_numbers: true,
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
        budget: Some(budget),
    }
}

/// What is wrong with a document, and where in its text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Malformed {
    /// Line and column, from 1.
    at: Option<(u64, u64)>,
    what: String,
}

impl Malformed {
    /// `:line:column`, to follow the name of the file.
    fn position(&self) -> String {
        self.at.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default()
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("error converting YAML to JSON: yaml: ")?;
        if let Some((line, _)) = self.at {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// Reads one document. The error names the line of the whole text and the column.
pub(crate) fn yaml(document: &str, lines_before: u64) -> Result<Value, Malformed> {
    stacker::grow(api::schema::YAML_STACK, || serde_saphyr::from_str_with_options(document, options()))
        .map_err(|error| {
            let location = error.location();
            let text = error.without_snippet().to_string();
            let mut what = text.lines().next().unwrap_or_default().trim().to_owned();
            let Some(location) = location else { return Malformed { at: None, what } };
            // The position is told once, in the file's own lines.
            what = what.replace(&format!("line {} column {}: ", location.line(), location.column()), "");
            if let Some(end) = what.find(" at line ") {
                what.truncate(end);
            }
            what = what.strip_prefix("error: ").unwrap_or(&what).to_owned();
            if what.starts_with("budget breached") {
                "the document unfolds to more than it may".clone_into(&mut what);
            }
            Malformed { at: Some((location.line() + lines_before, location.column())), what }
        })
}

fn add(object: Value, source: &str, into: &mut Vec<Manifest>) -> Result<(), Failure> {
    let missing: Vec<&str> = [("apiVersion", "apiVersion not set"), ("kind", "kind not set")]
        .into_iter()
        .filter(|(key, _)| object[*key].as_str().unwrap_or_default().is_empty())
        .map(|(_, what)| what)
        .collect();
    if !object.is_object() {
        let word = if object.is_array() { "array" } else { "string" };
        return Err(Failure::new(format!(
            "error: error parsing {source}: json: cannot unmarshal {word} into a Kubernetes object"
        )));
    }
    match missing.as_slice() {
        [] => {}
        [one] => {
            return Err(Failure::new(format!(
                "error: error validating {source:?}: error validating data: {one}; if you choose to ignore these \
                 errors, turn validation off with --validate=false"
            )));
        }
        many => {
            return Err(Failure::new(format!(
                "error: error validating {source:?}: error validating data: [{}]; if you choose to ignore these \
                 errors, turn validation off with --validate=false",
                many.join(", ")
            )));
        }
    }
    if object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) && object["items"].is_array() {
        let Value::Object(mut list) = object else { return Ok(()) };
        let Some(Value::Array(items)) = list.remove("items") else { return Ok(()) };
        // The items of a typed list need not repeat what they are.
        let kind = list["kind"].as_str().unwrap_or_default().trim_end_matches("List").to_owned();
        for mut item in items {
            if let Some(item) = item.as_object_mut().filter(|_| !kind.is_empty()) {
                item.entry("apiVersion").or_insert_with(|| list["apiVersion"].clone());
                item.entry("kind").or_insert_with(|| kind.clone().into());
            }
            add(item, source, into)?;
        }
        return Ok(());
    }
    into.push(Manifest { object, source: source.to_owned() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Vec<Value>, String> {
        let mut found = Vec::new();
        parse(text, "f.yaml", &mut found).map_err(|failure| failure.to_string())?;
        Ok(found.into_iter().map(|manifest| manifest.object).collect())
    }

    fn config_map(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data})
    }

    #[test]
    fn scalars_mean_what_kubectl_takes_them_for() {
        for (yaml, value) in [
            ("yes", json!(true)),
            ("off", json!(false)),
            ("'yes'", json!("yes")),
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("1_000", json!(1000)),
            ("1.50", json!(1.5)),
            ("~", Value::Null),
            ("|\n    a\n    b\n", json!("a\nb\n")),
            ("2001-01-01", json!("2001-01-01")),
        ] {
            let text = format!("apiVersion: v1\nkind: ConfigMap\ndata:\n  a: {yaml}\n");
            assert_eq!(read(&text), Ok(vec![config_map(json!({"a": value}))]), "{yaml}");
        }
    }

    #[test]
    fn documents_lists_and_json_become_objects() {
        let one = "apiVersion: v1\nkind: ConfigMap\ndata: {a: b}\n";
        let object = config_map(json!({"a": "b"}));
        for (text, count) in [
            (one.to_owned(), 1),
            (format!("---\n{one}---\n# nothing\n---\n{one}"), 2),
            (format!("%YAML 1.1\n---\n{one}"), 1),
            (object.to_string(), 1),
            (format!("{object}\n{object}"), 2),
            (json!({"apiVersion": "v1", "kind": "List", "items": [object, object]}).to_string(), 2),
            (
                json!({"apiVersion": "v1", "kind": "ConfigMapList", "items": [{"data": {"a": "b"}}]})
                    .to_string(),
                1,
            ),
        ] {
            assert_eq!(read(&text), Ok(vec![object.clone(); count]), "{text}");
        }
        let merged = "apiVersion: v1\nkind: ConfigMap\ndata: &d {a: b}\nother:\n  <<: *d\n  c: e\n  c: d\n";
        assert_eq!(read(merged).map(|found| found[0]["other"].clone()), Ok(json!({"a": "b", "c": "d"})));
    }

    #[test]
    fn errors_name_the_line_of_the_file() {
        for (text, start) in [
            (
                "a: b\n  c: d\n",
                "error: error parsing f.yaml:2:4: error converting YAML to JSON: yaml: line 2: ",
            ),
            ("apiVersion: v1\nkind: A\n---\na: [\n", "error: error parsing f.yaml:4:"),
            (
                "kind: &a [*a, *b]\n",
                "error: error parsing f.yaml:1:11: error converting YAML to JSON: yaml: line 1: ",
            ),
            (
                "kind: A\n",
                "error: error validating \"f.yaml\": error validating data: apiVersion not set; if",
            ),
            (
                "a: b\n",
                "error: error validating \"f.yaml\": error validating data: [apiVersion not set, kind not",
            ),
            ("- a\n", "error: error parsing f.yaml: json: cannot unmarshal array"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(start), "{text:?}: {error}");
            assert!(!error.contains('\n'), "one line: {error}");
        }
    }
}
