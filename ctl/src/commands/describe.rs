//! `skiff describe`: an object in words, with what happened to it.
//!
//! Every kind has the general layout; those with more to tell have one of their own. Lines are written with tabs,
//! which are aligned at the end.

mod pod;
mod workload;

use std::fmt::Write;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::print;
use crate::Failure;
use crate::output::tabs::align;
use crate::resources::files::FileArgs;
use crate::resources::select::{Object, Selectors, ended};
use crate::resources::{ApiError, Mapping, Session, items, name, namespace, text};

/// What apply keeps for itself is not shown.
const HIDDEN: &str = super::apply::LAST_APPLIED;
/// Annotations longer than this are cut.
const LONGEST: usize = 140;

#[derive(Args, Debug)]
pub(crate) struct Describe {
    /// TYPE, TYPE NAME-OR-PREFIX..., TYPE/NAME...
    #[arg(value_name = "TYPE[/NAME]")]
    resources: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: Selectors,
    /// If true, display events related to the described object
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    show_events: bool,
}

impl Describe {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        if self.resources.is_empty() && self.files.is_empty() {
            return Err(Failure::new(
                "You must specify the type of resource to describe. Use \"skiff api-resources\" for a complete list of \
                 supported resources.\n\nerror: Required resource not specified.",
            ));
        }
        let targets = session.targets(&self.resources, &self.files).await?;
        let (mut objects, mut errors) = session.fetch(targets, &self.selectors).await?;
        if objects.is_empty()
            && !errors.is_empty()
            && self.files.is_empty()
            && let Some(found) = self.by_prefix(session).await?
        {
            (objects, errors) = (found, Vec::new());
        }
        if objects.is_empty() && errors.is_empty() {
            if self.selectors.all_namespaces {
                eprintln!("No resources found");
            } else {
                eprintln!("No resources found in {} namespace.", session.namespace());
            }
        }
        for (i, object) in objects.iter().enumerate() {
            if i > 0 {
                print("\n\n")?;
            }
            let lines = self.one(session, object).await?;
            print(align(&lines))?;
        }
        ended(errors)
    }

    /// The objects whose names begin with what was typed.
    async fn by_prefix(&self, session: &Session) -> Result<Option<Vec<Object>>, Failure> {
        let [kind, prefix] = self.resources.as_slice() else { return Ok(None) };
        let mapping = session.resource(kind).await?;
        let all = session.list(&mapping, Some(session.namespace()), &self.selectors).await?;
        let object = |value| Object { mapping: mapping.clone(), value };
        let found: Vec<Object> =
            all.into_iter().filter(|value| name(value).starts_with(prefix)).map(object).collect();
        Ok((!found.is_empty()).then_some(found))
    }

    async fn one(&self, session: &Session, object: &Object) -> Result<String, Failure> {
        let value = &object.value;
        let mut out = String::new();
        match (object.mapping.group.as_str(), object.mapping.kind.as_str()) {
            ("", "Pod") => pod::describe(&mut out, value),
            ("", "Node") => workload::node(&mut out, session, value).await?,
            ("", "Service") => workload::service(&mut out, session, value).await?,
            ("", "Namespace") => workload::namespace(&mut out, value),
            ("", "Secret") => workload::secret(&mut out, value),
            ("", "ConfigMap") => workload::config_map(&mut out, value),
            ("apps", "Deployment") => workload::deployment(&mut out, session, value).await?,
            ("apps", "ReplicaSet") => workload::replica_set(&mut out, session, value).await?,
            ("", "ServiceAccount") => workload::service_account(&mut out, value),
            ("policy", "PodDisruptionBudget") => workload::budget(&mut out, value),
            _ => general(&mut out, value),
        }
        if self.show_events && !["Secret", "Event", "Namespace"].contains(&object.mapping.kind.as_str()) {
            events(&mut out, session, object).await?;
        }
        Ok(out)
    }
}

/// The pod template of a workload.
pub(super) fn template(template: &Value) -> String {
    let mut out = "Pod Template:\n".to_owned();
    pod::template(&mut out, template);
    out
}

/// Writes a line. Writing to a String can't fail.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{ let _ = writeln!($out, $($arg)*); }};
}
use line;

/// `Name`, `Namespace` if there is one, `Labels` and `Annotations`.
fn head(out: &mut String, value: &Value) {
    line!(out, "Name:\t{}", name(value));
    if !namespace(value).is_empty() {
        line!(out, "Namespace:\t{}", namespace(value));
    }
    labels(out, "Labels", &value["metadata"]["labels"]);
    annotations(out, "Annotations", &value["metadata"]["annotations"]);
}

fn labels(out: &mut String, title: &str, labels: &Value) {
    let pairs = labels.as_object().into_iter().flatten();
    let lines = pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    several(out, title, lines);
}

/// A title, and a line for each, below each other.
fn several(out: &mut String, title: &str, lines: Vec<String>) {
    if lines.is_empty() {
        line!(out, "{title}:\t<none>");
    }
    let indent = " ".repeat(title.len() - title.trim_start().len());
    for (i, text) in lines.iter().enumerate() {
        if i == 0 {
            line!(out, "{title}:\t{text}");
        } else {
            line!(out, "{indent}\t{text}");
        }
    }
}

fn annotations(out: &mut String, title: &str, annotations: &Value) {
    let mut lines = Vec::new();
    for (key, value) in annotations.as_object().into_iter().flatten() {
        if key == HIDDEN {
            continue;
        }
        let value = value.as_str().unwrap_or_default().trim_end_matches('\n');
        if key.len() + value.len() + 2 > LONGEST || value.contains('\n') {
            lines.push(format!("{key}:"));
            lines.extend(value.split('\n').map(|line| format!("  {}", shortened(line))));
        } else {
            lines.push(format!("{key}: {value}"));
        }
    }
    several(out, title, lines);
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= LONGEST - 2 {
        return text.to_owned();
    }
    text.chars().take(LONGEST - 2).chain("...".chars()).collect()
}

/// A time as descriptions have it: `Thu, 01 Jan 2026 00:00:00 +0000`.
fn time(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(time) => time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
        Err(_) => text.to_owned(),
    }
}

/// The text of a field, or `<none>`.
fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// A value that may be text or number.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The layout of kinds without one of their own.
fn general(out: &mut String, value: &Value) {
    head(out, value);
    line!(out, "API Version:\t{}", text(value, "apiVersion"));
    line!(out, "Kind:\t{}", text(value, "kind"));
    let mut rest = value.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            for shown in ["name", "namespace", "labels", "annotations", "managedFields"] {
                metadata.remove(shown);
            }
        }
    }
    content(out, &rest, 0);
}

fn content(out: &mut String, value: &Value, level: usize) {
    let pad = "  ".repeat(level);
    for (key, value) in value.as_object().into_iter().flatten() {
        let label = label(key);
        match value {
            Value::Object(_) => {
                line!(out, "{pad}{label}:");
                content(out, value, level + 1);
            }
            Value::Array(list) => {
                line!(out, "{pad}{label}:");
                for item in list {
                    if item.is_object() {
                        content(out, item, level + 1);
                    } else {
                        line!(out, "{pad}  {}", scalar(item));
                    }
                }
            }
            Value::Null => line!(out, "{pad}{label}:\t<nil>"),
            other => line!(out, "{pad}{label}:\t{}", scalar(other)),
        }
    }
}

/// `creationTimestamp` as `Creation Timestamp`, `uid` as `UID`.
fn label(key: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut lower_before = false;
    for c in key.chars() {
        if words.is_empty() || (c.is_uppercase() && lower_before) {
            words.push(String::new());
        }
        lower_before = c.is_lowercase() || c.is_ascii_digit();
        if let Some(word) = words.last_mut() {
            if word.is_empty() { word.extend(c.to_uppercase()) } else { word.push(c) }
        }
    }
    for word in &mut words {
        if ["API", "URL", "UID", "OSB", "GUID"].contains(&word.to_uppercase().as_str()) {
            *word = word.to_uppercase();
        }
    }
    words.join(" ")
}

async fn events(out: &mut String, session: &Session, object: &Object) -> Result<(), Failure> {
    let mut selector =
        format!("involvedObject.name={},involvedObject.kind={}", object.name(), object.mapping.kind);
    // An agent tells of its node with the name in place of the uid.
    if object.mapping.kind != "Node" {
        let _ = write!(selector, ",involvedObject.uid={}", text(&object.value, "metadata.uid"));
    }
    let selectors = Selectors { field_selector: Some(selector), ..Selectors::default() };
    let namespace = Some(object.namespace()).filter(|namespace| !namespace.is_empty());
    let found: Result<Vec<Value>, ApiError> =
        session.list(&Mapping::builtin("", "events")?, namespace, &selectors).await;
    // Who may read an object may not always read the events about it.
    let Ok(mut found) = found else { return Ok(()) };
    if found.is_empty() {
        line!(out, "Events:\t<none>");
        return Ok(());
    }
    found.sort_by_key(|event| super::discovery::last_seen(event).to_owned());
    line!(out, "Events:\n  Type\tReason\tAge\tFrom\tMessage\n  ----\t------\t----\t----\t-------");
    for event in &found {
        let component = text(event, "source.component");
        let part = match text(event, "involvedObject.fieldPath") {
            "" => String::new(),
            part => format!("{part}: "),
        };
        let from = if component.is_empty() { text(event, "reportingComponent") } else { component };
        line!(
            out,
            "  {}\t{}\t{}\t{from}\t{part}{}",
            text(event, "type"),
            text(event, "reason"),
            super::discovery::seen(event),
            text(event, "message").trim()
        );
    }
    Ok(())
}

/// `Kind/name` of the controlling owner.
fn controller(value: &Value) -> Option<String> {
    let owner = items(value, "metadata.ownerReferences").iter().find(|owner| owner["controller"] == true)?;
    Some(format!("{}/{}", text(owner, "kind"), text(owner, "name")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_general_layout_names_every_field() {
        let object = json!({"apiVersion": "example.com/v1", "kind": "Foo",
            "metadata": {"name": "x", "namespace": "default", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {HIDDEN: "{}", "a": "b"}},
            "spec": {"hostPorts": [1, 2], "items": [{"apiKey": "k"}], "enabled": true}});
        let mut out = String::new();
        general(&mut out, &object);
        let expected = "\
Name:         x
Namespace:    default
Labels:       <none>
Annotations:  a: b
API Version:  example.com/v1
Kind:         Foo
Metadata:
  Creation Timestamp:  2026-01-01T00:00:00Z
  UID:                 u
Spec:
  Enabled:  true
  Host Ports:
    1
    2
  Items:
    API Key:  k
";
        assert_eq!(align(&out), expected);
        assert_eq!(time("2026-01-01T00:00:00Z"), "Thu, 01 Jan 2026 00:00:00 +0000");
    }
}
