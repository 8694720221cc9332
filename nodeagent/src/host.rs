//! What a pod needs of its node beside the runtime: a cgroup, volumes, a place for logs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use base::Tasks;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};

use crate::cgroups::Cgroups;
use crate::pod;
use crate::volumes::{VolumeError, Volumes};

/// Something of a pod could not be made or removed on the node; the text is for the pod's events.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct HostError(pub(crate) String);

/// The node's own part in a pod. The tests have one in memory.
#[async_trait]
pub(crate) trait Host: fmt::Debug + Send + Sync + 'static {
    /// Makes the pod's cgroup. Returns its name for the runtime.
    async fn make_cgroup(&self, pod: &Arc<Pod>) -> Result<String, HostError>;
    /// Makes the volumes that the pod's containers need.
    async fn make_volumes(&self, pod: &Arc<Pod>, pod_ips: &[String]) -> Result<(), HostError>;
    /// The mounts of one container, once its pod's volumes are made.
    fn mounts(&self, pod: &Pod, container: &Container, attempt: u32) -> Result<Vec<cri::Mount>, HostError>;
    /// The file that a container writes its last message to.
    fn termination_log(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf;
    /// Where the logs of a pod's containers are.
    fn log_directory(&self, pod: &Pod) -> PathBuf;
    /// Removes cgroup, volumes and logs of a pod.
    async fn clean_up(&self, pod: &Pod) -> Result<(), HostError>;
    /// The pods of which there is something on the node; only their uids are sure to be known.
    async fn leftovers(&self) -> Vec<Pod>;
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, HostError>;
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, HostError>;
}

/// The machine that the agent runs on.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) data_dir: PathBuf,
    pub(crate) volumes: Volumes,
    pub(crate) cgroups: Arc<Cgroups>,
    /// Owns the blocking work.
    pub(crate) tasks: Tasks,
}

// === impl HostError ===

impl From<VolumeError> for HostError {
    fn from(error: VolumeError) -> Self {
        Self(error.to_string())
    }
}

// === impl Machine ===

#[async_trait]
impl Host for Machine {
    async fn make_cgroup(&self, pod: &Arc<Pod>) -> Result<String, HostError> {
        let (cgroups, target) = (self.cgroups.clone(), pod.clone());
        let made = self.tasks.blocking(move || cgroups.set_up(&target)).await;
        made.map_err(|error| HostError(format!("cgroup of pod {}: {error}", pod::title(pod))))
    }

    async fn make_volumes(&self, pod: &Arc<Pod>, pod_ips: &[String]) -> Result<(), HostError> {
        Ok(self.volumes.set_up(pod, pod_ips).await?)
    }

    fn mounts(&self, pod: &Pod, container: &Container, attempt: u32) -> Result<Vec<cri::Mount>, HostError> {
        Ok(self.volumes.mounts(pod, container, attempt)?)
    }

    fn termination_log(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.volumes.termination_log(pod_uid, container, attempt)
    }

    fn log_directory(&self, pod: &Pod) -> PathBuf {
        crate::logs::log_directory(&self.data_dir, pod::namespace(pod), pod::name(pod), pod::uid(pod))
    }

    async fn clean_up(&self, pod: &Pod) -> Result<(), HostError> {
        let uid = pod::uid(pod).to_owned();
        self.volumes.tear_down(&uid).await?;
        let logs = self.log_directory(pod);
        let cgroups = self.cgroups.clone();
        let removed = self.tasks.blocking(move || {
            remove_tree(&logs)?;
            cgroups.remove(&uid)
        });
        removed.await.map_err(|error| HostError(format!("remains of pod {}: {error}", pod::title(pod))))
    }

    async fn leftovers(&self) -> Vec<Pod> {
        let (cgroups, logs) = (self.cgroups.clone(), self.data_dir.join("logs"));
        let (uids, named) = self.tasks.blocking(move || (cgroups.pods(), pods_with_logs(&logs))).await;
        let mut found: BTreeMap<String, Pod> = BTreeMap::new();
        for uid in uids.into_iter().chain(self.volumes.pods_on_disk()) {
            found.insert(uid.clone(), pod_of("", "", &uid));
        }
        found.extend(named);
        found.into_values().collect()
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, HostError> {
        Ok(self.volumes.config_map(namespace, name).await?)
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, HostError> {
        Ok(self.volumes.secret(namespace, name).await?)
    }
}

fn remove_tree(path: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The pods that have a directory of logs, by uid.
fn pods_with_logs(logs: &std::path::Path) -> Vec<(String, Pod)> {
    let Ok(entries) = std::fs::read_dir(logs) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let parsed = names.filter_map(|directory| {
        let mut parts = directory.splitn(3, '_');
        let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
        Some((uid.to_owned(), pod_of(namespace, name, uid)))
    });
    parsed.collect()
}

fn pod_of(namespace: &str, name: &str, uid: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.namespace = Some(namespace.to_owned());
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.uid = Some(uid.to_owned());
    pod
}
