//! Small changes: `skiff label`, `annotate`, `patch` and `scale`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::apply::DryRun;
use super::duration;
use crate::Failure;
use crate::failure::Because;
use crate::output::OutputArgs;
use crate::resources::files::{FileArgs, yaml};
use crate::resources::select::{Object, Selectors};
use crate::resources::{Call, Patch, Session, Target, Targets, number, text};

/// Which objects to change, and how.
#[derive(Args, Debug)]
pub(crate) struct Subjects {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: Selectors,
    /// Select all resources, in the namespace of the specified resource types
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    pub(super) dry_run: DryRun,
}

impl Subjects {
    /// The objects that the words and flags mean; not all of a type unless that is said.
    pub(super) async fn find(&self, session: &Session, words: &[String]) -> Result<Vec<Object>, Failure> {
        let targets = session.targets(words, &self.files).await?;
        if targets.list.is_empty() {
            return Err(Failure::new(
                "error: one or more resources must be specified as <resource> <name> or <resource>/<name>",
            ));
        }
        let whole_types = targets.list.iter().any(|target| matches!(target, Target::All(_)));
        if whole_types && !self.all && self.selectors.is_empty() {
            return Err(Failure::new("error: resource(s) were provided, but no name was specified"));
        }
        session.fetch_all(targets, &self.selectors).await
    }
}

#[derive(Args, Debug)]
pub(crate) struct Label {
    /// TYPE NAME... or TYPE/NAME..., and then KEY=VALUE, or KEY- to remove
    #[arg(required = true, value_name = "TYPE NAME KEY=VALUE")]
    words: Vec<String>,
    /// If true, allow values to be overwritten
    #[arg(long)]
    overwrite: bool,
    /// If true, display the values and change nothing
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    subjects: Subjects,
}

/// Labels and annotations differ in their field, and in what is said of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    Labels,
    Annotations,
}

impl Marks {
    fn field(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Annotations => "annotations",
        }
    }
}

/// Splits words into resources and changes.
fn split_pairs(
    words: &[String],
    what: &str,
) -> Result<(Vec<String>, Vec<(String, Option<String>)>), Failure> {
    let is_pair = |word: &String| word.contains('=') || word.ends_with('-');
    let first = words.iter().position(is_pair).unwrap_or(words.len());
    let mut pairs = Vec::new();
    for word in &words[first..] {
        pairs.push(match word.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => match word.strip_suffix('-') {
                Some(key) => (key.to_owned(), None),
                None => {
                    return Err(Failure::new(format!(
                        "error: all resources must be specified before {what} changes: {word}"
                    )));
                }
            },
        });
    }
    Ok((words[..first].to_vec(), pairs))
}

impl Label {
    pub(crate) async fn run(self, session: &Session, marks: Marks) -> Result<(), Failure> {
        let what = marks.field().trim_end_matches('s');
        let (resources, pairs) = split_pairs(&self.words, what)?;
        if pairs.is_empty() && !self.list {
            return Err(Failure::new(format!("error: at least one {what} update is required")));
        }
        for (key, value) in &pairs {
            let Some(value) = value.as_ref().filter(|_| marks == Marks::Labels) else { continue };
            let problems = api::name::label_value(value);
            if !problems.is_empty() {
                let pair = format!("{key}={value}");
                return Err(Failure::new(format!(
                    "error: invalid label value: {pair:?}: {}",
                    problems.join(";")
                )));
            }
        }
        let mut printer = self.subjects.output.printer()?;
        for object in self.subjects.find(session, &resources).await? {
            let current = &object.value["metadata"][marks.field()];
            if self.list {
                for (key, value) in current.as_object().into_iter().flatten() {
                    super::print(format!("{key}={}\n", value.as_str().unwrap_or_default()))?;
                }
                continue;
            }
            let mut changes = Map::new();
            let mut only_removes = true;
            for (key, value) in &pairs {
                let before = current[key.as_str()].as_str();
                match (before, value) {
                    (None, None) if marks == Marks::Labels => {
                        super::print(format!("{what} {key:?} not found.\n"))?;
                    }
                    (None, None) => {}
                    (Some(_), None) => {
                        changes.insert(key.clone(), Value::Null);
                    }
                    (Some(before), Some(after)) if before == after => {}
                    (Some(before), Some(_)) if !self.overwrite => {
                        return Err(Failure::new(format!(
                            "error: '{key}' already has a value ({before}), and --overwrite is false"
                        )));
                    }
                    (_, Some(after)) => {
                        only_removes = false;
                        changes.insert(key.clone(), after.clone().into());
                    }
                }
            }
            let done = match marks {
                Marks::Annotations => "annotated",
                Marks::Labels if changes.is_empty() => "not labeled",
                Marks::Labels if only_removes => "unlabeled",
                Marks::Labels => "labeled",
            };
            let patch = json!({"metadata": {marks.field(): changes}});
            let dry_run = self.subjects.dry_run;
            let value = if changes.is_empty() || dry_run == DryRun::Client {
                api::patch::merge(object.value.clone(), patch.as_object().cloned().unwrap_or_default())
            } else {
                let call = Call::patch(object.path(), Patch::Merge, &patch);
                let manager = if marks == Marks::Labels { "kubectl-label" } else { "kubectl-annotate" };
                session.json(call.query("fieldManager", manager).dry_run(dry_run.server())).await?
            };
            printer.done(&object.mapping, &value, &format!("{done}{}", dry_run.suffix()))?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PatchType {
    Json,
    Merge,
    Strategic,
}

#[derive(Args, Debug)]
pub(crate) struct PatchCommand {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE[/NAME]")]
    resources: Vec<String>,
    /// The patch to be applied to the resource, JSON or YAML
    #[arg(long, short = 'p', required_unless_present = "patch_file")]
    patch: Option<String>,
    /// A file containing a patch to be applied to the resource
    #[arg(long, conflicts_with = "patch", value_name = "FILE")]
    patch_file: Option<String>,
    /// The type of patch being provided
    #[arg(long = "type", value_enum, default_value = "strategic")]
    kind: PatchType,
    /// If specified, patch the subresource of the requested object
    #[arg(long, value_name = "NAME")]
    subresource: Option<String>,
    #[command(flatten)]
    subjects: Subjects,
}

impl PatchCommand {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let body = match (&self.patch, &self.patch_file) {
            (Some(patch), _) => patch.clone(),
            (None, Some(file)) => {
                std::fs::read_to_string(file).because(format!("error: unable to read patch file {file}"))?
            }
            (None, None) => String::new(),
        };
        let body =
            yaml(&body, 0).map_err(|why| Failure::new(format!("error: unable to parse {body:?}: {why}")))?;
        let kind = match self.kind {
            PatchType::Json => Patch::Json,
            PatchType::Merge => Patch::Merge,
            PatchType::Strategic => Patch::Strategic,
        };
        let mut printer = self.subjects.output.printer()?;
        for object in self.subjects.find(session, &self.resources).await? {
            let mut path = object.path();
            if let Some(sub) = &self.subresource {
                path = format!("{path}/{sub}");
            }
            let call = Call::patch(path, kind, &body).query("fieldManager", "kubectl-patch");
            let dry_run = self.subjects.dry_run;
            // The server is the one that can tell what a patch makes of an object.
            let value = session.json(call.dry_run(dry_run != DryRun::None)).await?;
            let unchanged = value["metadata"]["resourceVersion"]
                == object.value["metadata"]["resourceVersion"]
                && value["spec"] == object.value["spec"]
                && value["metadata"]["labels"] == object.value["metadata"]["labels"];
            let done = if unchanged { "patched (no change)" } else { "patched" };
            printer.done(&object.mapping, &value, &format!("{done}{}", dry_run.suffix()))?;
        }
        Ok(())
    }
}

#[derive(Args, Debug)]
pub(crate) struct Scale {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE[/NAME]")]
    resources: Vec<String>,
    /// The new desired number of replicas
    #[arg(long, value_name = "COUNT")]
    replicas: i64,
    /// Precondition for current size
    #[arg(long, value_name = "COUNT")]
    current_replicas: Option<i64>,
    /// Precondition for resource version
    #[arg(long, value_name = "VERSION")]
    resource_version: Option<String>,
    /// The length of time to wait for the scale operation to come to its end, zero for don't wait
    #[arg(long, value_parser = duration, default_value = "0")]
    timeout: Duration,
    #[command(flatten)]
    subjects: Subjects,
}

impl Scale {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        if self.replicas < 0 {
            return Err(Failure::new(
                "error: The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0",
            ));
        }
        let mut printer = self.subjects.output.printer()?;
        for object in self.subjects.find(session, &self.resources).await? {
            let dry_run = self.subjects.dry_run;
            if let Some(expected) = self.current_replicas {
                let current = number(&object.value, "spec.replicas");
                if current != expected {
                    return Err(Failure::new(format!(
                        "error: Expected replicas to be {expected}, was {current}"
                    )));
                }
            }
            let mut patch = json!({"spec": {"replicas": self.replicas}});
            if let Some(version) = &self.resource_version {
                patch["metadata"] = json!({"resourceVersion": version});
            }
            if dry_run != DryRun::Client {
                let path = format!("{}/scale", object.path());
                let call = Call::patch(path, Patch::Merge, &patch).query("fieldManager", "kubectl-scale");
                session.json(call.dry_run(dry_run.server())).await?;
            }
            if !self.timeout.is_zero() && dry_run == DryRun::None {
                self.wait(session, &object).await?;
            }
            printer.done(&object.mapping, &object.value, &format!("scaled{}", dry_run.suffix()))?;
        }
        Ok(())
    }

    async fn wait(&self, session: &Session, object: &Object) -> Result<(), Failure> {
        let scaled = super::wait::until(session, object, |value| {
            value.is_none_or(|value| {
                number(value, "status.replicas") == self.replicas
                    && number(value, "status.observedGeneration") >= number(value, "metadata.generation")
            })
        });
        match tokio::time::timeout(self.timeout, scaled).await {
            Ok(ended) => Ok(ended.map(|_| ())?),
            Err(_) => {
                Err(Failure::new(format!("error: timed out waiting for {:?} to be scaled", object.name())))
            }
        }
    }
}

/// The single object that the words mean.
pub(super) async fn one(session: &Session, words: &[String]) -> Result<Object, Failure> {
    let targets: Targets = session.targets(words, &FileArgs::default()).await?;
    let mut found = session.fetch_all(targets, &Selectors::default()).await?;
    match (found.pop(), found.is_empty()) {
        (Some(object), true) => Ok(object),
        (None, _) => Err(Failure::new("error: no such object")),
        (Some(object), false) => Err(Failure::new(format!(
            "error: name exactly one {}",
            text(&object.value, "kind").to_lowercase()
        ))),
    }
}
