//! CRI's RuntimeService. Each call is decoded here and done in [`Core`].
//!
//! A call that changes something goes on when its client gives up: half done is not a state.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cri::runtime_service_server::RuntimeService as Service;
use cri::*;
use futures::{Stream, StreamExt, stream};
use tokio::sync::oneshot;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use crate::core::Core;
use crate::error::Error;
use crate::streaming::Streaming;

pub(crate) use serve::Services;

mod node;
mod pods;
mod serve;

type Result<T> = std::result::Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;

/// How many items an answer of a streamed list has.
const CHUNK: usize = 500;

/// Serves CRI's RuntimeService.
pub(crate) struct RuntimeService {
    core: Arc<Core>,
    streaming: Arc<Streaming>,
}

impl RuntimeService {
    pub(crate) fn new(core: Arc<Core>, streaming: Arc<Streaming>) -> Self {
        Self { core, streaming }
    }

    /// Runs a change to its end, whether or not the client waits for it.
    async fn complete<T, F>(&self, name: &str, change: F) -> std::result::Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, Error>> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.core.tasks.spawn_draining(name, async move {
            // Fails when the client is gone.
            let _ = sender.send(change.await);
        });
        match receiver.await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Status::aborted(format!("{name} did not finish"))),
        }
    }
}

/// Items in answers of bounded size.
fn chunked<T: Send + 'static, A: Send + 'static>(items: Vec<T>, answer: fn(Vec<T>) -> A) -> Answers<A> {
    Box::pin(stream::iter(items).chunks(CHUNK).map(move |items| Ok(answer(items))))
}

/// A duration in seconds; a negative one is none.
fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn required<T>(value: Option<T>, what: &str) -> std::result::Result<T, Status> {
    value.ok_or_else(|| Status::invalid_argument(format!("{what} is required")))
}

#[async_trait::async_trait]
impl Service for RuntimeService {
    async fn version(&self, _: Request<VersionRequest>) -> Result<VersionResponse> {
        Ok(Response::new(node::version()))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<StatusResponse> {
        Ok(Response::new(self.core.node_status(request.into_inner().verbose).await))
    }

    async fn update_runtime_config(
        &self,
        _: Request<UpdateRuntimeConfigRequest>,
    ) -> Result<UpdateRuntimeConfigResponse> {
        // The pod CIDR is the pod network's matter, and it has its own source.
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Result<RuntimeConfigResponse> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs as i32 };
        Ok(Response::new(RuntimeConfigResponse { linux: Some(linux) }))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Result<RunPodSandboxResponse> {
        let request = request.into_inner();
        let (core, config) = (self.core.clone(), required(request.config, "config")?);
        let run = async move { core.run_sandbox(config, request.runtime_handler).await };
        let sandbox = self.complete("run sandbox", run).await?;
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: sandbox.id.clone() }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Result<StopPodSandboxResponse> {
        let (core, id) = (self.core.clone(), request.into_inner().pod_sandbox_id);
        self.complete("stop sandbox", async move { core.stop_sandbox(&id).await }).await?;
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Result<RemovePodSandboxResponse> {
        let (core, id) = (self.core.clone(), request.into_inner().pod_sandbox_id);
        self.complete("remove sandbox", async move { core.remove_sandbox(&id).await }).await?;
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Result<PodSandboxStatusResponse> {
        let request = request.into_inner();
        Ok(Response::new(self.core.sandbox_status(&request.pod_sandbox_id, request.verbose)?))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Result<ListPodSandboxResponse> {
        let items = self.core.list_sandboxes(&request.into_inner().filter.unwrap_or_default());
        Ok(Response::new(ListPodSandboxResponse { items }))
    }

    type StreamPodSandboxesStream = Answers<StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<StreamPodSandboxesRequest>,
    ) -> Result<Self::StreamPodSandboxesStream> {
        let items = self.core.list_sandboxes(&request.into_inner().filter.unwrap_or_default());
        Ok(Response::new(chunked(items, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes })))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<CreateContainerResponse> {
        let request = request.into_inner();
        let (core, config) = (self.core.clone(), required(request.config, "config")?);
        let create = async move {
            core.create_container(&request.pod_sandbox_id, config, request.sandbox_config).await
        };
        let container = self.complete("create container", create).await?;
        Ok(Response::new(CreateContainerResponse { container_id: container.id.clone() }))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Result<StartContainerResponse> {
        let (core, container) =
            (self.core.clone(), self.core.containers.get(&request.into_inner().container_id)?);
        self.complete("start container", async move { core.start_container(&container).await }).await?;
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Result<StopContainerResponse> {
        let request = request.into_inner();
        // Stopping what is gone is done.
        if let Ok(container) = self.core.containers.get(&request.container_id) {
            let core = self.core.clone();
            let stop = async move {
                container.settled().await;
                core.stop_container(&container, seconds(request.timeout)).await
            };
            self.complete("stop container", stop).await?;
        }
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Result<RemoveContainerResponse> {
        if let Ok(container) = self.core.containers.get(&request.into_inner().container_id) {
            let core = self.core.clone();
            self.complete("remove container", async move { core.remove_container(&container).await }).await?;
        }
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<ListContainersResponse> {
        let containers = self.core.list_containers(&request.into_inner().filter.unwrap_or_default());
        Ok(Response::new(ListContainersResponse { containers }))
    }

    type StreamContainersStream = Answers<StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<StreamContainersRequest>,
    ) -> Result<Self::StreamContainersStream> {
        let items = self.core.list_containers(&request.into_inner().filter.unwrap_or_default());
        Ok(Response::new(chunked(items, |containers| StreamContainersResponse { containers })))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Result<ContainerStatusResponse> {
        let request = request.into_inner();
        Ok(Response::new(self.core.container_status(&request.container_id, request.verbose)?))
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Result<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let (core, container) = (self.core.clone(), self.core.containers.get(&request.container_id)?);
        let update =
            async move { core.update_container(&container, request.linux.unwrap_or_default()).await };
        self.complete("update container", update).await?;
        Ok(Response::new(UpdateContainerResourcesResponse {}))
    }

    async fn update_pod_sandbox_resources(
        &self,
        _: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Result<UpdatePodSandboxResourcesResponse> {
        // Told for information: who calls has set the pod's cgroup.
        Ok(Response::new(UpdatePodSandboxResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Result<ReopenContainerLogResponse> {
        let container = self.core.containers.get(&request.into_inner().container_id)?;
        self.core.reopen_log(&container).await?;
        Ok(Response::new(ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Result<ExecSyncResponse> {
        let request = request.into_inner();
        let container = self.core.containers.get(&request.container_id)?;
        Ok(Response::new(self.core.exec_sync(&container, request.cmd, seconds(request.timeout)).await?))
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Result<ExecResponse> {
        let request = request.into_inner();
        let container = self.core.containers.get(&request.container_id)?;
        container.must_run()?;
        Ok(Response::new(ExecResponse { url: self.streaming.exec(container, request)? }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Result<AttachResponse> {
        let request = request.into_inner();
        let container = self.core.containers.get(&request.container_id)?;
        container.must_run()?;
        Ok(Response::new(AttachResponse { url: self.streaming.attach(container, request)? }))
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Result<PortForwardResponse> {
        let request = request.into_inner();
        let sandbox = self.core.sandboxes.get(&request.pod_sandbox_id)?;
        if !sandbox.ready() {
            let id = &sandbox.id;
            return Err(Error::Precondition(format!("sandbox container {id:?} is not running")).into());
        }
        Ok(Response::new(PortForwardResponse { url: self.streaming.port_forward(sandbox, &request)? }))
    }

    async fn container_stats(
        &self,
        request: Request<ContainerStatsRequest>,
    ) -> Result<ContainerStatsResponse> {
        let (core, container) =
            (self.core.clone(), self.core.containers.get(&request.into_inner().container_id)?);
        let stats = self.core.tasks.blocking(move || core.container_stats(&container)).await;
        Ok(Response::new(ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Result<ListContainerStatsResponse> {
        let stats = self.core.list_container_stats(request.into_inner().filter.unwrap_or_default()).await;
        Ok(Response::new(ListContainerStatsResponse { stats }))
    }

    type StreamContainerStatsStream = Answers<StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<StreamContainerStatsRequest>,
    ) -> Result<Self::StreamContainerStatsStream> {
        let stats = self.core.list_container_stats(request.into_inner().filter.unwrap_or_default()).await;
        Ok(Response::new(chunked(stats, |container_stats| StreamContainerStatsResponse { container_stats })))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<PodSandboxStatsRequest>,
    ) -> Result<PodSandboxStatsResponse> {
        let sandbox = self.core.sandboxes.get(&request.into_inner().pod_sandbox_id)?;
        let stats = self.core.sandboxes_stats(vec![sandbox]).await.pop();
        Ok(Response::new(PodSandboxStatsResponse { stats }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Result<ListPodSandboxStatsResponse> {
        let stats = self.core.list_sandbox_stats(request.into_inner().filter.unwrap_or_default()).await;
        Ok(Response::new(ListPodSandboxStatsResponse { stats }))
    }

    type StreamPodSandboxStatsStream = Answers<StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<StreamPodSandboxStatsRequest>,
    ) -> Result<Self::StreamPodSandboxStatsStream> {
        let stats = self.core.list_sandbox_stats(request.into_inner().filter.unwrap_or_default()).await;
        Ok(Response::new(chunked(stats, |pod_sandbox_stats| StreamPodSandboxStatsResponse {
            pod_sandbox_stats,
        })))
    }

    type GetContainerEventsStream = Answers<ContainerEventResponse>;

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Result<Self::GetContainerEventsStream> {
        // A subscriber that lost events must list again, so it is told.
        let events = BroadcastStream::new(self.core.subscribe())
            .map(|event| event.map_err(|lost| Status::data_loss(format!("events lost: {lost}"))));
        Ok(Response::new(Box::pin(events)))
    }

    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Result<CheckpointContainerResponse> {
        Err(Status::unimplemented("checkpoints are not supported by this runtime"))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Result<ListMetricDescriptorsResponse> {
        // None beyond the statistics.
        Ok(Response::new(ListMetricDescriptorsResponse::default()))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Result<ListPodSandboxMetricsResponse> {
        Ok(Response::new(ListPodSandboxMetricsResponse::default()))
    }

    type StreamPodSandboxMetricsStream = Answers<StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<StreamPodSandboxMetricsRequest>,
    ) -> Result<Self::StreamPodSandboxMetricsStream> {
        Ok(Response::new(Box::pin(stream::empty())))
    }
}
