//! Ends containers and pods: preStop, the stop signal, and SIGKILL when the grace is over. The grace may be
//! shortened while it runs.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::context::{Context, container_reference, reference};
use crate::hooks;
use crate::observe::{ask_container, ask_sandbox};
use crate::pod::{self, ObservedContainer, ObservedSandbox, Role};
use crate::runtime::RuntimeError;

/// Every container gets at least this long to end by itself (upstream's value).
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// What is left of a pod, or of one of its containers.
#[derive(Debug)]
pub(super) struct Killed {
    pub(super) result: Result<(), String>,
    pub(super) containers: Vec<ObservedContainer>,
    pub(super) sandboxes: Vec<ObservedSandbox>,
    /// Ids that the runtime no longer has.
    pub(super) removed: Vec<String>,
}

/// A container to be ended.
#[derive(Clone, Debug)]
pub(super) struct Victim {
    pub(super) observed: ObservedContainer,
    pub(super) container: Container,
    pub(super) role: Role,
    /// The words of the `Killing` event; `None` if it was told before.
    pub(super) event: Option<String>,
}

/// Ends things of one pod.
#[derive(Clone, Debug)]
pub(super) struct Killer {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) pod_ip: Option<String>,
    /// When the grace is over.
    pub(super) deadline: watch::Receiver<Instant>,
}

impl Killer {
    /// Ends one container.
    pub(super) async fn container(self, victim: Victim) -> Killed {
        self.announce(&victim);
        self.pre_stop(&victim).await;
        let result = self.stop(&victim.observed.id).await;
        self.aftermath(result, &[victim], &[]).await
    }

    /// Ends containers, sidecars after the others and in the reverse order of their start, then sandboxes.
    pub(super) async fn pod(self, victims: Vec<Victim>, sandboxes: Vec<ObservedSandbox>) -> Killed {
        victims.iter().for_each(|victim| self.announce(victim));
        let (sidecars, others): (Vec<&Victim>, Vec<&Victim>) =
            victims.iter().partition(|victim| victim.role == Role::Sidecar);
        let first = join_all(others.iter().map(|victim| async {
            self.pre_stop(victim).await;
            self.stop(&victim.observed.id).await
        }));
        let hooks = join_all(sidecars.iter().map(|victim| self.pre_stop(victim)));
        let (results, _) = futures::future::join(first, hooks).await;
        let mut result: Result<(), RuntimeError> = results.into_iter().collect();
        let order: Vec<&str> =
            pod::init_containers(&self.pod).iter().map(|container| container.name.as_str()).collect();
        let mut sidecars = sidecars;
        sidecars.sort_by_key(|victim| order.iter().position(|name| *name == victim.observed.name));
        for victim in sidecars.iter().rev() {
            result = self.stop(&victim.observed.id).await.and(result);
        }
        for sandbox in &sandboxes {
            if result.is_ok() {
                result = missing_is_fine(self.context.runtime.stop_sandbox(&sandbox.id).await);
            }
        }
        self.aftermath(result, &victims, &sandboxes).await
    }

    fn announce(&self, victim: &Victim) {
        if let Some(message) = &victim.event {
            let about = container_reference(&self.pod, victim.role, &victim.observed.name);
            self.context.events.normal(&about, "Killing", message.clone());
        }
    }

    /// Runs the preStop hook for as long as the grace lasts.
    async fn pre_stop(&self, victim: &Victim) {
        let hook = victim.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let Some(hook) = hook else { return };
        if self.remaining().is_zero() {
            return;
        }
        let id = &victim.observed.id;
        let run = hooks::run(&self.context, &self.pod, &victim.container, id, hook, self.pod_ip.as_deref());
        tokio::select! {
            result = run => {
                if let Err(why) = result {
                    let pod = pod::title(&self.pod);
                    tracing::info!(%pod, container = %victim.observed.name, %why, "preStop failed");
                    let about = container_reference(&self.pod, victim.role, &victim.observed.name);
                    self.context.events.warning(&about, "FailedPreStopHook", "PreStopHook failed");
                }
            }
            () = self.grace_is_over() => {}
        }
    }

    async fn grace_is_over(&self) {
        let mut deadline = self.deadline.clone();
        loop {
            let at = *deadline.borrow_and_update();
            tokio::select! {
                () = self.context.clock.wait_until(at) => return,
                Ok(()) = deadline.changed() => {}
            }
        }
    }

    fn remaining(&self) -> Duration {
        self.deadline.borrow().saturating_duration_since(self.context.clock.instant())
    }

    /// Stops a container. When the grace becomes shorter, the runtime is told again.
    async fn stop(&self, id: &str) -> Result<(), RuntimeError> {
        let mut deadline = self.deadline.clone();
        deadline.mark_unchanged();
        let call = || self.context.runtime.stop_container(id, self.remaining().max(LEAST_GRACE));
        let mut calls = FuturesUnordered::from_iter([call()]);
        let mut may_change = true;
        loop {
            tokio::select! {
                Some(answer) = calls.next() => {
                    let answer = missing_is_fine(answer);
                    if answer.is_ok() || calls.is_empty() {
                        return answer;
                    }
                }
                changed = deadline.changed(), if may_change => match changed {
                    Ok(()) => calls.push(call()),
                    Err(_) => may_change = false,
                },
            }
        }
    }

    async fn aftermath(
        &self,
        result: Result<(), RuntimeError>,
        victims: &[Victim],
        sandboxes: &[ObservedSandbox],
    ) -> Killed {
        let runtime = self.context.runtime.as_ref();
        let mut killed = Killed {
            result: result.map_err(|error| error.rpc_text()),
            containers: Vec::new(),
            sandboxes: Vec::new(),
            removed: Vec::new(),
        };
        for victim in victims {
            match ask_container(runtime, &victim.observed.id, &victim.observed.sandbox).await {
                Ok(Some(container)) => killed.containers.push(container),
                Ok(None) => killed.removed.push(victim.observed.id.clone()),
                Err(error) => killed.result = killed.result.and(Err(error.rpc_text())),
            }
        }
        for sandbox in sandboxes {
            match ask_sandbox(runtime, &sandbox.id).await {
                Ok(Some(sandbox)) => killed.sandboxes.push(sandbox),
                Ok(None) => killed.removed.push(sandbox.id.clone()),
                Err(error) => killed.result = killed.result.and(Err(error.rpc_text())),
            }
        }
        if let Err(why) = &killed.result {
            let message = format!("error killing pod: {why}");
            self.context.events.warning(&reference(&self.pod), "FailedKillPod", message);
        }
        killed
    }
}

/// Stopping or removing what is not there is done.
pub(super) fn missing_is_fine(answer: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match answer {
        Err(error) if error.is_not_found() => Ok(()),
        answer => answer,
    }
}
