//! A container runtime in memory. What a container does is said by its image:
//!
//! - `run:…` runs until it is stopped; `stubborn:…` only ends when the grace is over;
//! - `exit:N` ends at once with code N;
//! - `missing:…` can't be pulled; every other image is there already, but `pull:…` must be pulled first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use base::{Clock, Tasks};
use futures::StreamExt;
use tokio::sync::{Notify, broadcast};
use tonic::Status;

use crate::runtime::{Events, Runtime, RuntimeError};

pub(crate) struct FakeRuntime {
    clock: Clock,
    tasks: Tasks,
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<cri::ContainerEventResponse>,
    ended: Arc<Notify>,
    /// The runtime has no events, as containerd 1.6.
    pub(crate) is_mute: bool,
}

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<String, cri::PodSandboxStatus>,
    containers: BTreeMap<String, (String, cri::ContainerStatus)>,
    pulled: BTreeSet<String>,
    /// Exit codes of commands, by container name.
    exec: HashMap<String, i32>,
    configs: Vec<cri::ContainerConfig>,
    calls: Vec<String>,
}

impl FakeRuntime {
    pub(crate) fn new(clock: Clock, tasks: Tasks) -> Self {
        Self {
            clock,
            tasks,
            state: Arc::default(),
            events: broadcast::Sender::new(256),
            ended: Arc::default(),
            is_mute: false,
        }
    }

    /// What was asked for and changed something, in order, as `start c#0`.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    pub(crate) fn configs(&self) -> Vec<cri::ContainerConfig> {
        self.lock().configs.clone()
    }

    /// From now on, commands in containers of this name end with this code.
    pub(crate) fn commands_answer(&self, container: &str, code: i32) {
        self.lock().exec.insert(container.to_owned(), code);
    }

    /// Lets the newest container of this name end.
    pub(crate) fn end(&self, container: &str, code: i32) {
        let id = self.newest(container);
        finish(&self.state, &self.clock, &id, code);
        self.tell(&id, cri::ContainerEventType::ContainerStoppedEvent);
    }

    /// Lets the sandbox of a pod end, as when somebody kills it.
    pub(crate) fn end_sandbox(&self, pod: &str) {
        let mut state = self.lock();
        let of_pod = |status: &&mut cri::PodSandboxStatus| {
            status.metadata.as_ref().is_some_and(|metadata| metadata.name == pod)
        };
        let sandbox = state.sandboxes.values_mut().find(of_pod).unwrap();
        sandbox.set_state(cri::PodSandboxState::SandboxNotready);
        let id = sandbox.id.clone();
        drop(state);
        self.tell(&id, cri::ContainerEventType::ContainerStoppedEvent);
    }

    /// Ids of everything that is left, ended or not.
    pub(crate) fn remains(&self) -> Vec<String> {
        let state = self.lock();
        state.sandboxes.keys().chain(state.containers.keys()).cloned().collect()
    }

    fn newest(&self, container: &str) -> String {
        let state = self.lock();
        let of_name = state.containers.values().filter(|(_, status)| name(status) == container);
        of_name.map(|(_, status)| status.id.clone()).max().unwrap()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn tell(&self, id: &str, kind: cri::ContainerEventType) {
        tell(&self.state, &self.events, id, kind);
    }
}

fn name(status: &cri::ContainerStatus) -> String {
    status.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default()
}

fn title(status: &cri::ContainerStatus) -> String {
    format!("{}#{}", name(status), status.metadata.as_ref().map_or(0, |metadata| metadata.attempt))
}

fn tell(
    state: &Mutex<State>,
    events: &broadcast::Sender<cri::ContainerEventResponse>,
    id: &str,
    kind: cri::ContainerEventType,
) {
    let state = state.lock().unwrap();
    let sandbox = state.containers.get(id).map_or(id, |(sandbox, _)| sandbox.as_str());
    let of_sandbox = state.containers.values().filter(|(parent, _)| parent == sandbox);
    let event = cri::ContainerEventResponse {
        container_id: id.to_owned(),
        container_event_type: kind.into(),
        pod_sandbox_status: state.sandboxes.get(sandbox).cloned(),
        containers_statuses: of_sandbox.map(|(_, status)| status.clone()).collect(),
        ..Default::default()
    };
    let _ = events.send(event);
}

fn finish(state: &Mutex<State>, clock: &Clock, id: &str, code: i32) {
    let mut state = state.lock().unwrap();
    let Some((_, status)) = state.containers.get_mut(id) else { return };
    if status.state() == cri::ContainerState::ContainerRunning {
        status.set_state(cri::ContainerState::ContainerExited);
        status.exit_code = code;
        status.finished_at = nanoseconds(clock);
    }
}

fn nanoseconds(clock: &Clock) -> i64 {
    i64::try_from(clock.now().as_nanosecond()).unwrap()
}

fn not_found(call: &'static str) -> RuntimeError {
    RuntimeError::new(call, Status::not_found("no such thing"))
}

impl fmt::Debug for FakeRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeRuntime")
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<cri::VersionResponse, RuntimeError> {
        Ok(cri::VersionResponse {
            runtime_name: "fake".into(),
            runtime_version: "1".into(),
            ..Default::default()
        })
    }

    async fn status(&self) -> Result<cri::StatusResponse, RuntimeError> {
        let condition =
            |kind: &str| cri::RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
        let conditions = vec![condition("RuntimeReady"), condition("NetworkReady")];
        Ok(cri::StatusResponse { status: Some(cri::RuntimeStatus { conditions }), ..Default::default() })
    }

    async fn run_sandbox(&self, config: cri::PodSandboxConfig, _: &str) -> Result<String, RuntimeError> {
        let mut state = self.lock();
        state.next += 1;
        let id = format!("s{}", state.next);
        let metadata = config.metadata.clone().unwrap_or_default();
        state.calls.push(format!("sandbox {}#{}", metadata.name, metadata.attempt));
        let network = cri::PodSandboxNetworkStatus {
            ip: format!("10.244.0.{}", state.next),
            additional_ips: Vec::new(),
        };
        let status = cri::PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata,
            state: cri::PodSandboxState::SandboxReady.into(),
            created_at: nanoseconds(&self.clock),
            network: Some(network),
            labels: config.labels,
            annotations: config.annotations,
            ..Default::default()
        };
        state.sandboxes.insert(id.clone(), status);
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        let status = state.sandboxes.get_mut(id).ok_or_else(|| not_found("StopPodSandbox"))?;
        status.set_state(cri::PodSandboxState::SandboxNotready);
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        state.sandboxes.remove(id);
        state.containers.retain(|_, (sandbox, _)| sandbox != id);
        Ok(())
    }

    async fn list_sandboxes(&self, pod: Option<&str>) -> Result<Vec<cri::PodSandbox>, RuntimeError> {
        let state = self.lock();
        let listed = state.sandboxes.values().map(|status| cri::PodSandbox {
            id: status.id.clone(),
            metadata: status.metadata.clone(),
            state: status.state,
            created_at: status.created_at,
            labels: status.labels.clone(),
            ..Default::default()
        });
        let fits = |labels: &HashMap<String, String>| {
            pod.is_none_or(|pod| labels.get(crate::runtime::POD_UID_LABEL).is_some_and(|uid| uid == pod))
        };
        Ok(listed.filter(|sandbox| fits(&sandbox.labels)).collect())
    }

    async fn sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus, RuntimeError> {
        self.lock().sandboxes.get(id).cloned().ok_or_else(|| not_found("PodSandboxStatus"))
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        _: cri::PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        let mut state = self.lock();
        state.next += 1;
        let id = format!("c{:04}", state.next);
        state.configs.push(config.clone());
        let status = cri::ContainerStatus {
            id: id.clone(),
            metadata: config.metadata,
            state: cri::ContainerState::ContainerCreated.into(),
            created_at: nanoseconds(&self.clock),
            image_ref: config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default(),
            image: config.image,
            labels: config.labels,
            annotations: config.annotations,
            ..Default::default()
        };
        state.containers.insert(id.clone(), (sandbox.to_owned(), status));
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        let (_, status) = state.containers.get_mut(id).ok_or_else(|| not_found("StartContainer"))?;
        status.set_state(cri::ContainerState::ContainerRunning);
        status.started_at = nanoseconds(&self.clock);
        let call = format!("start {}", title(status));
        let image = status.image_ref.clone();
        state.calls.push(call);
        drop(state);
        self.tell(id, cri::ContainerEventType::ContainerStartedEvent);
        if let Some(code) = image.strip_prefix("exit:") {
            let (shared, clock, id) = (self.state.clone(), self.clock.clone(), id.to_owned());
            let (events, code) = (self.events.clone(), code.parse().unwrap());
            self.tasks.spawn("exit", async move {
                clock.wait(Duration::from_millis(5)).await;
                finish(&shared, &clock, &id, code);
                tell(&shared, &events, &id, cri::ContainerEventType::ContainerStoppedEvent);
            });
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let image = {
            let mut state = self.lock();
            let (_, status) = state.containers.get(id).ok_or_else(|| not_found("StopContainer"))?;
            let call = format!("stop {} {}s", title(status), grace.as_secs());
            let image = status.image_ref.clone();
            state.calls.push(call);
            image
        };
        let code = if image.starts_with("stubborn:") {
            tokio::select! {
                () = self.clock.wait(grace) => {}
                () = self.ended.notified() => return Ok(()),
            }
            137
        } else {
            0
        };
        finish(&self.state, &self.clock, id, code);
        self.ended.notify_waiters();
        self.tell(id, cri::ContainerEventType::ContainerStoppedEvent);
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let removed = self.lock().containers.remove(id);
        removed.map(|_| ()).ok_or_else(|| not_found("RemoveContainer"))
    }

    async fn list_containers(&self, pod: Option<&str>) -> Result<Vec<cri::Container>, RuntimeError> {
        let state = self.lock();
        let listed = state.containers.values().map(|(sandbox, status)| cri::Container {
            id: status.id.clone(),
            pod_sandbox_id: sandbox.clone(),
            metadata: status.metadata.clone(),
            state: status.state,
            labels: status.labels.clone(),
            annotations: status.annotations.clone(),
            ..Default::default()
        });
        let fits = |labels: &HashMap<String, String>| {
            pod.is_none_or(|pod| labels.get(crate::runtime::POD_UID_LABEL).is_some_and(|uid| uid == pod))
        };
        Ok(listed.filter(|container| fits(&container.labels)).collect())
    }

    async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus, RuntimeError> {
        let found = self.lock().containers.get(id).map(|(_, status)| status.clone());
        found.ok_or_else(|| not_found("ContainerStatus"))
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        _: Duration,
    ) -> Result<cri::ExecSyncResponse, RuntimeError> {
        let mut state = self.lock();
        let (_, status) = state.containers.get(id).ok_or_else(|| not_found("ExecSync"))?;
        let name = name(status);
        if command.first().is_some_and(|word| word == "hook") {
            state.calls.push(format!("exec {} in {name}", command.join(" ")));
        }
        let exit_code = state.exec.get(&name).copied().unwrap_or(0);
        Ok(cri::ExecSyncResponse { exit_code, stdout: b"said".to_vec(), ..Default::default() })
    }

    async fn reopen_log(&self, _: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn exec(&self, _: cri::ExecRequest) -> Result<String, RuntimeError> {
        Err(not_found("Exec"))
    }

    async fn attach(&self, _: cri::AttachRequest) -> Result<String, RuntimeError> {
        Err(not_found("Attach"))
    }

    async fn port_forward(&self, _: cri::PortForwardRequest) -> Result<String, RuntimeError> {
        Err(not_found("PortForward"))
    }

    async fn events(&self) -> Result<Events, RuntimeError> {
        if self.is_mute {
            return Err(RuntimeError::new("GetContainerEvents", Status::unimplemented("no")));
        }
        let stream = futures::stream::unfold(self.events.subscribe(), |mut receiver| async move {
            let event = receiver.recv().await.ok()?;
            Some((Ok(event), receiver))
        });
        Ok(stream.boxed())
    }

    async fn container_stats(&self) -> Result<Vec<cri::ContainerStats>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn list_images(&self) -> Result<Vec<cri::Image>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn image(&self, image: &str) -> Result<Option<cri::Image>, RuntimeError> {
        let absent = image.starts_with("missing:")
            || (image.starts_with("pull:") && !self.lock().pulled.contains(image));
        Ok((!absent).then(|| cri::Image { id: image.to_owned(), size: 7, ..Default::default() }))
    }

    async fn pull_image(
        &self,
        image: &str,
        _: Option<cri::AuthConfig>,
        _: cri::PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        self.lock().calls.push(format!("pull {image}"));
        if image.starts_with("missing:") {
            let text = format!("failed to pull \"{image}\": not found");
            return Err(RuntimeError::new("PullImage", Status::not_found(text)));
        }
        self.clock.wait(Duration::from_secs(1)).await;
        self.lock().pulled.insert(image.to_owned());
        Ok(image.to_owned())
    }
}
