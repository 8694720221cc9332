//! Starts a sandbox or a container. A start gives way when its pod is to end: at the places where it can take
//! long (pulling, hooks), never inside a call that makes something.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use tokio_util::sync::CancellationToken;

use crate::containers::{self, Place};
use crate::context::{Context, container_reference, reference};
use crate::hooks;
use crate::images::ImageError;
use crate::observe::{ask_container, ask_sandbox};
use crate::pod::{self, ObservedContainer, ObservedSandbox, Role, spec};
use crate::runtime::RuntimeError;

/// A sandbox that was made, or why not.
#[derive(Debug)]
pub(super) struct SandboxMade {
    pub(super) result: Result<(), String>,
    /// What the runtime has of the pod's sandboxes now, also of one whose making failed half-way.
    pub(super) sandboxes: Vec<ObservedSandbox>,
}

/// A container to be started.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) container: Container,
    pub(super) role: Role,
    pub(super) attempt: u32,
    pub(super) sandbox: ObservedSandbox,
    pub(super) pod_ips: Vec<String>,
    /// The container whose process namespace it joins.
    pub(super) target: Option<String>,
    /// A container that an earlier try has made but not started.
    pub(super) stale: Option<String>,
    pub(super) volumes_are_made: bool,
    pub(super) cancelled: CancellationToken,
}

/// How a start ended.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) name: String,
    pub(super) result: Result<(), NotStarted>,
    pub(super) volumes_are_made: bool,
    /// The container as it is now, if one was made.
    pub(super) container: Option<ObservedContainer>,
    pub(super) removed: Option<String>,
}

/// Why a container was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotStarted {
    /// The pod is to end.
    Cancelled,
    /// A volume is missing: the container waits without an error of its own.
    Volumes,
    Image(ImageError),
    Other {
        reason: &'static str,
        message: String,
    },
}

/// Makes the sandbox of a pod.
pub(super) async fn sandbox(context: Arc<Context>, pod: Arc<Pod>, attempt: u32) -> SandboxMade {
    let made = make_sandbox(&context, &pod, attempt).await;
    if let Err(why) = &made {
        context.events.warning(
            &reference(&pod),
            "FailedCreatePodSandBox",
            format!("Failed to create pod sandbox: {why}"),
        );
    }
    match made {
        Ok(sandbox) => SandboxMade { result: Ok(()), sandboxes: vec![sandbox] },
        Err(why) => SandboxMade { result: Err(why), sandboxes: known_sandboxes(&context, &pod).await },
    }
}

async fn make_sandbox(context: &Context, pod: &Arc<Pod>, attempt: u32) -> Result<ObservedSandbox, String> {
    let cgroup = context.host.make_cgroup(pod).await.map_err(|error| error.to_string())?;
    let handler = handler(context, pod).await?;
    let config = containers::sandbox_config(context, pod, attempt, &cgroup);
    let text = |error: RuntimeError| error.rpc_text();
    let id = context.runtime.run_sandbox(config, &handler).await.map_err(text)?;
    let found = ask_sandbox(context.runtime.as_ref(), &id).await.map_err(text)?;
    found.ok_or_else(|| format!("sandbox {id} has gone"))
}

async fn known_sandboxes(context: &Context, pod: &Pod) -> Vec<ObservedSandbox> {
    let mut found = Vec::new();
    let Ok(listed) = context.runtime.list_sandboxes(Some(pod::uid(pod))).await else { return found };
    for sandbox in listed {
        found.extend(ask_sandbox(context.runtime.as_ref(), &sandbox.id).await.ok().flatten());
    }
    found
}

/// The runtime's name for the pod's runtime class.
async fn handler(context: &Context, pod: &Pod) -> Result<String, String> {
    let Some(name) = spec(pod).runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(String::new());
    };
    let api: kube::Api<RuntimeClass> = kube::Api::all(context.client.clone());
    let class = api.get(name).await.map_err(|error| {
        format!("failed to get sandbox runtime: failed to get handler from runtime class \"{name}\": {error}")
    })?;
    Ok(class.handler)
}

impl Start {
    pub(super) async fn run(mut self) -> Started {
        let mut made = None;
        let stale = self.stale.clone();
        let result = self.steps(&mut made).await;
        // Also a start that failed half-way may have left a container.
        let container = match &made {
            Some(id) => self.ask(id).await,
            None => None,
        };
        Started {
            name: self.container.name.clone(),
            result,
            volumes_are_made: self.volumes_are_made,
            container,
            removed: stale.filter(|_| self.stale.is_none()),
        }
    }

    async fn ask(&self, id: &str) -> Option<ObservedContainer> {
        match ask_container(self.context.runtime.as_ref(), id, &self.sandbox.id).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(pod = %pod::title(&self.pod), %error, "can't ask for a new container");
                None
            }
        }
    }

    async fn steps(&mut self, made: &mut Option<String>) -> Result<(), NotStarted> {
        let context = self.context.clone();
        let about = container_reference(&self.pod, self.role, &self.container.name);
        let failed = |reason: &'static str, message: String| {
            context.events.warning(&about, "Failed", format!("Error: {message}"));
            NotStarted::Other { reason, message }
        };
        let cancelled = self.cancelled.clone();
        if !self.volumes_are_made {
            let volumes = context.host.make_volumes(&self.pod, &self.pod_ips);
            let volumes = cancelled.run_until_cancelled(volumes).await.ok_or(NotStarted::Cancelled)?;
            if let Err(error) = volumes {
                context.events.warning(&reference(&self.pod), "FailedMount", error.to_string());
                return Err(NotStarted::Volumes);
            }
            self.volumes_are_made = true;
        }
        let sandbox_config = containers::sandbox_config(&context, &self.pod, self.sandbox.attempt, "");
        let image = context.images.ensure(&self.pod, &self.container, &about, &sandbox_config);
        let image = cancelled.run_until_cancelled(image).await.ok_or(NotStarted::Cancelled)?;
        let image = image.map_err(|error| {
            context.events.warning(&about, "Failed", format!("Error: {}", error.reason));
            NotStarted::Image(error)
        })?;
        let place = Place { attempt: self.attempt, pod_ips: &self.pod_ips, target: self.target.as_deref() };
        let config = containers::config(&context, &self.pod, &self.container, &image, place);
        let config = cancelled.run_until_cancelled(config).await.ok_or(NotStarted::Cancelled)?;
        let config = config.map_err(|error| failed("CreateContainerConfigError", error.to_string()))?;
        if let Some(stale) = &self.stale {
            match context.runtime.remove_container(stale).await {
                Err(error) if !error.is_not_found() => {
                    return Err(failed("CreateContainerError", error.message().to_owned()));
                }
                _ => self.stale = None,
            }
        }
        if cancelled.is_cancelled() {
            return Err(NotStarted::Cancelled);
        }
        // The parent cgroup is not told again: the runtime knows it from the sandbox.
        let created = context.runtime.create_container(&self.sandbox.id, config, sandbox_config).await;
        let id = match created {
            Ok(id) => id,
            Err(error) => {
                *made = self.half_made().await;
                return Err(failed("CreateContainerError", error.message().to_owned()));
            }
        };
        *made = Some(id.clone());
        context.events.normal(&about, "Created", "Container created");
        if let Err(error) = context.runtime.start_container(&id).await {
            return Err(failed("RunContainerError", error.message().to_owned()));
        }
        context.events.normal(&about, "Started", "Container started");
        self.post_start(&id).await
    }

    /// A container that the runtime has made although it answered with an error.
    async fn half_made(&self) -> Option<String> {
        let listed = self.context.runtime.list_containers(Some(pod::uid(&self.pod))).await.ok()?;
        let same = |found: &cri::Container| {
            found.metadata.as_ref().is_some_and(|metadata| {
                metadata.name == self.container.name && metadata.attempt == self.attempt
            }) && found.state() == cri::ContainerState::ContainerCreated
        };
        listed.into_iter().find(same).map(|found| found.id)
    }

    async fn post_start(&self, id: &str) -> Result<(), NotStarted> {
        let hook = self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(hook) = hook else { return Ok(()) };
        let context = &self.context;
        let ip = self.pod_ips.first().map(String::as_str);
        let run = hooks::run(context, &self.pod, &self.container, id, hook, ip);
        let Some(Err(why)) = self.cancelled.run_until_cancelled(run).await else { return Ok(()) };
        tracing::info!(pod = %pod::title(&self.pod), container = %self.container.name, %why, "postStart failed");
        let about = container_reference(&self.pod, self.role, &self.container.name);
        // What the hook has said may hold secrets, so it is not in the event.
        context.events.warning(&about, "FailedPostStartHook", "PostStartHook failed");
        context.events.normal(&about, "Killing", "FailedPostStartHook");
        let grace = Duration::from_secs(u64::try_from(pod::grace_seconds(&self.pod)).unwrap_or_default());
        if let Err(error) = context.runtime.stop_container(id, grace).await {
            tracing::warn!(pod = %pod::title(&self.pod), %error, "can't stop a container after its hook failed");
        }
        Err(NotStarted::Other { reason: "PostStartHookError", message: "PostStartHook failed".to_owned() })
    }
}
