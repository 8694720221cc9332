//! `skiff set`: what of a workload is changed most often.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::apply::DryRun;
use super::mutate::Subjects;
use crate::Failure;
use crate::resources::select::Object;
use crate::resources::{Call, Patch, Session, at, items, text};

#[derive(Debug, Subcommand)]
pub(crate) enum Set {
    /// Update the image of a pod template
    Image(Image),
}

impl Set {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Image(image) => image.run(session).await,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Image {
    /// TYPE NAME or TYPE/NAME, and then CONTAINER=IMAGE...; * is every container
    #[arg(required = true, value_name = "TYPE NAME CONTAINER=IMAGE")]
    words: Vec<String>,
    #[command(flatten)]
    subjects: Subjects,
}

/// Where the pod spec of an object is.
fn pod_spec(object: &Object) -> Option<&'static str> {
    match object.mapping.kind.as_str() {
        "Pod" => Some("spec"),
        "CronJob" => Some("spec.jobTemplate.spec.template.spec"),
        _ if at(&object.value, "spec.template.spec").is_object() => Some("spec.template.spec"),
        _ => None,
    }
}

/// The strategic patch for the pod spec: containers by name, with their new images. Nothing if all have them already.
fn images(spec: &Value, wanted: &[(&str, &str)]) -> Result<Option<Value>, Failure> {
    let mut patch = json!({});
    let mut unknown: Vec<&str> = wanted.iter().map(|(name, _)| *name).filter(|name| *name != "*").collect();
    for field in ["containers", "initContainers"] {
        let mut changed = Vec::new();
        for container in items(spec, field) {
            let name = text(container, "name");
            unknown.retain(|unknown| *unknown != name);
            let image = wanted.iter().rev().find(|(wanted, _)| *wanted == name || *wanted == "*");
            if let Some((_, image)) = image.filter(|(_, image)| text(container, "image") != *image) {
                changed.push(json!({"name": name, "image": image}));
            }
        }
        if !changed.is_empty() {
            patch[field] = changed.into();
        }
    }
    match unknown.first() {
        Some(name) => Err(Failure::new(format!("error: unable to find container named {name:?}"))),
        None => Ok(patch.as_object().is_some_and(|patch| !patch.is_empty()).then_some(patch)),
    }
}

impl Image {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let first = self.words.iter().position(|word| word.contains('=')).unwrap_or(self.words.len());
        let (resources, pairs) = self.words.split_at(first);
        let wanted: Vec<(&str, &str)> = pairs.iter().filter_map(|pair| pair.split_once('=')).collect();
        if wanted.is_empty() || wanted.len() != pairs.len() {
            return Err(Failure::new("error: at least one image update is required"));
        }
        let dry_run = self.subjects.dry_run;
        let mut printer = self.subjects.output.printer()?;
        for object in self.subjects.find(session, resources).await? {
            let path = pod_spec(&object).ok_or_else(|| {
                Failure::new(format!("error: {} does not have a pod template", object.label()))
            })?;
            let Some(mut patch) = images(at(&object.value, path), &wanted)? else { continue };
            for field in path.split('.').rev() {
                patch = json!({field: patch});
            }
            let value = if dry_run == DryRun::Client {
                object.value.clone()
            } else {
                let call = Call::patch(object.path(), Patch::Strategic, &patch);
                session.json(call.query("fieldManager", "kubectl-set").dry_run(dry_run.server())).await?
            };
            printer.done(&object.mapping, &value, &format!("image updated{}", dry_run.suffix()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_set_by_container() {
        let spec = json!({
            "containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}],
            "initContainers": [{"name": "i", "image": "x:1"}],
        });
        for (wanted, expected) in [
            (vec![("a", "x:2")], json!({"containers": [{"name": "a", "image": "x:2"}]})),
            (vec![("a", "x:1")], Value::Null),
            (
                vec![("*", "x:1"), ("i", "z")],
                json!({"containers": [{"name": "b", "image": "x:1"}], "initContainers": [{"name": "i", "image": "z"}]}),
            ),
        ] {
            assert_eq!(images(&spec, &wanted).unwrap().unwrap_or_default(), expected, "{wanted:?}");
        }
        let error = images(&spec, &[("c", "x")]).unwrap_err();
        assert_eq!(error.to_string(), "error: unable to find container named \"c\"");
    }
}
