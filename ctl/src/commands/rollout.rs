//! `skiff rollout`: how the change of a workload goes, went, and is undone.

use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::apply::LAST_APPLIED;
use super::mutate::one;
use super::pods::selector_text;
use super::wait::until;
use super::{duration, print};
use crate::Failure;
use crate::output::tabs::align;
use crate::resources::files::FileArgs;
use crate::resources::select::{Object, Selectors};
use crate::resources::{Call, Mapping, Patch, Session, at, items, number, text};

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Show the status of the rollout
    Status(Status),
    /// View rollout history
    History(History),
    /// Undo a previous rollout
    Undo(Undo),
    /// Restart a resource
    Restart(Which),
    /// Mark the provided resource as paused
    Pause(Which),
    /// Resume a paused resource
    Resume(Which),
}

#[derive(Args, Debug)]
pub(crate) struct Which {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE[/NAME]")]
    resources: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l')]
    selector: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Status {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE[/NAME]", required = true)]
    resources: Vec<String>,
    /// Watch the status of the rollout until it's done
    #[arg(long, short = 'w', default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    watch: bool,
    /// The length of time to wait before ending watch, zero means never
    #[arg(long, value_parser = duration, default_value = "0")]
    timeout: Duration,
    /// Pin to a specific revision for showing its status
    #[arg(long, default_value_t = 0)]
    revision: i64,
}

#[derive(Args, Debug)]
pub(crate) struct History {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE[/NAME]", required = true)]
    resources: Vec<String>,
    /// See the details, including podTemplate of the revision specified
    #[arg(long)]
    revision: Option<i64>,
}

#[derive(Args, Debug)]
pub(crate) struct Undo {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE[/NAME]", required = true)]
    resources: Vec<String>,
    /// The revision to rollback to; 0 is the last revision
    #[arg(long, default_value_t = 0)]
    to_revision: i64,
}

impl Rollout {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Status(status) => status.run(session).await,
            Self::History(history) => history.run(session).await,
            Self::Undo(undo) => undo.run(session).await,
            Self::Restart(which) => which.each(session, restart).await,
            Self::Pause(which) => which.each(session, |object| pause(object, true)).await,
            Self::Resume(which) => which.each(session, |object| pause(object, false)).await,
        }
    }
}

impl Which {
    /// Changes every object by the patch made for it, and says what was done.
    async fn each(
        self,
        session: &Session,
        change: impl Fn(&Object) -> Result<(Value, &'static str), Failure>,
    ) -> Result<(), Failure> {
        let targets = session.targets(&self.resources, &self.files).await?;
        if targets.list.is_empty() {
            return Err(Failure::new("error: required resource not specified"));
        }
        let selectors = Selectors { selector: self.selector.clone(), ..Selectors::default() };
        for object in session.fetch_all(targets, &selectors).await? {
            let (patch, done) = change(&object)?;
            let call =
                Call::patch(object.path(), Patch::Strategic, &patch).query("fieldManager", "kubectl-rollout");
            session.json(call).await?;
            print(format!("{} {done}\n", object.label()))?;
        }
        Ok(())
    }
}

fn restart(object: &Object) -> Result<(Value, &'static str), Failure> {
    if !matches!(object.mapping.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet") {
        return Err(Failure::new(format!(
            "error: {} {:?} restarting is not supported",
            object.mapping.resource(),
            object.name()
        )));
    }
    if object.value["spec"]["paused"] == true {
        return Err(Failure::new(format!(
            "error: {} {:?} can't restart paused deployment (run rollout resume first)",
            object.mapping.resource(),
            object.name()
        )));
    }
    let now = Timestamp::from_second(base::Clock::system().now().as_second()).unwrap_or_default();
    let annotations = json!({"kubectl.kubernetes.io/restartedAt": now.to_string()});
    Ok((json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}), "restarted"))
}

fn pause(object: &Object, paused: bool) -> Result<(Value, &'static str), Failure> {
    let about = format!("{} {:?}", object.mapping.resource(), object.name());
    if object.mapping.kind != "Deployment" {
        let word = if paused { "pausing" } else { "resuming" };
        return Err(Failure::new(format!("error: {about} {word} is not supported")));
    }
    let is_paused = object.value["spec"]["paused"] == true;
    match (paused, is_paused) {
        (true, true) => Err(Failure::new(format!("error: {about} is already paused"))),
        (false, false) => Err(Failure::new(format!("error: {about} is not paused"))),
        (true, false) => Ok((json!({"spec": {"paused": true}}), "paused")),
        (false, true) => Ok((json!({"spec": {"paused": null}}), "resumed")),
    }
}

impl Status {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let object = one(session, &self.resources).await?;
        let mut last = String::new();
        let mut ended: Option<Result<(), Failure>> = None;
        let done = until(session, &object, |value| {
            let progress = match value {
                Some(value) => progress(&object.mapping, value, self.revision),
                None => Err(Failure::new("error: object has been deleted")),
            };
            let (message, done) = match progress {
                Ok(progress) => progress,
                Err(failure) => {
                    ended = Some(Err(failure));
                    return true;
                }
            };
            if message != last {
                if let Err(failure) = print(format!("{message}\n")) {
                    ended = Some(Err(failure));
                    return true;
                }
                last = message;
            }
            done || !self.watch
        });
        if self.timeout.is_zero() {
            done.await?;
        } else {
            tokio::time::timeout(self.timeout, done)
                .await
                .map_err(|_| Failure::new("error: timed out waiting for the condition"))??;
        }
        ended.unwrap_or(Ok(()))
    }
}

/// How far a rollout is, in words, and whether it is done.
fn progress(mapping: &Mapping, object: &Value, revision: i64) -> Result<(String, bool), Failure> {
    let name = text(object, "metadata.name");
    let status = |field: &str| number(&object["status"], field);
    let observed = status("observedGeneration") >= number(object, "metadata.generation");
    let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
    match mapping.kind.as_str() {
        "Deployment" => {
            let own = &object["metadata"]["annotations"][REVISION];
            if revision > 0 && own.as_str().and_then(|text| text.parse().ok()) != Some(revision) {
                return Err(Failure::new(format!(
                    "error: desired revision ({revision}) is different from the running revision ({})",
                    own.as_str().unwrap_or_default()
                )));
            }
            if !observed {
                return Ok(("Waiting for deployment spec update to be observed...".to_owned(), false));
            }
            let stuck = items(object, "status.conditions")
                .iter()
                .any(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded");
            if stuck {
                return Err(Failure::new(format!(
                    "error: deployment {name:?} exceeded its progress deadline"
                )));
            }
            let (updated, total, available) =
                (status("updatedReplicas"), status("replicas"), status("availableReplicas"));
            let waiting = format!("Waiting for deployment {name:?} rollout to finish:");
            Ok(if updated < replicas {
                (format!("{waiting} {updated} out of {replicas} new replicas have been updated..."), false)
            } else if total > updated {
                (format!("{waiting} {} old replicas are pending termination...", total - updated), false)
            } else if available < updated {
                (format!("{waiting} {available} of {updated} updated replicas are available..."), false)
            } else {
                (format!("deployment {name:?} successfully rolled out"), true)
            })
        }
        "DaemonSet" => {
            let (desired, updated, available) = (
                status("desiredNumberScheduled"),
                status("updatedNumberScheduled"),
                status("numberAvailable"),
            );
            let waiting = format!("Waiting for daemon set {name:?} rollout to finish:");
            Ok(if !observed {
                ("Waiting for daemon set spec update to be observed...".to_owned(), false)
            } else if updated < desired {
                (format!("{waiting} {updated} out of {desired} new pods have been updated..."), false)
            } else if available < desired {
                (format!("{waiting} {available} of {desired} updated pods are available..."), false)
            } else {
                (format!("daemon set {name:?} successfully rolled out"), true)
            })
        }
        "StatefulSet" => {
            if text(object, "spec.updateStrategy.type") == "OnDelete" {
                return Err(Failure::new(
                    "error: rollout status is only available for RollingUpdate strategy type",
                ));
            }
            let ready = status("readyReplicas");
            Ok(if !observed {
                ("Waiting for statefulset spec update to be observed...".to_owned(), false)
            } else if ready < replicas {
                (format!("Waiting for {} pods to be ready...", replicas - ready), false)
            } else if text(object, "status.updateRevision") != text(object, "status.currentRevision") {
                let updated = status("updatedReplicas");
                (
                    format!(
                        "waiting for statefulset rolling update to complete {updated} pods at revision {}...",
                        text(object, "status.updateRevision")
                    ),
                    false,
                )
            } else {
                let current = status("currentReplicas");
                (
                    format!(
                        "statefulset rolling update complete {current} pods at revision {}...",
                        text(object, "status.currentRevision")
                    ),
                    true,
                )
            })
        }
        _ => Err(Failure::new(format!("error: no status viewer has been implemented for {}", mapping.kind))),
    }
}

/// A state of a workload's past.
struct Past {
    revision: i64,
    cause: String,
    template: Value,
    annotations: Value,
}

/// The revisions of a workload, oldest first: of a Deployment from its ReplicaSets, else from ControllerRevisions.
async fn past(session: &Session, object: &Object) -> Result<Vec<Past>, Failure> {
    let deployment = match object.mapping.kind.as_str() {
        "Deployment" => true,
        "DaemonSet" | "StatefulSet" => false,
        kind => {
            return Err(Failure::new(format!("error: no history viewer has been implemented for {kind:?}")));
        }
    };
    let kept = Mapping::builtin("apps", if deployment { "replicasets" } else { "controllerrevisions" })?;
    let selector = selector_text(&object.value["spec"]["selector"]);
    let selectors = Selectors { selector: Some(selector), ..Selectors::default() };
    let uid = text(&object.value, "metadata.uid");
    let found = session.list(&kept, Some(object.namespace()), &selectors).await?;
    let owned =
        |item: &&Value| items(item, "metadata.ownerReferences").iter().any(|owner| owner["uid"] == uid);
    let mut all: Vec<Past> = found
        .iter()
        .filter(owned)
        .map(|item| {
            let annotations = &item["metadata"]["annotations"];
            let revision = if deployment {
                annotations[REVISION].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
            } else {
                number(item, "revision")
            };
            let template =
                if deployment { at(item, "spec.template") } else { at(item, "data.spec.template") };
            let cause = annotations[CHANGE_CAUSE].as_str().unwrap_or("<none>").to_owned();
            Past { revision, cause, template: template.clone(), annotations: annotations.clone() }
        })
        .collect();
    all.sort_by_key(|past| past.revision);
    Ok(all)
}

impl History {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let object = one(session, &self.resources).await?;
        let past = past(session, &object).await?;
        if let Some(revision) = self.revision.filter(|revision| *revision > 0) {
            let found =
                past.iter().find(|past| past.revision == revision).ok_or_else(|| no_revision(revision))?;
            let mut template = found.template.clone();
            if let Some(cause) = found.annotations[CHANGE_CAUSE].as_str() {
                if !template["metadata"]["annotations"].is_object() {
                    template["metadata"]["annotations"] = json!({});
                }
                template["metadata"]["annotations"][CHANGE_CAUSE] = cause.into();
            }
            let lines = super::describe::template(&template);
            return print(format!("{} with revision #{revision}\n{}", object.label(), align(&lines)));
        }
        let mut lines = "REVISION\tCHANGE-CAUSE\n".to_owned();
        for past in &past {
            lines.push_str(&format!("{}\t{}\n", past.revision, past.cause));
        }
        print(format!("{} \n{}\n", object.label(), align(&lines)))
    }
}

fn no_revision(revision: i64) -> Failure {
    Failure::new(format!("error: unable to find specified revision {revision} in history"))
}

impl Undo {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let object = one(session, &self.resources).await?;
        if object.value["metadata"]["annotations"][LAST_APPLIED].is_string() {
            eprintln!(
                "Warning: resource {}/{} was previously managed with 'kubectl apply'. Rolling back will not update the \
                 {LAST_APPLIED} annotation, which may cause unexpected behavior on future 'kubectl apply' operations. \
                 Consider using 'kubectl apply' with your previous configuration file instead.",
                object.mapping.plural,
                object.name()
            );
        }
        if object.value["spec"]["paused"] == true {
            return Err(Failure::new(
                "error: you cannot rollback a paused deployment; resume it first with 'skiff rollout resume' \
                 and try again",
            ));
        }
        let mut past = past(session, &object).await?;
        if past.is_empty() || (self.to_revision == 0 && past.len() < 2) {
            let kind = object.mapping.kind.to_lowercase();
            return Err(Failure::new(format!(
                "error: no rollout history found for {kind} {:?}",
                object.name()
            )));
        }
        let index = match self.to_revision {
            0 => past.len() - 2,
            revision => {
                past.iter().position(|past| past.revision == revision).ok_or_else(|| no_revision(revision))?
            }
        };
        let Past { revision, mut template, annotations, .. } = past.swap_remove(index);
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove("pod-template-hash");
        }
        let mut current = object.value["spec"]["template"].clone();
        for value in [&mut template, &mut current] {
            if let Some(metadata) = value["metadata"].as_object_mut() {
                metadata.retain(|_, value| !value.is_null());
            }
        }
        if template == current {
            return print(format!(
                "{} skipped rollback (current template already matches revision {revision})\n",
                object.label()
            ));
        }
        // The whole template is replaced: what the newer one has beyond the older goes.
        let mut patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
        if object.mapping.kind == "Deployment" {
            let annotations = rolled_back(&object.value["metadata"]["annotations"], &annotations);
            let whole = json!({"op": "add", "path": "/metadata/annotations", "value": annotations});
            patch.as_array_mut().into_iter().for_each(|patch| patch.push(whole.clone()));
        }
        session
            .json(Call::patch(object.path(), Patch::Json, &patch).query("fieldManager", "kubectl-rollout"))
            .await?;
        print(format!("{} rolled back\n", object.label()))
    }
}

/// A Deployment's annotations as they were at a revision, but for those that say what is there now.
fn rolled_back(now: &Value, then: &Value) -> Value {
    const STAY: [&str; 6] = [
        LAST_APPLIED,
        REVISION,
        "deployment.kubernetes.io/revision-history",
        "deployment.kubernetes.io/desired-replicas",
        "deployment.kubernetes.io/max-replicas",
        "deprecated.deployment.rollback.to",
    ];
    let pairs = |annotations: &Value| annotations.as_object().cloned().unwrap_or_default();
    let stays = |key: &String| STAY.contains(&key.as_str());
    let kept = pairs(now).into_iter().filter(|(key, _)| stays(key));
    Value::Object(kept.chain(pairs(then).into_iter().filter(|(key, _)| !stays(key))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_kubectls_words() {
        let mapping = Mapping::builtin("apps", "deployments").unwrap();
        let told = |status: Value| {
            let object = json!({"metadata": {"name": "x", "generation": 2}, "spec": {"replicas": 3}, "status": status});
            progress(&mapping, &object, 0).map_err(|failure| failure.to_string())
        };
        let waiting =
            |text: &str| Ok((format!("Waiting for deployment \"x\" rollout to finish: {text}"), false));
        assert_eq!(
            told(json!({"observedGeneration": 1})),
            Ok(("Waiting for deployment spec update to be observed...".to_owned(), false))
        );
        for (status, expected) in [
            (json!({"updatedReplicas": 1}), waiting("1 out of 3 new replicas have been updated...")),
            (
                json!({"updatedReplicas": 3, "replicas": 4}),
                waiting("1 old replicas are pending termination..."),
            ),
            (
                json!({"updatedReplicas": 3, "replicas": 3, "availableReplicas": 2}),
                waiting("2 of 3 updated replicas are available..."),
            ),
            (
                json!({"updatedReplicas": 3, "replicas": 3, "availableReplicas": 3}),
                Ok(("deployment \"x\" successfully rolled out".to_owned(), true)),
            ),
            (
                json!({"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}),
                Err("error: deployment \"x\" exceeded its progress deadline".to_owned()),
            ),
        ] {
            let mut status = status;
            status["observedGeneration"] = 2.into();
            assert_eq!(told(status), expected);
        }
    }
}
