//! `skiff cordon`, `uncordon` and `drain`.

use std::time::Duration;

use base::Clock;
use clap::Args;
use futures::future::join_all;
use serde_json::{Value, json};

use super::apply::DryRun;
use super::delete::until_gone;
use super::{duration, print};
use crate::Failure;
use crate::resources::select::Selectors;
use crate::resources::{ApiError, Call, Mapping, Patch, Session, items, name, namespace, text};

/// When an eviction that the server puts off is tried again, if it doesn't say.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub(crate) struct Nodes {
    /// Names of nodes
    #[arg(value_name = "NODE")]
    names: Vec<String>,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l')]
    selector: Option<String>,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
}

impl Nodes {
    async fn find(&self, session: &Session, verb: &str) -> Result<Vec<Value>, Failure> {
        let nodes = Mapping::builtin("", "nodes")?;
        if let Some(selector) = &self.selector {
            let selectors = Selectors { selector: Some(selector.clone()), ..Selectors::default() };
            return Ok(session.list(&nodes, None, &selectors).await?);
        }
        if self.names.is_empty() {
            return Err(Failure::usage(format!("error: USAGE: {verb} NODE [flags]")));
        }
        let mut found = Vec::new();
        for name in &self.names {
            let name = name.strip_prefix("node/").or(name.strip_prefix("nodes/")).unwrap_or(name);
            found.push(session.json(Call::get(nodes.object("", name))).await?);
        }
        Ok(found)
    }

    /// Marks nodes as (un)schedulable.
    pub(crate) async fn cordon(self, session: &Session, on: bool) -> Result<(), Failure> {
        let verb = if on { "cordon" } else { "uncordon" };
        for node in self.find(session, verb).await? {
            self.mark(session, &node, on).await?;
        }
        Ok(())
    }

    async fn mark(&self, session: &Session, node: &Value, on: bool) -> Result<(), Failure> {
        let word = if on { "cordoned" } else { "uncordoned" };
        let is_on = node["spec"]["unschedulable"] == true;
        let suffix = self.dry_run.suffix();
        if is_on == on {
            return print(format!("node/{} already {word}{suffix}\n", name(node)));
        }
        if self.dry_run != DryRun::Client {
            let patch = json!({"spec": {"unschedulable": if on { Value::Bool(true) } else { Value::Null }}});
            let path = Mapping::builtin("", "nodes")?.object("", name(node));
            session.json(Call::patch(path, Patch::Strategic, &patch).dry_run(self.dry_run.server())).await?;
        }
        print(format!("node/{} {word}{suffix}\n", name(node)))
    }
}

#[derive(Args, Debug)]
pub(crate) struct Drain {
    #[command(flatten)]
    nodes: Nodes,
    /// Ignore DaemonSet-managed pods
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Continue even if there are pods that do not declare a controller
    #[arg(long)]
    force: bool,
    /// Continue even if there are pods using emptyDir (local data that will be deleted when the node is drained)
    #[arg(long, alias = "delete-local-data")]
    delete_emptydir_data: bool,
    /// Period of time in seconds given to each pod to terminate gracefully; negative leaves it to the pod
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// The length of time to wait before giving up, zero means infinite
    #[arg(long, value_parser = duration, default_value = "0")]
    timeout: Duration,
    /// Label selector to filter pods on the node
    #[arg(long)]
    pod_selector: Option<String>,
    /// Force drain to use delete, even if eviction is supported
    #[arg(long)]
    disable_eviction: bool,
}

/// What is to become of the pods of a node.
#[derive(Debug, Default)]
struct Plan {
    evict: Vec<Value>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

impl Drain {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let nodes = self.nodes.find(session, "drain").await?;
        for node in &nodes {
            self.nodes.mark(session, node, true).await?;
        }
        for node in &nodes {
            let drained = self.drain(session, node);
            if self.timeout.is_zero() {
                drained.await?;
            } else {
                tokio::time::timeout(self.timeout, drained).await.map_err(|_| {
                    Failure::new(format!(
                        "error: unable to drain node {:?} due to error: global timeout reached: {}",
                        name(node),
                        super::go_duration(self.timeout)
                    ))
                })??;
            }
            print(format!("node/{} drained{}\n", name(node), self.nodes.dry_run.suffix()))?;
        }
        Ok(())
    }

    async fn drain(&self, session: &Session, node: &Value) -> Result<(), Failure> {
        let selectors = Selectors {
            selector: self.pod_selector.clone(),
            field_selector: Some(format!("spec.nodeName={}", name(node))),
            all_namespaces: true,
        };
        let pods = session.list(&Mapping::builtin("", "pods")?, None, &selectors).await?;
        let plan = self.plan(pods);
        if !plan.errors.is_empty() {
            let errors = plan.errors.join(", ");
            let errors = if plan.errors.len() > 1 { format!("[{errors}]") } else { errors };
            return Err(Failure::new(format!(
                "error: unable to drain node {:?} due to error: {errors}, continuing command...\nThere are pending nodes \
                 to be drained:\n {}\n{}",
                name(node),
                name(node),
                plan.errors.join("\n")
            )));
        }
        if !plan.warnings.is_empty() {
            eprintln!("Warning: {}", plan.warnings.join("; "));
        }
        let ended = join_all(plan.evict.iter().map(|pod| self.evict(session, pod))).await;
        let failed: Vec<String> =
            ended.into_iter().filter_map(|ended| Some(ended.err()?.to_string())).collect();
        if failed.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!(
            "error: unable to drain node {:?} due to error: {}, continuing command...",
            name(node),
            failed.join(", ")
        )))
    }

    fn plan(&self, pods: Vec<Value>) -> Plan {
        let mut plan = Plan::default();
        let (mut daemons, mut bare, mut local) = (Vec::new(), Vec::new(), Vec::new());
        for pod in pods {
            let label = format!("{}/{}", namespace(&pod), name(&pod));
            let finished = matches!(text(&pod, "status.phase"), "Succeeded" | "Failed");
            let controller =
                items(&pod, "metadata.ownerReferences").iter().find(|owner| owner["controller"] == true);
            if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
                continue;
            }
            if finished {
                plan.evict.push(pod);
                continue;
            }
            if controller.is_some_and(|owner| owner["kind"] == "DaemonSet") {
                daemons.push(label);
                continue;
            }
            if controller.is_none() {
                bare.push(label.clone());
            }
            if items(&pod, "spec.volumes").iter().any(|volume| volume["emptyDir"].is_object()) {
                local.push(label);
            }
            plan.evict.push(pod);
        }
        let mut judge = |pods: Vec<String>, allowed: bool, error: &str, warning: &str| {
            if pods.is_empty() {
                return;
            }
            let pods = pods.join(", ");
            match (allowed, warning) {
                (false, _) => plan.errors.push(format!("{error}: {pods}")),
                (true, "") => {}
                (true, warning) => plan.warnings.push(format!("{warning}: {pods}")),
            }
        };
        judge(
            daemons,
            self.ignore_daemonsets,
            "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)",
            "ignoring DaemonSet-managed Pods",
        );
        judge(
            local,
            self.delete_emptydir_data,
            "cannot delete Pods with local storage (use --delete-emptydir-data to override)",
            "",
        );
        judge(
            bare,
            self.force,
            "cannot delete Pods that declare no controller (use --force to override)",
            "deleting Pods that declare no controller",
        );
        plan
    }

    /// Evicts a pod, as soon as its disruption budgets allow, and waits until it is gone.
    async fn evict(&self, session: &Session, pod: &Value) -> Result<(), Failure> {
        let pods = Mapping::builtin("", "pods")?;
        let (namespace, name) = (namespace(pod), name(pod));
        let dry_run = self.nodes.dry_run;
        let verb = if self.disable_eviction { "deleting" } else { "evicting" };
        eprintln!("{verb} pod {namespace}/{name}{}", dry_run.suffix());
        if dry_run == DryRun::Client {
            return Ok(());
        }
        let mut options = json!({});
        if self.grace_period >= 0 {
            options["gracePeriodSeconds"] = self.grace_period.into();
        }
        loop {
            let path = pods.object(namespace, name);
            let call = if self.disable_eviction {
                Call::delete(path, &options)
            } else {
                let eviction = json!({
                    "apiVersion": "policy/v1", "kind": "Eviction",
                    "metadata": {"name": name, "namespace": namespace}, "deleteOptions": options,
                });
                Call::post(format!("{path}/eviction"), &eviction)
            };
            match session.json(call.dry_run(dry_run.server())).await {
                Ok(_) if dry_run.server() => return Ok(()),
                Ok(_) => break,
                Err(error) if error.is_not_found() => return Ok(()),
                Err(ApiError::Refused(refusal)) if refusal.code == 429 => {
                    let told = refusal.details["retryAfterSeconds"].as_u64().filter(|seconds| *seconds > 0);
                    let after = told.map_or(RETRY, Duration::from_secs);
                    eprintln!(
                        "error when evicting pods/{name:?} -n {namespace:?} (will retry after {}): {}",
                        super::go_duration(after),
                        refusal.message
                    );
                    Clock::system().wait(after).await;
                }
                Err(error) => {
                    return Err(Failure::new(format!(
                        "error when {verb} pods/{name:?} -n {namespace:?}: {}",
                        error.text()
                    )));
                }
            }
        }
        until_gone(session, &pods, namespace, name, text(pod, "metadata.uid")).await?;
        print(format!("pod/{name} {}\n", if self.disable_eviction { "deleted" } else { "evicted" }))
    }
}
