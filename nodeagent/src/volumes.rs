//! What the containers of a pod see of files: made before they start, kept up to date, removed at the end.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{Clock, Random, Tasks};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::Api;

/// A volume could not be made; the text is for the pod's events.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct VolumeError(String);

/// The volumes of all pods of the node.
pub struct Volumes {
    data_dir: PathBuf,
    client: kube::Client,
}

impl Volumes {
    pub fn new(
        data_dir: &Path,
        client: kube::Client,
        _node_name: &str,
        _node_ip: IpAddr,
        _clock: Clock,
        _random: Random,
        _tasks: &Tasks,
    ) -> Self {
        Self { data_dir: data_dir.to_owned(), client }
    }

    /// Makes (or refreshes) every volume of the pod that its containers need.
    pub async fn set_up(&self, pod: &Arc<Pod>, _pod_ips: &[String]) -> Result<(), VolumeError> {
        let path = self.data_dir.join("pods").join(crate::pod::uid(pod));
        std::fs::create_dir_all(path).map_err(|error| VolumeError(error.to_string()))
    }

    /// The CRI mounts of one container, after [`Volumes::set_up`].
    pub fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        attempt: u32,
    ) -> Result<Vec<cri::Mount>, VolumeError> {
        let log = self.termination_log(crate::pod::uid(pod), &container.name, attempt);
        let path = container.termination_message_path.clone().unwrap_or("/dev/termination-log".into());
        Ok(vec![cri::Mount {
            container_path: path,
            host_path: log.to_string_lossy().into(),
            ..Default::default()
        }])
    }

    /// The file that a container writes its last message to.
    pub fn termination_log(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.data_dir.join("pods").join(pod_uid).join("containers").join(container).join(attempt.to_string())
    }

    /// Removes everything of a pod.
    pub async fn tear_down(&self, pod_uid: &str) -> Result<(), VolumeError> {
        match std::fs::remove_dir(self.data_dir.join("pods").join(pod_uid)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(VolumeError(error.to_string())),
            _ => Ok(()),
        }
    }

    /// The uids of the pods that have files here.
    pub fn pods_on_disk(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.data_dir.join("pods")) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// A ConfigMap, for environment variables.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ConfigMap>>, VolumeError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(name).await.map_err(|error| VolumeError(error.to_string()))?.map(Arc::new))
    }

    /// A Secret, for environment variables.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, VolumeError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(name).await.map_err(|error| VolumeError(error.to_string()))?.map(Arc::new))
    }
}

impl std::fmt::Debug for Volumes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volumes").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}
