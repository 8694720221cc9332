//! A runtime that does what a test says.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tonic::Status;

use crate::runtime::{Events, Runtime, RuntimeError};

/// Knows what it was given and refuses all else.
#[derive(Debug, Default)]
pub(crate) struct FakeRuntime {
    /// Where exec and attach stream to.
    pub(crate) url: String,
    pub(crate) exited: Mutex<HashMap<String, bool>>,
    pub(crate) stats: Vec<cri::ContainerStats>,
    /// What was asked for, as text.
    pub(crate) calls: Mutex<Vec<String>>,
    /// The log that is made anew when it is asked for.
    pub(crate) log: Option<std::path::PathBuf>,
}

impl FakeRuntime {
    fn called(&self, call: String) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

fn no<T>(call: &'static str) -> Result<T, RuntimeError> {
    Err(RuntimeError::new(call, Status::unimplemented("not in this test")))
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<cri::VersionResponse, RuntimeError> {
        no("Version")
    }
    async fn status(&self) -> Result<cri::StatusResponse, RuntimeError> {
        no("Status")
    }
    async fn run_sandbox(&self, _: cri::PodSandboxConfig, _: &str) -> Result<String, RuntimeError> {
        no("RunPodSandbox")
    }
    async fn stop_sandbox(&self, _: &str) -> Result<(), RuntimeError> {
        no("StopPodSandbox")
    }
    async fn remove_sandbox(&self, _: &str) -> Result<(), RuntimeError> {
        no("RemovePodSandbox")
    }
    async fn list_sandboxes(&self, pod: Option<&str>) -> Result<Vec<cri::PodSandbox>, RuntimeError> {
        let sandbox = |id: &str, attempt, state: cri::PodSandboxState| cri::PodSandbox {
            id: id.into(),
            metadata: Some(cri::PodSandboxMetadata { attempt, ..Default::default() }),
            state: state.into(),
            ..Default::default()
        };
        let old = sandbox("old", 0, cri::PodSandboxState::SandboxNotready);
        let new = sandbox("new", 1, cri::PodSandboxState::SandboxReady);
        Ok(if pod == Some("uid-web") { vec![old, new] } else { Vec::new() })
    }
    async fn sandbox_status(&self, _: &str) -> Result<cri::PodSandboxStatus, RuntimeError> {
        no("PodSandboxStatus")
    }
    async fn create_container(
        &self,
        _: &str,
        _: cri::ContainerConfig,
        _: cri::PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        no("CreateContainer")
    }
    async fn start_container(&self, _: &str) -> Result<(), RuntimeError> {
        no("StartContainer")
    }
    async fn stop_container(&self, _: &str, _: Duration) -> Result<(), RuntimeError> {
        no("StopContainer")
    }
    async fn remove_container(&self, _: &str) -> Result<(), RuntimeError> {
        no("RemoveContainer")
    }
    async fn list_containers(&self, _: Option<&str>) -> Result<Vec<cri::Container>, RuntimeError> {
        Ok(Vec::new())
    }
    async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus, RuntimeError> {
        let exited = self.exited.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied();
        let state = match exited {
            Some(true) => cri::ContainerState::ContainerExited,
            Some(false) => cri::ContainerState::ContainerRunning,
            None => return Err(RuntimeError::new("ContainerStatus", Status::not_found(id))),
        };
        Ok(cri::ContainerStatus { id: id.into(), state: state.into(), ..Default::default() })
    }
    async fn exec_sync(
        &self,
        _: &str,
        _: Vec<String>,
        _: Duration,
    ) -> Result<cri::ExecSyncResponse, RuntimeError> {
        no("ExecSync")
    }
    async fn exec(&self, request: cri::ExecRequest) -> Result<String, RuntimeError> {
        self.called(format!(
            "exec {} {:?} tty={} in={} out={} err={}",
            request.container_id, request.cmd, request.tty, request.stdin, request.stdout, request.stderr
        ));
        Ok(format!("{}/exec", self.url))
    }
    async fn attach(&self, request: cri::AttachRequest) -> Result<String, RuntimeError> {
        self.called(format!("attach {} tty={} err={}", request.container_id, request.tty, request.stderr));
        Ok(format!("{}/attach", self.url))
    }
    async fn port_forward(&self, request: cri::PortForwardRequest) -> Result<String, RuntimeError> {
        self.called(format!("forward {} {:?}", request.pod_sandbox_id, request.port));
        Ok(format!("{}/portforward", self.url))
    }
    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        self.called(format!("reopen {id}"));
        match &self.log {
            Some(path) if std::fs::write(path, "").is_ok() => Ok(()),
            _ => no("ReopenContainerLog"),
        }
    }
    async fn events(&self) -> Result<Events, RuntimeError> {
        no("GetContainerEvents")
    }
    async fn container_stats(&self) -> Result<Vec<cri::ContainerStats>, RuntimeError> {
        Ok(self.stats.clone())
    }
    async fn list_images(&self) -> Result<Vec<cri::Image>, RuntimeError> {
        no("ListImages")
    }
    async fn image(&self, _: &str) -> Result<Option<cri::Image>, RuntimeError> {
        no("ImageStatus")
    }
    async fn pull_image(
        &self,
        _: &str,
        _: Option<cri::AuthConfig>,
        _: cri::PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        no("PullImage")
    }
}
