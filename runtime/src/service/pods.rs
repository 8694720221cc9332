//! Lists, statuses and statistics.

use std::collections::HashMap;
use std::sync::Arc;

use cri::{
    Container as ContainerItem, ContainerFilter, ContainerStatusResponse, CpuUsage, LinuxPodSandboxStats,
    MemoryUsage, PodSandbox, PodSandboxAttributes, PodSandboxFilter, PodSandboxStats, PodSandboxStatsFilter,
    PodSandboxStatusResponse, ProcessUsage, UInt64Value,
};

use crate::container::Container;
use crate::core::Core;
use crate::error::{Error, IoContext};
use crate::sandbox::Sandbox;
use crate::shim::protocol::{Notice, Request, connect, line};

impl Core {
    pub(super) fn list_sandboxes(&self, filter: &PodSandboxFilter) -> Vec<PodSandbox> {
        self.sandboxes.all().iter().filter(|each| each.matches(filter)).map(|each| each.item()).collect()
    }

    pub(super) fn list_containers(&self, filter: &ContainerFilter) -> Vec<ContainerItem> {
        self.containers.all().iter().filter(|each| each.matches(filter)).map(|each| each.item()).collect()
    }

    pub(super) fn sandbox_status(&self, id: &str, verbose: bool) -> Result<PodSandboxStatusResponse, Error> {
        let sandbox = self.sandboxes.get(id)?;
        let mut info = HashMap::new();
        if verbose {
            info.insert("cgroupParent".to_owned(), sandbox.cgroup_parent.clone());
            info.insert("netns".to_owned(), self.paths.namespace(&sandbox.id, "net").display().to_string());
        }
        let containers_statuses =
            self.containers.of_sandbox(&sandbox.id).iter().map(|each| each.status()).collect();
        let timestamp = self.now();
        Ok(PodSandboxStatusResponse { status: Some(sandbox.status()), info, containers_statuses, timestamp })
    }

    pub(super) fn container_status(&self, id: &str, verbose: bool) -> Result<ContainerStatusResponse, Error> {
        let container = self.containers.get(id)?;
        let mut info = HashMap::new();
        if verbose {
            info.insert("cgroup".to_owned(), container.cgroup.clone());
            if let Some(started) = container.running() {
                info.insert("pid".to_owned(), started.init.pid.to_string());
            }
        }
        Ok(ContainerStatusResponse { status: Some(container.status()), info })
    }

    /// Lets the shim open the container's log anew.
    pub(super) async fn reopen_log(&self, container: &Container) -> Result<(), Error> {
        use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
        container.must_run()?;
        let path = self.paths.container_state(&container.id);
        let mut stream = connect(&path).await.at("reach the shim in", &path)?;
        stream
            .write_all(&line(&Request::ReopenLog).at("ask the shim in", &path)?)
            .await
            .at("ask the shim in", &path)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.at("hear the shim in", &path)?;
        match serde_json::from_str(&answer) {
            Ok(Notice::Done) => Ok(()),
            Ok(Notice::Failed(message)) => Err(Error::Failed(message)),
            _ => Err(Error::Failed(format!("the shim of container {:?} did not answer", container.id))),
        }
    }

    pub(super) async fn list_sandbox_stats(
        self: &Arc<Self>,
        filter: PodSandboxStatsFilter,
    ) -> Vec<PodSandboxStats> {
        let shown = |sandbox: &Arc<Sandbox>| {
            sandbox.ready()
                && (filter.id.is_empty() || sandbox.id.starts_with(&filter.id))
                && filter
                    .label_selector
                    .iter()
                    .all(|(key, value)| sandbox.config.labels.get(key) == Some(value))
        };
        let sandboxes = self.sandboxes.all().into_iter().filter(shown).collect();
        self.sandboxes_stats(sandboxes).await
    }

    pub(super) async fn sandboxes_stats(
        self: &Arc<Self>,
        sandboxes: Vec<Arc<Sandbox>>,
    ) -> Vec<PodSandboxStats> {
        let core = self.clone();
        self.tasks.blocking(move || sandboxes.iter().map(|each| core.sandbox_stats(each)).collect()).await
    }

    /// The sum over the pod's cgroup, and each container. Blocks.
    fn sandbox_stats(&self, sandbox: &Sandbox) -> PodSandboxStats {
        let timestamp = self.now();
        let value = |value| Some(UInt64Value { value });
        let containers = self.containers.of_sandbox(&sandbox.id);
        let cpu = self.cgroups.cpu(&sandbox.cgroup_parent);
        let memory = self.cgroups.memory(&sandbox.cgroup_parent);
        let linux = LinuxPodSandboxStats {
            cpu: cpu.map(|cpu| CpuUsage {
                timestamp,
                usage_core_nano_seconds: value(cpu.nanoseconds),
                ..CpuUsage::default()
            }),
            memory: memory.map(|memory| MemoryUsage {
                timestamp,
                working_set_bytes: value(memory.working_set),
                usage_bytes: value(memory.usage),
                rss_bytes: value(memory.rss),
                page_faults: value(memory.page_faults),
                major_page_faults: value(memory.major_page_faults),
                available_bytes: memory
                    .limit
                    .and_then(|limit| value(limit.saturating_sub(memory.working_set))),
                psi: None,
            }),
            network: None,
            process: Some(ProcessUsage {
                timestamp,
                process_count: value(self.cgroups.processes(&sandbox.cgroup_parent).len() as u64),
            }),
            containers: containers
                .iter()
                .filter(|each| each.running().is_some())
                .map(|each| self.container_stats(each))
                .collect(),
            io: None,
        };
        PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                id: sandbox.id.clone(),
                metadata: sandbox.config.metadata.clone(),
                labels: sandbox.config.labels.clone(),
                annotations: sandbox.config.annotations.clone(),
            }),
            linux: Some(linux),
            windows: None,
        }
    }
}
