//! `skiff delete`

use std::time::Duration;

use base::Clock;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::apply::DryRun;
use super::{duration, print};
use crate::Failure;
use crate::resources::files::FileArgs;
use crate::resources::select::{Selectors, ended};
use crate::resources::{ApiError, Call, Mapping, Session, Target, text};

#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// TYPE NAME..., TYPE/NAME...
    #[arg(value_name = "TYPE[/NAME]")]
    resources: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: Selectors,
    /// Delete all resources, in the namespace of the specified resource types
    #[arg(long)]
    all: bool,
    /// Must be "background", "orphan", or "foreground"
    #[arg(long, value_enum, default_value = "background", num_args = 0..=1, require_equals = true, default_missing_value = "background")]
    cascade: Cascade,
    /// Period of time in seconds given to the resource to terminate gracefully; ignored if negative
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, value_name = "SECONDS")]
    grace_period: i64,
    /// If true, immediately remove resources from API and bypass graceful deletion
    #[arg(long)]
    force: bool,
    /// If true, resources are signaled for immediate shutdown (same as --grace-period=1)
    #[arg(long)]
    now: bool,
    /// Treat "resource not found" as a successful delete
    #[arg(long)]
    ignore_not_found: bool,
    /// If true, wait for resources to be gone before returning
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    wait: bool,
    /// The length of time to wait before giving up on a delete, zero means as long as it takes
    #[arg(long, value_parser = duration, default_value = "0", value_name = "DURATION")]
    timeout: Duration,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
    /// Output mode. Use "-o name" for shorter output (resource/name)
    #[arg(long, short = 'o', value_name = "FORMAT")]
    output: Option<String>,
}

/// What becomes of the objects that are owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cascade {
    #[value(alias = "true")]
    Background,
    Foreground,
    #[value(alias = "false")]
    Orphan,
}

/// An object that was deleted, to be waited for.
struct Gone {
    mapping: Mapping,
    namespace: String,
    name: String,
    uid: String,
}

impl Delete {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        if self.resources.is_empty() && self.files.is_empty() {
            return Err(Failure::new(
                "error: You must provide one or more resources by argument or filename.\nExample resource specifications \
                 include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> <name>'\n   '<resource>'",
            ));
        }
        if self.output.as_deref().is_some_and(|output| output != "name") {
            return Err(Failure::new("error: only -o name is supported for delete"));
        }
        if self.all && !self.selectors.is_empty() {
            return Err(Failure::new("error: setting 'all' parameter but found a non empty selector. "));
        }
        if self.now && self.grace_period >= 0 {
            return Err(Failure::new("error: --now and --grace-period cannot be specified together"));
        }
        let targets = session.targets(&self.resources, &self.files).await?;
        let mut errors = Vec::new();
        let mut named = Vec::new();
        let mut ignore_not_found = self.ignore_not_found;
        for target in targets.list {
            match target {
                Target::One { mapping, namespace, name, manifest } => {
                    if self.all || !self.selectors.is_empty() {
                        return Err(Failure::new(
                            "error: name cannot be provided when a selector is specified",
                        ));
                    }
                    let source = manifest.map(|manifest| manifest.source);
                    named.push((mapping, namespace, name, source));
                }
                Target::All(_) if !self.all && self.selectors.is_empty() => {
                    return Err(Failure::new("error: resource(s) were provided, but no name was specified"));
                }
                Target::All(mapping) => {
                    ignore_not_found = true;
                    let namespace = (!self.selectors.all_namespaces).then(|| session.namespace());
                    match session.list(&mapping, namespace, &self.selectors).await {
                        Ok(items) => named.extend(items.iter().map(|item| {
                            let (namespace, name) =
                                (text(item, "metadata.namespace"), text(item, "metadata.name"));
                            (mapping.clone(), namespace.to_owned(), name.to_owned(), None)
                        })),
                        Err(error) => errors.push(error),
                    }
                }
            }
        }
        if self.force && !named.is_empty() && self.grace_period <= 0 {
            eprintln!(
                "Warning: Immediate deletion does not wait for confirmation that the running resource has been \
                 terminated. The resource may continue to run on the cluster indefinitely."
            );
        }
        let (mut gone, mut found) = (Vec::new(), 0);
        for (mapping, namespace, name, source) in named {
            match self.one(session, &mapping, &namespace, &name).await {
                Ok(uid) => {
                    found += 1;
                    self.say(&mapping, &namespace, &name)?;
                    gone.push(Gone { mapping, namespace, name, uid });
                }
                Err(error) if error.is_not_found() && ignore_not_found => {}
                Err(error) => errors.push(match source {
                    Some(source) => error.when("deleting", &source),
                    None => error,
                }),
            }
        }
        if found == 0 && errors.is_empty() {
            if !self.ignore_not_found {
                eprintln!("No resources found");
            }
            return Ok(());
        }
        if self.wait && self.dry_run == DryRun::None {
            self.wait(session, &gone).await?;
        }
        ended(errors)
    }

    fn options(&self) -> Value {
        let mut options = Map::new();
        let policy = match self.cascade {
            Cascade::Background => "Background",
            Cascade::Foreground => "Foreground",
            Cascade::Orphan => "Orphan",
        };
        options.insert("propagationPolicy".to_owned(), policy.into());
        let grace = match () {
            () if self.now => Some(1),
            () if self.grace_period > 0 || (self.grace_period == 0 && self.force) => Some(self.grace_period),
            // Zero without --force would drop what still runs: kubectl makes it one second, and waits.
            () if self.grace_period == 0 => Some(1),
            () if self.force => Some(0),
            () => None,
        };
        if let Some(grace) = grace {
            options.insert("gracePeriodSeconds".to_owned(), grace.into());
        }
        if self.dry_run.server() {
            options.insert("dryRun".to_owned(), json!(["All"]));
        }
        options.insert("kind".to_owned(), "DeleteOptions".into());
        options.insert("apiVersion".to_owned(), "v1".into());
        Value::Object(options)
    }

    /// Deletes an object; its uid, if the server tells.
    async fn one(
        &self,
        session: &Session,
        mapping: &Mapping,
        namespace: &str,
        name: &str,
    ) -> Result<String, ApiError> {
        let path = mapping.object(namespace, name);
        if self.dry_run == DryRun::Client {
            return session.json(Call::get(path)).await.map(|_| String::new());
        }
        let answer = session.json(Call::delete(path, &self.options())).await?;
        let uid = if answer["kind"] == "Status" {
            text(&answer, "details.uid")
        } else {
            text(&answer, "metadata.uid")
        };
        Ok(uid.to_owned())
    }

    fn say(&self, mapping: &Mapping, namespace: &str, name: &str) -> Result<(), Failure> {
        if self.output.is_some() {
            return print(format!("{}\n", mapping.named(name)));
        }
        let done = if self.force && self.grace_period <= 0 { "force deleted" } else { "deleted" };
        let place = if namespace.is_empty() { String::new() } else { format!(" from {namespace} namespace") };
        print(format!("{} {name:?} {done}{place}{}\n", mapping.short(), self.dry_run.suffix()))
    }

    async fn wait(&self, session: &Session, gone: &[Gone]) -> Result<(), Failure> {
        let clock = Clock::system();
        let limit = if self.timeout.is_zero() { Duration::from_secs(7 * 24 * 3600) } else { self.timeout };
        let end = clock.instant() + limit;
        for object in gone {
            let waiting = until_gone(session, &object.mapping, &object.namespace, &object.name, &object.uid);
            match tokio::time::timeout_at(end, waiting).await {
                // Who may delete may not always watch; what is deleted stays deleted.
                Ok(Err(error)) if error.code() == 403 => {}
                Ok(ended) => ended?,
                Err(_) => {
                    return Err(Failure::new(format!(
                        "error: timed out waiting for the condition on {}/{}",
                        object.mapping.plural, object.name
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Returns once there is no object of this name, or another one.
pub(crate) async fn until_gone(
    session: &Session,
    mapping: &Mapping,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(), ApiError> {
    loop {
        let Some(object) = session.find(Call::get(mapping.object(namespace, name))).await? else {
            return Ok(());
        };
        if !uid.is_empty() && text(&object, "metadata.uid") != uid {
            return Ok(());
        }
        let call = Call::get(mapping.collection(Some(namespace)))
            .query("watch", "true")
            .query("fieldSelector", format!("metadata.name={name}"))
            .query("resourceVersion", text(&object, "metadata.resourceVersion"));
        let mut events = match session.lines(call).await {
            Ok(events) => events,
            Err(error) if error.code() == 410 => continue,
            Err(error) => return Err(error),
        };
        while let Some((kind, _)) = match events.event().await {
            Err(error) if error.code() == 410 => None,
            other => other?,
        } {
            if kind == "DELETED" {
                break;
            }
        }
    }
}

/// Deletes an object and waits until it is gone.
pub(crate) async fn remove(
    session: &Session,
    mapping: &Mapping,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    match session.json(Call::delete(mapping.object(namespace, name), &options)).await {
        Ok(_) => until_gone(session, mapping, namespace, name, "").await,
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}
