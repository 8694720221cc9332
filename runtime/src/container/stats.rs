//! What a container uses, and new limits for it.

use std::sync::Arc;

use cri::{
    ContainerAttributes, ContainerStats, ContainerStatsFilter, CpuUsage, FilesystemIdentifier,
    FilesystemUsage, LinuxContainerResources, MemoryUsage, SwapUsage, UInt64Value,
};

use super::{Container, Record};
use crate::core::Core;
use crate::error::Error;

impl Core {
    /// What a container uses now. One that does not run uses its writable layer only. Blocks.
    pub(crate) fn container_stats(&self, container: &Container) -> ContainerStats {
        let timestamp = self.now();
        let value = |value| Some(UInt64Value { value });
        let running = container.running().is_some();
        let cpu = self.cgroups.cpu(&container.cgroup).filter(|_| running);
        let memory = self.cgroups.memory(&container.cgroup).filter(|_| running);
        let (bytes, inodes) = self.images.rootfs_usage(&container.id);
        ContainerStats {
            attributes: Some(ContainerAttributes {
                id: container.id.clone(),
                metadata: container.config.metadata.clone(),
                labels: container.config.labels.clone(),
                annotations: container.config.annotations.clone(),
            }),
            cpu: cpu.map(|cpu| CpuUsage {
                timestamp,
                usage_core_nano_seconds: value(cpu.nanoseconds),
                ..CpuUsage::default()
            }),
            memory: memory.map(|memory| MemoryUsage {
                timestamp,
                working_set_bytes: value(memory.working_set),
                available_bytes: memory
                    .limit
                    .and_then(|limit| value(limit.saturating_sub(memory.working_set))),
                usage_bytes: value(memory.usage),
                rss_bytes: value(memory.rss),
                page_faults: value(memory.page_faults),
                major_page_faults: value(memory.major_page_faults),
                psi: None,
            }),
            writable_layer: Some(FilesystemUsage {
                timestamp,
                fs_id: Some(FilesystemIdentifier {
                    mountpoint: self.config.root.to_string_lossy().into_owned(),
                }),
                used_bytes: value(bytes),
                inodes_used: value(inodes),
            }),
            swap: memory.map(|memory| SwapUsage {
                timestamp,
                swap_available_bytes: None,
                swap_usage_bytes: value(memory.swap),
            }),
            io: None,
        }
    }

    /// What the running containers of a filter use.
    pub(crate) async fn list_container_stats(
        self: &Arc<Self>,
        filter: ContainerStatsFilter,
    ) -> Vec<ContainerStats> {
        let core = self.clone();
        let shows = move |container: &Container| {
            container.running().is_some()
                && (filter.id.is_empty() || container.id.starts_with(&filter.id))
                && (filter.pod_sandbox_id.is_empty()
                    || container.sandbox_id.starts_with(&filter.pod_sandbox_id))
                && container.has_labels(&filter.label_selector)
        };
        self.tasks
            .blocking(move || {
                let containers = core.containers.all();
                containers.iter().filter(|each| shows(each)).map(|each| core.container_stats(each)).collect()
            })
            .await
    }

    /// Gives a container new limits; zero means no change. One that has ended can't have new ones.
    pub(crate) async fn update_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        wanted: LinuxContainerResources,
    ) -> Result<(), Error> {
        let _changing = container.changing.lock().await;
        container.must_run()?;
        let (core, container) = (self.clone(), container.clone());
        self.tasks
            .blocking(move || {
                core.cgroups.limit(&container.cgroup, &wanted)?;
                merge(&mut container.resources(), &wanted);
                Record::save(&container, &core.paths)
            })
            .await
    }
}

fn merge(now: &mut LinuxContainerResources, wanted: &LinuxContainerResources) {
    for (now, wanted) in [
        (&mut now.cpu_period, wanted.cpu_period),
        (&mut now.cpu_quota, wanted.cpu_quota),
        (&mut now.cpu_shares, wanted.cpu_shares),
        (&mut now.memory_limit_in_bytes, wanted.memory_limit_in_bytes),
        (&mut now.memory_swap_limit_in_bytes, wanted.memory_swap_limit_in_bytes),
        (&mut now.oom_score_adj, wanted.oom_score_adj),
    ] {
        if wanted != 0 {
            *now = wanted;
        }
    }
    for (now, wanted) in
        [(&mut now.cpuset_cpus, &wanted.cpuset_cpus), (&mut now.cpuset_mems, &wanted.cpuset_mems)]
    {
        if !wanted.is_empty() {
            now.clone_from(wanted);
        }
    }
    now.unified.extend(wanted.unified.clone());
}
