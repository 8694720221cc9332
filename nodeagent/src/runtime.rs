//! The calls of a container runtime that the agent makes: a small trait, and CRI v1 over a unix socket.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use cri::image_service_client::ImageServiceClient;
use cri::runtime_service_client::RuntimeServiceClient;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Under this label every sandbox and container carries the uid of its pod.
pub const POD_UID_LABEL: &str = "io.kubernetes.pod.uid";

/// Under this label every sandbox and container carries the name of the agent that had it made. What carries another,
/// or none, belongs to somebody else who uses the same runtime.
pub const OWNER_LABEL: &str = "skiff.local/owner";

/// Most calls answer within milliseconds; a runtime that needs longer than this hangs.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Images can be listed in one message of this size.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// A call that failed, with the runtime's own words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{call}: {}", status.message())]
pub struct RuntimeError {
    call: &'static str,
    status: Status,
}

/// A stream of pod states as the runtime's containers come, start and end.
pub type Events = BoxStream<'static, Result<cri::ContainerEventResponse, RuntimeError>>;

/// What the agent asks of a container runtime.
#[async_trait]
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    async fn version(&self) -> Result<cri::VersionResponse, RuntimeError>;
    async fn status(&self) -> Result<cri::StatusResponse, RuntimeError>;
    async fn run_sandbox(&self, config: cri::PodSandboxConfig, handler: &str)
    -> Result<String, RuntimeError>;
    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// The sandboxes of one pod, or all.
    async fn list_sandboxes(&self, pod: Option<&str>) -> Result<Vec<cri::PodSandbox>, RuntimeError>;
    async fn sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus, RuntimeError>;
    async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, RuntimeError>;
    async fn start_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Ends a container: its stop signal, then after `grace` SIGKILL.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError>;
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// The containers of one pod, or all.
    async fn list_containers(&self, pod: Option<&str>) -> Result<Vec<cri::Container>, RuntimeError>;
    async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus, RuntimeError>;
    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<cri::ExecSyncResponse, RuntimeError>;
    /// A one-time URL for a streaming exec.
    async fn exec(&self, request: cri::ExecRequest) -> Result<String, RuntimeError>;
    /// A one-time URL for an attach.
    async fn attach(&self, request: cri::AttachRequest) -> Result<String, RuntimeError>;
    /// A one-time URL for connections to ports of a sandbox.
    async fn port_forward(&self, request: cri::PortForwardRequest) -> Result<String, RuntimeError>;
    /// Opens the log file anew by its path, after the old one was renamed.
    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError>;
    async fn events(&self) -> Result<Events, RuntimeError>;
    async fn container_stats(&self) -> Result<Vec<cri::ContainerStats>, RuntimeError>;
    async fn list_images(&self) -> Result<Vec<cri::Image>, RuntimeError>;
    async fn image(&self, image: &str) -> Result<Option<cri::Image>, RuntimeError>;
    async fn pull_image(
        &self,
        image: &str,
        auth: Option<cri::AuthConfig>,
        sandbox: cri::PodSandboxConfig,
    ) -> Result<String, RuntimeError>;
}

/// CRI v1 over a unix socket: of all that is in the runtime, what one owner has made.
#[derive(Clone, Debug)]
pub struct Cri {
    owner: String,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

// === impl RuntimeError ===

impl RuntimeError {
    /// A failure of `call`.
    pub fn new(call: &'static str, status: Status) -> Self {
        Self { call, status }
    }

    /// The runtime doesn't know what was named in the call.
    pub fn is_not_found(&self) -> bool {
        self.status.code() == Code::NotFound
    }

    /// The runtime doesn't have this call.
    pub fn is_unimplemented(&self) -> bool {
        self.status.code() == Code::Unimplemented
    }

    /// The runtime gave up on its own deadline.
    pub fn is_timeout(&self) -> bool {
        matches!(self.status.code(), Code::DeadlineExceeded | Code::Cancelled)
    }

    /// The runtime's message in the words in which the kubelet shows it.
    pub fn rpc_text(&self) -> String {
        format!("rpc error: code = {:?} desc = {}", self.status.code(), self.status.message())
    }

    /// The runtime's own words.
    pub fn message(&self) -> &str {
        self.status.message()
    }
}

// === impl Cri ===

impl Cri {
    /// Connects to the socket of a runtime. A connection that breaks later is made again by itself. `owner` is told
    /// from all others that ever use this runtime.
    pub async fn connect(endpoint: &str, owner: &str) -> Result<Self, cri::DialError> {
        let channel = cri::dial(endpoint).await?;
        Ok(Self {
            owner: owner.to_owned(),
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_LIMIT),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT),
        })
    }

    /// The labels of what is ours, of one pod or all.
    fn labels(&self, pod: Option<&str>) -> HashMap<String, String> {
        let mut labels = HashMap::from([(OWNER_LABEL.to_owned(), self.owner.clone())]);
        labels.extend(pod.map(|uid| (POD_UID_LABEL.to_owned(), uid.to_owned())));
        labels
    }
}

/// A request that must be answered in `CALL_TIMEOUT`.
fn timed<T>(message: T) -> Request<T> {
    timed_by(message, CALL_TIMEOUT)
}

fn timed_by<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn failed(call: &'static str) -> impl Fn(Status) -> RuntimeError {
    move |status| RuntimeError { call, status }
}

/// The runtime answered without the part that the call is about.
fn incomplete(call: &'static str) -> RuntimeError {
    RuntimeError { call, status: Status::internal("the answer is empty") }
}

#[async_trait]
impl Runtime for Cri {
    async fn version(&self) -> Result<cri::VersionResponse, RuntimeError> {
        let request = timed(cri::VersionRequest { version: "v1".into() });
        Ok(self.runtime.clone().version(request).await.map_err(failed("Version"))?.into_inner())
    }

    async fn status(&self) -> Result<cri::StatusResponse, RuntimeError> {
        let request = timed(cri::StatusRequest { verbose: false });
        Ok(self.runtime.clone().status(request).await.map_err(failed("Status"))?.into_inner())
    }

    async fn run_sandbox(
        &self,
        mut config: cri::PodSandboxConfig,
        handler: &str,
    ) -> Result<String, RuntimeError> {
        config.labels.extend(self.labels(None));
        let request = timed_by(
            cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.into() },
            CALL_TIMEOUT * 2,
        );
        let answer = self.runtime.clone().run_pod_sandbox(request).await.map_err(failed("RunPodSandbox"))?;
        Ok(answer.into_inner().pod_sandbox_id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let request = timed(cri::StopPodSandboxRequest { pod_sandbox_id: id.into() });
        self.runtime.clone().stop_pod_sandbox(request).await.map_err(failed("StopPodSandbox"))?;
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let request = timed(cri::RemovePodSandboxRequest { pod_sandbox_id: id.into() });
        self.runtime.clone().remove_pod_sandbox(request).await.map_err(failed("RemovePodSandbox"))?;
        Ok(())
    }

    async fn list_sandboxes(&self, pod: Option<&str>) -> Result<Vec<cri::PodSandbox>, RuntimeError> {
        let filter = cri::PodSandboxFilter { label_selector: self.labels(pod), ..Default::default() };
        let request = timed(cri::ListPodSandboxRequest { filter: Some(filter) });
        Ok(self
            .runtime
            .clone()
            .list_pod_sandbox(request)
            .await
            .map_err(failed("ListPodSandbox"))?
            .into_inner()
            .items)
    }

    async fn sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus, RuntimeError> {
        let request = timed(cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false });
        let answer =
            self.runtime.clone().pod_sandbox_status(request).await.map_err(failed("PodSandboxStatus"))?;
        answer.into_inner().status.ok_or_else(|| incomplete("PodSandboxStatus"))
    }

    async fn create_container(
        &self,
        sandbox: &str,
        mut config: cri::ContainerConfig,
        mut sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        config.labels.extend(self.labels(None));
        sandbox_config.labels.extend(self.labels(None));
        let request = timed(cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        });
        let answer =
            self.runtime.clone().create_container(request).await.map_err(failed("CreateContainer"))?;
        Ok(answer.into_inner().container_id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let request = timed(cri::StartContainerRequest { container_id: id.into() });
        self.runtime.clone().start_container(request).await.map_err(failed("StartContainer"))?;
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request =
            timed_by(cri::StopContainerRequest { container_id: id.into(), timeout }, grace + CALL_TIMEOUT);
        self.runtime.clone().stop_container(request).await.map_err(failed("StopContainer"))?;
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let request = timed(cri::RemoveContainerRequest { container_id: id.into() });
        self.runtime.clone().remove_container(request).await.map_err(failed("RemoveContainer"))?;
        Ok(())
    }

    async fn list_containers(&self, pod: Option<&str>) -> Result<Vec<cri::Container>, RuntimeError> {
        let filter = cri::ContainerFilter { label_selector: self.labels(pod), ..Default::default() };
        let request = timed(cri::ListContainersRequest { filter: Some(filter) });
        let answer = self.runtime.clone().list_containers(request).await.map_err(failed("ListContainers"))?;
        Ok(answer.into_inner().containers)
    }

    async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus, RuntimeError> {
        let request = timed(cri::ContainerStatusRequest { container_id: id.into(), verbose: false });
        let answer =
            self.runtime.clone().container_status(request).await.map_err(failed("ContainerStatus"))?;
        answer.into_inner().status.ok_or_else(|| incomplete("ContainerStatus"))
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<cri::ExecSyncResponse, RuntimeError> {
        // Zero is "no limit" for the runtime, so a part of a second counts as a whole one.
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let message = cri::ExecSyncRequest { container_id: id.into(), cmd: command, timeout: seconds };
        let mut request = Request::new(message);
        if !timeout.is_zero() {
            request.set_timeout(timeout + Duration::from_secs(2));
        }
        Ok(self.runtime.clone().exec_sync(request).await.map_err(failed("ExecSync"))?.into_inner())
    }

    async fn exec(&self, request: cri::ExecRequest) -> Result<String, RuntimeError> {
        Ok(self.runtime.clone().exec(timed(request)).await.map_err(failed("Exec"))?.into_inner().url)
    }

    async fn attach(&self, request: cri::AttachRequest) -> Result<String, RuntimeError> {
        Ok(self.runtime.clone().attach(timed(request)).await.map_err(failed("Attach"))?.into_inner().url)
    }

    async fn port_forward(&self, request: cri::PortForwardRequest) -> Result<String, RuntimeError> {
        let call = "PortForward";
        let answer = self.runtime.clone().port_forward(timed(request)).await.map_err(failed(call))?;
        Ok(answer.into_inner().url)
    }

    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        let request = timed(cri::ReopenContainerLogRequest { container_id: id.into() });
        self.runtime.clone().reopen_container_log(request).await.map_err(failed("ReopenContainerLog"))?;
        Ok(())
    }

    async fn events(&self) -> Result<Events, RuntimeError> {
        let call = "GetContainerEvents";
        let answer = self
            .runtime
            .clone()
            .get_container_events(cri::GetEventsRequest {})
            .await
            .map_err(failed(call))?;
        Ok(answer.into_inner().map_err(failed(call)).boxed())
    }

    async fn container_stats(&self) -> Result<Vec<cri::ContainerStats>, RuntimeError> {
        let filter = cri::ContainerStatsFilter { label_selector: self.labels(None), ..Default::default() };
        let request = timed(cri::ListContainerStatsRequest { filter: Some(filter) });
        let answer =
            self.runtime.clone().list_container_stats(request).await.map_err(failed("ListContainerStats"))?;
        Ok(answer.into_inner().stats)
    }

    async fn list_images(&self) -> Result<Vec<cri::Image>, RuntimeError> {
        let request = timed(cri::ListImagesRequest { filter: None });
        Ok(self.images.clone().list_images(request).await.map_err(failed("ListImages"))?.into_inner().images)
    }

    async fn image(&self, image: &str) -> Result<Option<cri::Image>, RuntimeError> {
        let request = timed(cri::ImageStatusRequest { image: Some(image_spec(image)), verbose: false });
        Ok(self.images.clone().image_status(request).await.map_err(failed("ImageStatus"))?.into_inner().image)
    }

    async fn pull_image(
        &self,
        image: &str,
        auth: Option<cri::AuthConfig>,
        sandbox: cri::PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        // No timeout of ours: the runtime gives up when a pull makes no progress.
        let request =
            cri::PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config: Some(sandbox) };
        Ok(self.images.clone().pull_image(request).await.map_err(failed("PullImage"))?.into_inner().image_ref)
    }
}

/// The CRI form of an image name.
pub fn image_spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: image.into(), user_specified_image: image.into(), ..Default::default() }
}
