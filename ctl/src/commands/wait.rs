//! `skiff wait`, and waiting for an object by its changes.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{duration, print};
use crate::Failure;
use crate::output::columns::field;
use crate::output::jsonpath::Template;
use crate::resources::files::FileArgs;
use crate::resources::select::{Object, Selectors};
use crate::resources::{ApiError, Call, Session, Target, items, number, text};

#[derive(Args, Debug)]
pub(crate) struct Wait {
    /// TYPE, TYPE NAME..., TYPE/NAME...
    #[arg(value_name = "TYPE[/NAME]")]
    resources: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: Selectors,
    /// Select all resources in the namespace of the specified resource types
    #[arg(long)]
    all: bool,
    /// The condition to wait on: [create|delete|condition=NAME[=VALUE]|jsonpath='{PATH}'[=VALUE]]
    #[arg(long = "for", value_name = "CONDITION")]
    wanted: String,
    /// The length of time to wait before giving up; negative waits a week
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    timeout: Duration,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Delete,
    Create,
    Condition { name: String, value: String },
    Path { path: Template, value: Option<String> },
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, Failure> {
        if text.eq_ignore_ascii_case("delete") {
            return Ok(Self::Delete);
        }
        if text.eq_ignore_ascii_case("create") {
            return Ok(Self::Create);
        }
        if let Some(condition) = text.strip_prefix("condition=") {
            let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
            return Ok(Self::Condition { name: name.to_owned(), value: value.to_owned() });
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            let rest = rest.trim_matches(['\'', '"']);
            let (path, value) = match rest.rfind("}=") {
                Some(at) => (&rest[..=at], Some(rest[at + 2..].to_owned())),
                None => (rest, None),
            };
            return Ok(Self::Path { path: field(path)?, value });
        }
        Err(Failure::new(format!("error: unrecognized condition: {text:?}")))
    }

    /// Whether an object, or its absence, is what is waited for.
    fn met(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Self::Delete, object) => object.is_none(),
            (Self::Create, object) => object.is_some(),
            (_, None) => false,
            (Self::Condition { name, value }, Some(object)) => condition(object, name, value),
            (Self::Path { path, value }, Some(object)) => {
                let found = path.values(object).unwrap_or_default();
                match (found.as_slice(), value) {
                    ([], _) => false,
                    (_, None) => true,
                    ([Value::String(text)], Some(value)) => text == value,
                    ([one], Some(value)) => one.to_string() == *value,
                    _ => false,
                }
            }
        }
    }
}

fn condition(object: &Value, name: &str, value: &str) -> bool {
    let generation = number(object, "metadata.generation");
    items(object, "status.conditions").iter().any(|condition| {
        let observed =
            condition["observedGeneration"].as_i64().or(object["status"]["observedGeneration"].as_i64());
        text(condition, "type").eq_ignore_ascii_case(name)
            && text(condition, "status").eq_ignore_ascii_case(value)
            && observed.is_none_or(|observed| observed >= generation)
    })
}

impl Wait {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let wanted = Wanted::parse(&self.wanted)?;
        let targets = session.targets(&self.resources, &self.files).await?;
        let end = base::Clock::system().instant() + self.timeout;
        let mut objects = Vec::new();
        for target in targets.list {
            match target {
                Target::One { mapping, namespace, name, .. } => {
                    let value = serde_json::json!({"metadata": {"name": name, "namespace": namespace}});
                    let object = Object { mapping, value };
                    // What isn't there can only be waited to come.
                    if wanted != Wanted::Create {
                        match session.json(Call::get(object.path())).await {
                            Ok(value) => objects.push(Object { value, ..object }),
                            Err(error) if error.is_not_found() && wanted == Wanted::Delete => {}
                            Err(error) => return Err(error.into()),
                        }
                        continue;
                    }
                    objects.push(object);
                }
                Target::All(_) if !self.all && self.selectors.is_empty() => {
                    return Err(Failure::new("error: resource(s) were provided, but no name was specified"));
                }
                Target::All(mapping) => {
                    let namespace = (!self.selectors.all_namespaces).then(|| session.namespace());
                    let found = session.list(&mapping, namespace, &self.selectors).await?;
                    let object = |value| Object { mapping: mapping.clone(), value };
                    objects.extend(found.into_iter().map(object));
                }
            }
        }
        if objects.is_empty() && wanted != Wanted::Delete {
            return Err(Failure::new("error: no matching resources found"));
        }
        for object in &objects {
            let uid = text(&object.value, "metadata.uid");
            let met = until(session, object, |value| match (&wanted, value) {
                // Another object of the same name is not the one that was to go.
                (Wanted::Delete, Some(value)) => !uid.is_empty() && text(value, "metadata.uid") != uid,
                (wanted, value) => wanted.met(value),
            });
            match tokio::time::timeout_at(end, met).await {
                Ok(ended) => {
                    ended?;
                    let done = match wanted {
                        Wanted::Delete => "deleted",
                        _ => "condition met",
                    };
                    print(format!("{} {done}\n", object.label()))?;
                }
                Err(_) => {
                    return Err(Failure::new(format!(
                        "error: timed out waiting for the condition on {}/{}",
                        object.mapping.plural,
                        object.name()
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Returns the object once `met` is true of it, or nothing once it is true of its absence. Follows its changes.
pub(super) async fn until(
    session: &Session,
    object: &Object,
    mut met: impl FnMut(Option<&Value>) -> bool,
) -> Result<Option<Value>, ApiError> {
    let collection = object.mapping.collection(Some(object.namespace()));
    let selector = format!("metadata.name={}", object.name());
    loop {
        let list = session.json(Call::get(collection.as_str()).query("fieldSelector", &selector)).await?;
        let current = items(&list, "items").first();
        if met(current) {
            return Ok(current.cloned());
        }
        let call = Call::get(collection.as_str())
            .query("watch", "true")
            .query("fieldSelector", &selector)
            .query("resourceVersion", text(&list, "metadata.resourceVersion"));
        let mut events = session.lines(call).await?;
        loop {
            match events.event().await {
                Ok(Some((kind, value))) => {
                    let value = (kind != "DELETED").then_some(value);
                    if kind != "BOOKMARK" && met(value.as_ref()) {
                        return Ok(value);
                    }
                }
                // The watch ended, or what it started from is history: look again.
                Ok(None) => break,
                Err(error) if error.code() == 410 => break,
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_met_by_what_they_name() {
        let object = json!({"metadata": {"generation": 2}, "status": {"phase": "Running", "n": 3, "observedGeneration": 2,
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "True", "observedGeneration": 1}]}});
        for (wanted, met, met_absent) in [
            ("delete", false, true),
            ("create", true, false),
            ("condition=Ready", true, false),
            ("condition=ready=true", true, false),
            ("condition=Ready=False", false, false),
            ("condition=Old", false, false),
            ("jsonpath={.status.phase}=Running", true, false),
            ("jsonpath='{.status.phase}'", true, false),
            ("jsonpath={.status.n}=3", true, false),
            ("jsonpath={.status.nothing}", false, false),
        ] {
            let parsed = Wanted::parse(wanted).unwrap();
            assert_eq!((parsed.met(Some(&object)), parsed.met(None)), (met, met_absent), "{wanted}");
        }
        assert_eq!(Wanted::parse("x").unwrap_err().to_string(), "error: unrecognized condition: \"x\"");
    }
}
